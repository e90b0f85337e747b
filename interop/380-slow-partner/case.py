"""A Prosody that reads 30 kB/s of our stream (mod_limits), and users who say three times as much.

Each note tells when it was published, so the age of what the XMPP user sees is known: it must stay near a second however
long this goes on, since what has not left is replaced by what is newer."""
import asyncio
import statistics
import time

from lib import flows
from lib.sipmessage import pidf

USERS = ("alice", "bob", "carol", "dave", "eve")
SECONDS = 60
# A published note of about 2 kB, so that 50 a second are 100 kB/s.
FILLING = "x" * 1900


async def run(world):
    steps = world.steps
    juliet = await world.client("juliet")
    phones = [await world.phone(name) for name in USERS]
    for phone in phones:
        await phone.publish(pidf(phone.aor, "open", "first"))
        await flows.become_watcher(world, juliet, phone)
    mark, begin = juliet.mark, time.monotonic()
    counts = await steps.step(f"{len(USERS)} users publish {SECONDS} s long", asyncio.gather(
        *(publish_on(phone, begin + SECONDS) for phone in phones)))
    said = sum(counts or [])
    end = time.monotonic()
    await steps.step("the last state of each arrives", asyncio.gather(
        *(juliet.until("available", flows.jid(phone), mark, test=lambda e: e.status == "last") for phone in phones)))
    steps.check("and soon", time.monotonic() - end < 5, time.monotonic() - end)

    seen = [event for event in juliet.log[mark:] if event.kind == "available" and "|" in event.status]
    ages = [event.at - float(event.status.split("|")[0]) for event in seen if event.at - begin > 10]
    facts = (f"{said} states of {len(FILLING)} octets said, {len(seen)} seen; "
             f"age median {statistics.median(ages):.2f} s, most {max(ages):.2f} s")
    print(f"       {facts}")
    steps.check("more was said than the partner reads", said * len(FILLING) > 2 * 30e3 * SECONDS, facts)
    steps.check("the partner was kept busy", len(seen) * len(FILLING) > 0.7 * 30e3 * SECONDS, facts)
    steps.check("what it shows is about a second old", statistics.median(ages) < 2, facts)
    steps.check("and never much older", max(ages) < 4, facts)

    mark = juliet.mark
    asyncio.ensure_future(publish_on(phones[0], time.monotonic() + 5))
    await asyncio.sleep(2)
    begin = time.monotonic()
    answer = await steps.step("a message in between is taken", phones[1].message(f"sip:{juliet.boundjid.bare}", "still there?"))
    steps.check("with 202 or 200", answer is not None and answer.status in (200, 202), answer and answer.start)
    await steps.step("and arrives", juliet.until("message", flows.jid(phones[1]), mark, test=lambda e: e.body == "still there?"))
    steps.check("before long", time.monotonic() - begin < 4, time.monotonic() - begin)


async def publish_on(phone, until):
    """Ten states a second; gives how many."""
    etag, count = None, 0
    while time.monotonic() < until:
        begin = time.monotonic()
        etag = await phone.publish(pidf(phone.aor, "open", f"{begin}|{FILLING}"), etag)
        count += 1
        await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - begin)))
    await phone.publish(pidf(phone.aor, "open", "last"), etag)
    return count
