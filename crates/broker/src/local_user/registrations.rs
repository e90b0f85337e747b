//! Which phones of one user are registered (RFC 3261 §10), and which of them can be reached. Pure.
//!
//! REGISTERs, news of connections and time go in; responses, rows and news of phones come out. A binding lives until it
//! expires; a phone whose connection ended is taken for gone a while later, so that nobody sees it as available.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tombolo_edge::{FlowFacts, Transport};
use tombolo_interwork::owner::PeerKey;
use tombolo_sip::uri;

use super::UserOutput;

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

/// One Contact of a registered phone (RFC 3261 §10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its Contact URI, as the phone wrote it.
    pub contact: String,
    /// The peer by which it is reached.
    pub peer: PeerKey,
    /// Call-ID of its REGISTER.
    pub call_id: String,
    /// CSeq of its REGISTER.
    pub cseq: u32,
    /// When it expires.
    pub expires_at: Instant,
    /// Where it spoke from last.
    pub origin: Origin,
}

impl Binding {
    fn is_at(&self, contact: &str) -> bool {
        uri::are_equivalent(&self.contact, contact)
    }
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
    /// Contact URIs, each with the expiry that it asks for in seconds. Without any, the REGISTER is a query.
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
    /// 423: the interval is too short.
    TooBrief,
    /// 500: the CSeq of this Call-ID is not above the last.
    OutOfOrder,
    /// 500 with Retry-After: the REGISTER alone names more Contacts than a user may have.
    TooMany,
}

/// A binding, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingReport {
    /// The Contact URI.
    pub contact: String,
    /// The phone's instance, or the Call-ID of its REGISTER.
    pub instance: String,
    /// Where the phone spoke from last.
    pub remote: SocketAddr,
    /// It registered by UDP.
    pub is_datagram: bool,
    /// It can be reached: by UDP, or its connection is up.
    pub is_reachable: bool,
    /// What is left of its time.
    pub expires_in: Duration,
}

/// A phone of the user: one that is registered, or one that spoke without being registered and lost its connection.
#[derive(Debug)]
struct Phone {
    key: PeerKey,
    /// When its last connection ended.
    lost_at: Option<Instant>,
    /// The shard was told that it is registered, and not yet that it is gone.
    is_present: bool,
}

/// The bindings and phones of one user. See the [module](self).
#[derive(Debug, Default)]
pub struct Registrations {
    /// The one that registered last stands last.
    bindings: Vec<Binding>,
    phones: Vec<Phone>,
}

impl Registrations {
    /// The bindings, the oldest first.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// True when nothing is known of any phone.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.phones.is_empty()
    }

    /// When [`Registrations::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiries = self.bindings.iter().map(|binding| binding.expires_at);
        let waiting = self.phones.iter().filter(|phone| phone.is_present || !self.has_binding(&phone.key));
        expiries.chain(waiting.filter_map(|phone| Some(phone.lost_at? + PHONE_GRACE))).min()
    }

    /// Takes a REGISTER: all of it or nothing (RFC 3261 §10.3).
    pub fn handle_register(
        &mut self,
        register: &Register,
        now: Instant,
        out: &mut VecDeque<UserOutput>,
    ) -> Registered {
        self.handle_timeout(now, out);
        let is_stale =
            |binding: &Binding| binding.call_id == register.call_id && binding.cseq >= register.cseq;
        let is_query = register.contacts.is_empty() && !register.removes_all;
        if !is_query && self.bindings.iter().any(is_stale) {
            return Registered::OutOfOrder;
        }
        if register.contacts.iter().any(|(_, expires)| (1..LEAST_EXPIRES).contains(expires)) {
            return Registered::TooBrief;
        }
        let mut older = if register.removes_all { Vec::new() } else { self.bindings.clone() };
        let mut new: Vec<Binding> = Vec::new();
        for (contact, expires) in &register.contacts {
            older.retain(|binding| !binding.is_at(contact));
            new.retain(|binding| !binding.is_at(contact));
            if *expires == 0 {
                continue;
            }
            if register.has_instance {
                older.retain(|binding| binding.peer != register.peer);
            }
            new.push(Binding {
                contact: contact.clone(),
                peer: register.peer.clone(),
                call_id: register.call_id.clone(),
                cseq: register.cseq,
                expires_at: now + Duration::from_secs(u64::from((*expires).min(MOST_EXPIRES))),
                origin: register.origin,
            });
        }
        if new.len() > MAX_BINDINGS {
            return Registered::TooMany;
        }
        self.make_room(&mut older, MAX_BINDINGS - new.len());
        older.append(&mut new);
        if !is_query {
            self.replace_bindings(older, out);
            // By this very request the phone is reached, and its shard may have forgotten it with its account.
            self.handle_reachable(&register.peer, out);
        }
        let left = |binding: &Binding| binding.expires_at.saturating_duration_since(now).as_secs();
        Registered::Bindings(self.bindings.iter().map(|b| (b.contact.clone(), left(b))).collect())
    }

    /// Drops bindings until `most` are left: those whose connection ended first, then the oldest.
    fn make_room(&self, bindings: &mut Vec<Binding>, most: usize) {
        while bindings.len() > most {
            let is_lost =
                |binding: &Binding| self.phone(&binding.peer).is_some_and(|phone| phone.lost_at.is_some());
            let lost = bindings.iter().position(is_lost);
            let dropped = bindings.remove(lost.unwrap_or(0));
            tracing::info!(remote = %dropped.origin.remote, "a binding made room for a newer phone of its user");
        }
    }

    /// Puts other bindings in place, and tells what that changes.
    fn replace_bindings(&mut self, bindings: Vec<Binding>, out: &mut VecDeque<UserOutput>) {
        let new = bindings.iter().filter(|binding| !self.bindings.contains(binding));
        out.extend(new.cloned().map(UserOutput::Keep));
        let is_gone = |old: &&Binding| bindings.iter().all(|binding| binding.contact != old.contact);
        for Binding { contact, .. } in self.bindings.iter().filter(is_gone) {
            out.push_back(UserOutput::Forget { contact: contact.clone() });
        }
        let old = std::mem::replace(&mut self.bindings, bindings);
        let mut lapsed: Vec<PeerKey> = Vec::new();
        for Binding { peer, .. } in old {
            if !self.has_binding(&peer) && !lapsed.contains(&peer) {
                lapsed.push(peer);
            }
        }
        for peer in lapsed {
            self.phones.retain(|phone| phone.key != peer);
            out.push_back(UserOutput::Lapsed(peer.clone()));
            out.push_back(UserOutput::Gone(peer));
        }
    }

    /// Removes every binding; how many there were.
    pub fn clear(&mut self, out: &mut VecDeque<UserOutput>) -> usize {
        let count = self.bindings.len();
        self.replace_bindings(Vec::new(), out);
        count
    }

    /// Takes back what an earlier life of the process stored, which may hold one binding several times. No connection
    /// outlived the process, so that phones without UDP must come back within the grace.
    pub fn restore(&mut self, mut bindings: Vec<Binding>, now: Instant, out: &mut VecDeque<UserOutput>) {
        bindings.sort_by_key(|binding| binding.expires_at);
        for binding in bindings {
            for double in self.bindings.extract_if(.., |known| known.is_at(&binding.contact)) {
                if double.contact != binding.contact {
                    out.push_back(UserOutput::Forget { contact: double.contact });
                }
            }
            let lost_at = (!binding.origin.is_datagram).then_some(now);
            match self.phones.iter_mut().find(|phone| phone.key == binding.peer) {
                // What came back before this was read.
                Some(phone) => phone.is_present = true,
                None => self.phones.push(Phone { key: binding.peer.clone(), lost_at, is_present: true }),
            }
            out.push_back(UserOutput::Present(binding.peer.clone()));
            self.bindings.push(binding);
        }
    }

    /// Which phone speaks, by a request that proved its user and came by a flow of no phone: the phone that registered
    /// from there, else the one whose Contact the request names, else the only one at that IP address (a phone may open
    /// a further connection). It is reached there from now on. `None` when none of the user's phones fits.
    pub fn find_phone(
        &mut self,
        origin: Origin,
        contact: Option<&str>,
        now: Instant,
        out: &mut VecDeque<UserOutput>,
    ) -> Option<PeerKey> {
        self.handle_timeout(now, out);
        let by_origin = self.bindings.iter().position(|binding| binding.origin == origin);
        let by_contact = || {
            let contact = contact?;
            self.bindings.iter().position(|binding| binding.is_at(contact))
        };
        let Some(at) = by_origin.or_else(by_contact) else { return self.only_phone_at(origin) };
        let binding = &mut self.bindings[at];
        if std::mem::replace(&mut binding.origin, origin) != origin {
            out.push_back(UserOutput::Keep(binding.clone()));
        }
        Some(binding.peer.clone())
    }

    fn only_phone_at(&self, origin: Origin) -> Option<PeerKey> {
        let mut there =
            self.bindings.iter().filter(|binding| binding.origin.remote.ip() == origin.remote.ip());
        let peer = &there.next()?.peer;
        there.all(|binding| binding.peer == *peer).then(|| peer.clone())
    }

    /// A phone has a connection, or spoke by UDP.
    pub fn handle_reachable(&mut self, peer: &PeerKey, out: &mut VecDeque<UserOutput>) {
        if !self.has_binding(peer) {
            return self.phones.retain(|phone| phone.key != *peer);
        }
        self.phones.retain(|phone| phone.key != *peer);
        self.phones.push(Phone { key: peer.clone(), lost_at: None, is_present: true });
        out.push_back(UserOutput::Present(peer.clone()));
    }

    /// The last connection of a phone ended. One that registered by UDP needs none.
    pub fn handle_unreachable(&mut self, peer: &PeerKey, now: Instant) {
        if self.bindings.iter().any(|binding| binding.peer == *peer && binding.origin.is_datagram) {
            return;
        }
        if let Some(phone) = self.phones.iter_mut().find(|phone| phone.key == *peer) {
            phone.lost_at.get_or_insert(now);
        } else if self.phones.len() < MAX_PHONES {
            self.phones.push(Phone { key: peer.clone(), lost_at: Some(now), is_present: false });
        }
    }

    /// Time passed: bindings expired, and phones that did not come back are gone.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<UserOutput>) {
        if self.bindings.iter().any(|binding| binding.expires_at <= now) {
            let left = self.bindings.iter().filter(|binding| binding.expires_at > now).cloned().collect();
            self.replace_bindings(left, out);
        }
        let Self { bindings, phones } = self;
        for phone in &mut *phones {
            let is_bound = bindings.iter().any(|binding| binding.peer == phone.key);
            let is_lost = phone.lost_at.is_some_and(|lost_at| lost_at + PHONE_GRACE <= now);
            if is_lost && (std::mem::take(&mut phone.is_present) || !is_bound) {
                out.push_back(UserOutput::Gone(phone.key.clone()));
            }
        }
        phones.retain(|phone| {
            let is_bound = bindings.iter().any(|binding| binding.peer == phone.key);
            is_bound || phone.lost_at.is_some_and(|lost_at| lost_at + PHONE_GRACE > now)
        });
    }

    /// What an operator is told of each binding.
    pub fn report(&self, now: Instant) -> Vec<BindingReport> {
        let report = |binding: &Binding| BindingReport {
            contact: binding.contact.clone(),
            instance: match &binding.peer {
                PeerKey::Phone(phone) => phone.instance.to_string(),
                PeerKey::FrontEnd(domain) => domain.to_string(),
            },
            remote: binding.origin.remote,
            is_datagram: binding.origin.is_datagram,
            is_reachable: self.phone(&binding.peer).is_some_and(|phone| phone.lost_at.is_none()),
            expires_in: binding.expires_at.saturating_duration_since(now),
        };
        self.bindings.iter().map(report).collect()
    }

    fn has_binding(&self, peer: &PeerKey) -> bool {
        self.bindings.iter().any(|binding| binding.peer == *peer)
    }

    fn phone(&self, peer: &PeerKey) -> Option<&Phone> {
        self.phones.iter().find(|phone| phone.key == *peer)
    }
}

/// The shortest registration, in seconds.
pub const LEAST_EXPIRES: u32 = 60;
/// The longest registration, in seconds.
pub const MOST_EXPIRES: u32 = 3600;
/// Contacts of one user (RFC 5393 bounds what one message becomes).
pub const MAX_BINDINGS: usize = 10;
/// How long a phone whose connection ended may take to come back before it counts as gone (RFC 5626 §4.5 lets it wait
/// half a minute before it tries).
pub const PHONE_GRACE: Duration = Duration::from_secs(30);
/// Phones of one user that are remembered, registered or not. Beyond it the end of a publication's connection is not
/// noticed, and the publication expires.
const MAX_PHONES: usize = 64;
