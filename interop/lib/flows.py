"""What users do across the two worlds. Each flow is the same at every home, with every way to prove a stream, and
whether the product is one process or two; the cases run them.

A flow makes its own users, so that flows can follow each other in one case.
"""
import asyncio
import os
import signal

from .places import SIP_DOMAIN, XMPP_DOMAIN
from .sipmessage import pidf

# RFC 3856 §6.10: a watcher on the SIP side is told at most every 5 s, so the newest state may take that long.
PACED = 5.0

TEXT = "Wherefore art thou? \u2603 \U0001f600 \u05e9\u05dc\u05d5\u05dd \u00e9e\u0301\nsecond line <b>&amp;</b> \"'\n\n\tfourth, indented"


def jid(phone):
    return phone.aor.removeprefix("sip:")


async def become_watcher(world, client, phone):
    """The XMPP user adds the SIP user, who grants it."""
    client.ask(jid(phone))
    await world.home.wait_for_request(phone, client.boundjid.bare)
    await world.home.grant(phone, client.boundjid.bare)
    await client.until("subscribed", jid(phone))


async def become_watched(client, phone):
    """The SIP user subscribes to the XMPP user, who approves in the client; gives the dialog."""
    dialog = await phone.subscribe(f"sip:{client.boundjid.bare}")
    await client.until("subscribe", jid(phone))
    client.grant(jid(phone))
    await phone.notified(dialog, "active", "<basic>open")
    return dialog


async def everything_across(world):
    """Everything that users do across the two worlds, in the row of `case.toml`."""
    await xmpp_user_watches_sip_user(world)
    await sip_user_watches_xmpp_user(world)
    await blocked_watcher_sees_nobody(world)
    await messages_both_ways(world)
    await streams_were_proved(world)


async def xmpp_user_watches_sip_user(world):
    """Asking, granting, away, busy, offline; and another SIP user who refuses."""
    steps = world.steps
    juliet, alice = await world.client("juliet"), await world.phone("alice")
    contact, watcher = jid(alice), juliet.boundjid.bare
    etag = await alice.publish(pidf(alice.aor, "open", "at my desk"))

    mark = juliet.mark
    juliet.ask(contact)
    await steps.step("SIP user is told who asks to watch", world.home.wait_for_request(alice, watcher))
    steps.check("nothing is shown before it is granted", not juliet.saw("available", contact, mark)
                and not juliet.saw("subscribed", contact, mark), list(map(str, juliet.log[mark:])))
    await steps.step("SIP user grants it", world.home.grant(alice, watcher))
    await steps.step("XMPP user sees `subscribed`", juliet.until("subscribed", contact, mark))
    await steps.step("XMPP user sees presence and its note", juliet.until(
        "available", contact, mark, test=lambda e: e.status == "at my desk"))
    kinds = [event.kind for event in juliet.log[mark:] if event.sender.startswith(contact)]
    steps.check("`subscribed` came once, before any presence", kinds.count("subscribed") == 1
                and kinds.index("subscribed") < kinds.index("available") if "available" in kinds else False, kinds)

    for name, basic, activity, note, kind, show in (
            ("away", "open", "away", "out for lunch", "available", "away"),
            ("busy", "open", "busy", "in a meeting", "available", "dnd"),
            ("back", "open", "", "back again", "available", "")):
        mark = juliet.mark
        etag = await alice.publish(pidf(alice.aor, basic, note, activity), etag)
        await steps.step(f"SIP user {name}: XMPP user sees show `{show}` and the note", juliet.until(
            kind, contact, mark, test=lambda e, show=show, note=note: e.show == show and e.status == note))
    mark = juliet.mark
    await alice.publish("", etag, expires=0)
    await steps.step("SIP user offline: XMPP user sees `unavailable`", juliet.until("unavailable", contact, mark))

    dave = await world.phone("dave")
    mark = juliet.mark
    juliet.ask(jid(dave))
    await steps.step("another SIP user is asked", world.home.wait_for_request(dave, watcher))
    await world.home.refuse(dave, watcher)
    await steps.step("he refuses: XMPP user sees `unsubscribed`", juliet.until("unsubscribed", jid(dave), mark))
    steps.check("and no presence of his", not juliet.saw("available", jid(dave), mark), list(map(str, juliet.log[mark:])))

    # Her server keeps the answer to itself, since the subscription is gone there already (RFC 6121 §3.3).
    juliet.send_presence(pto=contact, ptype="unsubscribe")
    await asyncio.sleep(0.5)
    mark = juliet.mark
    await steps.step("XMPP user ends the watch; SIP user publishes", alice.publish(pidf(alice.aor, "open", "unwatched")))
    await asyncio.sleep(1)
    steps.check("XMPP user sees nothing of it", not juliet.saw("available", contact, mark), list(map(str, juliet.log[mark:])))


async def sip_user_watches_xmpp_user(world):
    """SUBSCRIBE, approval in the client, show and status, offline, refusal, end."""
    steps = world.steps
    nurse, bob = await world.client("nurse"), await world.phone("bob")
    dialog = await steps.step("SIP user subscribes to the XMPP user", bob.subscribe(f"sip:{nurse.boundjid.bare}"))
    if dialog is None:
        return
    await steps.step("NOTIFY `pending` at once", bob.notified(dialog, "pending"))
    await steps.step("XMPP user is asked", nurse.until("subscribe", jid(bob)))
    steps.check("nothing is shown before it is approved", not any("<basic>open" in n.text for n in bob.notifies(dialog)),
                [n.text for n in bob.notifies(dialog)])
    mark = bob.mark
    nurse.grant(jid(bob))
    notify = await steps.step("XMPP user approves: NOTIFY `active` with PIDF", bob.notified(dialog, "active", "<basic>open", mark))
    if notify is not None:
        steps.check("its body is a PIDF of the XMPP user", notify.get("content-type").startswith("application/pidf+xml")
                    and f"{nurse.boundjid.bare}\"" in notify.text and "urn:ietf:params:xml:ns:pidf\"" in notify.text, notify.text)

    for show, status in (("dnd", "tending to Juliet"), ("away", "at the friar's \u2603"), ("", "here")):
        await asyncio.sleep(PACED)      # so that the time below is the way's, not the pacing's
        mark = bob.mark
        nurse.send_presence(pshow=show or None, pstatus=status)
        await steps.step(f"show `{show}` and status arrive in a NOTIFY", bob.until(
            "NOTIFY", lambda m, show=show, status=status: m.get("call-id") == dialog.call_id and status in m.text
            and (f">{show}</" in m.text if show else ">dnd</" not in m.text and ">away</" not in m.text), mark))
    await asyncio.sleep(PACED)
    mark = bob.mark
    await nurse.logout()
    await steps.step("XMPP user logs out: NOTIFY `closed`", bob.until(
        "NOTIFY", lambda m: m.get("call-id") == dialog.call_id and "<basic>open" not in m.text
        and m.get("subscription-state").startswith("active"), mark))

    romeo, carol = await world.client("romeo"), await world.phone("carol")
    refused = await steps.step("another SIP user subscribes to another XMPP user", carol.subscribe(f"sip:{romeo.boundjid.bare}"))
    if refused is not None:
        await steps.step("who is asked", romeo.until("subscribe", jid(carol)))
        romeo.refuse(jid(carol))
        notify = await steps.step("refusal: NOTIFY `terminated`", carol.notified(refused, "terminated"))
        steps.check("with reason `rejected`", notify is not None and "reason=rejected" in notify.get("subscription-state"),
                    notify and notify.get("subscription-state"))

    mark = bob.mark
    await steps.step("SIP user unsubscribes", bob.refresh(dialog, 0))
    await steps.step("and gets the final NOTIFY", bob.notified(dialog, "terminated", since=mark))


async def blocked_watcher_sees_nobody(world):
    """One of two SIP watchers is blocked at the XMPP server (XEP-0191): gone for one, there for the other."""
    steps = world.steps
    tybalt = await world.client("tybalt")
    alice, eve = await world.phone("alice"), await world.phone("eve")
    pair = []
    for phone in (alice, eve):
        pair.append(await steps.step(f"{phone.user} watches the XMPP user", become_watched(tybalt, phone)))
    if None in pair:
        return
    seen, blocked = pair
    await asyncio.sleep(PACED)
    mark_eve, mark_alice = eve.mark, alice.mark
    await steps.step("XMPP user blocks eve", tybalt.block(jid(eve)))
    await steps.step("eve sees the XMPP user closed", eve.until(
        "NOTIFY", lambda m: m.get("call-id") == blocked.call_id and "<basic>open" not in m.text, mark_eve))
    mark_eve = eve.mark
    tybalt.send_presence(pshow="dnd", pstatus="sharpening")
    await steps.step("alice sees the next change", alice.notified(seen, "active", "sharpening", mark_alice))
    await asyncio.sleep(PACED + 1)
    steps.check("eve does not", not any("sharpening" in n.text or "<basic>open" in n.text for n in eve.notifies(blocked, mark_eve)),
                [n.text for n in eve.notifies(blocked, mark_eve)])
    steps.check("alice was never shown the XMPP user as gone", all("<basic>open" in n.text for n in alice.notifies(seen, mark_alice)),
                [n.text for n in alice.notifies(seen, mark_alice)])


async def messages_both_ways(world):
    """Text arrives as it was written; who writes to nobody is told why."""
    steps = world.steps
    balthasar, bob = await world.client("balthasar"), await world.phone("bob")
    here, there = balthasar.boundjid.bare, jid(bob)

    def lines(text):
        return text.replace("\r\n", "\n")

    balthasar.say(there, TEXT)
    got = await steps.step("XMPP to SIP: a message arrives", bob.until("MESSAGE", lambda m: here in m.get("from")))
    if got is not None:
        steps.check("with every character and line break", lines(got.text) == TEXT, repr(got.text))
        steps.check("as text/plain in UTF-8", got.get("content-type").lower().replace(" ", "").startswith("text/plain"),
                    got.get("content-type"))
    mark = balthasar.mark
    answer = await steps.step("SIP to XMPP: a message is accepted", bob.message(f"sip:{here}", TEXT.replace("\n", "\r\n")))
    steps.check("with 200 or 202", answer is not None and answer.status in (200, 202), answer and answer.start)
    got = await steps.step("and arrives", balthasar.until("message", there, mark, test=lambda e: e.type != "error"))
    if got is not None:
        steps.check("with every character and line break", lines(got.body) == TEXT, repr(got.body))
    for count in range(5):
        balthasar.say(there, f"number {count}")
    await steps.step("XMPP to SIP: five more arrive", bob.until("MESSAGE", lambda m: m.text == "number 4"))
    order = [m.text for m in bob.log if m.method == "MESSAGE" and m.text.startswith("number ")]
    steps.check("once each and in order", order == [f"number {count}" for count in range(5)], order)

    mark = balthasar.mark
    asked = balthasar.say(f"nobody@{SIP_DOMAIN}", "hello?")
    got = await steps.step("XMPP to a SIP user who does not exist: an error comes back", balthasar.until(
        "message", f"nobody@{SIP_DOMAIN}", mark, timeout=40, test=lambda e: e.type == "error"))
    steps.check("under the same id, with a cause", got is not None and got.id == asked and got.error != "", got and f"{got} id={got.id}")
    await steps.step("SIP to an XMPP user who does not exist: the sender is told why",
                     told_why(bob, f"nobody@{XMPP_DOMAIN}"))


async def told_why(phone, contact):
    """A failure as final response; or, where that came before the failure was known, a MESSAGE with the cause."""
    mark = phone.mark
    answer = await phone.message(f"sip:{contact}", "hello?")
    if answer.status >= 300:
        if answer.status in (408, 503):
            raise RuntimeError(f"{answer.start}: not for one user's failure")
        return answer.start
    cause = await phone.until("MESSAGE", lambda m: contact in m.get("from"), mark)
    if not cause.text.strip():
        raise RuntimeError("the MESSAGE that comes back says nothing")
    return cause.text


async def watched_both_ways(world, client, seen, watching):
    """The XMPP user watches one phone and is watched by another; gives the first one's tag and the other's dialog."""
    steps = world.steps
    etag = await seen.publish(pidf(seen.aor, "open", "before"))
    if await steps.step("XMPP user watches a SIP user", become_watcher(world, client, seen)) is None:
        return etag, None
    dialog = await steps.step("SIP user watches the XMPP user", become_watched(client, watching))
    if dialog is not None:
        await client.until("available", jid(seen), test=lambda e: e.status == "before")
    return etag, dialog


async def killed_and_started_again(world):
    """`kill -9` and start: presence flows again both ways, in the same dialog, and nobody is asked anything."""
    steps, tombolo = world.steps, world.tombolo
    mercutio, alice, bob = await world.client("mercutio"), await world.phone("alice"), await world.phone("bob")
    etag, dialog = await watched_both_ways(world, mercutio, alice, bob)
    if dialog is None:
        return
    for round_ in range(1, world.rounds + 1):
        name = f"round {round_}: " if world.rounds > 1 else ""
        mark_client, mark_phone, mark_alice = mercutio.mark, bob.mark, alice.mark
        dialogs = world.kamailio.dialogs_of_gateway() if world.kamailio else set()
        tombolo.kill()
        steps.check(f"{name}every process is gone", not tombolo.is_up())
        begin = asyncio.get_running_loop().time()
        await steps.step(f"{name}started again and ready", asyncio.to_thread(tombolo.start))
        note = f"after kill {round_}"
        etag = await steps.step(f"{name}SIP user publishes again", republish(alice, note, etag))
        await steps.step(f"{name}XMPP user sees it", mercutio.until(
            "available", jid(alice), mark_client, timeout=30, test=lambda e, note=note: e.status == note))
        mercutio.send_presence(pstatus=f"alive {round_}")
        await steps.step(f"{name}SIP user sees the XMPP user's change, in the dialog it had", bob.notified(
            dialog, "active", f"alive {round_}", mark_phone, timeout=30))
        print(f"       {name}whole again {asyncio.get_running_loop().time() - begin:.2f} s after the start", flush=True)
        asked = mercutio.saw("subscribe", since=mark_client) + mercutio.saw("unsubscribed", since=mark_client)
        steps.check(f"{name}XMPP user was asked and refused nothing", not asked, list(map(str, asked)))
        ended = [n for n in bob.notifies(dialog, mark_phone) if n.get("subscription-state").startswith("terminated")]
        steps.check(f"{name}no dialog was ended", not ended, [n.start for n in ended])
        if world.kamailio:
            made = world.kamailio.dialogs_of_gateway() - dialogs
            steps.check(f"{name}front end got no new dialog, only requests in the one there was", dialogs and not made, made or "no dialog at all")
        pending = [m for m in alice.log[mark_alice:] if m.method == "NOTIFY" and 'status="pending"' in m.text]
        steps.check(f"{name}SIP user was not asked", not pending, [m.text for m in pending])


async def front_end_forgets_and_falls_silent(world):
    """The front end loses its connection and its dialogs, then is silent for 40 s: states are right again within seconds, and
    there are as many dialogs as before."""
    steps, tombolo, kamailio = world.steps, world.tombolo, world.kamailio
    mercutio, alice, bob = await world.client("mercutio"), await world.phone("alice"), await world.phone("bob")
    etag, dialog = await watched_both_ways(world, mercutio, alice, bob)
    if dialog is None:
        return
    state = front_end_state(tombolo)
    steps.check("status shows the front end", state["state"] == "up", state)
    before = subscriber_dialogs(tombolo)

    for round_ in range(1, world.rounds + 1):
        name = f"round {round_}: " if world.rounds > 1 else ""
        known, mark, mark_alice = kamailio.dialogs_of_gateway(), mercutio.mark, alice.mark
        await asyncio.to_thread(kamailio.forget)
        begin = asyncio.get_running_loop().time()
        note = f"after the restart {round_}"
        etag = await steps.step(f"{name}front end restarted without its dialogs; SIP user publishes", republish(alice, note, None))
        await steps.step(f"{name}XMPP user sees it within 10 s", mercutio.until(
            "available", jid(alice), mark, timeout=10, test=lambda e, note=note: e.status == note))
        print(f"       {name}right {asyncio.get_running_loop().time() - begin:.2f} s after the start", flush=True)
        made = kamailio.dialogs_of_gateway() - known
        steps.check(f"{name}one new dialog for the one that was forgotten", len(made) == before, f"{len(made)} for {before}")
        steps.check(f"{name}as many dialogs as before", subscriber_dialogs(tombolo) == before, subscriber_dialogs(tombolo))
        asked = [e for kind in ("unavailable", "subscribe", "subscribed", "unsubscribed") for e in mercutio.saw(kind, jid(alice), mark)]
        steps.check(f"{name}XMPP user was asked nothing, and nobody was gone meanwhile", not asked, list(map(str, asked)))
        pending = [m for m in alice.log[mark_alice:] if m.method == "NOTIFY" and 'status="pending"' in m.text]
        steps.check(f"{name}SIP user was not asked", not pending, [m.text for m in pending])

    dialog = await steps.step("a SIP user watches the XMPP user again", bob.subscribe(f"sip:{mercutio.boundjid.bare}"))
    if dialog is None:
        return
    await steps.step("and sees him", bob.notified(dialog, "active", "<basic>open"))
    known, mark, mark_bob = kamailio.dialogs_of_gateway(), mercutio.mark, bob.mark
    as_notifier = tombolo.json("status")["notifier_dialogs"]
    kamailio.freeze()
    mercutio.send_presence(pshow="dnd", pstatus="while it slept")
    await asyncio.sleep(42)
    state = front_end_state(tombolo)
    steps.check("status doubts the silent front end", state["state"] == "doubtful", state)
    kamailio.thaw()
    begin = asyncio.get_running_loop().time()
    etag = await steps.step("front end goes on after 42 s; SIP user publishes", republish(alice, "awake", etag))
    await steps.step("XMPP user sees it within 10 s", mercutio.until(
        "available", jid(alice), mark, timeout=10, test=lambda e: e.status == "awake"))
    await steps.step("SIP user sees what changed meanwhile, in the dialog it has", bob.notified(
        dialog, "active", "while it slept", mark_bob, timeout=10))
    print(f"       right {asyncio.get_running_loop().time() - begin:.2f} s after it went on", flush=True)
    made = kamailio.dialogs_of_gateway() - known
    steps.check("no dialog was made", not made, made)
    counts = subscriber_dialogs(tombolo), tombolo.json("status")["notifier_dialogs"]
    steps.check("as many dialogs as before", counts == (before, as_notifier), (counts, before, as_notifier))
    gone = mercutio.saw("unavailable", jid(alice), mark)
    steps.check("nobody was gone meanwhile", not gone, list(map(str, gone)))
    state = front_end_state(tombolo)
    steps.check("status shows the front end up again", state["state"] == "up", state)


def front_end_state(tombolo):
    return tombolo.json("status")["front_ends"][0]


def subscriber_dialogs(tombolo):
    return tombolo.json("status")["subscriber_dialogs"]


async def partner_killed_and_started_again(world):
    """`kill -9` of the partner's server: what changed meanwhile arrives afterwards, and nobody is asked anything."""
    steps, prosody = world.steps, world.prosody
    mercutio, alice, bob = await world.client("mercutio"), await world.phone("alice"), await world.phone("bob")
    etag, dialog = await watched_both_ways(world, mercutio, alice, bob)
    if dialog is None:
        return
    for round_ in range(1, world.rounds + 1):
        name = f"round {round_}: " if world.rounds > 1 else ""
        # Many rounds take longer than a subscription lives.
        await bob.refresh(dialog)
        mark_phone = bob.mark
        prosody.kill()
        mercutio.gone()
        note = f"while you slept {round_}"
        etag = await alice.publish(pidf(alice.aor, "open", note), etag)
        answer = await steps.step(f"{name}SIP user writes while the server is away", bob.message(
            f"sip:{mercutio.boundjid.bare}", f"lost? {round_}"))
        await asyncio.to_thread(prosody.up)
        mercutio = await steps.step(f"{name}XMPP user logs in again", world.client("mercutio"))
        if mercutio is None:
            return
        await steps.step(f"{name}XMPP user sees what changed meanwhile", mercutio.until(
            "available", jid(alice), timeout=30, test=lambda e, note=note: e.status == note))
        mercutio.send_presence(pstatus=f"back {round_}")
        await steps.step(f"{name}SIP user sees the XMPP user, in the dialog it had", bob.notified(
            dialog, "active", f"back {round_}", mark_phone, timeout=30))
        if answer is not None and answer.status < 300:
            await steps.step(f"{name}the message was accepted: it arrives, or its sender is told why", first_of(
                mercutio.until("message", jid(bob), test=lambda e, n=round_: e.body == f"lost? {n}", timeout=40),
                bob.until("MESSAGE", lambda m: mercutio.boundjid.bare in m.get("from"), mark_phone, timeout=40)))
        asked = mercutio.saw("subscribe") + mercutio.saw("unsubscribed")
        steps.check(f"{name}XMPP user was asked and refused nothing", not asked, list(map(str, asked)))
        ended = [n for n in bob.notifies(dialog, mark_phone) if n.get("subscription-state").startswith("terminated")]
        steps.check(f"{name}no dialog was ended", not ended, [n.start for n in ended])


async def path_to_partner_dies(world):
    """No packet passes between edge and partner, and nobody is told: half-open streams on both sides."""
    steps, places = world.steps, world.places
    mercutio, alice, bob = await world.client("mercutio"), await world.phone("alice"), await world.phone("bob")
    etag, dialog = await watched_both_ways(world, mercutio, alice, bob)
    if dialog is None:
        return
    await bob.message(f"sip:{mercutio.boundjid.bare}", "before")
    await steps.step("a message passes", mercutio.until("message", jid(bob), test=lambda e: e.body == "before"))
    # The streams are young: no ping but the first was due yet.
    gateway = world.tombolo.daemons["gateway"]
    mark, begin = bob.mark, asyncio.get_running_loop().time()
    places.cut_outer()

    def since():
        return asyncio.get_running_loop().time() - begin

    answer = await steps.step("SIP user writes into the dead path", bob.message(
        f"sip:{mercutio.boundjid.bare}", "lost?", timeout=60))
    if answer is not None and answer.status < 300:
        cause = await steps.step("and is told that it may not have arrived", bob.until(
            "MESSAGE", lambda m: mercutio.boundjid.bare in m.get("from"), mark, timeout=70))
        steps.check("with a text", cause is not None and cause.text.strip(), cause and cause.text)
    steps.check("within 75 s", since() < 75, f"{since():.1f} s")
    await steps.step("the product noticed by itself", said(gateway, "the partner does not answer any more", 75 - since()))
    await steps.step("SIP watcher sees the contact closed after the grace", bob.until(
        "NOTIFY", lambda m: m.get("call-id") == dialog.call_id and "<basic>open" not in m.text
        and m.get("subscription-state").startswith("active"), mark, timeout=150 - since()))
    places.mend_outer()
    begin = asyncio.get_running_loop().time()
    mark_client, mark = mercutio.mark, bob.mark
    await alice.publish(pidf(alice.aor, "open", "mended"), etag)
    await steps.step("the path is mended: XMPP user sees what changed meanwhile", mercutio.until(
        "available", jid(alice), mark_client, timeout=75, test=lambda e: e.status == "mended"))
    await steps.step("SIP watcher sees the contact again, in the dialog it had", bob.notified(
        dialog, "active", "<basic>open", mark, timeout=100))
    print(f"       whole again {since():.1f} s after the path was", flush=True)
    asked = mercutio.saw("subscribe", since=mark_client) + mercutio.saw("unsubscribed", since=mark_client)
    steps.check("XMPP user was asked and refused nothing", not asked, list(map(str, asked)))


async def gateway_stands_still(world):
    """The gateway is stopped until the edge takes the link for broken, and goes on: streams, states and messages do too."""
    steps = world.steps
    mercutio, alice, bob = await world.client("mercutio"), await world.phone("alice"), await world.phone("bob")
    etag, dialog = await watched_both_ways(world, mercutio, alice, bob)
    if dialog is None:
        return
    for count in range(5):
        await bob.message(f"sip:{mercutio.boundjid.bare}", f"before {count}")
    gateway, edge = world.tombolo.daemons["gateway"], world.tombolo.daemons["edge"]
    mark_client, mark = mercutio.mark, bob.mark
    os.kill(gateway.pid, signal.SIGSTOP)
    for count in range(5):
        mercutio.say(jid(bob), f"meanwhile {count}")
    mercutio.send_presence(pstatus="still here")
    await steps.step("the edge takes the link for broken", said(edge, "link ended", 25))
    await asyncio.sleep(3)
    os.kill(gateway.pid, signal.SIGCONT)
    await steps.step("the gateway goes on: SIP user sees the XMPP user's change", bob.notified(
        dialog, "active", "still here", mark, timeout=15))
    await steps.step("the messages arrive", bob.until("MESSAGE", lambda m: m.text == "meanwhile 4", mark))
    order = [m.text for m in bob.log[mark:] if m.method == "MESSAGE"]
    steps.check("once each and in order, and none of his own came back", order == [f"meanwhile {n}" for n in range(5)], order)
    await alice.publish(pidf(alice.aor, "open", "after"), etag)
    await steps.step("XMPP user sees the SIP user's change", mercutio.until(
        "available", jid(alice), mark_client, test=lambda e: e.status == "after"))
    answer = await steps.step("SIP user writes", bob.message(f"sip:{mercutio.boundjid.bare}", "after"))
    steps.check("which is accepted", answer is not None and answer.status in (200, 202), answer and answer.start)
    await steps.step("and arrives", mercutio.until("message", jid(bob), mark_client, test=lambda e: e.body == "after"))
    errors = [e for e in mercutio.log if e.kind == "message" and e.type == "error"]
    steps.check("nobody was told of a loss", not errors, list(map(str, errors)))
    steps.check("the partner was not lost", "partner is lost" not in gateway.tail(20_000))
    steps.check("the link went on", "is_resumed" in edge.tail(20_000) and "true" in
                [line for line in edge.tail(20_000).splitlines() if "is_resumed" in line][-1])


async def said(daemon, text, seconds):
    """Waits until a line of the daemon's log holds `text`."""
    deadline = asyncio.get_running_loop().time() + max(seconds, 1)
    while text not in daemon.tail(20_000):
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"the log does not say \"{text}\"")
        await asyncio.sleep(0.5)


async def first_of(*waits):
    """What ends first and well; the failure of the last where none does."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    for done in asyncio.as_completed(tasks):
        try:
            found = await done
        except TimeoutError as error:
            last = error
            continue
        for task in tasks:
            task.cancel()
        return found
    raise last


async def message_reaches_a_phone_that_slept(world):
    """After `kill -9`, before the phone said anything: it is found where it registered from."""
    steps, tombolo = world.steps, world.tombolo
    romeo, dave = await world.client("romeo"), await world.phone("dave")
    tombolo.kill()
    await steps.step("killed and started again", asyncio.to_thread(tombolo.start))
    mark = dave.mark
    romeo.say(jid(dave), "still there?")
    await steps.step("a message reaches a phone that never registered again", dave.until(
        "MESSAGE", lambda m: m.text == "still there?", mark))
    answer = await steps.step("and it may write back", dave.message(f"sip:{romeo.boundjid.bare}", "still here"))
    steps.check("with 200 or 202", answer is not None and answer.status in (200, 202), answer and answer.start)


async def republish(phone, note, etag):
    """A phone's PUBLISH after its server was away: as a change, or anew where the tag is not known any more."""
    deadline = asyncio.get_running_loop().time() + 15
    while True:
        try:
            return await phone.publish(pidf(phone.aor, "open", note), etag)
        except (RuntimeError, ConnectionError, TimeoutError) as error:
            etag = None if "412" in str(error) else etag
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.3)


async def streams_were_proved(world):
    """How Prosody's own log says that the streams were proved, which must fit the case's row."""
    seen = world.prosody.authentication()
    if world.row["s2s"] == "external":
        holds = seen["external in"] > 0 and seen["dialback in"] == seen["dialback out"] == 0
        world.steps.check("Prosody saw SASL EXTERNAL and no dialback", holds, seen)
    else:
        holds = seen["external in"] == 0 and seen["dialback in"] > 0
        world.steps.check("Prosody saw dialback and no SASL EXTERNAL", holds, seen)
    world.steps.check("Prosody saw TLS", seen["streams over TLS"] > 0, seen)
