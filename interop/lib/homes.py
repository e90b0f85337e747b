"""Where SIP users live, and how they decide who may watch them. Both homes answer the same three questions."""
import asyncio
import time

from .places import SIP_DOMAIN


class FrontEnd:
    """Kamailio is the users' presence server: they see who asks by presence.winfo and decide by presence rules."""

    def __init__(self, kamailio):
        self.kamailio = kamailio
        self._allowed, self._blocked, self._winfo = {}, {}, {}

    def proxy(self, transport):
        return self.kamailio.places.kamailio, 5061 if transport == "tls" else 5060

    async def add_user(self, name):
        """Kamailio takes every user whose password is right."""

    async def wait_for_request(self, phone, contact, timeout=15):
        """Returns when the user is told that `contact` asks to watch."""
        if phone.aor not in self._winfo:
            self._winfo[phone.aor] = await phone.subscribe(phone.aor, "presence.winfo", accept="application/watcherinfo+xml")
        return await phone.until("NOTIFY", lambda m: m.get("event").startswith("presence.winfo") and contact in m.text
                                 and "pending" in m.text, timeout=timeout)

    async def grant(self, phone, contact):
        await self._decide(phone, contact, self._allowed, self._blocked)

    async def refuse(self, phone, contact):
        await self._decide(phone, contact, self._blocked, self._allowed)

    async def _decide(self, phone, contact, into, out_of):
        # Kamailio tells the user while another of its workers is still busy with the SUBSCRIBE; a decision that comes
        # within these milliseconds is overwritten there by `pending`, and no later PUBLISH is told to the watcher.
        await asyncio.sleep(0.5)
        # Of two rules for one watcher the more permissive counts, so a watcher stands in one of them only.
        watcher = f"sip:{contact}"
        into.setdefault(phone.aor, set()).add(watcher)
        out_of.setdefault(phone.aor, set()).discard(watcher)
        self.kamailio.put_rules(phone.aor, sorted(self._allowed.get(phone.aor, ())), sorted(self._blocked.get(phone.aor, ())))


class BuiltIn:
    """Tombolo itself is registrar and presence server; requests wait in a list that the command line shows."""

    def __init__(self, tombolo):
        self.tombolo = tombolo

    def proxy(self, transport):
        return self.tombolo.places.gateway, 5071 if transport == "tls" else 5070

    async def add_user(self, name):
        await asyncio.to_thread(self.tombolo.add_user, f"{name}@{SIP_DOMAIN}", "pw")

    async def wait_for_request(self, phone, contact, timeout=15):
        deadline = time.monotonic() + timeout
        while True:
            listed = await asyncio.to_thread(self.tombolo.pending, self._aor(phone))
            if contact in listed:
                return listed
            if time.monotonic() > deadline:
                raise TimeoutError(f"{contact} is not in the pending list of {phone.aor}: {listed.strip() or 'it is empty'}")
            await asyncio.sleep(0.05)

    async def grant(self, phone, contact):
        await asyncio.to_thread(self.tombolo.approve, self._aor(phone), contact)

    async def refuse(self, phone, contact):
        await asyncio.to_thread(self.tombolo.deny, self._aor(phone), contact)

    @staticmethod
    def _aor(phone):
        return phone.aor.removeprefix("sip:")
