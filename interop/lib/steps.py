"""The steps of a case: one line each with its time, and a count at the end."""
import time


class Steps:
    """`await steps.step(name, awaitable)` runs one; a step that fails does not keep the next from running."""

    def __init__(self):
        self.passed = self.failed = 0
        self.latencies = []

    async def step(self, name, awaitable):
        """The awaitable's result, True where it has none, None where it failed."""
        begin = time.monotonic()
        try:
            result = await awaitable
        except Exception as error:  # noqa: BLE001 - whatever went wrong is what the case reports
            self._line("FAIL", name, f": {type(error).__name__}: {error}")
            return None
        took = (time.monotonic() - begin) * 1000
        self.latencies.append((name, took))
        self._line("ok  ", name, f" ({took:.0f} ms)")
        return True if result is None else result

    def check(self, name, holds, seen=""):
        """A condition that holds or not; `seen` says what was there instead."""
        self._line("ok  " if holds else "FAIL", name, "" if holds else f": {seen}")
        return bool(holds)

    def _line(self, word, name, rest):
        if word == "FAIL":
            self.failed += 1
        else:
            self.passed += 1
        print(f"  {word} {name}{rest}", flush=True)
