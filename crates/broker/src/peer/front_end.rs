//! What a front end has and a phone has not: a health, by which it is dialled and asked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_edge::{FlowFacts, Transport};
use tombolo_interwork::{address::sip_domain, error::NoResponse, request::RequestDraft};

use super::{
    AVOIDED_FOR, DIAL_LOST, Peer, PeerOutput, Sent,
    health::{FrontEndHealth, HealthOutput, HealthSettings},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct FrontEnd {
    /// As SIP writes it.
    domain: String,
    pub(super) health: FrontEndHealth,
    /// Questions about its health so far, and what their Call-IDs end with.
    asked: u32,
    owner: String,
    /// When shards were last told that it forgot a dialog.
    forgot_at: Option<Instant>,
}

impl Peer {
    /// The front end of a domain, which is dialled as soon as its time is handled. `seed` spreads its dials.
    pub fn front_end(owner: &str, domain: &str, seed: u64, now: Instant) -> Self {
        let health = FrontEndHealth::new(HealthSettings::default(), seed, now);
        let (domain, owner_name) = (sip_domain(domain), owner.to_owned());
        let front_end = Some(FrontEnd { domain, health, asked: 0, owner: owner_name, forgot_at: None });
        Self { front_end, ..Self::phone(owner, now) }
    }

    /// Of a front end.
    pub fn health(&self) -> Option<&FrontEndHealth> {
        self.front_end.as_ref().map(|front_end| &front_end.health)
    }

    /// A front end is to be tried now: it was configured, or somebody wants to know.
    pub fn retry(&mut self, now: Instant) {
        if let Some(front_end) = &mut self.front_end {
            front_end.health.retry(now);
        }
        self.drive_health(now);
    }

    /// It is no front end any more: it is not dialled until [`Peer::retry`].
    pub fn rest(&mut self) {
        self.dialling_until = None;
        if let Some(front_end) = &mut self.front_end {
            front_end.health.rest();
        }
        self.fail_waiting();
    }

    /// It did not know a dialog any more. Shards look after the others, but not time and again.
    pub fn handle_forgotten(&mut self, now: Instant) {
        let Some(front_end) = &mut self.front_end else { return };
        if front_end.forgot_at.is_none_or(|at| at + FORGOT_PAUSE <= now) {
            front_end.forgot_at = Some(now);
            self.out.push_back(PeerOutput::Forgot);
        }
    }

    /// It refused a NOTIFY with 503.
    pub fn handle_suspicion(&mut self, now: Instant) {
        if let Some(front_end) = &mut self.front_end {
            front_end.health.handle_suspicion(now);
        }
        self.drive_health(now);
    }

    /// A dial failed: what waited for it fails too.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        self.dialling_until = None;
        match &mut self.front_end {
            Some(front_end) if self.flow.is_none() => front_end.health.handle_dial_failed(now),
            Some(_) => self.elsewhere.handle_no_other(now),
            None => self.handle_no_stream(now),
        }
        self.fail_waiting();
        self.fail_elsewhere();
        self.drive_health(now);
    }

    fn fail_waiting(&mut self) {
        while let Some(sent) = self.waiting.pop_front() {
            self.end(sent, Err(NoResponse::Transport));
        }
    }

    /// Nobody is kept waiting for a dial that is not to come soon.
    pub(super) fn fail_waiting_if_hopeless(&mut self, now: Instant) {
        if self.flow.is_none() && self.health().is_none_or(|health| health.must_wait(now)) {
            self.fail_waiting();
        }
    }

    /// Does what the front end's health asks for.
    pub(super) fn drive_health(&mut self, now: Instant) {
        if let Some(front_end) = &mut self.front_end {
            front_end.health.handle_timeout(now);
        }
        while let Some(output) = self.front_end.as_mut().and_then(|front_end| front_end.health.poll_output())
        {
            match output {
                HealthOutput::Dial if self.dialling_until.is_some() => {}
                HealthOutput::Dial => self.dial(now),
                HealthOutput::Ask => self.ask(now),
                HealthOutput::Leave => {
                    if let Some(flow) = self.flow() {
                        self.out.push_back(PeerOutput::Avoid { flow, span: AVOIDED_FOR });
                        self.handle_flow_down(flow, now);
                    }
                }
                HealthOutput::Changed(health) => {
                    self.out.push_back(PeerOutput::Health(health));
                    self.grant();
                }
            }
        }
    }

    pub(super) fn dial(&mut self, now: Instant) {
        self.dialling_until = Some(now + DIAL_LOST);
        self.out.push_back(PeerOutput::Dial);
    }

    /// Asks whether the front end is there (RFC 3261 §11).
    fn ask(&mut self, now: Instant) {
        let Some(FrontEnd { domain, asked, owner, .. }) = &mut self.front_end else { return };
        *asked = asked.wrapping_add(1);
        let draft = RequestDraft {
            method: "OPTIONS",
            uri: format!("sip:{domain}"),
            routes: Vec::new(),
            from: format!("<sip:{domain}>;tag={owner}"),
            to: format!("<sip:{domain}>"),
            call_id: format!("{asked}.{owner}"),
            cseq: 1,
            max_forwards: 70,
            contact_user: None,
            headers: vec![("Accept", "application/pidf+xml, text/plain".to_owned())],
            content_type: None,
            body: Bytes::new(),
        };
        let sent = Sent { requester: None, uri: None, draft: Arc::new(draft), is_second: true, left: None };
        self.send(sent, now);
    }
}

/// How long the shards are left alone after they looked which dialogs are forgotten.
const FORGOT_PAUSE: Duration = Duration::from_secs(30);

/// True when what is sent by a flow reaches the front end: we dialled its next hop, or its certificate proved it.
pub(super) fn leads_to_front_end(flow: &FlowFacts) -> bool {
    flow.dial.is_some() || (flow.transport == Transport::Tls && !flow.proved_domains.is_empty())
}
