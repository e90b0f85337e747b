//! What is answered: the shapes of the JSON that `--json` prints, and that the command line reads.

use serde::{Deserialize, Serialize};
use tombolo_policy::Explanation;

/// The state of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// `all-in-one`, `edge` or `gateway`.
    pub role: String,
    /// It takes traffic.
    pub is_ready: bool,
    /// `ready`, `degraded`, or why it takes no traffic: `starting`, `unready`.
    #[serde(default)]
    pub readiness: String,
    /// The parts of the process and how each is doing.
    #[serde(default)]
    pub parts: Vec<PartAnswer>,
    /// When the process was started, in UTC (RFC 3339).
    #[serde(default)]
    pub since: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Partners, one each: those in trouble first, then by name.
    #[serde(default)]
    pub partners: Vec<PartnerStateAnswer>,
    /// Links between edge and gateway; none in role all-in-one.
    #[serde(default)]
    pub links: Vec<LinkAnswer>,
    /// Users with a registered phone.
    #[serde(default)]
    pub registered_users: usize,
    /// Contacts that phones have registered.
    #[serde(default)]
    pub registrations: usize,
    /// XMPP streams.
    pub streams: Vec<StreamAnswer>,
    /// Federated sessions.
    pub sessions: Vec<SessionAnswer>,
    /// Front ends, in the order of their domains.
    #[serde(default)]
    pub front_ends: Vec<FrontEndAnswer>,
    /// Local users with state.
    pub users: usize,
    /// Pairs of a local user and a contact.
    pub pairs: usize,
    /// Dialogs in which we notify.
    pub notifier_dialogs: usize,
    /// Dialogs in which we are the subscriber.
    pub subscriber_dialogs: usize,
    /// SIP next hops.
    pub peers: usize,
    /// SIP connections and datagram flows that belong to one.
    pub flows: usize,
    /// Inputs that wait for shards.
    pub waiting_inputs: usize,
    /// Inputs that were given back to their connections.
    pub refused_inputs: u64,
    /// Our certificates, the first to run out first.
    #[serde(default)]
    pub certificates: Vec<CertificateAnswer>,
}

/// A part of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartAnswer {
    /// Its name, as in the metric `tombolo_part_state`.
    pub name: String,
    /// `up`, `noted`, `degraded` or `unready`.
    pub state: String,
    /// What is wrong and what to do; empty where there is nothing to say.
    pub note: String,
}

/// How a partner is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerStateAnswer {
    /// Its domain.
    pub domain: String,
    /// `lost`, `doubtful`, `connecting`, `connected` or `idle`: the worst of its sessions.
    pub state: String,
    /// Since when, in UTC (RFC 3339); nothing while nothing was ever said to it.
    pub since: Option<String>,
    /// Seconds since then.
    pub state_seconds: Option<u64>,
    /// Seconds until the next dial.
    pub next_dial_seconds: Option<u64>,
    /// Why there is no stream to it.
    pub cause: Option<String>,
    /// The domain of ours that this concerns, where the partner is in another state for another one.
    pub local: Option<String>,
    /// Streams that it opened to us.
    pub incoming: usize,
    /// Streams that we opened to it.
    pub outgoing: usize,
    /// How it is proved and protected on these, each way once: `sasl-external over TLSv1.3`.
    pub proofs: Vec<String>,
    /// Messages that wait for a stream.
    pub waiting_messages: usize,
}

/// A link between edge and gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAnswer {
    /// The other end: `edge HOST:PORT`, or `gateway`.
    pub peer: String,
    /// `up`, `without-table`, `broken` or `down`.
    pub state: String,
    /// Since when, in UTC (RFC 3339).
    pub since: String,
    /// Seconds since then.
    pub state_seconds: u64,
    /// The address of the other end while connected.
    pub remote: Option<String>,
    /// Frames that the other end has not acknowledged.
    pub waiting_frames: usize,
    /// Octets of them.
    pub waiting_bytes: usize,
    /// Why it is not up.
    pub cause: Option<String>,
    /// Seconds until the next attempt.
    pub next_attempt_seconds: Option<u64>,
}

/// One of our certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAnswer {
    /// The domain, or `link`.
    pub name: String,
    /// Whole days until it runs out; negative once it has.
    pub days_left: i64,
    /// The last day on which it holds, `YYYY-MM-DD` in UTC.
    #[serde(default)]
    pub until: String,
    /// Where it was read.
    #[serde(default)]
    pub file: String,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// What was read again and is in use now.
    pub taken: Vec<String>,
    /// Parts of the settings that differ, which a restart would bring in.
    pub needs_restart: Vec<String>,
    /// What could not be used: there everything is as it was.
    pub errors: Vec<String>,
}

/// One XMPP stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamAnswer {
    /// Its number.
    pub stream: u64,
    /// `incoming` or `outgoing`.
    pub direction: String,
    /// Proved pairs, `ours ← theirs` or `ours → theirs`, as stanzas flow.
    pub pairs: Vec<String>,
    /// How the first pair was proved: `sasl-external`, `tls-dialback` or `plain-dialback`.
    pub proof: String,
    /// Its TLS; nothing in the clear.
    pub tls: Option<TlsAnswer>,
    /// When it came up, in UTC (RFC 3339).
    #[serde(default)]
    pub since: String,
    /// Seconds since then.
    #[serde(default)]
    pub up_seconds: u64,
}

/// The TLS of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TlsAnswer {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite by its registered name.
    pub cipher: String,
    /// SHA-256 of the partner's certificate in hexadecimal digits; empty when it showed none.
    pub certificate: String,
    /// Whole days until that certificate runs out.
    pub certificate_days_left: Option<i64>,
    /// The last day on which it holds, `YYYY-MM-DD` in UTC.
    #[serde(default)]
    pub certificate_until: Option<String>,
}

/// One federated session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// Our domain.
    pub local: String,
    /// The partner's.
    pub partner: String,
    /// There is a stream to it.
    pub is_connected: bool,
    /// It cannot be reached.
    pub is_lost: bool,
    /// `lost`, `doubtful`, `connecting`, `connected` or `idle`.
    #[serde(default)]
    pub state: String,
    /// Since when, in UTC (RFC 3339).
    #[serde(default)]
    pub since: String,
    /// Seconds since then.
    #[serde(default)]
    pub state_seconds: u64,
    /// Seconds until the next dial.
    #[serde(default)]
    pub next_dial_seconds: Option<u64>,
    /// Messages that wait.
    pub waiting_messages: usize,
    /// Stanzas that left.
    pub stanzas_out: u64,
    /// Why the last stream ended or the last dial failed.
    pub last_failure: Option<String>,
}

/// The front end of a local domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontEndAnswer {
    /// The domain.
    pub domain: String,
    /// `up`, `doubtful` or `lost`.
    pub state: String,
    /// Since when, in UTC (RFC 3339).
    #[serde(default)]
    pub since: String,
    /// Seconds since then.
    pub state_seconds: u64,
    /// Why it is not up.
    pub cause: Option<String>,
    /// The address that is spoken to.
    pub remote: Option<String>,
    /// Why the last dial gave no connection; only while it is not up.
    pub last_failure: Option<String>,
    /// Seconds until the next dial; only while there is neither a connection nor a dial.
    pub next_dial_seconds: Option<u64>,
}

/// A partner entry, and how it is at the moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartnerAnswer {
    /// Its domain.
    pub domain: String,
    /// Further domains.
    pub further_domains: Vec<String>,
    /// `federated`, `public-verified` or `public-unverified`.
    pub kind: String,
    /// Allowed methods, in order.
    pub authenticate: Vec<String>,
    /// Where it is dialled instead of by DNS.
    pub proxy: Option<String>,
    /// Its sessions.
    pub sessions: Vec<SessionAnswer>,
    /// Its streams.
    #[serde(default)]
    pub streams: Vec<StreamAnswer>,
}

/// A user of a built-in home.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserAnswer {
    /// The address.
    pub aor: String,
    /// `ask`, `partner` or `all`.
    pub approve: String,
}

/// Who waits for a user's decision, and all of the user's relations.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingAnswer {
    /// The user.
    pub aor: String,
    /// Watchers that wait.
    pub pending: Vec<String>,
    /// All relations.
    pub relations: Vec<RelationAnswer>,
    /// The user's own state.
    pub state: Option<String>,
}

/// One relation of a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RelationAnswer {
    /// The contact.
    pub contact: String,
    /// One of the nine subscription states.
    pub subscription: String,
    /// What the contact says of itself.
    pub heard: String,
}

/// Whom a decision concerned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionAnswer {
    /// The watchers.
    pub watchers: Vec<String>,
}

/// What one user may do toward another, and how the two stand.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainAnswer {
    /// Who acts.
    pub from: String,
    /// Toward whom.
    pub to: String,
    /// Whether `from` may see `to`'s presence.
    pub watch: CapabilityAnswer,
    /// Whether `from` may write to `to`.
    pub message: CapabilityAnswer,
    /// The subscription state of the local user's pair, one of the nine of RFC 6121 §A; `null` without one.
    pub subscription: Option<String>,
    /// What the contact last said of itself.
    pub heard: Option<String>,
    /// What else the asker should know, as that a user does not exist.
    pub notes: Vec<String>,
}

/// What the policy says to a new request, and what was decided before.
#[derive(Debug, Clone, Serialize)]
pub struct CapabilityAnswer {
    /// Rule by rule.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// What was decided about this watcher already; it goes on whatever the rules say to a new request, unless they
    /// deny it.
    pub standing: Option<String>,
}

/// The registered phones of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationsAnswer {
    /// The user.
    pub aor: String,
    /// How watchers are approved.
    pub approve: String,
    /// The bindings, the oldest first.
    pub bindings: Vec<BindingAnswer>,
}

/// One binding of a user (RFC 3261 §10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingAnswer {
    /// The Contact URI.
    pub contact: String,
    /// The phone's `+sip.instance`, else the Call-ID of its REGISTER.
    pub instance: String,
    /// Where the phone spoke from last.
    pub remote: String,
    /// `udp`, or `stream` for TCP and TLS.
    pub transport: String,
    /// The phone registered by UDP, or its connection is up.
    pub is_reachable: bool,
    /// When the binding expires, in UTC (RFC 3339).
    #[serde(default)]
    pub expires: String,
    /// Seconds until then.
    pub expires_seconds: u64,
}
