"""Bindings survive `kill -9`: phones by UDP do not register again, and everything reaches them all the same."""
from lib import flows


async def run(world):
    # Bindings are stored lazily: this one is on disk long before the last kill.
    await world.phone("dave")
    await flows.killed_and_started_again(world)
    await flows.message_reaches_a_phone_that_slept(world)
