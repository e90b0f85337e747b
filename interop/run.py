#!/usr/bin/python3
"""Runs the numbered cases of this folder against real peers.

    run.py [--tombolo BINARY] [--all] [--rounds N] [--jobs N] [--keep] [CASE...]
    run.py --list

CASE is a folder's name or the beginning of one (`100`, `3`); without one, every case that is not marked long runs.
--all runs those too. --tombolo is the binary (default: target/debug/tombolo, or $TOMBOLO). --rounds repeats what a case
repeats, e.g. the kills. --jobs runs so many cases at once (their times then disturb each other). --keep leaves the state
of good runs too; a failed one is always kept and its place printed. A case that waits for something (`waits_for`) runs
only when its whole name is given.

Each case has a network, a process table and a mount table of its own (unshare; as root, or by a user namespace), so that
cases disturb nobody, nothing that they start outlives them, and no packet leaves the machine.
"""
import argparse
import asyncio
import concurrent.futures
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

CASE_SECONDS = 300


def cases():
    return sorted(name for name in os.listdir(HERE) if re.match(r"\d{3}-", name) and os.path.isdir(os.path.join(HERE, name)))


def row(case):
    with open(os.path.join(HERE, case, "case.toml"), "rb") as f:
        return tomllib.load(f)


def show_matrix():
    print(f"{'case':26} {'home':10} {'s2s':9} {'topology':11} {'sip':4} {'phones':6} about")
    for case in cases():
        facts = row(case)
        words = [facts.get(name, "-") for name in ("home", "s2s", "topology", "sip", "phones")]
        print(f"{case:26} {words[0]:10} {words[1]:9} {words[2]:11} {words[3]:4} {words[4]:6} {facts['about']}")


def chosen(names, everything):
    for name in names:
        if not any(case.startswith(name) for case in cases()):
            sys.exit(f"run.py: no case begins with {name}; --list shows them")
    picked = []
    for case in cases():
        facts = row(case)
        wanted = any(case.startswith(name) for name in names) if names else everything or not facts.get("long")
        if wanted and facts.get("waits_for") and case not in names:
            print(f"not run: {case} waits for {facts['waits_for']}")
        elif wanted:
            picked.append(case)
    return picked


def run_apart(case, options):
    """The case in a process of its own with namespaces of its own; (case, passed, failed)."""
    work = tempfile.mkdtemp(prefix=f"tombolo-{case}-")
    os.chmod(work, 0o755)
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        apart += ["--user", "--map-root-user"]
    argv = [*apart, sys.executable, os.path.abspath(__file__), "--inside", work, "--rounds", str(options.rounds), case]
    if options.tombolo:
        argv += ["--tombolo", options.tombolo]
    said = [f"\n{case}: {row(case)['about']}\n"]
    begin = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    # Whatever hangs: with the first process of its namespace everything that the case started ends.
    watchdog = threading.Timer(CASE_SECONDS + 60 + 60 * options.rounds, child.kill)
    watchdog.start()
    counts = None
    for line in child.stdout:
        if found := re.fullmatch(r"counted (\d+) (\d+)\n", line):
            counts = int(found[1]), int(found[2])
        else:
            said.append(line)
    child.wait()
    watchdog.cancel()
    passed, failed = counts or (0, 1)
    if counts is None:
        said.append(f"  FAIL {case} ended without a count (status {child.returncode})\n")
    said.append(f"{case}: {passed} passed, {failed} failed, {time.monotonic() - begin:.1f} s\n")
    if failed or options.keep:
        said.append(f"  state and logs: {work}\n")
    else:
        shutil.rmtree(work, ignore_errors=True)
    print("".join(said), end="", flush=True)
    return case, passed, failed


async def run_inside(case, work, options):
    """In the namespaces: everything up, the case, everything down."""
    from lib import places
    from lib.world import World
    facts = row(case)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    plan = places.split() if facts.get("topology") == "split" else places.loopback()
    binary = options.tombolo if facts.get("product", True) else None
    world = World(os.path.join(HERE, case), work, plan, binary, facts, options.rounds)
    spec = importlib.util.spec_from_file_location("case", os.path.join(HERE, case, "case.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    steps = world.steps
    if await steps.step("everything is up", world.up()) is not None:
        try:
            await asyncio.wait_for(module.run(world), CASE_SECONDS + 10 * options.rounds)
        except Exception as error:  # noqa: BLE001 - the case itself broke: one more failure
            steps.check(f"the case ran to its end: {type(error).__name__}: {error}", False)
        if world.tombolo:
            steps.check("the product is still up", world.tombolo.is_up())
    if steps.failed:
        print(world.tails(), flush=True)
    await steps.step("everything went down", world.down())
    print(f"counted {steps.passed} {steps.failed}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--tombolo", default=os.environ.get("TOMBOLO"))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        asyncio.run(run_inside(options.cases[0], options.inside, options))
        return 0
    if options.list:
        show_matrix()
        return 0
    picked = chosen(options.cases, options.all)
    if options.tombolo is None:
        options.tombolo = os.path.join(os.path.dirname(HERE), "target", "debug", "tombolo")
    if any(row(case).get("product", True) for case in picked) and not os.access(options.tombolo, os.X_OK):
        sys.exit(f"run.py: no {options.tombolo}: cargo build -p tombolo, or --tombolo BINARY")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        ran = list(pool.map(lambda case: run_apart(case, options), picked))
    passed, failed = sum(count for _, count, _ in ran), sum(count for _, _, count in ran)
    if failed:
        print(f"\nfailed: {', '.join(case for case, _, count in ran if count)}")
    print(f"\ninterop: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
