//! What a session is set to, and what it asks of the actor around it.

use std::time::Duration;

use bytes::Bytes;
use tombolo_edge::StreamId;
use tombolo_interwork::{error::Undelivered, owner::MessageId};
use tombolo_runtime::BackoffSettings;

/// Which shard of this process.
pub type ShardIndex = usize;

/// What a session is set to.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// Messages that may wait for a stream.
    pub waiting_messages: usize,
    /// Octets of them.
    pub waiting_bytes: usize,
    /// The waits between dials.
    pub backoff: BackoffSettings,
    /// A dial that gave no answer for so long has failed.
    pub dial_timeout: Duration,
    /// A stream that took nothing for so long is closed in order.
    pub idle_close: Duration,
    /// A partner that was not heard for so long is pinged (XEP-0199 §4.3, XS-STR-11).
    pub ping_after: Duration,
    /// A ping that is not answered for so long means that nobody listens, if one was answered before.
    pub ping_wait: Duration,
    /// From one ping to the next, at least, while confirmations are owed.
    pub ping_pace: Duration,
    /// What was written so long ago to a partner that never answers pings has arrived: TCP would have ended the stream.
    pub confirm_after: Duration,
    /// A stream that lived this long, or whose peer answered a ping, resets the backoff.
    pub steady_after: Duration,
    /// From one round of probes to the next, at least, while the partner's streams to us break.
    pub probe_pace: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            waiting_messages: 1000,
            waiting_bytes: 4 << 20,
            backoff: BackoffSettings { floor: Duration::from_secs(4), cap: Duration::from_secs(60) },
            dial_timeout: Duration::from_secs(60),
            idle_close: Duration::from_secs(600),
            ping_after: Duration::from_secs(30),
            ping_wait: Duration::from_secs(30),
            ping_pace: Duration::from_secs(1),
            // Longer than TCP_USER_TIMEOUT, which ends a stream whose octets are not acknowledged for 90 s.
            confirm_after: Duration::from_secs(120),
            steady_after: Duration::from_secs(30),
            probe_pace: Duration::from_secs(10),
        }
    }
}

/// What the session asks for, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Open a stream. Whatever earlier dials come to does not count any more.
    Dial,
    /// Open a stream beside the dial that is under way.
    DialBeside,
    /// A shard may hand over so many octets.
    Grant {
        /// The shard.
        shard: ShardIndex,
        /// Octets.
        bytes: usize,
    },
    /// Write stanzas.
    Stanzas {
        /// The stream.
        stream: StreamId,
        /// How many.
        count: u32,
        /// The stanzas.
        bytes: Bytes,
    },
    /// What became of a message. A message that was written gets a second fate when its stream breaks before the partner
    /// has confirmed it.
    Fate {
        /// The shard that sent it.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
        /// Written, or why it is not known to have arrived.
        fate: Result<(), Undelivered>,
    },
    /// The stream ended: tell every shard.
    LaneLost {
        /// Nothing is lost with it.
        is_clean: bool,
    },
    /// The partner is lost, or back: tell every shard.
    Reachable {
        /// It is back.
        is_reachable: bool,
        /// Why not, as a stanza error condition.
        condition: &'static str,
    },
    /// What the partner sent us may be lost: tell every shard to probe the contacts that somebody watches.
    Probe,
    /// A lost partner is not tried any more, as nobody has anything to do with it: tell every shard that it is not lost.
    Forgotten,
    /// Close a stream in order.
    Close(StreamId),
    /// End a stream whose peer does not answer, and the partner's silent streams to us.
    GiveUp(StreamId),
}

/// How a session's partner stands, as others know it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The policy in force lets the two domains federate.
    pub is_configured: bool,
    /// Some shard has a pair with a contact of the partner's domain.
    pub has_pairs: bool,
}
