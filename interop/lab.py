#!/usr/bin/python3
"""Real peers on loopback, to work against by hand: what the cases use, but staying up.

    lab.py up [--s2s external|dialback] [--sip tcp|udp|tls]    certificates, DNS, Prosody, Kamailio, accounts
    lab.py down | status
    lab.py env                                      addresses, and settings for a tombolo that joins in

State is in $TOMBOLO_LAB (default: tombolo-lab in the folder for temporary files). Accounts: juliet, nurse and romeo at
prosody.test; any user at Kamailio's corp.test; the password is always `pw`. Nothing needs root but two labs at once
collide, since the addresses are fixed. DNS listens on port 5353.
"""
import argparse
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from lib import places  # noqa: E402
from lib.authority import Authority  # noqa: E402
from lib.peers import Dns, Kamailio, Prosody  # noqa: E402
from lib.process import Daemon, ProgramDied, render  # noqa: E402

WORK = os.environ.get("TOMBOLO_LAB") or os.path.join(tempfile.gettempdir(), "tombolo-lab")
NAMES = ("unbound", "prosody", "kamailio")


def up(options):
    plan = places.loopback()
    os.makedirs(os.path.join(WORK, "log"), exist_ok=True)
    authority = Authority(os.path.join(WORK, "tls")).issue_all()
    prosody = Prosody(WORK, plan, authority, options.s2s)
    for peer in (Dns(WORK, plan), prosody, Kamailio(WORK, plan, options.sip)):
        if peer.is_up():
            print(f"{peer.name}: already up (pid {peer.pid})")
            continue
        peer.up()
        print(f"{peer.name}: up (pid {peer.pid})")
    for user in ("juliet", "nurse", "romeo"):
        try:
            prosody.add_user(user)
        except ProgramDied:
            pass        # it is there from the last time
    write_settings(plan, authority, options)
    env(options)


def write_settings(plan, authority, options):
    leaf = "corp.test" if options.s2s == "external" else "corp.test.rogue"
    case = "110-front-end-dialback" if options.s2s == "dialback" else "100-front-end-external" if options.sip == "tls" else "300-restart-front-end"
    render(os.path.join(HERE, case, "tombolo.toml.in"), os.path.join(WORK, "tombolo.toml"), WORK=WORK, TLS=authority.folder,
           CERTIFICATE=authority.path(f"{leaf}.crt"), KEY=authority.path(f"{leaf}.key"), DNS=plan.dns, EDGE=plan.edge,
           GATEWAY=plan.gateway, LINK=plan.link, KAMAILIO=plan.kamailio)


def down(_):
    for name in reversed(NAMES):
        daemon = Daemon(WORK, name)
        if not daemon.is_up():
            print(f"{name}: not up")
        else:
            print(f"{name}: stopped" if daemon.stop() else f"{name}: killed, it ignored TERM")


def status(_):
    for name in NAMES:
        daemon = Daemon(WORK, name)
        print(f"{name}: up (pid {daemon.pid})" if daemon.is_up() else f"{name}: down")
    return 0 if all(Daemon(WORK, name).is_up() for name in NAMES) else 1


def env(_):
    plan = places.loopback()
    print(f"""state        {WORK} (logs in log/)
DNS          {plan.dns}:5353
Prosody      prosody.test at {plan.prosody}: clients 5222, servers 5269
Kamailio     corp.test at {plan.kamailio}: SIP 5060 (UDP, TCP), 5061 (TLS)
certificates {WORK}/tls: ca.pem, corp.test.crt, corp.test.key
tombolo      XMPP {plan.edge}:5269, SIP {plan.gateway}:5070 (UDP, TCP), 5071 (TLS)
             cargo run -p tombolo -- run --config {WORK}/tombolo.toml""")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("up", "down", "status", "env"))
    parser.add_argument("--s2s", default="external", choices=("external", "dialback"))
    parser.add_argument("--sip", default="tcp", choices=("tcp", "udp", "tls"))
    options = parser.parse_args()
    return {"up": up, "down": down, "status": status, "env": env}[options.what](options) or 0


if __name__ == "__main__":
    sys.exit(main())
