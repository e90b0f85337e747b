"""Proves the ground that the other cases stand on: what fails here is no fault of the product's."""
from lib.places import HERE
from lib.process import accepts
from lib.sipmessage import pidf
from lib.sipuser import SipUser, expect

TEXT = "Wherefore \u2603\nsecond line"


async def run(world):
    await xmpp_users(world)
    for transport in ("udp", "tcp", "tls"):
        await sip_users(world, transport)
    await route_to_the_gateway(world)


async def xmpp_users(world):
    steps = world.steps
    juliet = await steps.step("two XMPP users log in", world.client("juliet"))
    nurse = await world.client("nurse")
    juliet.ask("nurse@prosody.test")
    await steps.step("one asks the other", nurse.until("subscribe", "juliet@"))
    nurse.grant("juliet@prosody.test")
    await steps.step("and is granted", juliet.until("subscribed", "nurse@"))
    mark = juliet.mark
    nurse.send_presence(pshow="dnd", pstatus="busy")
    await steps.step("a change arrives", juliet.until("available", "nurse@", mark, test=lambda e: e.show == "dnd"))
    juliet.say("nurse@prosody.test", TEXT)
    await steps.step("a message arrives as it was", nurse.until("message", "juliet@", test=lambda e: e.body == TEXT))
    mark = juliet.mark
    await steps.step("blocking works", nurse.block("juliet@prosody.test"))
    await steps.step("the blocked one sees `unavailable`", juliet.until("unavailable", "nurse@", mark))
    mark, asked = juliet.mark, juliet.say("nobody@prosody.test", "?")
    error = await steps.step("a message to nobody bounces", juliet.until(
        "message", "nobody@", mark, test=lambda e: e.type == "error"))
    steps.check("under its id, with a cause", error is not None and error.id == asked and error.error, str(error))


async def sip_users(world, transport):
    steps = world.steps

    async def s(name, work):
        return await steps.step(f"{transport}: {name}", work)
    alice = await s("alice registers, with digest", world.phone("alice", transport))
    bob = await s("bob registers", world.phone("bob", transport))
    if alice is None or bob is None:
        return
    etag = await s("alice publishes", alice.publish(pidf(alice.aor, "open", "at my desk")))
    dialog = await s("bob subscribes", bob.subscribe(alice.aor))
    if transport == "udp":
        await s("NOTIFY pending", bob.notified(dialog, "pending"))
        await s("alice sees who asks (presence.winfo)", world.home.wait_for_request(alice, "bob@corp.test"))
        await s("alice allows it by presence rules", world.home.grant(alice, "bob@corp.test"))
    await s("NOTIFY active with the state", bob.notified(dialog, "active", "at my desk"))
    mark = bob.mark
    etag = await s("alice becomes busy", alice.publish(pidf(alice.aor, "open", "in a meeting", "busy"), etag))
    await s("NOTIFY has it, and the activity", bob.until("NOTIFY", lambda m: "in a meeting" in m.text and "busy" in m.text, mark))
    mark = bob.mark
    await s("alice withdraws", alice.publish("", etag, expires=0))
    await s("NOTIFY without it", bob.until("NOTIFY", lambda m: "in a meeting" not in m.text, mark))
    mark = bob.mark
    if transport == "tls":
        await s("alice blocks bob", world.home.refuse(alice, "bob@corp.test"))
        ended = await s("NOTIFY terminated", bob.notified(dialog, "terminated", since=mark))
        steps.check("tls: as rejected", ended is not None and "rejected" in ended.get("subscription-state"),
                    ended and ended.get("subscription-state"))
    else:
        await s("bob unsubscribes", bob.refresh(dialog, 0))
        await s("NOTIFY terminated", bob.notified(dialog, "terminated", since=mark))
    expect(await alice.message(bob.aor, TEXT), 200)
    await s("a message arrives as it was", bob.until("MESSAGE", lambda m: m.text == TEXT))
    missing = await alice.message("sip:nobody@corp.test", "?")
    steps.check(f"{transport}: a message to nobody gets 404", missing.status == 404, missing.start)
    for phone in (alice, bob):
        await phone.register(0)
        await phone.stop()


async def route_to_the_gateway(world):
    """A stand-in at the gateway's place gets what the front end sends there, and answers through it."""
    steps = world.steps
    steps.check("nobody is at the gateway's place yet", not accepts(world.places.gateway, 5070, HERE))
    gateway = SipUser("sip:juliet@prosody.test", world.places.gateway, (world.places.kamailio, 5060), "tcp")
    gateway.port = 5070
    gateway.answer = lambda m: gateway.respond(m, 200, "OK", [("contact", gateway.contact), ("expires", "600")])
    await gateway.start()
    alice = await world.phone("alice")
    dialog = await steps.step("alice subscribes to an XMPP user", alice.subscribe("sip:juliet@prosody.test"))
    asked = await steps.step("the gateway's place has it", gateway.until("SUBSCRIBE"))
    steps.check("with a Record-Route", asked is not None and bool(asked.all("record-route")), str(asked and asked.headers))
    steps.check("and answers through it", dialog is not None and bool(dialog.routes), str(dialog and dialog.routes))
    waiting = await steps.step("it subscribes as the XMPP user", gateway.subscribe("sip:alice@corp.test"))
    if waiting is not None:
        await steps.step("and waits for consent", gateway.notified(waiting, "pending"))
    await gateway.stop()
    await alice.stop()
