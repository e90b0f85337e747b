//! What a shard is told.

use std::{collections::HashMap, sync::Arc};

use tombolo_policy::Table;
use tombolo_presence::Address;
use tombolo_sip::message::Message;
use tombolo_xmpp::stream::ReceivedStanza;

use crate::{
    error::{Failure, NoResponse, Undelivered},
    owner::keys::{LaneKey, PeerKey, PhoneKey},
    token::TokenMac,
};

/// One thing that happened, for the shard that owns the local user concerned.
#[derive(Debug)]
pub enum Input {
    /// Presence and message stanzas from proved domains to our users, whole and well-formed, in order.
    Stanzas(Vec<ReceivedStanza>),
    /// A request that passed its server transaction, its sender's proof and the checks of RFC 3261 §8.2.
    Request(SipRequest),
    /// What became of a request that went out as [`super::Output::Request`].
    Outcome {
        /// Names the request.
        request: RequestId,
        /// The final response, or what counts as one.
        outcome: Result<Message, NoResponse>,
    },
    /// Responses to NOTIFYs that went out as [`super::Output::Notifies`].
    NotifyAnswers {
        /// Whose the flow is that brought them: one of these was notified, or the answer is nobody's.
        peers: Arc<[PeerKey]>,
        /// The responses.
        answers: Vec<NotifyAnswer>,
    },
    /// A lane may carry so many bytes more. Answers [`super::Output::Want`].
    Credit {
        /// The lane.
        lane: LaneKey,
        /// Number of bytes, at least one.
        bytes: usize,
    },
    /// The way to a SIP peer changed: on which transport it is reached, or that it is not (`None`).
    PeerChanged {
        /// The peer.
        peer: PeerKey,
        /// How it is reached now.
        way: Option<PeerWay>,
    },
    /// A front end's health changed.
    PeerHealth {
        /// The front end.
        peer: PeerKey,
        /// How it stands now.
        health: PeerHealth,
    },
    /// A front end did not know a dialog of ours any more: it may have forgotten others too.
    PeerForgot {
        /// The front end.
        peer: PeerKey,
    },
    /// The stream under a lane of a session ended.
    LaneLost {
        /// The lane.
        lane: LaneKey,
        /// Everything written may be taken as received.
        is_clean: bool,
    },
    /// The session under a lane panicked and was rebuilt: it knows nothing of what it was asked or handed before.
    LaneReset {
        /// The lane.
        lane: LaneKey,
    },
    /// A partner's session could not be re-established, or its stream broke; or it is back.
    PartnerReachable {
        /// The session's lane.
        lane: LaneKey,
        /// It is back.
        is_reachable: bool,
    },
    /// What a partner sent us last may be lost, though we can reach it: the contacts that somebody watches are probed.
    ContactsDoubtful {
        /// The session's lane.
        lane: LaneKey,
    },
    /// A stream is up under a session's lane: the largest stanza that the partner says it takes (XEP-0478). Without one the
    /// partner's entry says it.
    LaneLimit {
        /// The session's lane.
        lane: LaneKey,
        /// Octets.
        bytes: Option<u32>,
    },
    /// What became of a message that went out as [`super::Output::Message`].
    MessageFate {
        /// Names the message.
        message: MessageId,
        /// Written to a stream; or why it is not known to have arrived.
        fate: Result<(), Undelivered>,
    },
    /// What became of a message that went out as [`super::Output::Deliver`].
    Delivered {
        /// Names the message.
        message: MessageId,
        /// A phone took it, or why none did.
        outcome: Result<(), Failure>,
    },
    /// The recipient of a message that went out as [`super::Output::Deliver`] is somewhere else now.
    Moved {
        /// Names the message.
        message: MessageId,
        /// A SIP status of 300 to 399.
        status: u16,
        /// The URI where the recipient's phone says that it is.
        contact: String,
    },
    /// The recipient of a message that went out as [`super::Output::Deliver`] has no room for it: too many are on their way.
    NotTaken {
        /// Names the message.
        message: MessageId,
    },
    /// Rows are stored, or could not be. Tokens are answered in order.
    Persisted {
        /// Names the rows.
        token: PersistToken,
        /// They are on disk.
        is_stored: bool,
    },
    /// The local user decided about a watcher.
    Decide {
        /// The local user.
        user: Address,
        /// Who asked; `None` means everybody who waits.
        watcher: Option<Address>,
        /// Grant, or refuse.
        is_approved: bool,
        /// Answered with [`super::Output::Decided`].
        asker: u64,
    },
    /// Which local users exist at built-in homes and how they approve; replaces what was known.
    Accounts(Arc<Accounts>),
    /// The pairs of all shards with a partner reached its limit, or are below it again.
    PartnerFull {
        /// The domain that names the partner's entry.
        partner: Box<str>,
        /// No further pair is taken.
        is_full: bool,
    },
    /// The process takes as much memory as it may, or less again: nothing new is taken meanwhile.
    MemoryFull(bool),
    /// A new policy table.
    Policy(Arc<Table>),
    /// A phone of a built-in home is registered and can be reached. Said again with each of its REGISTERs.
    PhoneRegistered(Arc<PhoneKey>),
    /// A phone is not registered any more, or its connection ended and it did not come back: what it published is over.
    PhoneGone(Arc<PhoneKey>),
    /// An operator's question about a user. Answered with [`super::Output::Report`].
    Ask {
        /// The local user; `None` asks for the shard's totals.
        user: Option<Address>,
        /// Comes back in the answer.
        asker: u64,
    },
}

/// The accounts of the built-in homes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// How each existing user approves watchers.
    pub approve: HashMap<Address, tombolo_policy::Approve>,
}

/// Names a request of ours until its outcome is known; the shard chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// Names a message of ours until its fate is known; the shard chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub u64);

/// Names what a shard wants stored; rises by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PersistToken(pub u64);

/// Where the response to a request goes; the peer chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyTo(pub u64);

/// A request for the shard.
#[derive(Debug, Clone)]
pub struct SipRequest {
    /// Who sent it.
    pub peer: PeerKey,
    /// Where its response goes.
    pub reply: ReplyTo,
    /// The request; its top Via carries `received` and `rport` already.
    pub message: Message,
    /// Whom the request speaks for: the user that digest proved, or the From that its front end may use.
    pub identity: Address,
    /// How the peer is reached: what our Contact in the response names.
    pub way: PeerWay,
}

/// Whether a front end is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerHealth {
    /// It was heard, or heard again.
    Up,
    /// Its connection ended, or it does not answer: what it has of ours is kept as it is.
    Doubtful,
    /// It was doubtful for longer than the grace: what it said does not count any more.
    Lost,
}

impl PeerHealth {
    /// The word that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Doubtful => "doubtful",
            Self::Lost => "lost",
        }
    }
}

/// How a SIP peer is reached at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerWay {
    /// Nothing need be sent twice (TCP, TLS). When false, NOTIFYs go out as [`super::Output::Request`].
    pub is_reliable: bool,
    /// A request larger than 1,300 octets can go to it whole: by this way, or by a stream beside it (RFC 3261 §18.1.1).
    pub takes_large: bool,
    /// `SIP/2.0/TLS host:port`, as our Via begins.
    pub via: Arc<str>,
    /// `host:port;transport=tls`, as our Contact goes on after the `@`.
    pub contact: Arc<str>,
}

/// The response to one NOTIFY.
#[derive(Debug, Clone, Copy)]
pub struct NotifyAnswer {
    /// The dialog's partition and row, from the branch.
    pub partition: u16,
    /// See `partition`.
    pub row: u64,
    /// The MAC of both, from the branch; the shard compares it with that of the dialog.
    pub mac: TokenMac,
    /// The CSeq that it answers.
    pub cseq: u32,
    /// Its status code.
    pub status: u16,
    /// Its Retry-After, in seconds.
    pub retry_after: Option<u32>,
}
