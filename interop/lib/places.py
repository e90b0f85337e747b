"""Who lives where: the addresses of one run, on loopback or in three network namespaces.

Everybody has an address of their own instead of a port of their own, so that each peer keeps its standard port. The
loopback plan needs no rights; the split plan makes a DMZ and an inside that reach each other only through the edge:

    outside (the runner's own namespace)     dmz                       inside
    DNS .1.53, Prosody .1.11  ── .1.0/24 ──  edge .1.21 │ .2.21  ── .2.0/24 ──  gateway .2.22, Kamailio .2.31, phones

There is no forwarding between the two networks and no route out of them.
"""
import ctypes
import os
import subprocess
from dataclasses import dataclass, field

XMPP_DOMAIN = "prosody.test"        # the partner's
SIP_DOMAIN = "corp.test"            # ours
EDGE_LINKS = ("127.0.0.21", "10.77.2.21")     # where the edge awaits the gateway, on loopback and split

CLONE_NEWNET = 0x40000000
NETNS = "/run/netns"
NOBODY = "02:00:00:00:00:99"


class Namespace:
    """A named network namespace; as a context, sockets made inside belong to it. `None` is where we are."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        if self.name:
            self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            there = os.open(f"{NETNS}/{self.name}", os.O_RDONLY)
            _setns(there)
            os.close(there)

    def __exit__(self, *_):
        if self.name:
            _setns(self._home)
            os.close(self._home)

    def wrap(self, argv):
        """The command that runs `argv` inside; it executes it, so the pid stays the daemon's own."""
        return ["nsenter", f"--net={NETNS}/{self.name}", "--", *argv] if self.name else list(argv)


def _setns(descriptor):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


HERE = Namespace(None)


@dataclass
class Places:
    """One plan of addresses. `edge` and `gateway` are the same process in the loopback plan."""
    dns: str = "127.0.0.53"
    prosody: str = "127.0.0.11"
    edge: str = "127.0.0.21"            # XMPP listeners
    gateway: str = "127.0.0.21"         # SIP listeners
    link: str = EDGE_LINKS[0]           # where the edge awaits the gateway
    kamailio: str = "127.0.0.31"
    phones: dict = field(default_factory=lambda: {
        "alice": "127.0.0.51", "bob": "127.0.0.52", "carol": "127.0.0.53", "dave": "127.0.0.54",
        "baresip": "127.0.0.55", "sipp": "127.0.0.62", "eve": "127.0.0.56"})
    dmz: Namespace = HERE
    inside: Namespace = HERE

    def cut_outer(self):
        """From now on packets between the edge and everything outside vanish, both ways and without a word: each end sends
        them to a hardware address that nobody has."""
        _ip("neighbour", "replace", self.edge, "lladdr", NOBODY, "dev", "outer0", "nud", "permanent")
        for address in (self.dns, self.prosody):
            _ip("-n", "dmz", "neighbour", "replace", address, "lladdr", NOBODY, "dev", "outer1", "nud", "permanent")

    def mend_outer(self):
        """Packets arrive again."""
        _ip("neighbour", "del", self.edge, "dev", "outer0")
        for address in (self.dns, self.prosody):
            _ip("-n", "dmz", "neighbour", "del", address, "dev", "outer1")

    @property
    def is_split(self):
        return self.dmz is not HERE


def loopback():
    # DNS shares no address with a phone.
    places = Places()
    places.phones["carol"] = "127.0.0.57"
    return places


def split():
    """Makes the two namespaces and their wires; they vanish with the mount namespace that the runner is in."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    os.makedirs(NETNS, exist_ok=True)
    phones = {"alice": 51, "bob": 52, "carol": 57, "dave": 54, "baresip": 55, "sipp": 62, "eve": 56}
    places = Places(
        dns="10.77.1.53", prosody="10.77.1.11", edge="10.77.1.21", gateway="10.77.2.22", link=EDGE_LINKS[1],
        kamailio="10.77.2.31", phones={name: f"10.77.2.{last}" for name, last in phones.items()},
        dmz=Namespace("dmz"), inside=Namespace("inside"))
    for name in ("dmz", "inside"):
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    _ip("link", "add", "outer0", "type", "veth", "peer", "name", "outer1", "netns", "dmz")
    _ip("-n", "dmz", "link", "add", "inner0", "type", "veth", "peer", "name", "inner1", "netns", "inside")
    for address in (places.dns, places.prosody):
        _ip("address", "add", f"{address}/24", "dev", "outer0")
    _ip("-n", "dmz", "address", "add", f"{places.edge}/24", "dev", "outer1")
    _ip("-n", "dmz", "address", "add", f"{places.link}/24", "dev", "inner0")
    for address in (places.gateway, places.kamailio, *places.phones.values()):
        _ip("-n", "inside", "address", "add", f"{address}/24", "dev", "inner1")
    for namespace, device in ((None, "outer0"), ("dmz", "outer1"), ("dmz", "inner0"), ("inside", "inner1")):
        _ip(*(["-n", namespace] if namespace else []), "link", "set", device, "up")
    return places


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)
