"""A SIP phone for the tests: UDP, TCP or TLS; REGISTER, PUBLISH, SUBSCRIBE with its dialogs, MESSAGE, digest.

Every request that comes in is kept in `log` and answered by `answer`, which a case may replace. A phone whose
connection breaks dials again and registers again by itself, as phones do; it asks nobody for anything else.
"""
import asyncio
import hashlib
import secrets
import socket
import ssl
import time

from .places import HERE
from .sipmessage import Digest, SipMessage, tag_of, uri_of


class Dialog:
    """One subscription of ours: `target` is the URI that requests inside it go to."""

    def __init__(self, local, remote, event):
        self.call_id = secrets.token_hex(10)
        self.local, self.remote, self.event = local, remote, event
        self.routes, self.target = [], None


class SipUser:
    def __init__(self, aor, ip, proxy, transport="udp", password="pw", tls=None, namespace=HERE, wire=None):
        """`proxy` is (ip, port); `tls` is (ca file, certificate, key); `wire` a file that everything is written to."""
        self.aor, self.ip, self.proxy, self.transport = aor, ip, proxy, transport
        self.user, self.domain = aor.removeprefix("sip:").split("@")
        self.port = 5061 if transport == "tls" else 5060
        self.tls, self.namespace, self.wire = tls, namespace, wire
        self.instance = f"<urn:uuid:00000000-0000-1000-8000-{hashlib.md5(aor.encode()).hexdigest()[:12]}>"
        self.log, self.dialogs = [], {}
        self.answer = self._answer
        self._digest = Digest(self.user, password)
        self._waiting, self._cseq, self._seen = {}, 0, {}
        self._news = asyncio.Condition()
        self._registered, self._register_call = 0, secrets.token_hex(10)
        self._writer, self._open, self._tasks, self.is_over = None, [], set(), False

    # --- the wire ----------------------------------------------------------------------------------------------------
    async def start(self):
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_DGRAM if self.transport == "udp" else socket.SOCK_STREAM
        with self.namespace:
            own = socket.socket(socket.AF_INET, kind)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind((self.ip, self.port))
        own.setblocking(False)
        if self.transport == "udp":
            user = self

            class Datagrams(asyncio.DatagramProtocol):
                def datagram_received(self, data, address):
                    if data.strip():
                        user._received(data, lambda message: user._udp.sendto(message.encode(), address))
            self._udp, _ = await loop.create_datagram_endpoint(Datagrams, sock=own)
        else:
            self._server = await asyncio.start_server(self._stream, sock=own, ssl=self._context(ssl.Purpose.CLIENT_AUTH))
            await self._dial()
        return self

    def _context(self, purpose):
        if self.transport != "tls":
            return None
        root, certificate, key = self.tls
        context = ssl.create_default_context(purpose, cafile=root)
        context.load_cert_chain(certificate, key)
        return context

    async def _dial(self):
        with self.namespace:
            own = socket.socket()
        own.setblocking(False)
        own.bind((self.ip, 0))
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(own, self.proxy), 5)
            reader, writer = await asyncio.open_connection(
                sock=own, ssl=self._context(ssl.Purpose.SERVER_AUTH),
                server_hostname=self.domain if self.transport == "tls" else None)
        except BaseException:
            own.close()
            raise
        self._writer = writer
        self._task(self._flow(reader, writer))

    async def _flow(self, reader, writer):
        """Our own connection: read to its end, then dial and register again until it works."""
        await self._stream(reader, writer)
        self._writer = None
        while not self.is_over and self._writer is None:
            await asyncio.sleep(0.2)
            try:
                await self._dial()
                if self._registered:
                    await self.register(self._registered)
            except (OSError, TimeoutError, asyncio.TimeoutError, RuntimeError):
                continue

    def _task(self, work):
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, reader, writer):
        self._open.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")
                if not head:
                    continue
                length = int(SipMessage.parse(head).get("content-length", "0"))
                body = await reader.readexactly(length)
                self._received(head + body, lambda message: writer.write(message.encode()))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self._open.remove(writer)
            writer.close()

    async def stop(self):
        if self.is_over:
            return
        self.is_over = True
        if self.transport == "udp":
            self._udp.close()
        else:
            self._server.close()
            for writer in list(self._open):
                writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0.05)

    def _send(self, message):
        data = message.encode()
        self._trace(">", data)
        if self.transport == "udp":
            self._udp.sendto(data, self.proxy)
        elif self._writer is not None:
            self._writer.write(data)
        else:
            raise ConnectionError(f"{self.aor} has no connection to {self.proxy}")

    def _trace(self, mark, data):
        if self.wire:
            with open(self.wire, "ab") as f:
                f.write(f"{mark} {time.monotonic():.3f}\n".encode() + data + b"\n\n")

    # --- what comes in -----------------------------------------------------------------------------------------------
    def _received(self, data, reply):
        self._trace("<", data)
        message = SipMessage.parse(data)
        if message.is_response:
            if waiter := self._waiting.get(message.branch):
                waiter.put_nowait(message)
            return
        again = (message.branch, message.method)
        if message.method != "ACK" and again in self._seen:
            reply(self._seen[again])        # a retransmission gets the same answer and is not news
            return
        if (response := self.answer(message)) is not None:
            self._seen[again] = response
            self._trace(">", response.encode())
            reply(response)
        if message.method != "ACK":
            message.at = time.monotonic()
            self.log.append(message)
            self._task(self._wake())

    async def _wake(self):
        async with self._news:
            self._news.notify_all()

    def respond(self, request, status, reason, extra=(), body=b""):
        to = request.get("to")
        if not tag_of(to):
            to += ";tag=" + hashlib.md5((self.aor + request.get("call-id")).encode()).hexdigest()[:10]
        headers = [pair for pair in request.headers if pair[0] in ("via", "record-route")]
        headers += [("from", request.get("from")), ("to", to), ("call-id", request.get("call-id")),
                    ("cseq", request.get("cseq")), *extra]
        return SipMessage(f"SIP/2.0 {status} {reason}", headers, body)

    def _answer(self, request):
        if request.method == "NOTIFY" and request.get("call-id") not in self.dialogs:
            return self.respond(request, 481, "No such subscription")
        if request.method in ("NOTIFY", "MESSAGE", "OPTIONS"):
            return self.respond(request, 200, "OK")
        return None if request.method == "ACK" else self.respond(request, 405, "Not here")

    @property
    def mark(self):
        """Where the log ends now: `until(…, since=mark)` looks only at what comes later."""
        return len(self.log)

    async def until(self, method, test=lambda message: True, since=0, timeout=15):
        """The first request of that method that passes the test."""
        deadline = time.monotonic() + timeout
        async with self._news:
            while True:
                for message in self.log[since:]:
                    if message.method == method and test(message):
                        return message
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                try:
                    await asyncio.wait_for(self._news.wait(), left)
                except asyncio.TimeoutError:
                    pass
        seen = "; ".join(describe(message) for message in self.log[since:]) or "nothing"
        raise TimeoutError(f"{self.aor} saw no such {method} in {timeout} s; it saw: {seen}")

    async def notified(self, dialog, state="active", text="", since=0, timeout=15):
        """The first NOTIFY of that dialog whose state begins with `state` and whose body holds `text`."""
        def fits(message):
            return (message.get("call-id") == dialog.call_id and text in message.text
                    and message.get("subscription-state").startswith(state))
        return await self.until("NOTIFY", fits, since, timeout)

    def notifies(self, dialog, since=0):
        """Every NOTIFY of that dialog so far."""
        return [message for message in self.log[since:]
                if message.method == "NOTIFY" and message.get("call-id") == dialog.call_id]

    # --- what goes out -----------------------------------------------------------------------------------------------
    @property
    def contact(self):
        transport = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"<sip:{self.user}@{self.ip}:{self.port}{transport}>"

    async def request(self, method, uri, to=None, headers=(), body="", dialog=None, call_id=None, timeout=15):
        """Sends a request, answers a challenge, gives the final response; TimeoutError where none comes."""
        local = dialog.local if dialog else f"<{self.aor}>;tag={secrets.token_hex(5)}"
        remote = dialog.remote if dialog else f"<{to or uri}>"
        call_id = dialog.call_id if dialog else call_id or secrets.token_hex(10)
        routes = [("route", route) for route in dialog.routes] if dialog else []
        credentials = []
        for _ in range(3):
            self._cseq += 1
            # A new branch for the second try: it is a transaction of its own.
            via = f"SIP/2.0/{self.transport.upper()} {self.ip}:{self.port};rport;branch=z9hG4bK{secrets.token_hex(8)}"
            fixed = [("via", via), ("max-forwards", "70"), *routes, ("from", local), ("to", remote),
                     ("call-id", call_id), ("cseq", f"{self._cseq} {method}"), ("user-agent", "tombolo test phone")]
            if not any(name == "contact" for name, _ in headers):
                fixed.append(("contact", self.contact))
            message = SipMessage(f"{method} {uri} SIP/2.0", [*fixed, *headers, *credentials], body.encode())
            response = await self._transaction(message, timeout)
            if response.status not in (401, 407):
                return response
            answer = self._digest.answer(response, method, uri)
            if answer is None:
                return response
            credentials = [answer]
        return response

    async def _transaction(self, message, timeout):
        queue = self._waiting[message.branch] = asyncio.Queue()
        deadline, wait = time.monotonic() + timeout, 0.5
        try:
            self._send(message)
            while (left := deadline - time.monotonic()) > 0:
                try:
                    response = await asyncio.wait_for(queue.get(), min(wait, left) if self.transport == "udp" else left)
                except asyncio.TimeoutError:
                    if self.transport == "udp" and time.monotonic() < deadline:
                        self._send(message)
                        wait = min(wait * 2, 4)
                    continue
                if response.status >= 200:
                    return response
        finally:
            del self._waiting[message.branch]
        raise TimeoutError(f"{self.aor}: no final response to {message.start} in {timeout} s")

    async def register(self, expires=600):
        contact = f'{self.contact};+sip.instance="{self.instance}"'
        response = await self.request("REGISTER", f"sip:{self.domain}", to=self.aor, call_id=self._register_call,
                                      headers=[("contact", contact), ("expires", str(expires)), ("supported", "path, outbound")])
        self._registered = expires
        return expect(response, 200)

    async def publish(self, document, etag=None, expires=600):
        """Gives the entity tag; an empty document with a tag refreshes, with `expires=0` withdraws."""
        headers = [("event", "presence"), ("expires", str(expires))]
        headers += [("content-type", "application/pidf+xml")] if document else []
        headers += [("sip-if-match", etag)] if etag else []
        return expect(await self.request("PUBLISH", self.aor, headers=headers, body=document), 200).get("sip-etag")

    async def subscribe(self, target, event="presence", expires=600, accept="application/pidf+xml"):
        """SUBSCRIBE; gives the dialog, whose NOTIFYs are accepted from the first one on."""
        dialog = Dialog(f"<{self.aor}>;tag={secrets.token_hex(5)}", f"<{target}>", event)
        self.dialogs[dialog.call_id] = dialog
        response = await self.request("SUBSCRIBE", target, dialog=dialog, headers=[
            ("event", event), ("expires", str(expires)), ("accept", accept)])
        if response.status >= 300:
            del self.dialogs[dialog.call_id]
        expect(response, 200, 202)
        dialog.remote = response.get("to")
        dialog.routes = list(reversed(response.all("record-route")))
        dialog.target = uri_of(response.get("contact"))
        return dialog

    async def refresh(self, dialog, expires=600):
        """SUBSCRIBE inside the dialog; 0 ends it."""
        headers = [("event", dialog.event), ("expires", str(expires)), ("accept", "application/pidf+xml")]
        return expect(await self.request("SUBSCRIBE", dialog.target, dialog=dialog, headers=headers), 200, 202)

    async def message(self, target, text, content_type="text/plain;charset=UTF-8", timeout=35):
        """Gives the final response, whatever it is."""
        return await self.request("MESSAGE", target, headers=[("content-type", content_type)], body=text, timeout=timeout)


def expect(response, *statuses):
    """The response, where its status is one of these; else an error with its start line."""
    if response.status not in statuses:
        raise RuntimeError(f"{response.method} got {response.start}")
    return response


def describe(message):
    state = message.get("subscription-state")
    return message.start.removesuffix(" SIP/2.0") + (f" [{state}]" if state else "")
