//! What a shard asks for and says.

use bytes::Bytes;
use tombolo_budget::Full;
use tombolo_presence::{Address, Subscription};
use tombolo_sip::method::Method;

use crate::{
    owner::{
        input::{MessageId, PersistToken, ReplyTo, RequestId},
        keys::{LaneKey, PeerKey},
    },
    request::RequestDraft,
    rows::Row,
};

/// One thing to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// The lane owes something: ask its session or peer for credit. Not said again before an [`super::Input::Credit`], or
    /// before the peer is back: a wish for a peer that is away may be dropped.
    Want {
        /// The lane.
        lane: LaneKey,
        /// About how many bytes are owed.
        owed_bytes: usize,
    },
    /// Stanzas for the stream of a session's lane. Answers each [`super::Input::Credit`], with nothing if nothing was
    /// owed.
    Stanzas {
        /// The lane.
        lane: LaneKey,
        /// How many.
        count: u32,
        /// The stanzas, one behind the other, in the namespace `jabber:server`.
        bytes: Vec<u8>,
    },
    /// NOTIFYs for the flow of a reliable peer. Answers each [`super::Input::Credit`], with nothing if nothing was
    /// owed. Each branch is [`NOTIFY_BRANCH`], a token, `.` and the CSeq.
    Notifies {
        /// The peer.
        peer: PeerKey,
        /// How many.
        count: u32,
        /// The requests, one behind the other.
        bytes: Vec<u8>,
    },
    /// Notes were cut so that NOTIFYs fit into datagrams. If the peer gets a stream, which it says by
    /// [`super::Input::PeerChanged`], they are sent whole.
    WantStream {
        /// The peer.
        peer: PeerKey,
    },
    /// A front end does not know a dialog of ours any more (481): every shard should look whether it knows the others, and
    /// is told so by [`super::Input::PeerForgot`].
    Forgotten {
        /// The front end.
        peer: PeerKey,
    },
    /// A front end refused a NOTIFY with 503: it is to be asked whether it takes anything at all.
    Suspect {
        /// The front end.
        peer: PeerKey,
    },
    /// A final response, rendered whole.
    Respond {
        /// Who asked.
        peer: PeerKey,
        /// Which request.
        reply: ReplyTo,
        /// The response.
        bytes: Vec<u8>,
    },
    /// A request for a client transaction of the peer; its end comes back as [`super::Input::Outcome`].
    Request {
        /// Who shall get it.
        peer: PeerKey,
        /// Names it.
        request: RequestId,
        /// The request, less Via and the host of Contact.
        draft: Box<RequestDraft>,
    },
    /// A message stanza for a session; its end comes back as [`super::Input::MessageFate`] when it has an id.
    Message {
        /// The session's lane.
        lane: LaneKey,
        /// Names it; `None` for what nobody waits for (errors, notices).
        message: Option<MessageId>,
        /// The stanza.
        bytes: Bytes,
    },
    /// A message that was handed over and not written is not to leave any more: its sender is told so.
    Withdraw {
        /// The session's lane.
        lane: LaneKey,
        /// Names it.
        message: MessageId,
    },
    /// A MESSAGE for all phones of a built-in user; its end comes back as [`super::Input::Delivered`].
    Deliver {
        /// The user.
        user: Address,
        /// The phone that is meant, if one is (`gr`).
        device: Option<Box<str>>,
        /// Names it.
        message: MessageId,
        /// The request, less Via, Request-URI and the host of Contact.
        draft: Box<RequestDraft>,
    },
    /// Rows to be stored, all or none; answered by [`super::Input::Persisted`].
    Persist {
        /// Names them.
        token: PersistToken,
        /// The rows.
        rows: Vec<Row>,
        /// Nothing is refused if they cannot be stored: the store keeps them until they can.
        is_kept: bool,
    },
    /// A watcher waits for the user's decision.
    MustDecide {
        /// The local user.
        user: Address,
        /// Who asked.
        watcher: Address,
    },
    /// The answer to [`super::Input::Decide`]: whom it concerned.
    Decided {
        /// Who asked.
        asker: u64,
        /// The watchers that had waited.
        watchers: Vec<Address>,
    },
    /// How many pairs this shard has with contacts of a domain; said when it changes, and after each new policy.
    PartnerPairs {
        /// The domain.
        domain: Box<str>,
        /// So many.
        pairs: u32,
    },
    /// The answer to [`super::Input::Ask`].
    Report {
        /// Who asked.
        asker: u64,
        /// The answer.
        report: Report,
    },
    /// Something to count and log.
    Event(OwnerEvent),
}

/// What our NOTIFY branches begin with, before the dialog's token.
pub const NOTIFY_BRANCH: &str = "z9hG4bKn";

/// What an operator is told.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Local users with state here.
    pub users: usize,
    /// Pairs of a local user and a contact.
    pub pairs: usize,
    /// Live dialogs in which we notify.
    pub notifier_dialogs: usize,
    /// Live dialogs in which we are the subscriber.
    pub subscriber_dialogs: usize,
    /// Different views.
    pub views: usize,
    /// The asked user's relations.
    pub relations: Vec<Relation>,
    /// The asked user's own state, for people.
    pub state: Option<String>,
}

/// One relation of a local user.
#[derive(Debug, Clone)]
pub struct Relation {
    /// The contact.
    pub contact: Address,
    /// Seen from the local user.
    pub subscription: Subscription,
    /// The watcher waits for the user's decision.
    pub is_waiting: bool,
    /// What the contact says of itself, for people.
    pub heard: String,
}

/// Something to count and log; addresses are redacted where it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerEvent {
    /// A stanza was refused or dropped, by a stated rule.
    StanzaRefused {
        /// Why, in the words of the log.
        reason: &'static str,
    },
    /// A request was refused.
    RequestRefused {
        /// Its method.
        method: Option<Method>,
        /// Whom it spoke for.
        identity: Address,
        /// The status code.
        status: u16,
        /// Why, in the words of the log.
        reason: &'static str,
    },
    /// Notes were cut, since the document is too large for UDP and the watcher has no stream.
    NotesCut {
        /// The watcher.
        watcher: Address,
    },
    /// A presence body could not be read.
    BadPidf,
    /// A subscription changed.
    SubscriptionChanged {
        /// The local user.
        user: Address,
        /// The contact.
        contact: Address,
        /// Afterwards.
        to: Subscription,
    },
    /// A message crossed toward SIP.
    MessageToSip,
    /// A message crossed toward XMPP.
    MessageToXmpp,
    /// Presence left toward XMPP watchers, so many stanzas.
    PresenceToXmpp(u32),
    /// Presence left toward SIP watchers, so many NOTIFYs.
    PresenceToSip(u32),
    /// A SIP user was not told why a message failed late: a program sent it by itself.
    CauseLeftOut,
    /// Rows could not be stored.
    StoreFailed,
    /// Something was refused, or cut, since it found no room in a budget.
    OverBudget {
        /// The budget.
        full: Full,
        /// The entry of the partner that it came from or was meant for.
        partner: Box<str>,
        /// The local user.
        user: Address,
    },
}
