//! Walks behind a front end: contacts watch a user whose presence server we ask on their behalf.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tombolo_policy::{Partner, Permitted};

use super::{CONTACTS, Contacts, Random, walks};
use crate::{
    error::NoResponse,
    owner::{Input, LaneKey, PeerHealth, tests::stage::*},
    request::RequestDraft,
};

const STEPS: usize = 60;
/// The subscriptions that the front end grants, in seconds.
const EXPIRES: u64 = 600;

/// What the front end thinks of a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Refused,
    Asked,
    Granted,
}

/// A subscription that the front end keeps.
struct Dialog {
    contact: usize,
    request: Box<RequestDraft>,
    cseq: u32,
}

struct Walk {
    seed: u64,
    random: Random,
    stage: Stage,
    steps: Vec<String>,
    next_mark: u32,
    /// What benvolio's presence is at; nothing when he is closed.
    mark: Option<String>,
    verdicts: [Verdict; CONTACTS.len()],
    /// By Call-ID.
    dialogs: BTreeMap<String, Dialog>,
    contacts: Contacts,
    /// The contact asked, and did not leave since.
    wants: BTreeSet<usize>,
    is_away: bool,
    /// It is away behind a connection that stands: requests time out.
    is_silent: bool,
    /// Dialogs whose end was asked for, and whose last NOTIFY did not leave yet.
    ending: Vec<String>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random::new(seed),
            stage: Stage::new(),
            steps: Vec::new(),
            next_mark: 0,
            mark: None,
            verdicts: [Verdict::Granted, Verdict::Asked, Verdict::Granted],
            dialogs: BTreeMap::new(),
            contacts: Contacts::default(),
            wants: BTreeSet::new(),
            is_away: false,
            is_silent: false,
            ending: Vec::new(),
        }
    }

    fn session() -> LaneKey {
        LaneKey::Session { local: domain(CORP), remote: domain("xmpp.example"), number: 0 }
    }

    fn step(&mut self) {
        let contact = self.random.below(CONTACTS.len());
        match self.random.below(16) {
            0..=2 => self.contact_asks(contact),
            3 => self.contact_leaves(contact),
            4..=6 => self.user_changes(),
            7 => self.front_end_decides(contact),
            8 => self.front_end_forgets(),
            9 => self.front_end_goes_or_comes(),
            10 => self.stream_breaks_or_heals(),
            11 => self.process_dies(),
            12 => self.contact_probes(contact),
            13 => self.front_end_ends(),
            14 => self.policy_denies(contact),
            _ => self.time_passes(),
        }
        self.hear();
    }

    fn contact_asks(&mut self, contact: usize) {
        self.steps.push(format!("{} asks", CONTACTS[contact]));
        self.wants.insert(contact);
        self.stage.presence(CONTACTS[contact], BENVOLIO, "subscribe", "");
    }

    /// The policy lets no contact watch for a while, perhaps from a restart on: nobody learns anything meanwhile.
    fn policy_denies(&mut self, contact: usize) {
        self.steps.push("the policy denies".to_owned());
        let denied = |partner: &mut Partner| partner.direction = Permitted::Outbound;
        if self.random.below(3) == 0 {
            self.stage.will_have_partner(denied);
            self.process_dies();
        } else {
            self.stage.partner_is(denied);
        }
        self.hear();
        self.nobody_sees();
        match self.random.below(5) {
            0 => self.front_end_decides(contact),
            1 => self.contact_leaves(contact),
            2 => self.process_dies(),
            3 => self.front_end_forgets(),
            _ => self.contact_probes(contact),
        }
        self.hear();
        self.user_changes();
        self.hear();
        self.nobody_sees();
        self.steps.push("the policy permits again".to_owned());
        self.stage.partner_is(|_| {});
    }

    fn nobody_sees(&self) {
        let seen = (0..CONTACTS.len()).find(|contact| !self.contacts.seen((0, *contact)).is_empty());
        assert!(!self.stage.is_connected || seen.is_none(), "{seen:?} is denied and sees {self:?}");
    }

    fn contact_leaves(&mut self, contact: usize) {
        self.hear();
        self.steps.push(format!("{} stops watching", CONTACTS[contact]));
        self.wants.remove(&contact);
        self.contacts.forget((0, contact));
        self.stage.presence(CONTACTS[contact], BENVOLIO, "unsubscribe", "");
    }

    fn contact_probes(&mut self, contact: usize) {
        if !self.is_authorized(contact) {
            return;
        }
        self.steps.push(format!("{} probes", CONTACTS[contact]));
        self.stage.presence(CONTACTS[contact], BENVOLIO, "probe", "");
    }

    fn user_changes(&mut self) {
        self.next_mark += 1;
        let mark = format!("b{}.", self.next_mark);
        let is_open = self.random.below(4) != 0;
        self.steps.push(format!("benvolio is {mark} {is_open}"));
        self.mark = is_open.then_some(mark);
        self.notify_all();
    }

    fn front_end_decides(&mut self, contact: usize) {
        let verdict = [Verdict::Refused, Verdict::Asked, Verdict::Granted][self.random.below(3)];
        self.decide(contact, verdict);
    }

    fn decide(&mut self, contact: usize, verdict: Verdict) {
        let old = std::mem::replace(&mut self.verdicts[contact], verdict);
        if verdict == old {
            return;
        }
        self.steps.push(format!("{} is {verdict:?} from now on", CONTACTS[contact]));
        self.notify_all();
    }

    /// The presence server lost its dialogs, and remembers its decisions.
    fn front_end_forgets(&mut self) {
        self.steps.push("the front end forgets its dialogs".to_owned());
        self.dialogs.clear();
    }

    fn front_end_goes_or_comes(&mut self) {
        self.is_away = !self.is_away;
        if self.is_away {
            self.is_silent = self.random.below(2) == 0;
            self.steps.push(format!("the front end is away, silent: {}", self.is_silent));
            if !self.is_silent {
                self.stage.goes_away(&front_end());
            }
            self.front_end_is(PeerHealth::Doubtful);
            if self.random.below(2) == 0 {
                self.steps.push("and lost".to_owned());
                self.front_end_is(PeerHealth::Lost);
            }
        } else {
            self.steps.push("the front end is back".to_owned());
            if self.random.below(3) == 0 {
                self.front_end_forgets();
            }
            if !std::mem::take(&mut self.is_silent) {
                self.stage.comes_back(&front_end());
            }
            self.front_end_is(PeerHealth::Up);
            if self.random.below(2) == 0 {
                self.notify_all();
            }
        }
    }

    fn front_end_is(&mut self, health: PeerHealth) {
        self.stage.input(Input::PeerHealth { peer: front_end(), health });
    }

    fn stream_breaks_or_heals(&mut self) {
        if self.stage.is_connected {
            self.steps.push("the stream breaks, and what was written last is lost".to_owned());
            self.stage.stanzas.clear();
            self.stage.is_connected = false;
            self.stage.input(Input::LaneLost { lane: Self::session(), is_clean: false });
            self.stage.input(Input::PartnerReachable { lane: Self::session(), is_reachable: false });
        } else {
            self.connect();
        }
    }

    fn connect(&mut self) {
        self.steps.push("the stream is back".to_owned());
        self.stage.is_connected = true;
        self.stage.input(Input::PartnerReachable { lane: Self::session(), is_reachable: true });
        for lane in std::mem::take(&mut self.stage.wanting) {
            self.stage.input(Input::Credit { lane, bytes: 65_536 });
        }
    }

    fn process_dies(&mut self) {
        let span = Duration::from_secs(1 + self.random.below(20) as u64);
        self.steps.push(format!("the process is killed, and is back after {span:?}"));
        let stage = std::mem::replace(&mut self.stage, Stage::new());
        self.stage = stage.killed_and_started_alone(span);
        (self.is_away, self.is_silent) = (false, false);
        self.notify_all();
    }

    fn time_passes(&mut self) {
        let span = Duration::from_secs(1 + self.random.below(200) as u64);
        self.steps.push(format!("{span:?} pass"));
        self.wait(span);
    }

    fn wait(&mut self, span: Duration) {
        for _ in 0..span.as_secs() {
            self.stage.wait(Duration::from_secs(1));
            self.hear();
        }
    }

    fn hear(&mut self) {
        loop {
            if let Some(stanza) = self.stage.stanzas.pop_front() {
                self.contact_hears(&stanza);
            } else if let Some((_, request, draft)) = self.stage.requests.front() {
                if self.is_away {
                    let none = if self.is_silent { NoResponse::Timeout } else { NoResponse::Transport };
                    let outcome = Err(none);
                    let request = *request;
                    self.stage.requests.pop_front();
                    self.stage.input(Input::Outcome { request, outcome });
                } else {
                    let draft = draft.clone();
                    self.front_end_is_asked(&draft);
                }
            } else {
                return;
            }
        }
    }

    fn front_end_is_asked(&mut self, draft: &RequestDraft) {
        let contact = CONTACTS
            .iter()
            .position(|contact| draft.from.contains(contact))
            .unwrap_or_else(|| panic!("a stranger asks: {} {self:?}", draft.from));
        let is_ending = draft.headers.iter().any(|(name, value)| *name == "Expires" && value == "0");
        let is_known = self.dialogs.contains_key(&draft.call_id);
        self.steps.push(format!("    {} is asked about, in {}", CONTACTS[contact], draft.call_id));
        if draft.to.contains(";tag=") && !is_known {
            self.stage.answer(481, "");
            return;
        }
        let expires = if is_ending { 0 } else { EXPIRES };
        if self.verdicts[contact] == Verdict::Refused && !is_known {
            self.stage.answer(403, "");
            return;
        }
        let request = self.stage.answer(200, &format!("Expires: {expires}\r\n"));
        let cseq = self.dialogs.get(&draft.call_id).map_or(0, |dialog| dialog.cseq);
        self.dialogs.insert(draft.call_id.clone(), Dialog { contact, request, cseq });
        if is_ending {
            self.ending.push(draft.call_id.clone());
            if self.random.below(2) == 0 {
                self.front_end_ends();
            }
        } else {
            self.notify_present(&draft.call_id);
        }
    }

    /// The last NOTIFYs leave; until then the dialogs go on as before.
    fn front_end_ends(&mut self) {
        if self.is_away {
            return;
        }
        for call in std::mem::take(&mut self.ending) {
            self.steps.push(format!("the front end ends {call}"));
            self.notify(&call, "terminated;reason=timeout");
            self.dialogs.remove(&call);
        }
    }

    fn notify_all(&mut self) {
        for call in self.dialogs.keys().cloned().collect::<Vec<_>>() {
            self.notify_present(&call);
        }
    }

    fn notify_present(&mut self, call: &str) {
        if self.is_away {
            return;
        }
        let Some(dialog) = self.dialogs.get(call) else { return };
        match self.verdicts[dialog.contact] {
            Verdict::Granted => self.notify(call, &format!("active;expires={EXPIRES}")),
            Verdict::Asked => self.notify(call, &format!("pending;expires={EXPIRES}")),
            Verdict::Refused => {
                self.notify(call, "terminated;reason=rejected");
                self.dialogs.remove(call);
            }
        }
    }

    fn notify(&mut self, call: &str, state: &str) {
        let is_broken_first = self.random.below(10) == 0;
        let Some(dialog) = self.dialogs.get_mut(call) else { return };
        if is_broken_first && !state.starts_with("terminated") {
            dialog.cseq += 1;
            self.steps.push(format!("the front end sends a broken document in {call}"));
            let status = self.stage.front_end_notifies(&dialog.request, dialog.cseq, state, "<presence");
            assert!(matches!(status, 400 | 481), "{status} {self:?}");
        }
        let Some(dialog) = self.dialogs.get_mut(call) else { return };
        dialog.cseq += 1;
        let body = match (&self.mark, state.starts_with("active")) {
            (_, false) => String::new(),
            (None, true) => pidf("closed", ""),
            (Some(mark), true) => {
                pidf("open", "").replace("</tuple>", &format!("<note>{mark}</note></tuple>"))
            }
        };
        let status = self.stage.front_end_notifies(&dialog.request, dialog.cseq, state, &body);
        if status == 481 {
            self.dialogs.remove(call);
        } else {
            assert_eq!(status, 200, "{self:?}");
        }
    }

    fn contact_hears(&mut self, stanza: &str) {
        self.steps.push(format!("    {stanza}"));
        let heard = self.contacts.hear(stanza, &[BENVOLIO]);
        let ((_, contact), kind) = heard.unwrap_or_else(|fault| panic!("{fault}: {stanza} {self:?}"));
        if kind == Some("unsubscribed") {
            self.wants.remove(&contact);
        }
    }

    fn is_authorized(&self, contact: usize) -> bool {
        self.contacts.authorized.contains(&(0, contact))
    }

    /// Everything heals and everybody is granted; who wants to see, sees what is.
    fn end(&mut self) {
        self.steps.push("the end".to_owned());
        if self.is_away {
            self.front_end_goes_or_comes();
        }
        if !self.stage.is_connected {
            self.connect();
        }
        self.hear();
        self.front_end_ends();
        self.hear();
        for contact in 0..CONTACTS.len() {
            if self.verdicts[contact] == Verdict::Asked {
                self.decide(contact, Verdict::Granted);
            }
        }
        self.wait(Duration::from_secs(2 * EXPIRES));
        // A dialog that nobody ended in order, since the front end was away, ends with its next NOTIFY.
        self.user_changes();
        self.hear();
        for (contact, name) in CONTACTS.iter().enumerate() {
            if self.verdicts[contact] == Verdict::Refused {
                assert!(!self.is_authorized(contact), "{name} was refused {self:?}");
            } else {
                let is_right = self.wants.contains(&contact) == self.is_authorized(contact);
                assert!(is_right, "{name} is granted {self:?}");
            }
            let is: BTreeSet<String> =
                self.mark.iter().filter(|_| self.is_authorized(contact)).cloned().collect();
            assert_eq!(self.contacts.seen((0, contact)), is, "{name} {self:?}");
        }
        assert_eq!(
            self.dialogs.len(),
            self.contacts.authorized.len(),
            "one dialog for each watcher {self:?}"
        );
    }
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\nseed {}:\n  {}", self.seed, self.steps.join("\n  "))
    }
}

#[test]
fn contacts_see_what_the_front_end_grants_in_the_end() {
    for seed in walks() {
        let mut walk = Walk::new(seed);
        for _ in 0..STEPS {
            walk.step();
        }
        walk.end();
    }
}
