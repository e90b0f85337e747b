//! One user of the built-in home: which phones are registered, and what becomes of messages to them. Pure.
//!
//! REGISTERs, messages, outcomes and time go in; responses, requests to phones, fates, rows and news of phones come out.
//! [`registrations`] knows the phones. A message goes to every phone as a request of its own; the first 2xx is the
//! outcome, without one the best by RFC 3261 §16.7 step 6.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tombolo_budget::{Account, Charge};
use tombolo_interwork::{
    address::address_of_uri,
    error::{Failure, NoResponse},
    owner::{MessageId, PeerKey},
    request::RequestDraft,
};
use tombolo_sip::uri::UriRef;

use crate::session::ShardIndex;

pub mod registrations;

pub use registrations::{
    Binding, BindingReport, LEAST_EXPIRES, MOST_EXPIRES, Origin, Register, Registered, Registrations,
};

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
    /// A phone is registered and can be reached.
    Present(PeerKey),
    /// A phone is not registered any more, or its connection ended and it did not come back: what it published is over.
    Gone(PeerKey),
    /// A message's fate.
    Delivered {
        /// The shard that sent it.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
        /// A phone took it, or why none did.
        outcome: Result<(), Failure>,
    },
    /// The user is somewhere else, as a phone says.
    Moved {
        /// The shard that sent the message.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
        /// The status, 300 to 399.
        status: u16,
        /// The URI where the user is.
        contact: String,
    },
    /// A message finds no room, since too many are on their way.
    NotTaken {
        /// The shard that sent it.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
    },
}

/// Whether there is a way to a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It has a connection, or spoke by UDP.
    Reachable,
    /// Its last connection ended.
    Unreachable,
}

#[derive(Debug)]
struct Fork {
    number: u64,
    shard: ShardIndex,
    message: MessageId,
    /// One a branch: how it ended.
    branches: Vec<Option<Result<u16, NoResponse>>>,
    is_answered: bool,
    /// Where the user is, as the first phone says that says so, and its status.
    moved_to: Option<(u16, String)>,
    /// For the heads of its requests; their body is one for all, and paid for by the shard.
    _held: Charge,
}

/// One user. See the [module](self).
#[derive(Debug)]
pub struct LocalUser {
    registrations: Registrations,
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
            registrations: Registrations::default(),
            forks: Vec::new(),
            next_fork: 0,
            own: Account::new("forks_per_user", FORK_OCTETS_OF_USER),
            all,
            out: VecDeque::new(),
        }
    }

    /// Counts its forks from above `first`, so that no outcome of a machine that this one replaces is taken for its own.
    pub fn counting_from(mut self, first: u64) -> Self {
        self.next_fork = first;
        self
    }

    /// Messages whose fate is open. Only for a user that panicked; it may panic again.
    pub fn take_open_messages(&mut self) -> Vec<(ShardIndex, MessageId)> {
        let open = self.forks.drain(..).filter(|fork| !fork.is_answered);
        open.map(|fork| (fork.shard, fork.message)).collect()
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front()
    }

    /// When [`LocalUser::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.registrations.poll_timeout()
    }

    /// True when the user owns nothing: the actor may end.
    pub fn is_idle(&self) -> bool {
        self.registrations.is_empty() && self.forks.is_empty()
    }

    /// The bindings.
    pub fn bindings(&self) -> &[Binding] {
        self.registrations.bindings()
    }

    /// What an operator is told of each binding.
    pub fn report(&self, now: Instant) -> Vec<BindingReport> {
        self.registrations.report(now)
    }

    /// Takes a REGISTER: all of it or nothing (RFC 3261 §10.3).
    pub fn handle_register(&mut self, register: &Register, now: Instant) -> Registered {
        self.registrations.handle_register(register, now, &mut self.out)
    }

    /// Takes back what an earlier life of the process stored.
    pub fn restore(&mut self, bindings: Vec<Binding>, now: Instant) {
        self.registrations.restore(bindings, now, &mut self.out);
    }

    /// Removes every binding; how many there were.
    pub fn clear(&mut self) -> usize {
        self.registrations.clear(&mut self.out)
    }

    /// See [`Registrations::find_phone`].
    pub fn find_phone(&mut self, origin: Origin, contact: Option<&str>, now: Instant) -> Option<PeerKey> {
        self.registrations.find_phone(origin, contact, now, &mut self.out)
    }

    /// A phone got a connection, or its last one ended.
    pub fn handle_reach(&mut self, peer: &PeerKey, reach: Reach, now: Instant) {
        match reach {
            Reach::Reachable => self.registrations.handle_reachable(peer, &mut self.out),
            Reach::Unreachable => self.registrations.handle_unreachable(peer, now),
        }
    }

    /// Time passed: phones that did not register again, or did not come back, are gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.registrations.handle_timeout(now, &mut self.out);
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
        if self.bindings().is_empty() {
            return self.out.push_back(UserOutput::Delivered {
                shard,
                message,
                outcome: Err(Failure::NoPhone),
            });
        }
        let is_meant = |binding: &&Binding| device.is_some_and(|device| is_device(binding, device));
        let bindings = self.registrations.bindings();
        let meant: Vec<&Binding> = match bindings.iter().find(is_meant) {
            Some(binding) => vec![binding],
            None => bindings.iter().collect(),
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
        let branches = vec![None; meant.len()];
        for (branch, binding) in meant.into_iter().enumerate() {
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
        self.forks.push(Fork {
            number,
            shard,
            message,
            branches,
            is_answered: false,
            moved_to: None,
            _held: held,
        });
        self.end_if_decided(self.forks.len() - 1);
    }

    /// A phone answered that its user is elsewhere: `status` is 300 to 399, `contact` the URI.
    pub fn handle_redirect(&mut self, fork: u64, branch: usize, status: u16, contact: &str) {
        if let Some(fork) = self.forks.iter_mut().find(|known| known.number == fork)
            && contact.len() <= MAX_CONTACT_LEN
        {
            fork.moved_to.get_or_insert_with(|| (status, contact.to_owned()));
        }
        self.handle_outcome(fork, branch, Ok(status));
    }

    /// A phone answered, or did not.
    pub fn handle_outcome(&mut self, fork: u64, branch: usize, outcome: Result<u16, NoResponse>) {
        let Some(at) = self.forks.iter().position(|known| known.number == fork) else { return };
        let fork = &mut self.forks[at];
        let Some(slot) = fork.branches.get_mut(branch) else { return };
        *slot = Some(outcome);
        let (shard, message) = (fork.shard, fork.message);
        let is_taken = outcome.is_ok_and(|status| (200..300).contains(&status));
        if is_taken && !std::mem::replace(&mut fork.is_answered, true) {
            self.out.push_back(UserOutput::Delivered { shard, message, outcome: Ok(()) });
        }
        self.end_if_decided(at);
    }

    /// Ends a fork whose branches have all ended.
    fn end_if_decided(&mut self, at: usize) {
        let Some(fork) = self.forks.get_mut(at).filter(|fork| fork.branches.iter().all(Option::is_some))
        else {
            return;
        };
        if !fork.is_answered {
            let failure = best(fork.branches.iter().flatten().copied());
            let (shard, message) = (fork.shard, fork.message);
            let is_best = |(status, _): &(u16, String)| failure == Failure::Response(*status);
            self.out.push_back(match fork.moved_to.take().filter(is_best) {
                Some((status, contact)) => UserOutput::Moved { shard, message, status, contact },
                None => UserOutput::Delivered { shard, message, outcome: Err(failure) },
            });
        }
        self.forks.swap_remove(at);
    }
}

/// True when a binding is that device's: by the GRUU that its Contact is, or by its instance (RFC 5627 §3.1).
fn is_device(binding: &Binding, device: &str) -> bool {
    let uri = UriRef::parse(&binding.contact).ok().and_then(|contact| address_of_uri(&contact).ok());
    let instance = match &binding.peer {
        PeerKey::Phone(phone) => {
            phone.instance.trim_matches(['<', '>']) == device || *phone.device_id() == *device
        }
        PeerKey::FrontEnd(_) => false,
    };
    instance || uri.is_some_and(|uri| uri.device.as_deref() == Some(device))
}

/// The best of the ends (RFC 3261 §16.7 step 6): 6xx, else the lowest class; 503 says nothing about us.
fn best(outcomes: impl Iterator<Item = Result<u16, NoResponse>>) -> Failure {
    let rank = |outcome: &Result<u16, NoResponse>| match outcome.unwrap_or_else(NoResponse::status) {
        600..700 => 0,
        300..400 => 1,
        // What the sender could act on goes before a plain "no".
        401 | 407 | 415 | 420 | 484 => 2,
        // Silence of one phone says less than an answer of another.
        408 => 5,
        400..500 => 3,
        _ => 4,
    };
    match outcomes.min_by_key(rank) {
        // What stands between us and the phone says that the phone is not there.
        Some(Ok(408)) => Failure::Phones(NoResponse::Timeout),
        Some(Ok(503)) => Failure::Phones(NoResponse::Transport),
        // The sender cannot be challenged for the recipient's phone.
        Some(Ok(401 | 407)) => Failure::Response(403),
        Some(Ok(status)) => Failure::Response(status),
        Some(Err(none)) => Failure::Phones(none),
        None => Failure::NoPhone,
    }
}

/// Octets of a URI to which a phone may send a message on.
const MAX_CONTACT_LEN: usize = 1024;
/// Messages to one user that are on their way.
const MOST_FORKS: usize = 256;
/// Octets of the heads of their requests.
const FORK_OCTETS_OF_USER: usize = 2 << 20;

#[cfg(test)]
mod tests;
