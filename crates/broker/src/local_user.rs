//! One user of the built-in home: which phones are registered, and what becomes of messages to them. Pure.
//!
//! REGISTERs, messages, outcomes and time go in; responses, requests to phones, fates and what is to be stored come out.
//! A message goes to every phone as a request of its own; the first 2xx is the outcome, without one the best by RFC 3261
//! §16.7 step 6.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tombolo_budget::{Account, Charge};
use tombolo_edge::{FlowFacts, Transport};
use tombolo_interwork::{
    address::address_of_uri,
    error::NoResponse,
    head_len,
    owner::{MessageId, PeerKey},
    request::RequestDraft,
};
use tombolo_sip::uri::UriRef;

use crate::session::ShardIndex;

/// Where a phone speaks from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// By UDP: it is reached there without a connection.
    pub is_datagram: bool,
    /// Its address.
    pub remote: SocketAddr,
}

impl From<&FlowFacts> for Origin {
    fn from(facts: &FlowFacts) -> Self {
        Self { is_datagram: facts.transport == Transport::Udp, remote: facts.remote }
    }
}

/// One registered phone (RFC 3261 §10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its Contact URI.
    pub contact: String,
    /// The peer by which it is reached.
    pub peer: PeerKey,
    /// Call-ID of its REGISTER.
    pub call_id: String,
    /// CSeq of its REGISTER.
    pub cseq: u32,
    /// When it runs out.
    pub expires_at: Instant,
    /// Where it spoke from last.
    pub origin: Origin,
}

/// What a REGISTER asks for, read and authenticated.
#[derive(Debug, Clone)]
pub struct Register {
    /// The peer by which it came.
    pub peer: PeerKey,
    /// Where it came from.
    pub origin: Origin,
    /// Call-ID.
    pub call_id: String,
    /// CSeq number.
    pub cseq: u32,
    /// Contact URIs with what each asks for, in seconds; none only asks what is registered.
    pub contacts: Vec<(String, u32)>,
    /// `Contact: *` with `Expires: 0`.
    pub removes_all: bool,
    /// The phone names its instance, which has one Contact at a time (RFC 5626 §6).
    pub has_instance: bool,
}

/// How a REGISTER is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Registered {
    /// 200, with all bindings and the seconds that each has left.
    Bindings(Vec<(String, u64)>),
    /// 423: an interval below the least.
    TooBrief,
    /// 500: the CSeq of this Call-ID is not above the last.
    OutOfOrder,
    /// 403: more phones than a user may have.
    TooMany,
}

/// What the user asks for, in order.
#[derive(Debug)]
pub enum UserOutput {
    /// Send a request to a phone.
    Request {
        /// The phone.
        peer: PeerKey,
        /// Its Contact URI.
        uri: String,
        /// The fork.
        fork: u64,
        /// Which branch of it.
        branch: usize,
        /// The request.
        draft: Box<RequestDraft>,
    },
    /// Store a binding.
    Keep(Binding),
    /// A binding is gone: store that.
    Forget {
        /// Its Contact URI.
        contact: String,
    },
    /// No binding is left of a phone: it took the last one out, or did not register again.
    Lapsed(PeerKey),
    /// A message's fate.
    Delivered {
        /// The shard that sent it.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
        /// The status for its sender; `None` when there is no phone to ask.
        status: Option<u16>,
    },
    /// A message finds no room, since too many are on their way.
    NotTaken {
        /// The shard that sent it.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
    },
}

#[derive(Debug)]
struct Fork {
    number: u64,
    shard: ShardIndex,
    message: MessageId,
    /// One a branch: its final status.
    branches: Vec<Option<u16>>,
    is_answered: bool,
    /// For the heads of its requests; their body is one for all, and paid for by the shard.
    _held: Charge,
}

/// One user. See the [module](self).
#[derive(Debug)]
pub struct LocalUser {
    bindings: Vec<Binding>,
    forks: Vec<Fork>,
    next_fork: u64,
    /// What messages to this user's phones hold.
    own: Arc<Account>,
    /// What messages to all users' phones hold.
    all: Arc<Account>,
    out: VecDeque<UserOutput>,
}

impl LocalUser {
    /// A user without phones. Messages on their way to phones are paid for from `all`, which all users share.
    pub fn new(all: Arc<Account>) -> Self {
        Self {
            bindings: Vec::new(),
            forks: Vec::new(),
            next_fork: 0,
            own: Account::new("forks_per_user", FORK_OCTETS_OF_USER),
            all,
            out: VecDeque::new(),
        }
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front()
    }

    /// When [`LocalUser::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.bindings.iter().map(|binding| binding.expires_at).min()
    }

    /// True when the user owns nothing: the actor may end.
    pub fn is_idle(&self) -> bool {
        self.bindings.is_empty() && self.forks.is_empty()
    }

    /// The phones.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Takes a REGISTER: all of it or nothing (RFC 3261 §10.3).
    pub fn handle_register(&mut self, register: &Register, now: Instant) -> Registered {
        self.handle_timeout(now);
        let is_stale =
            |binding: &Binding| binding.call_id == register.call_id && binding.cseq >= register.cseq;
        if self.bindings.iter().any(is_stale) && (register.removes_all || !register.contacts.is_empty()) {
            return Registered::OutOfOrder;
        }
        if register.contacts.iter().any(|(_, expires)| *expires > 0 && *expires < LEAST_EXPIRES) {
            return Registered::TooBrief;
        }
        let mut bindings = if register.removes_all { Vec::new() } else { self.bindings.clone() };
        for (contact, expires) in &register.contacts {
            bindings.retain(|binding| binding.contact != *contact);
            if *expires > 0 {
                if register.has_instance {
                    let is_named = |binding: &Binding| {
                        register.contacts.iter().any(|(named, _)| *named == binding.contact)
                    };
                    bindings.retain(|binding| binding.peer != register.peer || is_named(binding));
                }
                bindings.push(Binding {
                    contact: contact.clone(),
                    peer: register.peer.clone(),
                    call_id: register.call_id.clone(),
                    cseq: register.cseq,
                    expires_at: now + Duration::from_secs(u64::from((*expires).min(MOST_EXPIRES))),
                    origin: register.origin,
                });
            }
        }
        if bindings.len() > MOST_BINDINGS {
            return Registered::TooMany;
        }
        for binding in bindings.iter().filter(|binding| !self.bindings.contains(binding)) {
            self.out.push_back(UserOutput::Keep(binding.clone()));
        }
        let is_gone = |old: &&Binding| bindings.iter().all(|binding| binding.contact != old.contact);
        for Binding { contact, .. } in self.bindings.iter().filter(is_gone) {
            self.out.push_back(UserOutput::Forget { contact: contact.clone() });
        }
        let mut gone: Vec<PeerKey> = Vec::new();
        for Binding { peer, .. } in std::mem::replace(&mut self.bindings, bindings) {
            if self.bindings.iter().all(|binding| binding.peer != peer) && !gone.contains(&peer) {
                gone.push(peer);
            }
        }
        self.out.extend(gone.into_iter().map(UserOutput::Lapsed));
        let left = |binding: &Binding| binding.expires_at.saturating_duration_since(now).as_secs();
        Registered::Bindings(self.bindings.iter().map(|b| (b.contact.clone(), left(b))).collect())
    }

    /// Takes back what an earlier life of the process stored.
    pub fn restore(&mut self, bindings: Vec<Binding>) {
        self.bindings = bindings;
    }

    /// Which phone speaks, by a request that proved its user and came by a flow of nobody: the one that registered from
    /// there, else the one whose Contact the request names. It is met there from now on.
    pub fn find_phone(&mut self, origin: Origin, contact: Option<&str>, now: Instant) -> Option<PeerKey> {
        self.handle_timeout(now);
        let from_there = self.bindings.iter().position(|binding| binding.origin == origin);
        let at = from_there
            .or_else(|| self.bindings.iter().position(|binding| Some(&*binding.contact) == contact))?;
        let binding = &mut self.bindings[at];
        if std::mem::replace(&mut binding.origin, origin) != origin {
            self.out.push_back(UserOutput::Keep(binding.clone()));
        }
        Some(binding.peer.clone())
    }

    /// Time passed: phones that did not register again are gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        let gone: Vec<Binding> = self.bindings.extract_if(.., |binding| binding.expires_at <= now).collect();
        for Binding { contact, peer, .. } in gone {
            self.out.push_back(UserOutput::Forget { contact });
            if self.bindings.iter().all(|binding| binding.peer != peer) {
                self.out.push_back(UserOutput::Lapsed(peer));
            }
        }
    }

    /// A message for the phone that is `device`, else for all. Without one the sender learns that nobody is there.
    pub fn handle_message(
        &mut self,
        shard: ShardIndex,
        message: MessageId,
        device: Option<&str>,
        draft: &RequestDraft,
        now: Instant,
    ) {
        self.handle_timeout(now);
        if self.bindings.is_empty() {
            return self.out.push_back(UserOutput::Delivered { shard, message, status: None });
        }
        let is_meant = |binding: &&Binding| device.is_some_and(|device| is_device(binding, device));
        let meant: Vec<&Binding> = match self.bindings.iter().find(is_meant) {
            Some(binding) => vec![binding],
            None => self.bindings.iter().collect(),
        };
        // A request's head is kept by its peer, and written once.
        let octets = 2 * draft.head_octets() * meant.len();
        let held = match self.forks.len() < MOST_FORKS {
            true => Charge::take(&[&self.own, &self.all], octets).ok(),
            false => None,
        };
        let Some(held) = held else {
            return self.out.push_back(UserOutput::NotTaken { shard, message });
        };
        self.next_fork += 1;
        let number = self.next_fork;
        let mut branches = vec![None; meant.len()];
        for (branch, binding) in meant.into_iter().enumerate() {
            let len = head_len(draft) + binding.contact.len() + draft.body.len();
            if binding.origin.is_datagram && len > MOST_DATAGRAM_BYTES {
                branches[branch] = Some(513);
                continue;
            }
            let mut draft = Box::new(draft.clone());
            // Each branch is a request of its own: it must not look like a copy of another one.
            draft.call_id = format!("{}.{branch}", draft.call_id);
            self.out.push_back(UserOutput::Request {
                peer: binding.peer.clone(),
                uri: binding.contact.clone(),
                fork: number,
                branch,
                draft,
            });
        }
        self.forks.push(Fork { number, shard, message, branches, is_answered: false, _held: held });
        self.end_if_decided(self.forks.len() - 1);
    }

    /// A phone answered, or did not.
    pub fn handle_outcome(&mut self, fork: u64, branch: usize, outcome: Result<u16, NoResponse>) {
        let Some(at) = self.forks.iter().position(|known| known.number == fork) else { return };
        let fork = &mut self.forks[at];
        let Some(slot) = fork.branches.get_mut(branch) else { return };
        let status = outcome.unwrap_or_else(NoResponse::status);
        *slot = Some(status);
        let (shard, message) = (fork.shard, fork.message);
        if (200..300).contains(&status) && !std::mem::replace(&mut fork.is_answered, true) {
            self.out.push_back(UserOutput::Delivered { shard, message, status: Some(200) });
        }
        self.end_if_decided(at);
    }

    /// Ends a fork whose branches have all ended.
    fn end_if_decided(&mut self, at: usize) {
        let Some(fork) = self.forks.get(at).filter(|fork| fork.branches.iter().all(Option::is_some)) else {
            return;
        };
        if !fork.is_answered {
            let status = best(fork.branches.iter().flatten().copied());
            let (shard, message) = (fork.shard, fork.message);
            self.out.push_back(UserOutput::Delivered { shard, message, status: Some(status) });
        }
        self.forks.swap_remove(at);
    }
}

/// True when a binding is that device's: by the GRUU that its Contact is, or by its instance (RFC 5627 §3.1).
fn is_device(binding: &Binding, device: &str) -> bool {
    let uri = UriRef::parse(&binding.contact).ok().and_then(|contact| address_of_uri(&contact).ok());
    let instance = match &binding.peer {
        PeerKey::Phone(phone) => phone.instance.trim_matches(['<', '>']) == device,
        PeerKey::FrontEnd(_) => false,
    };
    instance || uri.is_some_and(|uri| uri.device.as_deref() == Some(device))
}

/// The best of the final responses (RFC 3261 §16.7 step 6): 6xx, else the lowest class; 503 says nothing about us.
fn best(statuses: impl Iterator<Item = u16>) -> u16 {
    let rank = |status: &u16| match status {
        600..700 => 0,
        300..400 => 1,
        // What the sender could act on goes before a plain "no".
        401 | 407 | 415 | 420 | 484 => 2,
        // Silence of one phone says less than an answer of another.
        408 => 5,
        400..500 => 3,
        _ => 4,
    };
    let best = statuses.min_by_key(rank).unwrap_or(480);
    match best {
        // Nobody answered: the user is not there. 408 is never sent to a non-INVITE (RFC 4320 §4.2).
        408 | 503 => 480,
        401 | 407 => 403,
        status => status,
    }
}

/// The shortest registration, in seconds.
pub const LEAST_EXPIRES: u32 = 60;
/// The longest registration, in seconds.
pub const MOST_EXPIRES: u32 = 3600;
/// Phones of one user (RFC 5393 bounds what one message becomes).
const MOST_BINDINGS: usize = 10;
/// A MESSAGE that is longer, with its head, goes by no datagram (RFC 3428 §8).
const MOST_DATAGRAM_BYTES: usize = 1300;
/// Messages to one user that are on their way.
const MOST_FORKS: usize = 256;
/// Octets of the heads of their requests.
const FORK_OCTETS_OF_USER: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use tombolo_interwork::owner::PhoneKey;
    use tombolo_presence::Address;

    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn peer(name: &str) -> PeerKey {
        let aor = Address::from_prepared("alice@sip.example").expect("legal");
        PeerKey::Phone(Arc::new(PhoneKey { aor, instance: name.into() }))
    }

    fn register(name: &str, cseq: u32, expires: u32) -> Register {
        Register {
            peer: peer(name),
            origin: origin(9),
            call_id: name.into(),
            cseq,
            contacts: vec![(format!("sip:alice@{name}"), expires)],
            removes_all: false,
            has_instance: false,
        }
    }

    fn origin(port: u16) -> Origin {
        Origin { is_datagram: true, remote: ([192, 0, 2, 1], port).into() }
    }

    fn draft() -> RequestDraft {
        RequestDraft {
            method: "MESSAGE",
            uri: String::new(),
            routes: Vec::new(),
            from: String::new(),
            to: String::new(),
            call_id: "c".into(),
            cseq: 1,
            max_forwards: 70,
            contact_user: None,
            headers: Vec::new(),
            content_type: None,
            body: bytes::Bytes::new(),
        }
    }

    fn statuses(user: &mut LocalUser) -> Vec<Option<u16>> {
        std::iter::from_fn(|| user.poll_output())
            .filter_map(|output| match output {
                UserOutput::Delivered { status, .. } => Some(status),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn sip_d_21_register_fetch_and_remove() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        let one = vec![("sip:alice@a".to_owned(), 600)];
        assert_eq!(user.handle_register(&register("a", 1, 600), now), Registered::Bindings(one.clone()));
        let fetch = Register { contacts: Vec::new(), cseq: 2, ..register("a", 2, 0) };
        assert_eq!(user.handle_register(&fetch, now), Registered::Bindings(one));
        assert_eq!(user.handle_register(&register("a", 1, 600), now), Registered::OutOfOrder);
        assert_eq!(user.handle_register(&register("a", 2, 5), now), Registered::TooBrief);
        assert_eq!(user.handle_register(&register("a", 3, 0), now), Registered::Bindings(Vec::new()));
        assert!(user.is_idle());
    }

    #[test]
    fn a_phone_that_does_not_register_again_is_gone() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        user.handle_register(&register("a", 1, 60), now);
        user.handle_timeout(now + Duration::from_secs(61));
        assert!(user.bindings().is_empty());
    }

    #[test]
    fn what_is_registered_is_stored_and_what_is_gone_is_taken_out() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        let outputs = |user: &mut LocalUser| -> Vec<String> {
            let name = |output| match output {
                UserOutput::Keep(binding) => format!("keep {} {}", binding.contact, binding.cseq),
                UserOutput::Forget { contact } => format!("forget {contact}"),
                UserOutput::Lapsed(_) => "lapsed".to_owned(),
                other => format!("{other:?}"),
            };
            std::iter::from_fn(|| user.poll_output()).map(name).collect()
        };
        user.handle_register(&register("a", 1, 60), now);
        user.handle_register(&register("b", 1, 600), now);
        assert_eq!(outputs(&mut user), ["keep sip:alice@a 1", "keep sip:alice@b 1"]);
        user.handle_register(&register("b", 2, 600), now);
        assert_eq!(outputs(&mut user), ["keep sip:alice@b 2"], "only what changed");
        let fetch = Register { contacts: Vec::new(), ..register("a", 9, 0) };
        user.handle_register(&fetch, now);
        user.handle_register(&register("b", 2, 600), now);
        assert!(outputs(&mut user).is_empty(), "asking and a stale REGISTER change nothing");
        user.handle_timeout(now + Duration::from_secs(60));
        assert_eq!(outputs(&mut user), ["forget sip:alice@a", "lapsed"]);
        let all = Register { removes_all: true, contacts: Vec::new(), ..register("b", 3, 0) };
        user.handle_register(&all, now + Duration::from_secs(61));
        assert_eq!(outputs(&mut user), ["forget sip:alice@b", "lapsed"]);
        // By Expires 0 too, once the last one is out.
        let two = vec![("sip:alice@a".to_owned(), 60), ("sip:alice@a;x".to_owned(), 60)];
        user.handle_register(&Register { contacts: two, ..register("a", 1, 60) }, now);
        outputs(&mut user);
        user.handle_register(&register("a", 2, 0), now);
        assert_eq!(outputs(&mut user), ["forget sip:alice@a"]);
        let rest = vec![("sip:alice@a;x".to_owned(), 0)];
        user.handle_register(&Register { contacts: rest, ..register("a", 3, 0) }, now);
        assert_eq!(outputs(&mut user), ["forget sip:alice@a;x", "lapsed"]);
    }

    #[test]
    fn a_new_contact_of_an_instance_takes_the_place_of_its_old_one() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        user.handle_register(&register("other", 1, 600), now);
        for n in 0..20 {
            let contacts = vec![(format!("sip:alice@a:{n}"), 600)];
            let call_id = format!("call-{n}");
            let again = Register { contacts, call_id, has_instance: true, ..register("a", 1, 600) };
            assert!(matches!(user.handle_register(&again, now), Registered::Bindings(_)), "{n}");
        }
        let contacts: Vec<_> = user.bindings().iter().map(|binding| &*binding.contact).collect();
        assert_eq!(contacts, ["sip:alice@other", "sip:alice@a:19"]);
        let gone: Vec<_> = std::iter::from_fn(|| user.poll_output()).collect();
        assert!(!gone.iter().any(|output| matches!(output, UserOutput::Lapsed(_))), "it is there still");
    }

    /// The Contacts to which a message went.
    fn targets(user: &mut LocalUser) -> Vec<String> {
        std::iter::from_fn(|| user.poll_output())
            .filter_map(|output| match output {
                UserOutput::Request { uri, .. } => Some(uri),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_message_for_a_device_rings_that_one_and_all_where_nobody_is_it() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        let gruu = vec![("sip:alice@sip.example;gr=desk".to_owned(), 600)];
        user.handle_register(&Register { contacts: gruu, ..register("a", 1, 600) }, now);
        user.handle_register(&register("b", 1, 600), now);
        for (device, wanted) in [
            (Some("desk"), &["sip:alice@sip.example;gr=desk"][..]),
            (Some("b"), &["sip:alice@b"]),
            (Some("c"), &["sip:alice@sip.example;gr=desk", "sip:alice@b"]),
            (None, &["sip:alice@sip.example;gr=desk", "sip:alice@b"]),
        ] {
            user.handle_message(0, MessageId(1), device, &draft(), now);
            assert_eq!(targets(&mut user), wanted, "{device:?}");
        }
    }

    #[test]
    fn a_long_message_goes_to_phones_by_streams_and_to_none_by_datagrams() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        let long = RequestDraft { body: vec![b'x'; 5000].into(), ..draft() };
        user.handle_register(&register("a", 1, 600), now);
        user.handle_message(0, MessageId(1), None, &long, now);
        assert_eq!(statuses(&mut user), [Some(513)]);
        let by_stream = Origin { is_datagram: false, ..origin(10) };
        user.handle_register(&Register { origin: by_stream, ..register("b", 1, 600) }, now);
        user.handle_message(0, MessageId(2), None, &long, now);
        assert_eq!(targets(&mut user), ["sip:alice@b"]);
        user.handle_outcome(2, 1, Ok(200));
        assert_eq!(statuses(&mut user), [Some(200)]);
        assert!(user.forks.is_empty());
        let fits = RequestDraft { body: vec![b'x'; 900].into(), ..draft() };
        user.handle_message(0, MessageId(3), None, &fits, now);
        assert_eq!(targets(&mut user).len(), 2);
    }

    #[test]
    fn a_phone_is_known_by_where_it_registered_from_or_by_its_contact() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        user.handle_register(&register("a", 1, 60), now);
        user.handle_register(&Register { origin: origin(10), ..register("b", 1, 60) }, now);
        assert_eq!(user.find_phone(origin(10), None, now), Some(peer("b")));
        assert_eq!(user.find_phone(origin(11), None, now), None);
        assert_eq!(user.find_phone(origin(11), Some("sip:alice@c"), now), None);
        assert_eq!(user.find_phone(origin(11), Some("sip:alice@a"), now), Some(peer("a")));
        assert_eq!(user.find_phone(origin(11), None, now), Some(peer("a")), "it moved there");
        let by_stream = Origin { is_datagram: false, ..origin(11) };
        assert_eq!(user.find_phone(by_stream, None, now), None, "another transport is another phone");
        assert_eq!(user.find_phone(origin(11), None, now + Duration::from_secs(60)), None, "it ran out");
    }

    #[test]
    fn the_first_success_is_the_outcome_of_a_fork() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        user.handle_register(&register("a", 1, 60), now);
        user.handle_register(&register("b", 1, 60), now);
        user.handle_message(0, MessageId(1), None, &draft(), now);
        user.handle_outcome(1, 0, Ok(486));
        assert!(statuses(&mut user).is_empty());
        user.handle_outcome(1, 1, Ok(200));
        assert_eq!(statuses(&mut user), [Some(200)]);
    }

    #[test]
    fn without_a_success_the_best_failure_counts_and_without_a_phone_480() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        user.handle_message(0, MessageId(1), None, &draft(), now);
        assert_eq!(statuses(&mut user), [None]);
        user.handle_register(&register("a", 1, 60), now);
        user.handle_register(&register("b", 1, 60), now);
        user.handle_message(0, MessageId(2), None, &draft(), now);
        user.handle_outcome(1, 0, Err(NoResponse::Timeout));
        user.handle_outcome(1, 1, Ok(486));
        assert_eq!(statuses(&mut user), [Some(486)]);
        assert_eq!(best([503, 408].into_iter()), 480);
    }

    #[test]
    fn more_phones_than_allowed_are_refused_and_nothing_changes() {
        let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
        for n in 0..MOST_BINDINGS {
            user.handle_register(&register(&n.to_string(), 1, 60), now);
        }
        assert_eq!(user.handle_register(&register("x", 1, 60), now), Registered::TooMany);
        assert_eq!(user.bindings().len(), MOST_BINDINGS);
    }

    #[test]
    fn the_requests_of_a_message_share_its_body_and_all_that_are_on_their_way_are_bounded_in_octets() {
        let all = Account::new("forks", 40_000);
        let mut user = LocalUser::new(all.clone());
        for n in 0..10 {
            let mut phone = register(&format!("silent{n}"), 1, 600);
            phone.origin.is_datagram = false;
            user.handle_register(&phone, start());
        }
        let long = RequestDraft { body: vec![b'x'; 200_000].into(), ..draft() };
        let (mut sent, mut not_taken) = (0, 0);
        for n in 0..300 {
            user.handle_message(0, MessageId(n), None, &long, start());
            while let Some(output) = user.poll_output() {
                match output {
                    UserOutput::Request { draft, .. } => {
                        assert_eq!(draft.body.as_ptr(), long.body.as_ptr(), "one body for all");
                        sent += 1;
                    }
                    UserOutput::NotTaken { message, .. } => {
                        assert!(message.0 >= 5, "there is room for some");
                        not_taken += 1;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(sent, (300 - not_taken) * 10);
        assert!(not_taken > 250 && all.held() <= 40_000, "{not_taken} refused, {} held", all.held());
        for fork in 1..=30 {
            for branch in 0..10 {
                user.handle_outcome(fork, branch, Err(NoResponse::Timeout));
            }
        }
        assert_eq!(all.held(), 0, "what ended is given back");
    }
}
