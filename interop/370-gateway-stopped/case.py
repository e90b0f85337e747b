"""The inside link outlives its connection: the edge misses the gateway's beats for 15 s, and then it is back."""
from lib import flows


async def run(world):
    await flows.gateway_stands_still(world)
