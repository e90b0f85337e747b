"""SIP-D-17, STOX-P-62: the front end forgets its dialogs, then is silent for 42 s; `--rounds N` lets it forget N times."""
from lib import flows


async def run(world):
    await flows.front_end_forgets_and_falls_silent(world)
