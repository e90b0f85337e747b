"""Everything that one case runs in: peers, product, users; made from the row of the matrix that the case stands for."""
import os

from .authority import Authority
from .homes import BuiltIn, FrontEnd
from .peers import PASSWORD, Dns, Kamailio, Prosody
from .places import SIP_DOMAIN, XMPP_DOMAIN
from .sipuser import SipUser
from .steps import Steps
from .tombolo import Tombolo
from .xmppuser import XmppUser


class World:
    """`row` is the case's `case.toml`: home, s2s, topology, sip (front end's transport), phones (their transport),
    limits (how fast the partner reads)."""

    def __init__(self, case, work, places, binary, row, rounds=1):
        self.case, self.work, self.places, self.row, self.rounds = case, work, places, row, rounds
        self.steps = Steps()
        self.authority = Authority(os.path.join(work, "tls"))
        self.dns = Dns(work, places)
        self.prosody = Prosody(work, places, self.authority, row.get("s2s", "external"), row.get("limits"))
        self.kamailio = Kamailio(work, places, row.get("sip", "tcp")) if row["home"] == "front-end" else None
        self.tombolo = Tombolo(binary, case, work, places, self.authority, row.get("s2s", "external")) if binary else None
        self.home = FrontEnd(self.kamailio) if self.kamailio else BuiltIn(self.tombolo)
        self._users, self._accounts, self._phones = [], set(), {}

    async def up(self):
        os.makedirs(os.path.join(self.work, "log"), exist_ok=True)
        self.authority.issue_all()
        self.dns.up()
        self.prosody.up()
        if self.kamailio:
            self.kamailio.up()
        if self.tombolo:
            self.tombolo.up()

    async def down(self):
        for user in self._users:
            await (user.stop() if isinstance(user, SipUser) else user.logout())
        for daemon in (self.tombolo, self.kamailio, self.prosody, self.dns):
            if daemon:
                daemon.stop()

    async def client(self, name, resource="balcony"):
        """An XMPP user of the partner, logged in and online."""
        if name not in self._accounts:
            self._accounts.add(name)
            self.prosody.add_user(name)
        user = await XmppUser(f"{name}@{XMPP_DOMAIN}/{resource}", PASSWORD, self.places.prosody).login()
        self._users.append(user)
        return user

    async def phone(self, name, transport=None):
        """A SIP user of ours, registered; the same phone each time it is asked for, until it is stopped."""
        transport = transport or self.row.get("phones", "udp")
        if (phone := self._phones.get(name)) is not None and not phone.is_over:
            return phone
        if name not in self._accounts:
            self._accounts.add(name)
            await self.home.add_user(name)
        tls = (self.authority.root, self.authority.path("kamailio.crt"), self.authority.path("kamailio.key"))
        phone = SipUser(f"sip:{name}@{SIP_DOMAIN}", self.places.phones[name], self.home.proxy(transport), transport,
                        PASSWORD, tls, self.places.inside, os.path.join(self.work, "log", f"phone-{name}.wire"))
        await phone.start()
        self._users.append(phone)
        self._phones[name] = phone
        await phone.register()
        return phone

    def tails(self):
        """What a reader of a failed run looks at first."""
        parts = [self.tombolo.tail()] if self.tombolo else []
        if self.kamailio:
            parts.append(f"--- kamailio\n{self.kamailio.tail(12)}")
        return "".join(parts)
