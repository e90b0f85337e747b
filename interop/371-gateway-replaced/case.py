"""A gateway is restarted behind its edge while a partner writes: each message arrives once, in order, or comes back."""
import asyncio

from lib import flows

MESSAGES = 20


async def run(world):
    mercutio, alice, bob = await world.client("mercutio"), await world.phone("alice"), await world.phone("bob")
    _, dialog = await flows.watched_both_ways(world, mercutio, alice, bob)
    if dialog is None:
        return
    gateway = world.tombolo.daemons["gateway"]
    await replaced(world, mercutio, bob, "ended in order", gateway.stop)
    await replaced(world, mercutio, bob, "killed", gateway.kill)


async def replaced(world, mercutio, bob, how, end):
    steps = world.steps
    mercutio.say(flows.jid(bob), f"{how}: before")
    await steps.step(f"{how}: a message arrives before", bob.until("MESSAGE", lambda m: m.text == f"{how}: before"))
    # Until the edge knows that it was taken.
    await asyncio.sleep(1)
    mark, mark_client = bob.mark, mercutio.mark
    await asyncio.to_thread(end)
    texts = [f"{how}: {number}" for number in range(MESSAGES)]
    for number, text in enumerate(texts):
        if number == MESSAGES // 2:
            await steps.step(f"{how}: started again", asyncio.to_thread(world.tombolo.start, "gateway"))
        mercutio.say(flows.jid(bob), text)
        await asyncio.sleep(0.2)
    await steps.step("the last message arrives", bob.until("MESSAGE", lambda m: m.text == texts[-1], mark, timeout=40))
    came = [m.text for m in bob.log[mark:] if m.method == "MESSAGE"]
    back = [e for e in mercutio.log[mark_client:] if e.kind == "message" and e.type == "error"]
    steps.check("all arrived, once each and in order", came == texts and not back, f"{came} {list(map(str, back))}")
