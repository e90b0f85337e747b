"""STOX-P-22: `kill -9` and start again; `--rounds N` does it N times."""
from lib import flows


async def run(world):
    await flows.killed_and_started_again(world)
