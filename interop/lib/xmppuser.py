"""An XMPP user at the partner's server, on slixmpp: logs in, keeps every presence and message that it receives.

It answers no subscription request by itself, so that a case sees and decides each step.
"""
import asyncio
import logging
import time

logging.getLogger("slixmpp").setLevel(logging.CRITICAL)
logging.getLogger("asyncio").setLevel(logging.CRITICAL)     # slixmpp leaves tasks behind at its end

import slixmpp  # noqa: E402 - it logs while it is imported
from slixmpp.xmlstream.handler import Callback  # noqa: E402
from slixmpp.xmlstream.matcher import MatchXPath  # noqa: E402

CLIENT = "{jabber:client}"


class Event:
    """One stanza that came in: `kind` is a presence type, `available`, or `message`."""

    def __init__(self, at, kind, sender, xml):
        self.at, self.kind, self.sender = at, kind, sender
        self.show = xml.findtext(f"{CLIENT}show") or ""
        self.status = xml.findtext(f"{CLIENT}status") or ""
        self.body = xml.findtext(f"{CLIENT}body") or ""
        self.type = xml.get("type") or ""
        self.id = xml.get("id") or ""
        self.error = " ".join(child.tag.split("}")[1] for child in xml.findall(f"{CLIENT}error/*"))

    def __str__(self):
        details = [f"{name}={value!r}" for name in ("show", "status", "body", "error") if (value := getattr(self, name))]
        return " ".join([self.kind, self.sender, *details])


class XmppUser(slixmpp.ClientXMPP):
    def __init__(self, jid, password, server):
        super().__init__(jid, password)
        self.server = server
        self["feature_mechanisms"].unencrypted_plain = True
        self.register_plugin("xep_0191")
        self.auto_authorize = None
        self.auto_subscribe = False
        self.log = []
        self._news = asyncio.Condition()
        self._ready = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self._session)
        self.add_event_handler("failed_auth", lambda _: self._fail("authentication failed"))
        self.add_event_handler("connection_failed", lambda reason: self._fail(f"no connection: {reason}"))
        for kind in ("presence", "message"):
            self.register_handler(Callback(f"every {kind}", MatchXPath(CLIENT + kind), self._arrived))

    def _fail(self, why):
        if not self._ready.done():
            self._ready.set_exception(RuntimeError(f"{self.boundjid}: {why}"))

    async def _session(self, _):
        await self.get_roster()
        self.send_presence()
        if not self._ready.done():
            self._ready.set_result(None)

    def _arrived(self, stanza):
        is_message = stanza.xml.tag == f"{CLIENT}message"
        kind = "message" if is_message else stanza.xml.get("type") or "available"
        self.log.append(Event(time.monotonic(), kind, str(stanza["from"]), stanza.xml))
        asyncio.ensure_future(self._wake())

    async def _wake(self):
        async with self._news:
            self._news.notify_all()

    async def login(self):
        self.connect((self.server, 5222), disable_starttls=True)
        await asyncio.wait_for(self._ready, 15)
        return self

    async def logout(self):
        await self.disconnect(wait=1.0)

    def gone(self):
        """Its server has died: nothing is said to it any more."""
        self.abort()

    @property
    def mark(self):
        """Where the log ends now: `until(…, since=mark)` looks only at what comes later."""
        return len(self.log)

    async def until(self, kind, sender="", since=0, timeout=15, test=lambda event: True):
        """The first event of that kind, from a JID that begins with `sender`, that passes `test`."""
        deadline = time.monotonic() + timeout
        async with self._news:
            while True:
                for event in self.log[since:]:
                    if event.kind == kind and event.sender.startswith(sender) and test(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                try:
                    await asyncio.wait_for(self._news.wait(), left)
                except asyncio.TimeoutError:
                    pass
        seen = "; ".join(map(str, self.log[since:])) or "nothing"
        raise TimeoutError(f"{self.boundjid.bare} saw no such {kind} from {sender or 'anybody'} in {timeout} s; it saw: {seen}")

    def saw(self, kind, sender="", since=0):
        """What came of that kind so far."""
        return [event for event in self.log[since:] if event.kind == kind and event.sender.startswith(sender)]

    def ask(self, contact):
        self.send_presence(pto=contact, ptype="subscribe")

    def grant(self, contact):
        self.send_presence(pto=contact, ptype="subscribed")

    def refuse(self, contact):
        self.send_presence(pto=contact, ptype="unsubscribed")

    def say(self, contact, text, kind="chat"):
        """Sends a message; gives its id."""
        message = self.make_message(mto=contact, mbody=text, mtype=kind)
        message["id"] = self.new_id()
        message.send()
        return message["id"]

    async def block(self, contact):
        """XEP-0191: the server hides us from that contact and drops what it sends."""
        await self["xep_0191"].block(contact)

    async def unblock(self, contact):
        await self["xep_0191"].unblock(contact)
