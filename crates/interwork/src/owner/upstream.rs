//! Our own subscriptions: we ask a user's front end for the user's presence, on behalf of each contact who watches
//! (RFC 8048 §5.2). The SUBSCRIBE's From is the contact, since the front end authorizes the watcher it sees there.

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Domain, Now, PresenceState};
use tombolo_sip::{
    body::{self, BodyFault, Context},
    event::subscriber::{
        Due, End, Notify, NotifyVerdict, Response, ResponseVerdict, State, Subscriber, Unsubscription,
    },
    message::Message,
};
use tombolo_wheel::TimerId;

use super::{
    Asked, Owner, PeerKey, Timer,
    dialogs::Routes,
    fetch::unix_seconds_of,
    input::SipRequest,
    output::{Output, OwnerEvent},
    pairs::{NO_DIALOG, PairId, mark},
    plan::Control,
};
use crate::{
    address::uri_of,
    error::{Failure, NoResponse},
    presence_to_sip::{in_language, state_of_document},
    request::{MAX_FORWARDS, RequestDraft, party, route},
    rows::{Row, SubscriberRow, encode, number_key, table},
    sip_reply::Reply,
    sip_request::{self, NotifyRequest, RequestFault},
    token::{Token, TokenKind},
};

/// A subscription of ours.
#[derive(Debug)]
pub struct Upstream {
    /// Its number, never used twice; our tag and Contact carry it.
    pub row: u64,
    /// The contact for whom we ask, and the user who is asked about.
    pub pair: PairId,
    /// The front end.
    pub peer: PeerKey,
    /// The machine.
    pub machine: Subscriber,
    /// Call-ID; a new one for each dialog.
    pub call_id: String,
    /// The last CSeq that we used.
    pub local_cseq: u32,
    /// The notifier's side of the dialog; `None` until its first NOTIFY.
    pub dialog: Option<Box<RemoteSide>>,
    /// What it brought of the user, uncut: how much of it the contact may see can change.
    pub view: ViewId,
    /// Fires when the machine needs something.
    pub timer: Option<TimerId>,
    /// Of a fetch: when a lasting subscription is to follow, in Unix seconds; 0 where none is.
    pub resumes_at: u32,
}

/// What a notifier's first NOTIFY makes known (RFC 6665 §4.4.1).
#[derive(Debug)]
pub struct RemoteSide {
    /// Its tag.
    pub tag: String,
    /// Where requests go.
    pub target: String,
    /// Route header values.
    pub routes: Option<Routes>,
}

/// All subscriptions of ours.
#[derive(Debug, Default)]
pub struct Upstreams {
    slots: Vec<Option<Upstream>>,
    free: Vec<u32>,
    rows: HashMap<u64, u32, RandomState>,
}

impl Upstreams {
    /// Adds one; its place.
    pub fn insert(&mut self, upstream: Upstream) -> u32 {
        let row = upstream.row;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(upstream);
                at
            }
            None => {
                self.slots.push(Some(upstream));
                (self.slots.len() - 1) as u32
            }
        };
        self.rows.insert(row, at);
        at
    }

    /// Takes one out.
    pub fn remove(&mut self, at: u32) -> Option<Upstream> {
        let upstream = self.slots.get_mut(at as usize)?.take()?;
        self.rows.remove(&upstream.row);
        self.free.push(at);
        Some(upstream)
    }

    /// Gives the one at a place a new number.
    fn renumber(&mut self, at: u32, row: u64) {
        if let Some(upstream) = self.slots.get_mut(at as usize).and_then(Option::as_mut) {
            self.rows.remove(&std::mem::replace(&mut upstream.row, row));
            self.rows.insert(row, at);
        }
    }

    /// The one at a place.
    pub fn upstream(&self, at: u32) -> Option<&Upstream> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// The one at a place, to be changed.
    pub fn upstream_mut(&mut self, at: u32) -> Option<&mut Upstream> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// The place of the one with this number.
    pub fn find(&self, row: u64) -> Option<u32> {
        self.rows.get(&row).copied()
    }

    /// One above the highest place.
    pub fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// All of them with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Upstream)> {
        self.slots.iter().enumerate().filter_map(|(at, upstream)| Some((at as u32, upstream.as_ref()?)))
    }

    /// Number of them.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Owner {
    /// The front end of a user's domain, when the domain has one.
    pub(super) fn front_end_of(&self, user: &Address) -> Option<PeerKey> {
        self.policy.local_domain(user.domain())?.front_end()?;
        Some(PeerKey::FrontEnd(Domain::from_prepared(user.domain())?))
    }

    /// True when the dialog brings state at the moment; what one still says that we are ending counts for nothing.
    pub(super) fn is_upstream_live(&self, at: u32) -> bool {
        self.upstreams.upstream(at).is_some_and(|upstream| {
            upstream.machine.state() == State::Active && !upstream.machine.is_ending()
        })
    }

    fn is_upstream_ending(&self, at: u32) -> bool {
        self.upstreams.upstream(at).is_some_and(|upstream| upstream.machine.is_ending())
    }

    /// Asks the front end, unless it is asked already. While an earlier subscription is ending, it is asked behind that.
    pub(super) fn start_upstream(&mut self, id: PairId, now: Now) {
        // For whom may not see anything nobody is asked.
        let Some(pair) = self.pairs.pair(id).filter(|pair| pair.verdict.may_watch_user) else { return };
        let at = pair.upstream;
        let user = self.addresses.address(pair.user).clone();
        if let Some(upstream) = self.upstreams.upstream_mut(at) {
            // One that waits to try again tries now: somebody asked.
            if matches!(upstream.machine.state(), State::Init | State::Terminated) {
                self.restart_upstream(at, now);
            } else if upstream.machine.is_fetch() {
                upstream.resumes_at = unix_seconds_of(now.instant, now);
            }
            return;
        }
        let Some(peer) = self.front_end_of(&user) else { return };
        self.open_upstream(id, peer, self.settings.front_end_expires, now);
    }

    /// A subscription where there was none. `expires` is 0 for a fetch.
    pub(super) fn open_upstream(&mut self, id: PairId, peer: PeerKey, expires: u32, now: Now) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let user = self.addresses.address(pair.user).clone();
        let row = self.new_row();
        let upstream = Upstream {
            row,
            pair: id,
            peer,
            machine: Subscriber::new(expires),
            call_id: self.new_call_id(&user),
            local_cseq: 0,
            dialog: None,
            view: self.shard.views.hold(ViewId::EMPTY),
            timer: None,
            resumes_at: 0,
        };
        let at = self.upstreams.insert(upstream);
        if let Some(pair) = self.pairs.pair_mut(id) {
            pair.upstream = at;
        }
        self.send_subscribe(at, now);
    }

    pub(super) fn restart_upstream(&mut self, at: u32, now: Now) {
        self.renew_upstream(at, self.settings.front_end_expires, now);
    }

    /// A new dialog in place of one that is over: new Call-ID and tag, no old route set (SIP-E-10). `expires` is 0 for a
    /// fetch.
    pub(super) fn renew_upstream(&mut self, at: u32, expires: u32, now: Now) {
        let row = self.new_row();
        let Some(upstream) = self.upstreams.upstream(at) else { return };
        let id = upstream.pair;
        let Some(pair) = self.pairs.pair(id) else { return };
        let user = self.addresses.address(pair.user).clone();
        let call_id = self.new_call_id(&user);
        self.forget_upstream_row(at);
        self.upstreams.renumber(at, row);
        if let Some(upstream) = self.upstreams.upstream_mut(at) {
            upstream.call_id = call_id;
            upstream.local_cseq = 0;
            upstream.dialog = None;
            if upstream.machine.state() == State::Terminated || expires == 0 {
                upstream.machine = Subscriber::new(expires);
            }
        }
        self.send_subscribe(at, now);
    }

    fn new_call_id(&mut self, user: &Address) -> String {
        let number = self.random();
        format!("{number:016x}{:08x}@{}", self.next_row, crate::address::sip_domain(user.domain()))
    }

    /// Ends the subscription: in its dialog when there is one.
    pub(super) fn stop_upstream(&mut self, id: PairId, now: Now) {
        let Some(at) = self.pairs.pair(id).map(|pair| pair.upstream) else { return };
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        upstream.resumes_at = 0;
        match upstream.machine.unsubscribe() {
            Unsubscription::Send => self.send_subscribe(at, now),
            Unsubscription::Later => self.arm_upstream(at),
            Unsubscription::Done => self.drop_upstream(at),
        }
    }

    pub(super) fn send_subscribe(&mut self, at: u32, now: Now) {
        let Some(upstream) = self.upstreams.upstream(at) else { return };
        let (row, id) = (upstream.row, upstream.pair);
        let Some(pair) = self.pairs.pair(id) else { return };
        let user = self.addresses.address(pair.user).clone();
        let contact = self.addresses.address(pair.contact).clone();
        let partition = user.partition();
        let token = super::key(&self.settings).sign(Token { kind: TokenKind::Subscriber, partition, row });
        let (user_uri, contact_uri) = (uri_of(&user), uri_of(&contact));
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        upstream.local_cseq += 1;
        let (uri, routes, to) = match &upstream.dialog {
            Some(dialog) => {
                let (uri, routes) = route(&dialog.target, dialog.routes.as_deref().map(Vec::as_slice));
                let routes = routes.into_iter().map(ToOwned::to_owned).collect();
                (uri.to_owned(), routes, party(&user_uri, &dialog.tag))
            }
            None => (user_uri.clone(), Vec::new(), format!("<{user_uri}>")),
        };
        let draft = RequestDraft {
            method: "SUBSCRIBE",
            uri,
            routes,
            from: format!("<{contact_uri}>;tag={token}"),
            to,
            call_id: upstream.call_id.clone(),
            cseq: upstream.local_cseq,
            max_forwards: MAX_FORWARDS,
            contact_user: Some(token),
            headers: vec![
                ("Event", "presence".to_owned()),
                ("Accept", "application/pidf+xml".to_owned()),
                ("Expires", upstream.machine.expires().to_string()),
                ("Allow-Events", "presence".to_owned()),
            ],
            content_type: None,
            body: Bytes::new(),
        };
        let peer = upstream.peer.clone();
        upstream.machine.handle_sent(now.instant, &self.settings.subscriber);
        let request = self.new_request(Asked::Subscribe { upstream: at, row });
        self.out.push_back(Output::Request { peer, request, draft: Box::new(draft) });
        self.arm_upstream(at);
    }

    fn arm_upstream(&mut self, at: u32) {
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        if let Some(timer) = upstream.timer.take() {
            self.wheel.cancel(timer);
        }
        if let Some(deadline) = upstream.machine.poll_timeout() {
            upstream.timer = Some(self.wheel.insert(deadline, Timer::Upstream(at)));
        }
    }

    /// The final response to a SUBSCRIBE of ours.
    pub(super) fn handle_subscribe_outcome(
        &mut self,
        at: u32,
        row: u64,
        outcome: &Result<Message, NoResponse>,
        now: Now,
    ) {
        let (status, message, failure) = match outcome {
            Ok(message) => {
                let status = message.status().unwrap_or(500);
                (status, Some(message), Failure::Response(status))
            }
            Err(none) => (none.status(), None, Failure::FrontEnd(*none)),
        };
        let random = self.random() as u32;
        let Some(upstream) = self.upstreams.upstream_mut(at).filter(|upstream| upstream.row == row) else {
            return;
        };
        let is_fetch = upstream.machine.is_fetch();
        let mut is_elsewhere = false;
        // The 2xx to a refresh renews the target, as a NOTIFY does (RFC 3261 §12.2.1.2).
        if let (Some(dialog), Some(message)) = (&mut upstream.dialog, message)
            && (200..300).contains(&status)
            && message.to().ok().and_then(|to| to.tag()) == Some(&*dialog.tag)
            && let Some(target) = sip_request::contact_uri(message)
        {
            is_elsewhere = dialog.target != target;
            dialog.target = target;
        }
        let response = Response {
            status,
            expires: message.and_then(sip_request::expires),
            min_expires: message.and_then(sip_request::min_expires),
            retry_after: message.and_then(sip_request::retry_after),
        };
        let verdict =
            upstream.machine.handle_response(&response, random, now.instant, &self.settings.subscriber);
        let id = upstream.pair;
        let new_address = message.and_then(sip_request::new_address);
        match verdict {
            ResponseVerdict::Wait | ResponseVerdict::Kept => {
                self.arm_upstream(at);
                if is_elsewhere && !is_fetch {
                    self.keep_upstream_row(at, now);
                }
            }
            ResponseVerdict::Failed { .. } | ResponseVerdict::Stopped | ResponseVerdict::Ended
                if is_fetch =>
            {
                self.fail_fetch(at, now);
            }
            ResponseVerdict::Again => self.send_subscribe(at, now),
            ResponseVerdict::Forgotten => self.leave_dialog(at),
            ResponseVerdict::Failed { report } => {
                self.forget_upstream_row(at);
                // A connection that broke puts the front end in doubt, which has a grace of its own.
                if failure != Failure::FrontEnd(NoResponse::Transport) {
                    self.lose_unless_doubtful(at);
                }
                self.arm_upstream(at);
                if report {
                    self.report_failure(id, failure, new_address.as_deref());
                }
            }
            ResponseVerdict::Cancelled { .. } => {
                self.drop_upstream(at);
                self.control(id, Control::Upstream { is_granted: false }, now);
            }
            ResponseVerdict::Stopped => {
                self.lose_upstream(at);
                self.report_failure(id, failure, new_address.as_deref());
                self.drop_upstream(at);
            }
            ResponseVerdict::Ended => self.finish_upstream(at, now),
        }
    }

    /// The front end cannot be asked: the contact is told once, with the mapped condition (STOX-P-12).
    fn report_failure(&mut self, id: PairId, failure: Failure, new_address: Option<&str>) {
        let (user, contact) = self.names_of(id);
        let (condition, text) = (failure.condition(), failure.text("subscription"));
        let (from, to) = (user.as_str(), contact.as_str());
        let bytes = crate::xmpp_error::presence_error(from, to, condition, Some(&text), new_address);
        self.say(&user, &contact, bytes);
    }

    /// A NOTIFY in a dialog of ours.
    pub(super) fn handle_notify(&mut self, request: &SipRequest, now: Now) {
        let notify = match NotifyRequest::read(&request.message) {
            Ok(notify) => notify,
            Err(fault) => return self.answer(request, Reply::status(fault.status), fault.reason),
        };
        let found = super::key(&self.settings)
            .verify(&notify.to_tag)
            .filter(|token| token.kind == TokenKind::Subscriber)
            .and_then(|token| self.upstreams.find(token.row));
        let Some(at) = found else {
            return self.answer(request, Reply::status(481), "no such subscription");
        };
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        let is_ours = upstream.call_id == notify.call_id
            && upstream.peer == request.peer
            && upstream
                .dialog
                .as_ref()
                .map_or(upstream.machine.may_form_dialog(), |d| d.tag == notify.from_tag);
        if !is_ours {
            return self.answer(request, Reply::status(481), "no such subscription");
        }
        if upstream.dialog.is_none() && notify.contact.is_none() {
            // Without it no request of ours could be sent in the dialog (RFC 6665 §4.4.1, RFC 3261 §12.1.1).
            return self.answer(request, Reply::status(400), "a NOTIFY without Contact");
        }
        let id = upstream.pair;
        self.freshen(id, now);
        let news = Notify { cseq: notify.cseq, subscription_state: notify.subscription_state };
        let random = self.random() as u32;
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        let mut is_new = upstream.dialog.is_none();
        let is_fetch = upstream.machine.is_fetch();
        let verdict = upstream.machine.handle_notify(&news, random, now.instant, &self.settings.subscriber);
        match verdict {
            NotifyVerdict::Unknown => {
                return self.answer(request, Reply::status(481), "no such subscription");
            }
            NotifyVerdict::OutOfOrder => {
                return self.answer(request, Reply::status(500), "the CSeq is too low");
            }
            NotifyVerdict::Repeated => return self.answer(request, Reply::status(200), ""),
            NotifyVerdict::Accepted { .. } | NotifyVerdict::Ended(_) => {}
        }
        // A body that cannot be read is refused, and the state stays (STOX-P-60). The rest of the NOTIFY counts.
        let body = self.read_body(id, &request.message);
        if let Some(upstream) = self.upstreams.upstream_mut(at) {
            let target = notify.contact.unwrap_or_default();
            match &mut upstream.dialog {
                Some(dialog) if !target.is_empty() => {
                    is_new |= dialog.target != target;
                    dialog.target = target;
                }
                Some(_) => {}
                None => {
                    let routes = super::watchers::share_routes(&notify.routes);
                    upstream.dialog = Some(Box::new(RemoteSide { tag: notify.from_tag, target, routes }));
                }
            }
        }
        let is_kept = is_new && !is_fetch && matches!(verdict, NotifyVerdict::Accepted { .. });
        if is_kept {
            self.keep_upstream_row(at, now);
        }
        match &body {
            // A dialog that the notifier believes in is never forgotten: a restart would make a second one.
            Ok(_) if is_kept => self.accept_when_stored(request, &Reply::status(200)),
            Ok(_) => self.answer(request, Reply::status(200), ""),
            Err(fault) => {
                self.event(OwnerEvent::BadPidf);
                self.answer_fault(request, &RequestFault::of_body(*fault, Context::Presence));
            }
        }
        match verdict {
            NotifyVerdict::Accepted { .. } => {
                self.arm_upstream(at);
                if let Ok(body) = body {
                    self.take_upstream_state(at, id, body, now);
                }
            }
            NotifyVerdict::Ended(End::Cancelled) => {
                self.drop_upstream(at);
                self.control(id, Control::Upstream { is_granted: false }, now);
            }
            NotifyVerdict::Ended(End::Retry) => {
                self.take_last_state(at, id, body.ok().flatten());
                self.leave_dialog(at);
            }
            NotifyVerdict::Ended(End::Unsubscribed) => self.finish_upstream(at, now),
            NotifyVerdict::Ended(End::Invariant) => {
                self.take_last_state(at, id, body.ok().flatten());
                self.drop_upstream(at);
            }
            NotifyVerdict::Ended(End::Fetched) => {
                self.take_last_state(at, id, body.ok().flatten());
                self.answer_probe(id);
                self.end_fetch(at, now);
            }
            NotifyVerdict::Unknown | NotifyVerdict::OutOfOrder | NotifyVerdict::Repeated => {}
        }
    }

    /// The user's state that a NOTIFY brings; `None` where it brings none.
    fn read_body(&self, id: PairId, notify: &Message) -> Result<Option<PresenceState>, BodyFault> {
        let Some(content) = body::read(notify, Context::Presence)? else { return Ok(None) };
        let user = self.pairs.pair(id).map(|pair| self.addresses.address(pair.user));
        let state = state_of_document(&content.text, user)?;
        Ok(Some(in_language(state, content.language.as_deref())))
    }

    /// While the dialog is active its document is what the contact may see.
    fn take_upstream_state(&mut self, at: u32, id: PairId, body: Option<PresenceState>, now: Now) {
        let Some(pair) = self.pairs.pair(id).filter(|_| self.is_upstream_live(at)) else { return };
        let watch = pair.watch;
        let (is_granted, may_see) = (pair.subscription.is_from(), pair.may_see());
        if let Some(state) = body {
            let replaced = self.upstreams.upstream(at).map_or(ViewId::EMPTY, |upstream| upstream.view);
            let state = self.fit_state(id, state, replaced);
            let view = self.intern(state);
            self.set_upstream_view(at, view);
            self.show_user(id);
            if may_see && let Some(pair) = self.pairs.pair_mut(id).filter(|pair| pair.has(mark::UNSURE)) {
                pair.set(mark::UNSURE, false);
                self.shard.mark_whole(watch);
            }
        }
        if !is_granted {
            // Shown with the grant: `subscribed` goes first.
            self.control(id, Control::Upstream { is_granted: true }, now);
        }
    }

    /// The body of a NOTIFY that ends a subscription is the last state that it brings (RFC 6665 §4.4.3, STOX-P-21).
    fn take_last_state(&mut self, at: u32, id: PairId, state: Option<PresenceState>) {
        let is_granted = self.pairs.pair(id).is_some_and(|pair| pair.subscription.is_from());
        if let Some(state) = state.filter(|_| is_granted) {
            let view = self.intern(state);
            self.set_upstream_view(at, view);
            self.show_user(id);
        }
    }

    /// Keeps what is known of the user; takes over the caller's hold.
    fn set_upstream_view(&mut self, at: u32, view: ViewId) {
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return self.shard.views.release(view) };
        let (id, old) = (upstream.pair, std::mem::replace(&mut upstream.view, view));
        self.account_state(id, old, view);
        self.shard.views.release(old);
    }

    /// The view that the pair's contact may see of `state`; the caller holds it once.
    pub(super) fn cut_view(&mut self, id: PairId, state: &PresenceState) -> ViewId {
        let detail = self.pairs.pair(id).map_or(tombolo_policy::Detail::None, |pair| pair.verdict.detail);
        self.intern(detail.cut(state))
    }

    /// No dialog brings state any more: the contact is told that the user is unknown.
    pub(super) fn lose_upstream(&mut self, at: u32) {
        let Some(id) = self.upstreams.upstream(at).map(|upstream| upstream.pair) else { return };
        let view = self.intern(super::presence_in::unknown_state("The user's server cannot be reached"));
        self.set_upstream_view(at, view);
        self.show_user(id);
    }

    pub(super) fn handle_upstream_due(&mut self, at: u32, now: Now) {
        let random = self.random() as u32;
        let is_behind_doubt = self.is_behind_doubt(at);
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        upstream.timer = None;
        let id = upstream.pair;
        let is_fetch = upstream.machine.is_fetch();
        match upstream.machine.handle_timeout(random, now.instant, &self.settings.subscriber) {
            Due::Nothing => self.arm_upstream(at),
            // It is asked as soon as the front end is heard again, with all others.
            Due::Refresh | Due::Subscribe if is_behind_doubt && !self.is_upstream_ending(at) => {
                self.arm_upstream(at);
            }
            Due::Refresh => self.send_subscribe(at, now),
            Due::Subscribe => self.restart_upstream(at, now),
            Due::Lost { .. } if is_fetch => self.fail_fetch(at, now),
            Due::Lost { report } => {
                self.forget_upstream_row(at);
                self.lose_unless_doubtful(at);
                self.arm_upstream(at);
                if report {
                    self.report_failure(id, Failure::FrontEnd(NoResponse::Timeout), None);
                }
            }
            Due::Ended => self.finish_upstream(at, now),
        }
    }

    /// The dialog is over and another follows soon: until that fails, what was seen holds.
    pub(super) fn leave_dialog(&mut self, at: u32) {
        self.forget_upstream_row(at);
        if let Some(upstream) = self.upstreams.upstream_mut(at) {
            upstream.dialog = None;
        }
        self.arm_upstream(at);
    }

    /// The end that we asked for has come. A contact who asked again meanwhile gets a new subscription.
    fn finish_upstream(&mut self, at: u32, now: Now) {
        let Some(id) = self.upstreams.upstream(at).map(|upstream| upstream.pair) else { return };
        self.drop_upstream(at);
        let Some(pair) = self.pairs.pair(id) else { return };
        let is_wanted = pair.subscription.is_from() || pair.subscription.is_pending_in();
        if is_wanted && self.is_behind_front_end(pair) {
            self.start_upstream(id, now);
        }
    }

    pub(super) fn drop_upstream(&mut self, at: u32) {
        self.forget_upstream_row(at);
        let Some(upstream) = self.upstreams.remove(at) else { return };
        if let Some(timer) = upstream.timer {
            self.wheel.cancel(timer);
        }
        self.account_state(upstream.pair, upstream.view, ViewId::EMPTY);
        self.shard.views.release(upstream.view);
        if let Some(pair) = self.pairs.pair_mut(upstream.pair) {
            pair.upstream = NO_DIALOG;
        }
        self.drop_if_idle(upstream.pair);
    }

    /// Stores the dialog, so that a restart refreshes it instead of making another.
    fn keep_upstream_row(&mut self, at: u32, now: Now) {
        let Some(upstream) = self.upstreams.upstream(at) else { return };
        let Some(dialog) = &upstream.dialog else { return };
        let (user, contact) = self.names_of(upstream.pair);
        let left = upstream.machine.ends_at().map(|end| end.saturating_duration_since(now.instant));
        let value = SubscriberRow {
            user: user.clone(),
            contact,
            peer: upstream.peer.clone(),
            call_id: upstream.call_id.clone(),
            remote_tag: dialog.tag.clone(),
            remote_target: dialog.target.clone(),
            routes: dialog.routes.iter().flat_map(|routes| routes.iter()).map(|r| r.to_string()).collect(),
            expires_at: self.time(now) + left.map_or(0, |left| left.as_secs()),
        };
        self.lazy.push(Row {
            partition: user.partition(),
            table: table::SUBSCRIBER,
            key: number_key(upstream.row),
            value: Some(encode(&value)),
        });
    }

    fn forget_upstream_row(&mut self, at: u32) {
        let Some(upstream) = self.upstreams.upstream(at) else { return };
        if upstream.dialog.is_none() || self.pairs.pair(upstream.pair).is_none() {
            return;
        }
        let (user, _) = self.names_of(upstream.pair);
        for table in [table::SUBSCRIBER, table::VOLATILE] {
            let key = number_key(upstream.row);
            self.lazy.push(Row { partition: user.partition(), table, key, value: None });
        }
    }
}
