//! What actors of the broker tell each other. Bulk goes through bounded inboxes; these are control messages, and each
//! says what bounds it.

use std::sync::Arc;

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;
use tombolo_edge::{DialId, FlowFacts, FlowId, StreamEnd, StreamId};
use tombolo_interwork::{
    error::NoResponse,
    owner::{Input, MessageId, PeerKey, PersistToken, ReplyTo, Report, RequestId, UnfinishedMessage},
    request::RequestDraft,
};
use tombolo_presence::Address;
use tombolo_sip::message::Message as SipMessage;

use crate::{
    local_user::{Binding, BindingReport, Origin, Reach},
    session::ShardIndex,
};

/// An input that must not be refused: answers to what the shard asked, bounded by what it asked.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ToShard(pub Input);

/// The store's answer to what a shard wanted stored. `life` tells the answers to a shard's dead machine from those to its
/// successor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stored {
    /// Of which machine of the shard.
    pub life: u32,
    /// Names the rows.
    pub token: PersistToken,
    /// They are on disk.
    pub is_stored: bool,
}

/// A question to a shard whose answer somebody waits for. Bounded by the admin interface.
#[derive(Message)]
#[rtype(result = "()")]
pub enum AskShard {
    /// What is known of a user, or of all.
    Report {
        /// The user.
        user: Option<Address>,
        /// Who waits.
        answer: oneshot::Sender<Report>,
    },
    /// A decision of a user.
    Decide {
        /// The user.
        user: Address,
        /// The watcher; `None` means all who wait.
        watcher: Option<Address>,
        /// Grant, or refuse.
        is_approved: bool,
        /// Gets the watchers concerned.
        answer: oneshot::Sender<Vec<Address>>,
    },
    /// Messages that would be lost if the process ended now.
    Unfinished {
        /// Who waits.
        answer: oneshot::Sender<Vec<UnfinishedMessage>>,
    },
}

/// To a federated session. Bounded by grants, by the shard's own queues, and by the number of streams.
#[derive(Message)]
#[rtype(result = "()")]
pub enum ToSession {
    /// The partner answered the ping of this number.
    Pong(u64),
    /// A shard asks for credit.
    Want {
        /// The shard.
        shard: ShardIndex,
        /// About how much it owes.
        owed_bytes: usize,
    },
    /// A shard used its grant.
    Stanzas {
        /// The shard.
        shard: ShardIndex,
        /// How many.
        count: u32,
        /// The stanzas.
        bytes: Vec<u8>,
    },
    /// A message, or a stanza for which nobody waits.
    Message {
        /// The shard; `None` for what the session's own side composed.
        shard: ShardIndex,
        /// Names it.
        message: Option<MessageId>,
        /// The stanza.
        bytes: Bytes,
    },
    /// A message that was not written is not to leave any more.
    Withdraw {
        /// The shard that sent it.
        shard: ShardIndex,
        /// Names it.
        message: MessageId,
    },
    /// A stream for the pair is up.
    StreamUp {
        /// The stream.
        stream: StreamId,
        /// Its window in octets.
        window: u32,
        /// The largest stanza that the partner says it takes.
        max_stanza_bytes: Option<u32>,
    },
    /// Octets are written.
    Written {
        /// The stream.
        stream: StreamId,
        /// The last stanza.
        last: u64,
        /// How many octets.
        bytes: u32,
    },
    /// The stream ended.
    StreamDown {
        /// The stream.
        stream: StreamId,
        /// Why.
        end: StreamEnd,
        /// The last stanza that was written.
        last_written: u64,
    },
    /// A dial gave no stream.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// Why.
        end: StreamEnd,
    },
    /// A stream of the partner's to us ended, and not in order.
    IncomingBroken,
    /// If it is waited for, it is to be tried now: an operator wants it, or the partner spoke to us by itself.
    Retry,
    /// A shard was rebuilt after a panic: it has used no grant and wants nothing that it did not say since.
    ShardRebuilt(ShardIndex),
    /// An operator asks.
    Report(oneshot::Sender<crate::broker::SessionReport>),
}

/// Who asked a peer to send a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requester {
    /// A shard.
    Shard(ShardIndex, RequestId),
    /// A user's fork: the fork's number and which of its branches.
    User(Address, u64, usize),
}

/// To a SIP peer. Bounded by grants, by the shard's own queues, and by the peer's connections.
#[derive(Message)]
#[rtype(result = "()")]
pub enum ToPeer {
    /// A shard asks for credit.
    Want {
        /// The shard.
        shard: ShardIndex,
        /// About how much it owes.
        owed_bytes: usize,
    },
    /// A shard used its grant.
    Notifies {
        /// The shard.
        shard: ShardIndex,
        /// How many.
        count: u32,
        /// The requests.
        bytes: Vec<u8>,
    },
    /// Send a request in a client transaction.
    Request {
        /// Who hears of its end.
        requester: Requester,
        /// Instead of the draft's Request-URI.
        uri: Option<String>,
        /// The request.
        draft: Box<RequestDraft>,
    },
    /// Answer a request.
    Respond {
        /// Which one.
        reply: ReplyTo,
        /// The response.
        bytes: Vec<u8>,
    },
    /// A flow to the peer is up, or replaces the old one.
    FlowUp(Arc<FlowFacts>),
    /// A flow ended.
    FlowDown(FlowId),
    /// The phone did not register again.
    Lapsed,
    /// Notes were cut to fit into a datagram: by a stream they would go whole.
    WantStream,
    /// A front end did not know a dialog of a shard any more.
    Forgot,
    /// The front end refused a NOTIFY with 503.
    Suspect,
    /// A front end is to be tried now: it was configured anew.
    Retry,
    /// An operator asks how a front end stands.
    Report(oneshot::Sender<crate::broker::FrontEndReport>),
    /// A shard was rebuilt after a panic: it has used no grant, wants nothing that it did not say since, and must be told how
    /// the peer is reached.
    ShardRebuilt(ShardIndex),
    /// Octets are written.
    Written {
        /// The flow.
        flow: FlowId,
        /// How many.
        bytes: u32,
    },
    /// A dial failed.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// Why.
        cause: String,
    },
}

/// Messages that a flow brought, in order. Goes through the peer's bounded inbox.
pub struct Arrived {
    /// The flow.
    pub flow: Arc<FlowFacts>,
    /// The messages.
    pub messages: Vec<SipMessage>,
    /// The request was authenticated before it was handed over.
    pub is_authenticated: bool,
}

/// To a local user of the built-in home. Bounded by the shard's queues and by the phones' transactions.
#[derive(Message)]
#[rtype(result = "()")]
pub enum ToUser {
    /// What an earlier life of the process stored. Comes first, once.
    Restore(Vec<Binding>),
    /// An authenticated request, no REGISTER, by a flow of nobody: one of the user's phones may have come back by it.
    Guest {
        /// The flow.
        flow: Arc<FlowFacts>,
        /// The request.
        message: Box<SipMessage>,
    },
    /// An authenticated REGISTER.
    Register {
        /// By which peer it came.
        peer: PeerKey,
        /// Where it came from.
        origin: Origin,
        /// Where the response goes.
        reply: ReplyTo,
        /// The request.
        message: Box<SipMessage>,
    },
    /// A message for all phones.
    Deliver {
        /// The shard that sent it.
        shard: ShardIndex,
        /// Names it.
        message: MessageId,
        /// The device that is meant.
        device: Option<Box<str>>,
        /// The request.
        draft: Box<RequestDraft>,
    },
    /// A phone of the user got a connection, or its last one ended.
    Reach {
        /// The phone.
        peer: PeerKey,
        /// Which of both.
        reach: Reach,
    },
    /// The user's shard was rebuilt after a panic: it must be told which phones are present.
    ShardRebuilt,
    /// An operator asks for the bindings.
    Bindings(oneshot::Sender<Vec<BindingReport>>),
    /// An operator removes the bindings; how many there were.
    Clear(oneshot::Sender<usize>),
    /// What became of a branch of a fork.
    Outcome {
        /// The fork.
        fork: u64,
        /// The branch.
        branch: usize,
        /// The end.
        outcome: Result<Box<SipMessage>, NoResponse>,
    },
    /// A watcher waits for a decision.
    MustDecide(Address),
}
