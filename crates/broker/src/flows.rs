//! Whose a flow is: a front end's, or the phones' that registered by it. Pure but for its lock.
//!
//! Bindings, messages and octets that were written go in; the peer that each concerns comes out. A phone is an address
//! of record and an instance, never a remote address: several lines of one telephone share a flow, each with its own
//! digest, dialogs and credit. Several front ends share one where a pool serves several domains.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use parking_lot::{Mutex, RwLock};
use tombolo_edge::{FlowFacts, FlowId};
use tombolo_interwork::{address::address_of_uri, owner::PeerKey};
use tombolo_presence::Address;
use tombolo_sip::{message::Message, method::Method, uri};

/// The flows that are bound. See the [module](self).
#[derive(Debug, Default)]
pub struct Flows {
    by_flow: RwLock<HashMap<FlowId, Carrier>>,
}

/// One flow that somebody has.
#[derive(Debug)]
struct Carrier {
    facts: Arc<FlowFacts>,
    /// Phones, or front ends.
    lines: Vec<Line>,
}

/// One peer of a flow.
#[derive(Debug)]
struct Line {
    peer: PeerKey,
    /// The Contact of a phone's last REGISTER: it tells one instance of a user from another.
    contact: Option<Box<str>>,
    /// What the branches of its requests begin with.
    branch_prefix: Box<str>,
    /// Octets that it handed over and that no report of the flow has covered yet. One flow reports for all its phones,
    /// so that without this one line's writing would be another's credit.
    unwritten: AtomicU32,
    /// NOTIFYs that it handed over and that nothing by the flow has answered.
    unanswered: AtomicU32,
    /// When something came by the flow last, unless [`Flows::take_heard`] was asked since.
    heard: Mutex<Option<Instant>>,
}

impl Line {
    fn is_of(&self, aor: &Address) -> bool {
        matches!(&self.peer, PeerKey::Phone(phone) if phone.aor == *aor)
    }

    fn is_front_end(&self) -> bool {
        matches!(self.peer, PeerKey::FrontEnd(_))
    }
}

impl Flows {
    /// A flow is this peer's too from now on; `false` when it has as many phones as it may.
    pub fn bind(&self, flow: &Arc<FlowFacts>, peer: &PeerKey, branch_prefix: &str) -> bool {
        let mut by_flow = self.by_flow.write();
        let carrier =
            by_flow.entry(flow.flow).or_insert_with(|| Carrier { facts: flow.clone(), lines: Vec::new() });
        if carrier.lines.iter().any(|line| line.peer == *peer) {
            return true;
        }
        if matches!(peer, PeerKey::Phone(_)) && carrier.lines.len() >= MOST_PHONES {
            return false;
        }
        carrier.lines.push(Line {
            peer: peer.clone(),
            contact: None,
            branch_prefix: branch_prefix.into(),
            unwritten: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            heard: Mutex::default(),
        });
        true
    }

    /// Whose a flow is.
    pub fn peers(&self, flow: FlowId) -> Arc<[PeerKey]> {
        let by_flow = self.by_flow.read();
        let lines = by_flow.get(&flow).into_iter().flat_map(|carrier| &carrier.lines);
        lines.map(|line| line.peer.clone()).collect()
    }

    /// A peer hands so many NOTIFYs to its flow, and as many answers may come by it.
    pub fn await_answers(&self, flow: FlowId, peer: &PeerKey, count: u32) {
        let by_flow = self.by_flow.read();
        let mut lines = by_flow.get(&flow).into_iter().flat_map(|carrier| &carrier.lines);
        if let Some(line) = lines.find(|line| line.peer == *peer) {
            let add = |waiting: u32| Some(waiting.saturating_add(count));
            let _ = line.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// An answer to a NOTIFY came by a flow; `false` when more came than NOTIFYs went out by it.
    pub fn take_answer(&self, flow: FlowId) -> bool {
        let by_flow = self.by_flow.read();
        let take = |waiting: u32| waiting.checked_sub(1);
        let mut lines = by_flow.get(&flow).into_iter().flat_map(|carrier| &carrier.lines);
        lines.any(|line| line.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok())
    }

    /// Where a phone says it is reached, by the REGISTER that it sent by this flow.
    pub fn note_contact(&self, flow: FlowId, peer: &PeerKey, contact: &str) {
        let mut by_flow = self.by_flow.write();
        let lines = by_flow.get_mut(&flow).into_iter().flat_map(|carrier| &mut carrier.lines);
        for line in lines.filter(|line| line.peer == *peer) {
            line.contact = Some(contact.into());
        }
    }

    /// True when the Contact of a phone's last REGISTER by a flow is this very address.
    pub fn is_contact_at(&self, flow: FlowId, peer: &PeerKey, remote: SocketAddr) -> bool {
        let by_flow = self.by_flow.read();
        let mut lines = by_flow.get(&flow).into_iter().flat_map(|carrier| &carrier.lines);
        let contact = lines.find(|line| line.peer == *peer).and_then(|line| line.contact.as_deref());
        let Some(contact) = contact.and_then(|contact| uri::UriRef::parse(contact).ok()) else {
            return false;
        };
        contact.host().and_then(|host| host.address()) == Some(remote.ip().to_canonical())
            && contact.port().unwrap_or(5060) == remote.port()
    }

    /// True when a flow is this peer's, alone or with others.
    pub fn is_of(&self, flow: FlowId, peer: &PeerKey) -> bool {
        let by_flow = self.by_flow.read();
        by_flow.get(&flow).is_some_and(|carrier| carrier.lines.iter().any(|line| line.peer == *peer))
    }

    /// True when a flow is several users': what comes by it says by itself nothing about whom it is from.
    pub fn has_several_users(&self, flow: FlowId) -> bool {
        let by_flow = self.by_flow.read();
        let lines = by_flow.get(&flow).map_or(&[][..], |carrier| &carrier.lines);
        let mut users = lines.iter().filter_map(|line| match &line.peer {
            PeerKey::Phone(phone) => Some(&phone.aor),
            PeerKey::FrontEnd(_) => None,
        });
        let first = users.next();
        users.any(|user| Some(user) != first)
    }

    /// Something came by a flow that its peers are not handed.
    pub fn note_heard(&self, flow: FlowId, now: Instant) {
        for line in self.by_flow.read().get(&flow).into_iter().flat_map(|carrier| &carrier.lines) {
            *line.heard.lock() = Some(now);
        }
    }

    /// When [`Flows::note_heard`] was called for a flow last, if that was since this peer asked.
    pub fn take_heard(&self, flow: FlowId, peer: &PeerKey) -> Option<Instant> {
        let by_flow = self.by_flow.read();
        let mut lines = by_flow.get(&flow).into_iter().flat_map(|carrier| &carrier.lines);
        lines.find(|line| line.peer == *peer)?.heard.lock().take()
    }

    /// The peer that a message by a flow is for: the front end of the domain that a request's From names, else the
    /// first; the phone of the user whom From names, of that instance where a REGISTER names one, else of that Contact;
    /// the one whose request a response answers. `None` for everybody else, who must prove themselves first.
    pub fn receiver(&self, flow: FlowId, message: &Message) -> Option<PeerKey> {
        let by_flow = self.by_flow.read();
        let lines = &by_flow.get(&flow)?.lines;
        let first = lines.first()?;
        if first.is_front_end() && lines.len() == 1 {
            return Some(first.peer.clone());
        }
        let line = if message.is_request() {
            let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok())?;
            let domain = from.address.domain();
            let is_own = |line: &&Line| match &line.peer {
                PeerKey::FrontEnd(own) => own.as_str() == domain,
                PeerKey::Phone(_) => line.is_of(&from.address),
            };
            let mut own = lines.iter().filter(is_own);
            match instance(message) {
                _ if first.is_front_end() => own.next().or(Some(first)),
                Some(instance) => own
                    .find(|line| matches!(&line.peer, PeerKey::Phone(phone) if *phone.instance == *instance)),
                None => {
                    let contact = message.contacts().flatten().next();
                    let contact = contact.as_ref().map(|contact| contact.uri.as_str());
                    let is_there = |line: &&Line| match (line.contact.as_deref(), contact) {
                        (Some(known), Some(named)) => uri::are_equivalent(known, named),
                        _ => false,
                    };
                    own.clone().find(is_there).or_else(|| own.next())
                }
            }
        } else {
            let via = message.top_via().ok()?;
            let branch = via.branch()?;
            let is_asked = |line: &&Line| branch.starts_with(&*line.branch_prefix);
            lines.iter().find(is_asked).or_else(|| first.is_front_end().then_some(first))
        };
        line.map(|line| line.peer.clone())
    }

    /// The flows of a peer, the oldest first.
    pub fn of(&self, peer: &PeerKey) -> Vec<Arc<FlowFacts>> {
        let by_flow = self.by_flow.read();
        let is_its = |carrier: &&Carrier| carrier.lines.iter().any(|line| line.peer == *peer);
        let mut flows: Vec<_> =
            by_flow.values().filter(is_its).map(|carrier| carrier.facts.clone()).collect();
        flows.sort_by_key(|facts| facts.flow.0);
        flows
    }

    /// The flows of front ends, and whose each is.
    pub fn front_ends(&self) -> Vec<(Arc<FlowFacts>, PeerKey)> {
        let by_flow = self.by_flow.read();
        let lines = by_flow
            .values()
            .flat_map(|carrier| carrier.lines.iter().map(move |line| (carrier.facts.clone(), line)));
        lines
            .filter(|(_, line)| line.is_front_end())
            .map(|(facts, line)| (facts, line.peer.clone()))
            .collect()
    }

    /// A peer hands octets to its flow.
    pub fn hand_over(&self, flow: FlowId, peer: &PeerKey, bytes: usize) {
        let by_flow = self.by_flow.read();
        let mut lines = by_flow.get(&flow).into_iter().flat_map(|carrier| &carrier.lines);
        if let Some(line) = lines.find(|line| line.peer == *peer) {
            line.unwritten.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// A flow wrote octets: `credit` is told whose. In all it is never told more than was handed over.
    pub fn credit(&self, flow: FlowId, bytes: u32, mut credit: impl FnMut(&PeerKey, u32)) {
        let by_flow = self.by_flow.read();
        let mut left = bytes;
        let lines = by_flow.get(&flow).map_or(&[][..], |carrier| &carrier.lines);
        if let [Line { peer: peer @ PeerKey::FrontEnd(_), .. }] = lines {
            return credit(peer, bytes);
        }
        for line in lines {
            let take = |unwritten: u32| Some(unwritten - unwritten.min(left));
            let before = line.unwritten.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            let own = before.unwrap_or_default().min(left);
            if own > 0 {
                left -= own;
                credit(&line.peer, own);
            }
        }
    }

    /// A flow ended; whose it was.
    pub fn unbind(&self, flow: FlowId) -> Vec<PeerKey> {
        let lines = self.by_flow.write().remove(&flow).map(|carrier| carrier.lines);
        lines.into_iter().flatten().map(|line| line.peer).collect()
    }

    /// A peer leaves these flows; how many of them nobody has any more.
    pub fn forget(&self, peer: &PeerKey, flows: &[FlowId]) -> usize {
        let mut by_flow = self.by_flow.write();
        let mut free = 0;
        for flow in flows {
            let Some(carrier) = by_flow.get_mut(flow) else { continue };
            carrier.lines.retain(|line| line.peer != *peer);
            if carrier.lines.is_empty() {
                by_flow.remove(flow);
                free += 1;
            }
        }
        free
    }

    /// The flows that somebody has.
    pub fn ids(&self) -> Vec<FlowId> {
        self.by_flow.read().keys().copied().collect()
    }

    /// Number of flows that somebody has.
    pub fn len(&self) -> usize {
        self.by_flow.read().len()
    }
}

/// The `+sip.instance` that a REGISTER names (RFC 5626 §4.1).
pub fn instance(message: &Message) -> Option<Box<str>> {
    if message.method() != Some(&Method::Register) {
        return None;
    }
    let mut contacts = message.contacts().flatten();
    contacts.find_map(|contact| contact.params.text("+sip.instance").map(|text| text.as_ref().into()))
}

/// Phones that one flow may carry. Each may have [`crate::peer`]'s window in the flow's outbox, which must hold them all.
const MOST_PHONES: usize = 32;

#[cfg(test)]
mod tests {
    use tombolo_edge::Transport;
    use tombolo_interwork::owner::PhoneKey;
    use tombolo_presence::Domain;
    use tombolo_sip::message::{MessageLimits, read_datagram};

    use super::*;

    const FLOW: FlowId = FlowId(1);

    fn facts() -> Arc<FlowFacts> {
        Arc::new(FlowFacts {
            flow: FLOW,
            transport: Transport::Tcp,
            local: ([127, 0, 0, 1], 5060).into(),
            remote: ([127, 0, 0, 2], 5060).into(),
            sent_by: "127.0.0.1:5060".into(),
            dial: None,
            has_alternatives: false,
            proved_domains: Arc::from([]),
        })
    }

    fn phone(user: &str, instance: &str) -> PeerKey {
        let aor = Address::from_prepared(&format!("{user}@corp.test")).expect("legal");
        PeerKey::Phone(Arc::new(PhoneKey { aor, instance: instance.into() }))
    }

    fn message(first_line: &str, from: &str, branch: &str, more: &str) -> Message {
        let method = first_line.split(' ').next().filter(|word| *word != "SIP/2.0").unwrap_or("MESSAGE");
        let text = format!(
            "{first_line}\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:{from}@corp.test>;tag=f\r\n\
             To: <sip:x@corp.test>;tag=t\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
        );
        read_datagram(text.into(), &MessageLimits::default()).expect("well formed")
    }

    fn request(from: &str) -> Message {
        message("MESSAGE sip:x@corp.test SIP/2.0", from, "z9hG4bKown", "")
    }

    fn register(from: &str, instance: &str) -> Message {
        let contact = format!("Contact: <sip:{from}@h>;+sip.instance=\"{instance}\"\r\n");
        message("REGISTER sip:corp.test SIP/2.0", from, "z9hG4bKown", &contact)
    }

    #[test]
    fn each_line_of_a_shared_flow_gets_its_own_requests_and_responses_and_strangers_none() {
        let flows = Flows::default();
        let (dave, erin) = (phone("dave", "a"), phone("erin", "a"));
        assert!(flows.bind(&facts(), &dave, "z9hG4bKp1.") && flows.bind(&facts(), &erin, "z9hG4bKp2."));
        assert_eq!(flows.receiver(FLOW, &request("dave")), Some(dave.clone()));
        assert_eq!(flows.receiver(FLOW, &request("erin")), Some(erin.clone()));
        assert_eq!(flows.receiver(FLOW, &request("mallory")), None);
        let response = |branch| message("SIP/2.0 200 OK", "juliet", branch, "");
        assert_eq!(flows.receiver(FLOW, &response("z9hG4bKp2.7")), Some(erin.clone()));
        assert_eq!(flows.receiver(FLOW, &response("z9hG4bKp3.7")), None);
        assert_eq!(flows.receiver(FlowId(2), &request("dave")), None);
        assert_eq!(flows.unbind(FLOW), [dave, erin]);
        assert_eq!(flows.receiver(FLOW, &request("dave")), None);
    }

    #[test]
    fn another_instance_of_a_user_is_another_phone_and_must_register_itself() {
        let flows = Flows::default();
        let (desk, soft) = (phone("dave", "<urn:desk>"), phone("dave", "<urn:soft>"));
        assert!(flows.bind(&facts(), &desk, "z9hG4bKp1."));
        assert_eq!(flows.receiver(FLOW, &register("dave", "<urn:soft>")), None);
        assert!(flows.bind(&facts(), &soft, "z9hG4bKp2."));
        assert_eq!(flows.receiver(FLOW, &register("dave", "<urn:soft>")), Some(soft));
        assert_eq!(flows.receiver(FLOW, &register("dave", "<urn:desk>")), Some(desk));
    }

    #[test]
    fn a_phone_is_at_an_address_only_where_its_contact_says_so() {
        let flows = Flows::default();
        let dave = phone("dave", "desk");
        let remote = facts().remote;
        assert!(flows.bind(&facts(), &dave, "z9hG4bKp1."));
        assert!(!flows.is_contact_at(FLOW, &dave, remote), "nothing is known");
        for (contact, is_there) in [
            (format!("sip:dave@{remote};transport=udp"), true),
            (format!("sip:dave@{}:{}", remote.ip(), remote.port() ^ 1), false),
            (format!("sip:dave@192.168.0.7:{}", remote.port()), false),
            (format!("sip:dave@phone.example:{}", remote.port()), false),
        ] {
            flows.note_contact(FLOW, &dave, &contact);
            assert_eq!(flows.is_contact_at(FLOW, &dave, remote), is_there, "{contact}");
        }
    }

    #[test]
    fn a_flow_of_two_users_is_neithers_own_and_one_users_instances_share_theirs() {
        let flows = Flows::default();
        assert!(!flows.has_several_users(FLOW));
        for instance in ["a", "b"] {
            assert!(flows.bind(&facts(), &phone("dave", instance), "z9hG4bKp1."));
            assert!(!flows.has_several_users(FLOW));
        }
        assert!(flows.bind(&facts(), &phone("mallory", "a"), "z9hG4bKp2."));
        assert!(flows.has_several_users(FLOW));
    }

    #[test]
    fn two_instances_of_a_user_on_one_flow_are_told_apart_by_their_contacts() {
        let flows = Flows::default();
        let (desk, soft) = (phone("dave", "desk"), phone("dave", "soft"));
        for (phone, contact) in [(&desk, "sip:dave@h:1"), (&soft, "sip:dave@h:2")] {
            assert!(flows.bind(&facts(), phone, "z9hG4bKp1."));
            flows.note_contact(FLOW, phone, contact);
        }
        let subscribe = |contact: &str| {
            let contact = format!("Contact: <{contact}>\r\n");
            message("SUBSCRIBE sip:x@corp.test SIP/2.0", "dave", "z9hG4bKown", &contact)
        };
        assert_eq!(flows.receiver(FLOW, &subscribe("sip:dave@h:1")), Some(desk.clone()));
        assert_eq!(flows.receiver(FLOW, &subscribe("sip:dave@h:2")), Some(soft));
        assert_eq!(flows.receiver(FLOW, &subscribe("sip:dave@h:3")), Some(desk));
    }

    #[test]
    fn a_front_end_is_asked_by_its_flow_whoever_the_request_is_from() {
        let flows = Flows::default();
        let front_end = PeerKey::FrontEnd(Domain::from_prepared("corp.test").expect("legal"));
        assert!(flows.bind(&facts(), &front_end, "z9hG4bKp1."));
        assert_eq!(flows.receiver(FLOW, &request("dave")), Some(front_end.clone()));
        let mut credited = Vec::new();
        flows.credit(FLOW, 7, |peer, bytes| credited.push((peer.clone(), bytes)));
        assert_eq!(credited, [(front_end, 7)]);
    }

    #[test]
    fn a_pool_for_two_domains_speaks_for_the_one_that_from_names() {
        let flows = Flows::default();
        let front_end = |name| PeerKey::FrontEnd(Domain::from_prepared(name).expect("legal"));
        let (other, corp) = (front_end("other.test"), front_end("corp.test"));
        assert!(flows.bind(&facts(), &other, "z9hG4bKp1.") && flows.bind(&facts(), &corp, "z9hG4bKp2."));
        assert_eq!(flows.receiver(FLOW, &request("dave")), Some(corp.clone()));
        let response = |branch| message("SIP/2.0 200 OK", "juliet", branch, "");
        assert_eq!(flows.receiver(FLOW, &response("z9hG4bKp2.7")), Some(corp.clone()));
        assert_eq!(flows.receiver(FLOW, &response("z9hG4bKp1.7")), Some(other.clone()));
        flows.hand_over(FLOW, &corp, 5);
        let mut credited = Vec::new();
        flows.credit(FLOW, 7, |peer, bytes| credited.push((peer.clone(), bytes)));
        assert_eq!(credited, [(corp, 5)], "octets are credited to whose they were");
        assert_eq!(flows.front_ends().len(), 2);
    }

    #[test]
    fn what_a_flow_wrote_is_credited_once_to_those_who_handed_it_over() {
        let flows = Flows::default();
        let (dave, erin) = (phone("dave", "a"), phone("erin", "a"));
        assert!(flows.bind(&facts(), &dave, "z9hG4bKp1.") && flows.bind(&facts(), &erin, "z9hG4bKp2."));
        flows.hand_over(FLOW, &dave, 100);
        flows.hand_over(FLOW, &erin, 50);
        let credited = |bytes| {
            let mut credited = Vec::new();
            flows.credit(FLOW, bytes, |peer, bytes| credited.push((peer.clone(), bytes)));
            credited
        };
        assert_eq!(credited(120), [(dave.clone(), 100), (erin.clone(), 20)]);
        // The rest is erin's; what guests were told on the flow is nobody's.
        assert_eq!(credited(400), [(erin, 30)]);
        assert_eq!(credited(1), []);
    }

    #[test]
    fn a_flow_brings_no_more_answers_than_notifys_went_out_by_it() {
        let flows = Flows::default();
        let (dave, erin) = (phone("dave", "a"), phone("erin", "a"));
        assert!(flows.bind(&facts(), &dave, "z9hG4bKp1.") && flows.bind(&facts(), &erin, "z9hG4bKp2."));
        assert_eq!(*flows.peers(FLOW), [dave.clone(), erin.clone()]);
        assert!(!flows.take_answer(FLOW));
        flows.await_answers(FLOW, &dave, 2);
        flows.await_answers(FLOW, &erin, 1);
        flows.await_answers(FlowId(2), &erin, 1);
        assert_eq!((0..10).filter(|_| flows.take_answer(FLOW)).count(), 3);
        assert!(!flows.take_answer(FlowId(2)) && flows.peers(FlowId(2)).is_empty());
    }

    #[test]
    fn a_flow_carries_so_many_phones_and_one_that_ended_makes_room() {
        let flows = Flows::default();
        for n in 0..MOST_PHONES {
            assert!(flows.bind(&facts(), &phone("dave", &n.to_string()), "z9hG4bKp."));
        }
        assert!(!flows.bind(&facts(), &phone("erin", "a"), "z9hG4bKp."));
        assert!(flows.bind(&facts(), &phone("dave", "0"), "z9hG4bKp."), "known already");
        assert_eq!(flows.forget(&phone("dave", "0"), &[FlowId(9), FLOW]), 0, "others have it still");
        assert!(flows.bind(&facts(), &phone("erin", "a"), "z9hG4bKp."));
        assert_eq!(flows.len(), 1);
        assert_eq!(flows.unbind(FLOW).len(), MOST_PHONES);
        assert!(flows.bind(&facts(), &phone("dave", "0"), "z9hG4bKp."));
        assert_eq!((flows.forget(&phone("dave", "0"), &[FLOW]), flows.len()), (1, 0));
    }
}
