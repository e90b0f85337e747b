"""Phones that share none of our readings of the standards: baresip with two lines on one address, SIPp as five users on one.

Users that share an address and port, or a connection, are told apart by who they prove to be."""
import asyncio
import os
import subprocess

from lib.baresip import Baresip
from lib.peers import PASSWORD, program

HERE = os.path.dirname(os.path.abspath(__file__))


async def run(world):
    juliet = await world.client("juliet")
    await baresip(world, juliet)
    juliet = await world.client("juliet", "garden")
    for transport in ("u1", "t1"):
        await sipp(world, juliet, transport)


async def baresip(world, juliet):
    steps, here = world.steps, juliet.boundjid.bare
    for user in ("dave", "erin"):
        await world.home.add_user(user)
    dave, erin = "dave@corp.test", "erin@corp.test"
    # baresip looks for an address of its own that is not on loopback.
    for arguments in ("link add phone0 type veth peer name phone1", "address add 10.77.9.1/24 dev phone0",
                      "link set phone0 up", "link set phone1 up"):
        subprocess.run(["ip", *arguments.split()], check=True)
    phone = Baresip(world.work, world.places.phones["baresip"], world.home.proxy("udp"), [f"sip:{dave}", f"sip:{erin}"], PASSWORD, [f"sip:{here}"])
    if await steps.step("baresip starts", phone.up()) is None:
        return
    try:
        await steps.step("it subscribes to its contact: XMPP user is asked", juliet.until("subscribe", dave))
        juliet.grant(dave)
        await steps.step("granted: its contact is online", phone.until_contact(r"Online\s+sip:juliet"))
        mark = juliet.mark
        juliet.ask(dave)
        await steps.step("XMPP user asks for its presence", wait_pending(world, dave, here))
        await asyncio.to_thread(world.tombolo.approve, dave, here)
        await steps.step("granted: XMPP user sees it online", juliet.until("available", dave, mark))
        await phone.command("message", "hello from a phone")
        await steps.step("its message arrives", juliet.until("message", dave, test=lambda e: e.body == "hello from a phone"))
        juliet.say(dave, "hello from the other world")
        await steps.step("it shows a message", phone.until_said("hello from the other world"))
        juliet.say(erin, "hello to the second line")
        await steps.step("its second line, of another user, shows one too", phone.until_said("hello to the second line"))
        juliet.say(dave, "hello to the first again")
        await steps.step("and the first is still there", phone.until_said("hello to the first again"))
        mark = juliet.mark
        await phone.command("presence_offline")
        await steps.step("it goes offline: XMPP user sees it", juliet.until("unavailable", dave, mark))
        await asyncio.sleep(5)      # RFC 3856 §6.10
        await juliet.logout()
        await steps.step("XMPP user goes offline: so does the contact", phone.until_contact(r"Offline\s+sip:juliet"))
    finally:
        phone.stop()


async def wait_pending(world, aor, contact):
    for _ in range(150):
        if contact in await asyncio.to_thread(world.tombolo.pending, aor):
            return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{contact} is not in the pending list of {aor}")


async def sipp(world, juliet, transport):
    """`transport` is u1, one UDP socket for all users, or t1, one TCP connection for all."""
    steps = world.steps
    users = [f"{transport}-{number}" for number in range(5)]
    file = os.path.join(world.work, f"users-{transport}.csv")
    with open(file, "w", encoding="utf-8") as f:
        f.write("SEQUENTIAL\n")
        for user in users:
            await world.home.add_user(user)
            f.write(f"{user};[authentication username={user} password={PASSWORD}];\n")
    ip, port = world.home.proxy("udp")
    sipp = await asyncio.create_subprocess_exec(
        program("sipp"), f"{ip}:{port}", "-sf", os.path.join(HERE, "register-and-message.xml"), "-inf",
        file, "-i", world.places.phones["sipp"], "-t", transport, "-m", str(len(users)),
        "-r", "20", "-timeout", "20", "-nostdin", "-trace_err", cwd=os.path.join(world.work, "log"),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await asyncio.wait_for(sipp.communicate(), 30)
    steps.check(f"SIPp: five users on one address register and write, with digest ({transport})", sipp.returncode == 0, said.decode(errors="replace")[-1500:])
    for user in users:
        await steps.step(f"{user}'s message arrives", juliet.until("message", f"{user}@corp.test", test=lambda e, user=user: e.body.strip() == f"from {user}"))
