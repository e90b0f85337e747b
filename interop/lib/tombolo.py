"""The product under test: one process, or an edge and a gateway, started from the case's own settings files."""
import json
import os
import socket
import subprocess

from .places import SIP_DOMAIN
from .process import Daemon, ProgramDied, render

ADMIN_PORT = 8086


class Tombolo:
    """`roles` are the settings files of the case folder: `tombolo.toml.in`, or `edge.toml.in` and `gateway.toml.in`."""

    def __init__(self, binary, case, work, places, authority, s2s):
        self.binary, self.case, self.work, self.places = os.path.abspath(binary), case, work, places
        self.authority, self.s2s = authority, s2s
        self.roles = [("edge", places.dmz), ("gateway", places.inside)] if places.is_split else [("tombolo", places.inside)]
        self.daemons = {role: Daemon(work, role) for role, _ in self.roles}

    def _folder(self, role):
        return os.path.join(self.work, role)

    def _settings(self, role):
        return os.path.join(self._folder(role), "tombolo.toml")

    def up(self):
        """Writes the settings, checks them, starts every role and waits until each says that it is ready."""
        leaf = SIP_DOMAIN if self.s2s == "external" else f"{SIP_DOMAIN}.rogue"
        values = {"WORK": self.work, "TLS": self.authority.folder, "CERTIFICATE": self.authority.path(f"{leaf}.crt"),
                  "KEY": self.authority.path(f"{leaf}.key"), "DNS": self.places.dns, "EDGE": self.places.edge,
                  "GATEWAY": self.places.gateway, "LINK": self.places.link, "KAMAILIO": self.places.kamailio}
        for role, _ in self.roles:
            render(os.path.join(self.case, f"{role}.toml.in"), self._settings(role), **values)
            self._command(role, "check", self._settings(role))
        self.start()

    def start(self, only=None):
        """Starts every role, or one, and waits until each says that it is ready."""
        roles = [(role, namespace) for role, namespace in self.roles if only in (None, role)]
        for role, namespace in roles:
            argv = [self.binary, "run", "--config", self._settings(role)]
            if role != "tombolo":
                argv += ["--role", role]
            self.daemons[role].start(argv, namespace=namespace, cwd=self._folder(role))
        for role, namespace in roles:
            self.daemons[role].wait_until(lambda where=namespace: self.http("/readyz", where)[0] == 200, "ready", 30)

    def kill(self, role=None):
        """`kill -9`, of one role or of all."""
        for name, daemon in self.daemons.items():
            if role in (None, name):
                daemon.kill()

    def stop(self):
        return all([daemon.stop() for daemon in reversed(self.daemons.values())])

    def is_up(self):
        return all(daemon.is_up() for daemon in self.daemons.values())

    def http(self, path, namespace):
        """GET from the admin listener; (0, "") where nobody answers."""
        with namespace:
            connection = socket.socket()
        with connection:
            connection.settimeout(2)
            try:
                connection.connect(("127.0.0.1", ADMIN_PORT))
                connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                answer = b""
                while got := connection.recv(65536):
                    answer += got
            except OSError:
                return 0, ""
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = head.split()
        return (int(fields[1]) if len(fields) > 1 else 0), body.decode("utf-8", "replace")

    def metrics(self):
        return self.http("/metrics", self.roles[-1][1])[1]

    def _command(self, role, *arguments, feed=""):
        os.makedirs(self._folder(role), exist_ok=True)
        done = subprocess.run([self.binary, *arguments], cwd=self._folder(role), input=feed, capture_output=True,
                              text=True, timeout=20)
        if done.returncode != 0:
            raise ProgramDied(f"tombolo {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def command(self, *arguments, feed=""):
        """A command of an operator to the running gateway; gives what it printed."""
        role = self.roles[-1][0]
        return self._command(role, *arguments, "--data-dir", os.path.join(self._folder(role), "tombolo-data"), feed=feed)

    def json(self, *arguments):
        return json.loads(self.command(*arguments, "--json"))

    # --- accounts of the built-in home -------------------------------------------------------------------------------
    def add_user(self, aor, password):
        self.command("user", "add", aor, feed=f"{password}\n")

    def pending(self, aor):
        """The contacts that ask to watch `aor`."""
        return self.command("user", "pending", aor)

    def approve(self, aor, contact):
        self.command("user", "approve", aor, contact)

    def deny(self, aor, contact):
        self.command("user", "deny", aor, contact)

    def tail(self, lines=25):
        """The end of each role's log, without what libraries say."""
        def own(daemon):
            return [line for line in daemon.tail(2000).splitlines(keepends=True) if '"target":"hickory' not in line
                    and " hickory_" not in line][-lines:]
        return "".join(f"--- {role}\n{''.join(own(daemon))}" for role, daemon in self.daemons.items())
