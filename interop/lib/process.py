"""Programs that a run starts and ends: only those that it started, and only while they are still the same.

A pid alone proves nothing, since the kernel gives numbers again; beside each stands the moment when its process began.
"""
import os
import re
import signal
import socket
import subprocess
import time

from .places import HERE


class ProgramDied(RuntimeError):
    """A program ended, or did not come up in time; the text holds the end of what it said."""


def began(pid):
    """The start time of `pid` in clock ticks since boot, or None where there is no such process (or only a corpse)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rsplit(") ", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Daemon:
    """One program in the background; its record stays in `work/run`, so that another process can end it."""

    def __init__(self, work, name):
        self.work, self.name = work, name
        self.log = os.path.join(work, "log", f"{name}.out")
        self._record = os.path.join(work, "run", f"{name}.pid")
        self._child = None

    def start(self, argv, namespace=HERE, env=None, cwd=None):
        if self.is_up():
            raise ProgramDied(f"{self.name} is up already (pid {self.pid})")
        for folder in ("log", "run"):
            os.makedirs(os.path.join(self.work, folder), exist_ok=True)
        with open(self.log, "ab") as out:
            self._child = subprocess.Popen(
                namespace.wrap(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, env={**os.environ, **(env or {})}, cwd=cwd or self.work)
        with open(self._record, "w", encoding="utf-8") as f:
            f.write(f"{self._child.pid} {began(self._child.pid)}\n")
        return self

    @property
    def pid(self):
        return self._recorded()[0]

    def _recorded(self):
        try:
            with open(self._record, encoding="utf-8") as f:
                pid, start = f.read().split()
            return int(pid), start
        except (OSError, ValueError):
            return None, None

    def is_up(self):
        if self._child is not None:
            self._child.poll()
        pid, start = self._recorded()
        return pid is not None and began(pid) == start

    def stop(self, seconds=10.0):
        """TERM, wait, KILL to its whole group. True where it went by itself."""
        went = True
        if self.is_up():
            pid = self.pid
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self.is_up() and time.monotonic() < deadline:
                time.sleep(0.02)
            if self.is_up():
                went = False
                self.kill()
        if os.path.exists(self._record):
            os.remove(self._record)
        return went

    def kill(self):
        """SIGKILL to the whole group, as `kill -9` would."""
        if self.is_up():
            os.killpg(self.pid, signal.SIGKILL)
            if self._child is not None:
                self._child.wait()
            while self.is_up():
                time.sleep(0.01)

    def tail(self, lines=20):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return ""

    def wait_until(self, condition, what, seconds=20.0):
        """Returns when `condition()` holds; fails at once where the program died."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.is_up():
                raise ProgramDied(f"{self.name} ended before {what}:\n{self.tail()}")
            if condition():
                return
            time.sleep(0.03)
        raise ProgramDied(f"{self.name}: not {what} within {seconds:.0f} s:\n{self.tail()}")


def accepts(ip, port, namespace=HERE):
    """True where somebody accepts TCP connections at that place."""
    with namespace:
        probe = socket.socket()
    with probe:
        probe.settimeout(1)
        return probe.connect_ex((ip, port)) == 0


def render(template, target, **values):
    """Writes `template` to `target`, each @NAME@ replaced; a name without a value is an error."""
    with open(template, encoding="utf-8") as f:
        text = f.read()

    def value(match):
        name = match.group(1)
        if name not in values:
            raise KeyError(f"{template} wants @{name}@; there are {', '.join(sorted(values))}")
        return str(values[name])
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w", encoding="utf-8") as f:
        f.write(re.sub(r"@([A-Z][A-Z0-9_]*)@", value, text))
    return target
