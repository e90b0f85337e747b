//! Whose a flow is: a front end's, or the phones' that registered by it. Pure but for its lock.
//!
//! Bindings, messages and octets that were written go in; the peer that each concerns comes out. A phone is an address
//! of record and an instance, never a remote address: several lines of one telephone share a flow, each with its own
//! digest, dialogs and credit.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::RwLock;
use tombolo_edge::FlowId;
use tombolo_interwork::{address::address_of_uri, owner::PeerKey};
use tombolo_presence::Address;
use tombolo_sip::{message::Message, method::Method};

/// The flows that are bound. See the [module](self).
#[derive(Debug, Default)]
pub struct Flows {
    by_flow: RwLock<HashMap<FlowId, Vec<Line>>>,
}

/// One peer of a flow. A front end is the only one of its flow.
#[derive(Debug)]
struct Line {
    peer: PeerKey,
    /// What the branches of its requests begin with.
    branch_prefix: Box<str>,
    /// Octets that it handed over and that no report of the flow has covered yet. One flow reports for all its phones,
    /// so that without this one line's writing would be another's credit.
    unwritten: AtomicU32,
    /// NOTIFYs that it handed over and that nothing by the flow has answered.
    unanswered: AtomicU32,
}

impl Line {
    fn is_of(&self, aor: &Address) -> bool {
        matches!(&self.peer, PeerKey::Phone(phone) if phone.aor == *aor)
    }
}

impl Flows {
    /// A flow is this peer's too from now on; `false` when it has as many phones as it may.
    pub fn bind(&self, flow: FlowId, peer: &PeerKey, branch_prefix: &str) -> bool {
        let mut by_flow = self.by_flow.write();
        let lines = by_flow.entry(flow).or_default();
        if lines.iter().any(|line| line.peer == *peer) {
            return true;
        }
        if lines.len() >= MOST_PHONES {
            return false;
        }
        lines.push(Line {
            peer: peer.clone(),
            branch_prefix: branch_prefix.into(),
            unwritten: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
        });
        true
    }

    /// Whose a flow is.
    pub fn peers(&self, flow: FlowId) -> Arc<[PeerKey]> {
        let by_flow = self.by_flow.read();
        by_flow.get(&flow).into_iter().flatten().map(|line| line.peer.clone()).collect()
    }

    /// A peer hands so many NOTIFYs to its flow, and as many answers may come by it.
    pub fn await_answers(&self, flow: FlowId, peer: &PeerKey, count: u32) {
        let by_flow = self.by_flow.read();
        let lines = by_flow.get(&flow).map_or(&[][..], Vec::as_slice);
        if let Some(line) = lines.iter().find(|line| line.peer == *peer) {
            let add = |waiting: u32| Some(waiting.saturating_add(count));
            let _ = line.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// An answer to a NOTIFY came by a flow; `false` when more came than NOTIFYs went out by it.
    pub fn take_answer(&self, flow: FlowId) -> bool {
        let by_flow = self.by_flow.read();
        let take = |waiting: u32| waiting.checked_sub(1);
        by_flow
            .get(&flow)
            .into_iter()
            .flatten()
            .any(|line| line.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok())
    }

    /// The peer that a message by a flow is for: the front end; the phone of the user whom a request's From names, of
    /// that instance where a REGISTER names one; the phone whose request a response answers. `None` for everybody else,
    /// who must prove themselves first.
    pub fn receiver(&self, flow: FlowId, message: &Message) -> Option<PeerKey> {
        let by_flow = self.by_flow.read();
        let lines = by_flow.get(&flow)?;
        if let Some(Line { peer: peer @ PeerKey::FrontEnd(_), .. }) = lines.first() {
            return Some(peer.clone());
        }
        let line = if message.is_request() {
            let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok())?;
            let mut own = lines.iter().filter(|line| line.is_of(&from.address));
            match instance(message) {
                Some(instance) => own
                    .find(|line| matches!(&line.peer, PeerKey::Phone(phone) if *phone.instance == *instance)),
                None => own.next(),
            }
        } else {
            let via = message.top_via().ok()?;
            let branch = via.branch()?;
            lines.iter().find(|line| branch.starts_with(&*line.branch_prefix))
        };
        line.map(|line| line.peer.clone())
    }

    /// A phone hands octets to its flow.
    pub fn hand_over(&self, flow: FlowId, peer: &PeerKey, bytes: usize) {
        let by_flow = self.by_flow.read();
        if let Some(line) = by_flow.get(&flow).and_then(|lines| lines.iter().find(|line| line.peer == *peer))
        {
            line.unwritten.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// A flow wrote octets: `credit` is told whose. In all it is never told more than was handed over.
    pub fn credit(&self, flow: FlowId, bytes: u32, mut credit: impl FnMut(&PeerKey, u32)) {
        let by_flow = self.by_flow.read();
        let mut left = bytes;
        for line in by_flow.get(&flow).into_iter().flatten() {
            if matches!(line.peer, PeerKey::FrontEnd(_)) {
                return credit(&line.peer, bytes);
            }
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
        let lines = self.by_flow.write().remove(&flow).unwrap_or_default();
        lines.into_iter().map(|line| line.peer).collect()
    }

    /// A peer leaves these flows; how many of them nobody has any more.
    pub fn forget(&self, peer: &PeerKey, flows: &[FlowId]) -> usize {
        let mut by_flow = self.by_flow.write();
        let mut free = 0;
        for flow in flows {
            let Some(lines) = by_flow.get_mut(flow) else { continue };
            lines.retain(|line| line.peer != *peer);
            if lines.is_empty() {
                by_flow.remove(flow);
                free += 1;
            }
        }
        free
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
    use tombolo_interwork::owner::PhoneKey;
    use tombolo_presence::Domain;
    use tombolo_sip::message::{MessageLimits, read_datagram};

    use super::*;

    const FLOW: FlowId = FlowId(1);

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
        assert!(flows.bind(FLOW, &dave, "z9hG4bKp1.") && flows.bind(FLOW, &erin, "z9hG4bKp2."));
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
        assert!(flows.bind(FLOW, &desk, "z9hG4bKp1."));
        assert_eq!(flows.receiver(FLOW, &register("dave", "<urn:soft>")), None);
        assert!(flows.bind(FLOW, &soft, "z9hG4bKp2."));
        assert_eq!(flows.receiver(FLOW, &register("dave", "<urn:soft>")), Some(soft));
        assert_eq!(flows.receiver(FLOW, &register("dave", "<urn:desk>")), Some(desk));
    }

    #[test]
    fn a_front_end_has_its_flow_alone_whoever_the_request_is_from() {
        let flows = Flows::default();
        let front_end = PeerKey::FrontEnd(Domain::from_prepared("corp.test").expect("legal"));
        assert!(flows.bind(FLOW, &front_end, "z9hG4bKp1."));
        assert_eq!(flows.receiver(FLOW, &request("dave")), Some(front_end.clone()));
        let mut credited = Vec::new();
        flows.credit(FLOW, 7, |peer, bytes| credited.push((peer.clone(), bytes)));
        assert_eq!(credited, [(front_end, 7)]);
    }

    #[test]
    fn what_a_flow_wrote_is_credited_once_to_those_who_handed_it_over() {
        let flows = Flows::default();
        let (dave, erin) = (phone("dave", "a"), phone("erin", "a"));
        assert!(flows.bind(FLOW, &dave, "z9hG4bKp1.") && flows.bind(FLOW, &erin, "z9hG4bKp2."));
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
        assert!(flows.bind(FLOW, &dave, "z9hG4bKp1.") && flows.bind(FLOW, &erin, "z9hG4bKp2."));
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
            assert!(flows.bind(FLOW, &phone("dave", &n.to_string()), "z9hG4bKp."));
        }
        assert!(!flows.bind(FLOW, &phone("erin", "a"), "z9hG4bKp."));
        assert!(flows.bind(FLOW, &phone("dave", "0"), "z9hG4bKp."), "known already");
        assert_eq!(flows.forget(&phone("dave", "0"), &[FlowId(9), FLOW]), 0, "others have it still");
        assert!(flows.bind(FLOW, &phone("erin", "a"), "z9hG4bKp."));
        assert_eq!(flows.len(), 1);
        assert_eq!(flows.unbind(FLOW).len(), MOST_PHONES);
        assert!(flows.bind(FLOW, &phone("dave", "0"), "z9hG4bKp."));
        assert_eq!((flows.forget(&phone("dave", "0"), &[FLOW]), flows.len()), (1, 0));
    }
}
