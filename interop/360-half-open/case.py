"""XS-STR-11: packets between edge and partner vanish, both ways and without a word, under streams that are up."""
from lib import flows


async def run(world):
    await flows.path_to_partner_dies(world)
