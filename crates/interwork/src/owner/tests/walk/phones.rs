//! Walks at the built-in home: phones publish and watch, contacts watch and are watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tombolo_policy::{Approve, Permitted};
use tombolo_sip::message::Message;

use super::{CONTACTS, Contacts, Couple, Random, between, walks};
use crate::owner::{Input, LaneKey, PeerKey, tests::stage::*};

const USERS: [&str; 2] = [ROMEO, "mercutio@sip.example"];
const RESOURCES: [&str; 2] = ["balcony", "garden"];
const SHOWS: [&str; 5] = ["", "away", "chat", "dnd", "xa"];
const STEPS: usize = 60;

/// What the contact's server holds of the user's request to watch the contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Grant {
    #[default]
    No,
    Asked,
    Yes,
}

/// A subscription of a phone.
struct Watch {
    couple: Couple,
    accepted: Message,
    cseq: u32,
    /// What the last NOTIFY with a body said.
    seen: BTreeSet<String>,
}

struct Walk {
    seed: u64,
    random: Random,
    stage: Stage,
    steps: Vec<String>,
    next_mark: u32,
    next_call: u32,
    /// What a user's phone published last: its entity tag and its mark, if it is open.
    published: BTreeMap<usize, (String, Option<String>)>,
    contacts: Contacts,
    /// The contact's answers to the user's asking.
    grants: BTreeMap<Couple, Grant>,
    /// What a contact's resources are at, by mark.
    online: BTreeMap<(usize, &'static str), (String, &'static str)>,
    watches: BTreeMap<String, Watch>,
    /// Phones that cannot be reached.
    away: BTreeSet<usize>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let approve = if seed.is_multiple_of(3) { Approve::Ask } else { Approve::Partner };
        Self {
            seed,
            random: Random::new(seed),
            stage: Stage::with(approve, |_| {}),
            steps: Vec::new(),
            next_mark: 0,
            next_call: 0,
            published: BTreeMap::new(),
            contacts: Contacts::default(),
            grants: BTreeMap::new(),
            online: BTreeMap::new(),
            watches: BTreeMap::new(),
            away: BTreeSet::new(),
        }
    }

    fn below(&mut self, most: usize) -> usize {
        self.random.below(most)
    }

    fn mark(&mut self, kind: char) -> String {
        self.next_mark += 1;
        format!("{kind}{}.", self.next_mark)
    }

    fn couple(&mut self) -> Couple {
        (self.below(USERS.len()), self.below(CONTACTS.len()))
    }

    fn phone(user: usize) -> PeerKey {
        phone_of(USERS[user], if user == 0 { "a" } else { "m" })
    }

    fn session() -> LaneKey {
        LaneKey::Session { local: domain(HOME), remote: domain("xmpp.example"), number: 0 }
    }

    fn step(&mut self) {
        let couple @ (user, contact) = self.couple();
        match self.below(21) {
            0 | 1 => self.contact_asks(couple),
            2 => self.contact_leaves(couple),
            3 | 4 => self.phone_publishes(user),
            5 => self.phone_unpublishes(user),
            6 | 7 => self.phone_watches(couple),
            8 => self.phone_stops_watching(),
            9 | 10 => self.contact_changes(contact),
            11 => self.contact_answers(couple),
            12 => self.user_decides(couple),
            13 => self.way_breaks_or_heals(user),
            14 => self.process_dies(),
            15 => self.store_is_slow(couple),
            16 => self.phone_refuses_notifies(user),
            17 => self.phone_answers_late(couple),
            18 => self.stream_breaks_under_way(couple),
            19 => self.policy_denies(couple),
            _ => self.time_passes(),
        }
        self.hear();
    }

    fn contact_asks(&mut self, (user, contact): Couple) {
        self.steps.push(format!("{} asks {}", CONTACTS[contact], USERS[user]));
        self.stage.presence(CONTACTS[contact], USERS[user], "subscribe", "");
    }

    fn contact_leaves(&mut self, couple @ (user, contact): Couple) {
        self.steps.push(format!("{} stops watching {}", CONTACTS[contact], USERS[user]));
        self.hear();
        // Who left looks no more: a last `unavailable` that is lost with the process harms nobody.
        self.contacts.forget(couple);
        self.stage.presence(CONTACTS[contact], USERS[user], "unsubscribe", "");
    }

    fn phone_publishes(&mut self, user: usize) {
        let (mark, show) = (self.mark('p'), SHOWS[self.below(SHOWS.len())]);
        let is_open = self.below(4) != 0;
        self.steps.push(format!("{} publishes {mark} {is_open} {show}", USERS[user]));
        let basic = if is_open { "open" } else { "closed" };
        let show = if show.is_empty() {
            String::new()
        } else {
            format!("<show xmlns='jabber:client'>{show}</show>")
        };
        let body = format!(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{}'><tuple id='ID-orchard'><status>\
             <basic>{basic}</basic>{show}</status><note>{mark}</note></tuple></presence>",
            USERS[user]
        );
        self.publish(user, &body, "", is_open.then_some(mark));
    }

    fn phone_unpublishes(&mut self, user: usize) {
        if self.published.contains_key(&user) {
            self.steps.push(format!("{} takes its publication back", USERS[user]));
            self.publish(user, "", "Expires: 0\r\n", None);
            self.published.remove(&user);
        }
    }

    fn publish(&mut self, user: usize, body: &str, more: &str, mark: Option<String>) {
        let tag = self.published.get(&user).map(|(tag, _)| format!("SIP-If-Match: {tag}\r\n"));
        let more = format!("{more}{}", tag.unwrap_or_default());
        self.phone_is_there(user);
        let response = self.stage.publish_body(USERS[user], body, &more);
        assert_eq!(response.status(), Some(200), "{self:?}");
        let tag = response.sip_etag().expect("an entity tag").to_owned();
        self.published.insert(user, (tag, mark));
    }

    fn phone_watches(&mut self, couple @ (user, contact): Couple) {
        self.phone_is_there(user);
        self.next_call += 1;
        let call = format!("call{}", self.next_call);
        self.steps.push(format!("{} watches {} in {call}", USERS[user], CONTACTS[contact]));
        self.stage.subscribe(&Self::phone(user), USERS[user], CONTACTS[contact], &call, "");
        let accepted = self.stage.response();
        assert_eq!(accepted.status(), Some(200), "{self:?}");
        self.watches.insert(call, Watch { couple, accepted, cseq: 1, seen: BTreeSet::new() });
    }

    fn phone_stops_watching(&mut self) {
        let calls: Vec<String> = self.watches.keys().cloned().collect();
        if calls.is_empty() {
            return;
        }
        let call = &calls[self.below(calls.len())];
        self.phone_is_there(self.watches[call].couple.0);
        self.hear();
        self.steps.push(format!("{call} is ended by its phone"));
        let Some(watch) = self.watches.get_mut(call) else { return };
        watch.cseq += 1;
        let phone = Self::phone(watch.couple.0);
        self.stage.resubscribe(&phone, &watch.accepted, watch.cseq, 0);
        match self.stage.status() {
            200 => {}
            481 => drop(self.watches.remove(call)),
            other => panic!("{other} {self:?}"),
        }
    }

    fn contact_changes(&mut self, contact: usize) {
        let resource = RESOURCES[self.below(RESOURCES.len())];
        let mark = self.mark('c');
        if self.below(3) == 0 {
            self.steps.push(format!("{}/{resource} goes offline", CONTACTS[contact]));
            self.online.remove(&(contact, resource));
        } else {
            self.steps.push(format!("{}/{resource} is {mark}", CONTACTS[contact]));
            let show = SHOWS[self.below(SHOWS.len())];
            self.online.insert((contact, resource), (mark, show));
        }
        for user in 0..USERS.len() {
            if self.grants.get(&(user, contact)) == Some(&Grant::Yes) {
                self.contact_says((user, contact), resource);
            }
        }
    }

    /// The present state of one resource, from the contact's server.
    fn contact_says(&mut self, (user, contact): Couple, resource: &'static str) {
        let from = format!("{}/{resource}", CONTACTS[contact]);
        match self.online.get(&(contact, resource)).cloned() {
            Some((mark, show)) => {
                let show = if show.is_empty() { String::new() } else { format!("<show>{show}</show>") };
                self.stage.presence(&from, USERS[user], "", &format!("{show}<status>{mark}</status>"));
            }
            None => self.stage.presence(&from, USERS[user], "unavailable", ""),
        }
    }

    fn contact_answers(&mut self, couple: Couple) {
        let is_yes = self.below(3) != 0;
        match self.grants.get(&couple).copied().unwrap_or_default() {
            Grant::Asked if is_yes => self.contact_grants(couple),
            Grant::Asked | Grant::Yes => self.contact_refuses(couple),
            Grant::No => {}
        }
    }

    fn contact_refuses(&mut self, couple @ (user, contact): Couple) {
        self.steps.push(format!("{} refuses {}", CONTACTS[contact], USERS[user]));
        self.grants.remove(&couple);
        self.stage.presence(CONTACTS[contact], USERS[user], "unsubscribed", "");
    }

    fn contact_grants(&mut self, couple @ (user, contact): Couple) {
        self.steps.push(format!("{} grants {}", CONTACTS[contact], USERS[user]));
        self.grants.insert(couple, Grant::Yes);
        self.stage.presence(CONTACTS[contact], USERS[user], "subscribed", "");
        for resource in RESOURCES {
            if self.online.contains_key(&(contact, resource)) {
                self.contact_says(couple, resource);
            }
        }
    }

    fn user_decides(&mut self, couple: Couple) {
        let is_approved = self.below(3) != 0;
        self.user_decides_so(couple, is_approved);
    }

    fn user_decides_so(&mut self, (user, contact): Couple, is_approved: bool) {
        self.steps.push(format!("{} decides {is_approved} about {}", USERS[user], CONTACTS[contact]));
        self.stage.input(Input::Decide {
            user: address(USERS[user]),
            watcher: Some(address(CONTACTS[contact])),
            is_approved,
            asker: 1,
        });
    }

    /// The store takes its time, and then it stored, or says that it did not, or that it did after it was not waited for
    /// any more; or the process dies before its answer.
    /// Who was refused tries again.
    fn store_is_slow(&mut self, couple: Couple) {
        self.steps.push("the store is slow".to_owned());
        let works: [fn(&mut Self, Couple); 6] = [
            Self::contact_asks,
            Self::contact_leaves,
            |walk, couple| walk.user_decides_so(couple, true),
            |walk, couple| walk.user_decides_so(couple, false),
            Self::contact_grants,
            Self::contact_refuses,
        ];
        let count = 1 + self.below(4);
        let works: Vec<_> = (0..count).map(|_| works[self.below(works.len())]).collect();
        self.stage.stores_at_once = false;
        for work in &works {
            work(self, couple);
        }
        self.hear();
        let answer = self.below(4);
        if answer == 2 {
            return self.process_dies();
        }
        let (is_late, is_stored) = (answer == 3, answer != 1);
        self.steps.push(format!("the store answers {is_stored}, late: {is_late}"));
        if is_late {
            self.wait(Duration::from_secs(3));
        }
        self.stage.settle_store(is_stored);
        self.stage.stores_at_once = true;
        self.stage.settle_store(true);
        self.hear();
        if is_late || !is_stored {
            for work in works {
                work(self, couple);
            }
        }
    }

    /// The phone is in trouble for a while.
    fn phone_refuses_notifies(&mut self, user: usize) {
        self.steps.push("phones answer 503".to_owned());
        self.stage.answers_notify = Some(503);
        let (_, contact) = self.couple();
        self.contact_changes(contact);
        self.phone_publishes(user);
        self.hear();
        self.stage.answers_notify = Some(200);
    }

    /// A NOTIFY is not answered before other things have happened.
    fn phone_answers_late(&mut self, couple @ (user, contact): Couple) {
        self.steps.push("phones answer late".to_owned());
        self.stage.answers_notify = None;
        let mut open = Vec::new();
        self.contact_changes(contact);
        self.hear_and_keep(&mut open);
        match self.below(3) {
            0 => self.contact_answers(couple),
            1 => self.phone_publishes(user),
            _ => self.contact_changes(contact),
        }
        self.hear_and_keep(&mut open);
        self.stage.answers_notify = Some([200, 503][self.below(2)]);
        let answers = open.iter().filter_map(|notify| self.stage.answer_to(notify)).collect();
        self.stage.answers_notify = Some(200);
        self.steps.push("phones answer".to_owned());
        // As if both phones were lines of one telephone.
        let peers = (0..USERS.len()).map(Self::phone).collect();
        self.stage.input(Input::NotifyAnswers { peers, answers });
    }

    fn hear_and_keep(&mut self, open: &mut Vec<Message>) {
        open.extend(self.stage.notifies.iter().cloned());
        self.hear();
        open.extend(self.stage.notifies.drain(..));
    }

    /// Something happens of which the contacts' server hears nothing, since the stream breaks.
    fn stream_breaks_under_way(&mut self, couple @ (user, contact): Couple) {
        if !self.stage.is_connected {
            return self.connect();
        }
        match self.below(5) {
            0 => self.contact_asks(couple),
            1 => self.phone_publishes(user),
            2 => self.user_decides(couple),
            3 => self.contact_changes(contact),
            _ => {
                self.steps.push("the partner is lost, and back for a moment".to_owned());
                for is_reachable in [false, true] {
                    self.stage.input(Input::PartnerReachable { lane: Self::session(), is_reachable });
                }
            }
        }
        self.break_stream();
    }

    /// The policy closes one direction for a while: whom it denies learns nothing of what happens meanwhile.
    fn policy_denies(&mut self, couple @ (user, contact): Couple) {
        let permitted = [Permitted::Inbound, Permitted::Outbound][self.below(2)];
        self.steps.push(format!("the policy permits {permitted:?} alone"));
        self.stage.partner_is(|partner| partner.direction = permitted);
        self.hear();
        let works: [fn(&mut Self, Couple); 6] = [
            |walk, (user, _)| walk.phone_publishes(user),
            |walk, (_, contact)| walk.contact_changes(contact),
            |walk, couple| walk.user_decides_so(couple, true),
            Self::contact_asks,
            Self::contact_answers,
            |walk, _| walk.process_dies(),
        ];
        for _ in 0..2 {
            works[self.below(works.len())](self, couple);
            self.hear();
            self.nothing_forbidden_is_seen(permitted);
        }
        self.phone_publishes(user);
        self.contact_changes(contact);
        self.hear();
        self.nothing_forbidden_is_seen(permitted);
        self.steps.push("the policy permits both again".to_owned());
        self.stage.partner_is(|_| {});
    }

    fn nothing_forbidden_is_seen(&self, permitted: Permitted) {
        if permitted == Permitted::Inbound {
            let is_open = |watch: &Watch| !self.away.contains(&watch.couple.0);
            assert!(!self.watches.values().any(is_open), "a watch that is denied goes on {self:?}");
        } else if self.stage.is_connected {
            let seen = couples().find(|couple| !self.contacts.seen(*couple).is_empty());
            assert_eq!(seen, None, "a contact that is denied sees somebody {self:?}");
        }
    }

    fn break_stream(&mut self) {
        self.steps.push("the stream breaks, and what was written last is lost".to_owned());
        self.stage.stanzas.clear();
        self.stage.is_connected = false;
        self.stage.input(Input::LaneLost { lane: Self::session(), is_clean: false });
        self.stage.input(Input::PartnerReachable { lane: Self::session(), is_reachable: false });
    }

    /// What is on its way when a stream or a connection breaks does not arrive.
    fn way_breaks_or_heals(&mut self, user: usize) {
        let is_session = self.below(2) == 0;
        match (is_session, self.stage.is_connected, self.away.contains(&user)) {
            (true, true, _) => self.break_stream(),
            (true, false, _) => self.connect(),
            (false, _, false) => {
                self.steps.push(format!("the phone of {} is gone, perhaps with an open NOTIFY", USERS[user]));
                self.away.insert(user);
                self.stage.deaf.insert(Self::phone(user));
                let (_, contact) = self.couple();
                self.contact_changes(contact);
                self.stage.goes_away(&Self::phone(user));
            }
            (false, _, true) => self.phone_is_back(user),
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

    /// Whoever sends a request can be reached.
    fn phone_is_there(&mut self, user: usize) {
        if self.away.contains(&user) {
            self.phone_is_back(user);
        }
    }

    fn phone_is_back(&mut self, user: usize) {
        self.steps.push(format!("the phone of {} is back", USERS[user]));
        let phone = Self::phone(user);
        self.away.remove(&user);
        self.stage.deaf.remove(&phone);
        self.stage.comes_back(&phone);
    }

    fn process_dies(&mut self) {
        let span = Duration::from_secs(1 + self.below(20) as u64);
        self.steps.push(format!("the process is killed, and is back after {span:?}"));
        let stage = std::mem::replace(&mut self.stage, Stage::new());
        self.stage = stage.killed_and_started_alone(span);
        self.away = (0..USERS.len()).collect();
    }

    fn time_passes(&mut self) {
        let span = Duration::from_secs(1 + self.below(90) as u64);
        self.steps.push(format!("{span:?} pass"));
        self.wait(span);
    }

    /// Both sides answer within a second.
    fn wait(&mut self, span: Duration) {
        for _ in 0..span.as_secs() {
            self.stage.wait(Duration::from_secs(1));
            self.hear();
        }
    }

    /// Everything that left arrives, and is answered where an answer is due.
    fn hear(&mut self) {
        loop {
            if let Some(stanza) = self.stage.stanzas.pop_front() {
                self.contact_hears(&stanza);
            } else if let Some(notify) = self.stage.notifies.pop_front() {
                self.phone_hears(&notify);
            } else {
                return;
            }
        }
    }

    fn contact_hears(&mut self, stanza: &str) {
        let heard = self.contacts.hear(stanza, &USERS);
        let (couple @ (user, contact), kind) =
            heard.unwrap_or_else(|fault| panic!("{fault}: {stanza} {self:?}"));
        match kind {
            Some("subscribe") => self.contact_is_asked(couple),
            Some("unsubscribe") => {
                self.grants.remove(&couple);
                self.stage.presence(CONTACTS[contact], USERS[user], "unavailable", "");
            }
            Some("probe") => self.contact_is_probed(couple),
            _ => {}
        }
    }

    fn contact_is_asked(&mut self, couple: Couple) {
        if self.grants.get(&couple) == Some(&Grant::Yes) {
            return self.contact_grants(couple);
        }
        self.grants.insert(couple, Grant::Asked);
        match self.below(4) {
            0 | 1 => self.contact_grants(couple),
            2 => self.contact_refuses(couple),
            _ => {}
        }
    }

    fn contact_is_probed(&mut self, couple @ (user, contact): Couple) {
        match self.grants.get(&couple).copied().unwrap_or_default() {
            Grant::Yes
                if RESOURCES.iter().any(|resource| self.online.contains_key(&(contact, *resource))) =>
            {
                for resource in RESOURCES {
                    if self.online.contains_key(&(contact, resource)) {
                        self.contact_says(couple, resource);
                    }
                }
            }
            Grant::Yes => self.stage.presence(CONTACTS[contact], USERS[user], "unavailable", ""),
            Grant::Asked => {}
            Grant::No => self.stage.presence(CONTACTS[contact], USERS[user], "unsubscribed", ""),
        }
    }

    fn phone_hears(&mut self, notify: &Message) {
        let call = notify.call_id().expect("Call-ID");
        let Some(watch) = self.watches.get_mut(call) else { return };
        let body = body_of(notify);
        if !body.is_empty() {
            watch.seen = marks(&body);
        }
        if state_of(notify).starts_with("terminated") {
            self.watches.remove(call);
        }
    }

    /// Everything heals, everybody answers; then what is seen must be what is.
    fn end(&mut self) {
        self.steps.push("the end".to_owned());
        for user in self.away.clone() {
            self.phone_is_back(user);
        }
        if !self.stage.is_connected {
            self.connect();
        }
        self.hear();
        for (couple, grant) in self.grants.clone() {
            if grant == Grant::Asked {
                self.contact_grants(couple);
            }
        }
        for couple in couples() {
            self.user_decides_so(couple, true);
        }
        self.wait(Duration::from_secs(70));
        for couple @ (user, contact) in couples() {
            let open = self.published.get(&user).and_then(|(_, mark)| mark.clone());
            let is: BTreeSet<String> =
                open.filter(|_| self.contacts.authorized.contains(&couple)).into_iter().collect();
            assert_eq!(
                self.contacts.seen(couple),
                is,
                "{} about {} {self:?}",
                CONTACTS[contact],
                USERS[user]
            );
        }
        for (call, watch) in &self.watches {
            let (user, contact) = watch.couple;
            assert_eq!(
                self.grants.get(&watch.couple),
                Some(&Grant::Yes),
                "{call} of {} hangs, though {} refused {self:?}",
                USERS[user],
                CONTACTS[contact]
            );
            let is: BTreeSet<String> = RESOURCES
                .iter()
                .filter_map(|resource| self.online.get(&(contact, *resource)))
                .map(|(mark, _)| mark.clone())
                .collect();
            assert_eq!(watch.seen, is, "{call}: {} about {} {self:?}", USERS[user], CONTACTS[contact]);
        }
    }
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\nseed {}:\n  {}", self.seed, self.steps.join("\n  "))
    }
}

fn couples() -> impl Iterator<Item = Couple> {
    (0..USERS.len()).flat_map(|user| (0..CONTACTS.len()).map(move |contact| (user, contact)))
}

/// The marks of the contact's resources in a document: only theirs begin with `c` and end with a dot.
fn marks(body: &str) -> BTreeSet<String> {
    let notes = body.split("<note").skip(1).filter_map(|rest| between(rest, ">", "</note>"));
    notes.filter(|note| note.starts_with('c') && note.ends_with('.')).map(ToOwned::to_owned).collect()
}

#[test]
fn in_whatever_order_things_happen_everybody_sees_what_is_in_the_end() {
    for seed in walks() {
        let mut walk = Walk::new(seed);
        for _ in 0..STEPS {
            walk.step();
        }
        walk.end();
    }
}
