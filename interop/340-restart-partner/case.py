"""XP-19, STOX-P-62: the partner's server is killed, things happen, it is started again; `--rounds N` does it N times."""
from lib import flows


async def run(world):
    await flows.partner_killed_and_started_again(world)
