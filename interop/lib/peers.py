"""The foreign peers of a run: DNS (unbound), the XMPP partner (Prosody), the SIP front end (Kamailio)."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse

from .places import SIP_DOMAIN, XMPP_DOMAIN
from .process import Daemon, ProgramDied, accepts, render

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
PASSWORD = "pw"


def program(name):
    """The full path of a program that a Debian package installs, perhaps outside a user's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise ProgramDied(f"{name} is not installed; `cargo xtask test --only packages` says what is missing")
    return found


class Dns(Daemon):
    def __init__(self, work, places):
        super().__init__(work, "unbound")
        self.places = places

    def up(self):
        conf = render(f"{CONF}/unbound.conf.in", f"{self.work}/etc/unbound.conf", WORK=self.work, DNS=self.places.dns,
                      PROSODY=self.places.prosody, EDGE=self.places.edge, KAMAILIO=self.places.kamailio)
        self.start([program("unbound"), "-d", "-p", "-c", conf])
        self.wait_until(lambda: accepts(self.places.dns, 5353), "answering")


class Prosody(Daemon):
    """`s2s` is `external` or `dialback`; `rate` how fast it reads a stream of another server, such as `30kb/s`."""

    def __init__(self, work, places, authority, s2s, rate=None):
        super().__init__(work, "prosody")
        self.places, self.authority, self.s2s = places, authority, s2s
        self.limits = f's2sin = {{ rate = "{rate}"; burst = "2s" }}' if rate else ""
        self.conf = f"{work}/etc/prosody.cfg.lua"
        self.own_log = f"{work}/log/prosody.log"

    def up(self):
        for folder in ("data", "certificates", "no-ca"):
            os.makedirs(f"{self.work}/prosody/{folder}", exist_ok=True)
        leaf = XMPP_DOMAIN if self.s2s == "external" else f"{XMPP_DOMAIN}.rogue"
        for end in ("crt", "key"):
            link = f"{self.work}/prosody/certificates/{XMPP_DOMAIN}.{end}"
            if os.path.lexists(link):
                os.remove(link)
            os.symlink(self.authority.path(f"{leaf}.{end}"), link)
        render(f"{CONF}/prosody.cfg.lua.in", self.conf, WORK=self.work, S2S=self.s2s, DNS=self.places.dns,
               PROSODY=self.places.prosody, LIMITS=self.limits)
        self.start([program("prosody"), "-F", "--config", self.conf])
        self.wait_until(self._answers, "answering")

    def _answers(self):
        # Its ports accept before its hosts are loaded; it answers only afterwards.
        try:
            with socket.create_connection((self.places.prosody, 5222), timeout=1) as probe:
                probe.sendall(b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
                              b"xmlns:stream='http://etherx.jabber.org/streams' to='prosody.test'>")
                return b"<stream:features>" in probe.recv(4096)
        except OSError:
            return False

    def add_user(self, name):
        done = subprocess.run([program("prosodyctl"), "--config", self.conf, "adduser", f"{name}@{XMPP_DOMAIN}"],
                              input=f"{PASSWORD}\n{PASSWORD}\n", capture_output=True, text=True)
        if done.returncode != 0:
            raise ProgramDied(f"no account {name}: {done.stdout} {done.stderr}")

    def authentication(self):
        """How streams with our domain were proved, from Prosody's own log: counts of lines by kind."""
        with open(self.own_log, encoding="utf-8", errors="replace") as f:
            lines = f.readlines()

        def count(*words):
            return sum(all(word in line for word in words) for line in lines)
        return {"external in": count("Accepting SASL EXTERNAL identity from", SIP_DOMAIN),
                "dialback in": sum("s2sin" in line and "Received[s2sin" in line and "<result" in line for line in lines),
                "dialback out": sum("s2sout" in line and "Received[s2sout" in line and "<result" in line for line in lines),
                "streams over TLS": count("Stream encrypted")}


class Kamailio(Daemon):
    """The front end. `gateway_transport` is how it reaches the gateway, and how it wants to be reached: tcp, udp, tls."""

    def __init__(self, work, places, gateway_transport):
        super().__init__(work, "kamailio")
        self.places, self.gateway_transport = places, gateway_transport

    def up(self):
        tables = "/usr/share/kamailio/dbtext/kamailio"
        shutil.rmtree(f"{self.work}/kamailio/db", ignore_errors=True)
        os.makedirs(f"{self.work}/kamailio/db")
        for table in ("version", "presentity", "active_watchers", "watchers", "xcap", "pua"):
            with open(f"{tables}/{table}", encoding="utf-8") as f:
                text = f.read()
            # As shipped, the flags of a watcher may not be empty, and the presence module leaves them so.
            with open(f"{self.work}/kamailio/db/{table}", "w", encoding="utf-8") as f:
                f.write(text.replace("flags(int)", "flags(int,null)"))
        self._run()

    def _run(self):
        port = {"tcp": 5070, "udp": 5070, "tls": 5071}[self.gateway_transport]
        own_port = 5061 if self.gateway_transport == "tls" else 5060
        conf = render(f"{CONF}/kamailio.cfg.in", f"{self.work}/etc/kamailio.cfg", WORK=self.work,
                      KAMAILIO=self.places.kamailio,
                      GATEWAY_URI=f"sip:{self.places.gateway}:{port};transport={self.gateway_transport}",
                      SERVER_ADDRESS=f"sip:{self.places.kamailio}:{own_port};transport={self.gateway_transport}")
        render(f"{CONF}/kamailio-tls.cfg.in", f"{self.work}/etc/kamailio-tls.cfg", WORK=self.work)
        os.makedirs(f"{self.work}/kamailio/run", exist_ok=True)
        # -DD: stay in the foreground, but fork the workers; -E: log to stderr.
        self.start([program("kamailio"), "-DD", "-E", "-m", "128", "-M", "16", "-f", conf,
                    "-Y", f"{self.work}/kamailio/run"], namespace=self.places.inside)
        self.wait_until(lambda: accepts(self.places.kamailio, 5060, self.places.inside), "accepting")

    def forget(self):
        """Ends in order and starts again: what users published and decided is there, what it was subscribed to is not."""
        self.stop()
        table = f"{self.work}/kamailio/db/active_watchers"
        with open(table, encoding="utf-8") as f:
            head = f.readline()
        with open(table, "w", encoding="utf-8") as f:
            f.write(head)
        self._run()

    def freeze(self):
        """Stops every process of it where it stands: connections stay, and nothing is answered."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self.pid, signal.SIGCONT)

    def dialogs_of_gateway(self):
        """The Call-IDs of every SUBSCRIBE that did not come from a phone, from Kamailio's own log."""
        phones = set(self.places.phones.values())
        with open(self.log, encoding="utf-8", errors="replace") as f:
            found = re.findall(r"<script>: SUBSCRIBE \S+ from ([\d.]+):\d+/\w+ call (\S+)", f.read())
        return {call for source, call in found if source not in phones}

    def put_rules(self, owner, allow=(), block=()):
        """What a user's client does to decide about watchers: PUT presence rules (RFC 5025) over XCAP (RFC 4825)."""
        def rule(name, action, watchers):
            one = "".join(f'<cr:one id="{watcher}"/>' for watcher in watchers)
            return (f'<cr:rule id="{name}"><cr:conditions><cr:identity>{one}</cr:identity></cr:conditions><cr:actions>'
                    f"<pr:sub-handling>{action}</pr:sub-handling></cr:actions><cr:transformations/></cr:rule>")
        body = ('<?xml version="1.0" encoding="UTF-8"?><cr:ruleset xmlns:cr="urn:ietf:params:xml:ns:common-policy" '
                'xmlns:pr="urn:ietf:params:xml:ns:pres-rules">'
                + (rule("allow", "allow", allow) if allow else "") + (rule("block", "block", block) if block else "")
                + "</cr:ruleset>")
        path = f"/xcap-root/pres-rules/users/{urllib.parse.quote(owner, safe=':@')}/index"
        head = (f"PUT {path} HTTP/1.1\r\nHost: {self.places.kamailio}\r\nConnection: close\r\n"
                f"Content-Type: application/auth-policy+xml\r\nContent-Length: {len(body.encode())}\r\n\r\n")
        with self.places.inside:
            connection = socket.socket()
        with connection:
            connection.settimeout(5)
            connection.connect((self.places.kamailio, 5060))
            connection.sendall(head.encode() + body.encode())
            answer = b""
            deadline = time.monotonic() + 5
            while b"\r\n" not in answer and time.monotonic() < deadline:
                got = connection.recv(4096)
                if not got:
                    break
                answer += got
        status = answer.split(b"\r\n", 1)[0].decode(errors="replace")
        if " 200 " not in status + " ":
            raise RuntimeError(f"XCAP PUT for {owner}: {status or 'no answer'}")
