"""A real SIP phone, baresip, without audio or terminal: driven over its ctrl_tcp module (netstrings of JSON)."""
import asyncio
import json
import os
import re

from .peers import program
from .process import Daemon

CONFIG = """module_path {modules}
sip_listen {ip}:5060
module_app account.so
module_app contact.so
module_app menu.so
module_app presence.so
module_app ctrl_tcp.so
ctrl_tcp_listen {ip}:4444
"""


class Baresip(Daemon):
    def __init__(self, work, ip, proxy, aors, password, contacts):
        """Each of `aors` is a line of the phone; `contacts` are URIs that it watches; `proxy` is (ip, port), reached by UDP."""
        super().__init__(work, "baresip")
        self.ip, self.home = ip, os.path.join(work, "baresip")
        os.makedirs(self.home, exist_ok=True)
        folders = ("/usr/lib/baresip/modules", "/usr/lib/x86_64-linux-gnu/baresip/modules", "/usr/lib/aarch64-linux-gnu/baresip/modules")
        modules = next(folder for folder in folders if os.path.isdir(folder))
        outbound = f"sip:{proxy[0]}:{proxy[1]};transport=udp"
        for name, text in (
                ("config", CONFIG.format(modules=modules, ip=ip)),
                ("accounts", "".join(f'<{aor}>;outbound="{outbound}";auth_pass={password};regint=60;pubint=60\n' for aor in aors)),
                ("contacts", "".join(f'"{contact}" <{contact}>;presence=p2p\n' for contact in contacts))):
            with open(os.path.join(self.home, name), "w", encoding="utf-8") as f:
                f.write(text)

    async def up(self):
        self.start([program("baresip"), "-f", self.home, "-s"])
        for _ in range(100):
            try:
                self._reader, self._writer = await asyncio.open_connection(self.ip, 4444)
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise TimeoutError(f"baresip's control port does not answer:\n{self.tail()}")

    async def command(self, name, parameters=""):
        text = json.dumps({"command": name, "params": parameters, "token": "x"})
        self._writer.write(f"{len(text)}:{text},".encode())
        while True:         # events come on the same connection
            size = int((await asyncio.wait_for(self._reader.readuntil(b":"), 5))[:-1])
            answer = json.loads((await self._reader.readexactly(size + 1))[:-1])
            if answer.get("response"):
                return re.sub(r"\x1b\[[0-9;]*m", "", answer["data"])

    async def until_contact(self, pattern, timeout=15):
        """Until the list of contacts, with their states, holds `pattern`."""
        text = ""
        for _ in range(int(timeout * 10)):
            text = await self.command("contacts")
            if re.search(pattern, text):
                return text
            await asyncio.sleep(0.1)
        raise TimeoutError(f"no {pattern} in: {text}")

    async def until_said(self, text, timeout=15):
        for _ in range(int(timeout * 10)):
            if text in self.tail(400):
                return True
            await asyncio.sleep(0.1)
        raise TimeoutError(f"baresip did not show {text!r}:\n{self.tail()}")
