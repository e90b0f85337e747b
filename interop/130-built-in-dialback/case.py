"""Everything that users do across the two worlds, in the row of `case.toml`."""
from lib import flows


async def run(world):
    await flows.xmpp_user_watches_sip_user(world)
    await flows.sip_user_watches_xmpp_user(world)
    await flows.blocked_watcher_sees_nobody(world)
    await flows.messages_both_ways(world)
    await flows.streams_were_proved(world)
