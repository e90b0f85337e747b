//! A federated session on its arbiter: carries between shards, the edge and the pure [`Session`].

use std::{sync::Arc, time::Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use tombolo_edge::{DialId, DomainPair, StreamEnd, ToEdge};
use tombolo_interwork::{
    error::Undelivered,
    owner::{Input, LaneKey},
};

use crate::{
    alarm::{Alarm, Alarmed},
    broker::SessionReport,
    directory::{Directory, LINGER},
    guarded::{Guarded, Recovery},
    messages::ToSession,
    panics::ActorKind,
    partner_states::PartnerNews,
    session::{Session, SessionOutput, SessionState, Standing},
};

/// The actor of one local domain and one partner domain.
pub struct SessionActor {
    pair: DomainPair,
    session: Session,
    directory: Arc<Directory>,
    alarm: Alarm,
    last_failure: Option<StreamEnd>,
    /// The dials that the session waits for; what others come to is old news.
    dials: Vec<DialId>,
    stanzas_out: u64,
    /// When it may end, as long as nothing happens.
    idle_until: Option<Instant>,
    /// The directory does not know it any more: what comes still is for its successor.
    is_leaving: bool,
    seed: u64,
    /// The partner is lost: what senders of messages are told.
    lost: Option<&'static str>,
    /// How the partner is doing, and since when.
    state: SessionState,
    state_since: Instant,
    /// What operators were told of it, under which generation of the policy: a partner that was removed and put back is
    /// told of again.
    told: Option<(u64, PartnerNews)>,
    recovery: Recovery,
}

impl SessionActor {
    /// A session without a stream.
    pub fn new(pair: DomainPair, seed: u64, directory: Arc<Directory>) -> Self {
        let state_since = directory.clock.now().instant;
        Self {
            session: new_session(&directory, &pair, seed),
            pair,
            directory,
            alarm: Alarm::default(),
            last_failure: None,
            dials: Vec::new(),
            stanzas_out: 0,
            idle_until: None,
            is_leaving: false,
            seed,
            lost: None,
            state: SessionState::Idle,
            state_since,
            told: None,
            recovery: Recovery::default(),
        }
    }

    fn lane(&self) -> LaneKey {
        LaneKey::Session { local: self.pair.local.clone(), remote: self.pair.remote.clone(), number: 0 }
    }

    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.session.poll_output() {
            self.carry(output);
        }
        self.note_state();
        // To be asked for a report keeps nobody here.
        let linger = || self.directory.clock.now().instant + LINGER;
        self.idle_until = self.session.is_idle().then(|| self.idle_until.unwrap_or_else(linger));
        self.set_alarm(self.idle_until.or(self.session.poll_timeout()), ctx);
    }

    /// Tells operators how the partner is doing, where that has changed.
    fn note_state(&mut self) {
        let state = self.session.state();
        if state != self.state {
            self.state = state;
            self.state_since = self.directory.clock.now().instant;
        }
        let news = match state {
            SessionState::Lost => PartnerNews::Lost(self.cause().unwrap_or_default()),
            _ => PartnerNews::Reachable,
        };
        let news = (self.directory.policy.load().generation(), news);
        if self.told.as_ref() != Some(&news) && !self.is_leaving {
            self.directory.note_partner(&self.pair, news.1.clone());
            self.told = Some(news);
        }
    }

    /// Why there is no stream.
    fn cause(&self) -> Option<String> {
        let failure = self.last_failure.as_ref().map(ToString::to_string);
        failure.or_else(|| self.lost.map(ToOwned::to_owned))
    }

    /// How the partner stands, in what all shards and the policy say.
    fn standing(&self) -> Standing {
        let DomainPair { local, remote } = &self.pair;
        Standing {
            is_configured: self.directory.policy.load().federates(local, remote).is_ok(),
            has_pairs: self.directory.has_pairs_with(remote.as_str()),
        }
    }

    fn carry(&mut self, output: SessionOutput) {
        match output {
            SessionOutput::Dial => {
                self.dials.clear();
                self.dial();
            }
            SessionOutput::DialBeside => self.dial(),
            SessionOutput::Grant { shard, bytes } => {
                self.directory.tell_shard(shard, Input::Credit { lane: self.lane(), bytes });
            }
            SessionOutput::Stanzas { stream, count, bytes } => {
                self.stanzas_out += u64::from(count);
                self.directory.edge().send(ToEdge::Stanzas { stream, count, bytes });
            }
            SessionOutput::Fate { shard, message, fate } => {
                self.directory.tell_shard(shard, Input::MessageFate { message, fate });
            }
            SessionOutput::LaneLost { is_clean } => {
                for shard in 0..self.directory.shard_count() {
                    self.directory.tell_shard(shard, Input::LaneLost { lane: self.lane(), is_clean });
                }
            }
            SessionOutput::Reachable { is_reachable, condition } => {
                self.lost = (!is_reachable).then_some(condition);
                let partner = &self.pair.remote;
                match is_reachable {
                    true => tracing::info!(%partner, "partner is back"),
                    false => tracing::warn!(%partner, condition, "partner is lost"),
                }
                for shard in 0..self.directory.shard_count() {
                    let lane = self.lane();
                    let input = Input::PartnerReachable { lane, is_reachable };
                    self.directory.tell_shard(shard, input);
                }
            }
            SessionOutput::Probe => {
                tracing::info!(partner = %self.pair.remote, "a partner's stream broke: its contacts are probed");
                let lane = self.lane();
                self.directory.tell_shards(|| Input::ContactsDoubtful { lane: lane.clone() });
            }
            SessionOutput::Forgotten => {
                self.lost = None;
                tracing::info!(partner = %self.pair.remote, "nobody needs the lost partner any more");
                let lane = self.lane();
                let input = || Input::PartnerReachable { lane: lane.clone(), is_reachable: true };
                self.directory.tell_shards(input);
            }
            SessionOutput::GiveUp(stream) => {
                let partner = &self.pair.remote;
                tracing::warn!(%partner, stream = stream.0, "the partner does not answer any more");
                // Its silent streams to us are as dead, or lead it to believe that we hear it.
                let silent =
                    self.directory.silent_streams(&self.pair, self.directory.session_settings.ping_wait);
                for stream in silent.into_iter().chain([stream]) {
                    self.directory.edge().send(ToEdge::GiveUp { stream });
                }
            }
            SessionOutput::Close(stream) => self.directory.edge().send(ToEdge::Close { stream }),
        }
    }

    fn dial(&mut self) {
        let dial = self.directory.new_dial(&self.pair);
        self.dials.push(dial);
        self.directory.edge().send(ToEdge::Dial { dial, pair: self.pair.clone() });
    }

    fn report(&self) -> SessionReport {
        let now = self.directory.clock.now().instant;
        SessionReport {
            local: self.pair.local.clone(),
            remote: self.pair.remote.clone(),
            stream: self.session.stream(),
            is_lost: self.session.is_lost(),
            waiting: self.session.waiting(),
            stanzas_out: self.stanzas_out,
            state: self.state,
            in_state_for: now.saturating_duration_since(self.state_since),
            next_dial: self.session.next_dial().map(|at| at.saturating_duration_since(now)),
            last_failure: self.cause(),
        }
    }
}

impl Alarmed for SessionActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn handle_alarm(&mut self, ctx: &mut Context<Self>) {
        self.guarded(ctx, Self::pass_time);
    }
}

impl SessionActor {
    fn pass_time(&mut self, ctx: &mut Context<Self>) {
        if self.recovery.is_down() {
            return;
        }
        let now = self.directory.clock.now().instant;
        if self.is_leaving {
            return ctx.stop();
        }
        if self.idle_until.is_some_and(|until| until <= now) {
            // Nobody finds it from now on; whoever has found it just now is still heard.
            self.directory.forget_session(&self.pair, &ctx.address());
            self.is_leaving = true;
            return self.set_alarm(Some(now + LINGER), ctx);
        }
        self.session.handle_standing(self.standing());
        let was_waiting = self.session.next_dial().is_some();
        self.session.handle_timeout(now);
        if !was_waiting && self.session.next_dial().is_some() {
            // A dial got no answer in its time.
            self.last_failure = Some(StreamEnd::Unreachable("no answer in time".to_owned()));
        }
        self.drive(ctx);
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

impl Handler<ToSession> for SessionActor {
    type Result = ();

    fn handle(&mut self, message: ToSession, ctx: &mut Context<Self>) {
        if self.recovery.is_down() {
            return self.refuse(message);
        }
        self.guarded(ctx, |actor, ctx| actor.take(message, ctx));
    }
}

impl Guarded for SessionActor {
    const KIND: ActorKind = ActorKind::Session;

    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn recovery(&mut self) -> &mut Recovery {
        &mut self.recovery
    }

    fn fall(&mut self, ctx: &mut Context<Self>) {
        self.set_alarm(None, ctx);
        let fresh = new_session(&self.directory, &self.pair, self.seed);
        let mut dead = std::mem::replace(&mut self.session, fresh);
        // What its streams were handed is not known any more: what shards owe goes by a new one.
        for stream in self.directory.streams_of(&self.pair) {
            self.directory.edge().send(ToEdge::GiveUp { stream });
        }
        for (shard, message) in dead.take_open_messages() {
            let fate = Err(Undelivered::NotSent("remote-server-timeout"));
            self.directory.tell_shard(shard, Input::MessageFate { message, fate });
        }
    }

    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let session = new_session(&self.directory, &self.pair, self.seed);
        let now = self.directory.clock.now().instant;
        self.session = match self.lost {
            Some(condition) => session.begin_lost(condition, now),
            None => session,
        };
        self.is_back();
        self.directory.tell_shards(|| Input::LaneReset { lane: self.lane() });
        self.drive(ctx);
    }
}

impl SessionActor {
    /// While the session is rebuilt: shards are asked again afterwards for what they owe, messages are refused.
    fn refuse(&self, message: ToSession) {
        match message {
            ToSession::Message { shard, message: Some(message), .. } => {
                let fate = Err(Undelivered::NotSent("resource-constraint"));
                self.directory.tell_shard(shard, Input::MessageFate { message, fate });
            }
            // It would be nobody's.
            ToSession::StreamUp { stream, .. } => self.directory.edge().send(ToEdge::Close { stream }),
            ToSession::Report(answer) => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(self.report());
            }
            _ => {}
        }
    }

    fn take(&mut self, message: ToSession, ctx: &mut Context<Self>) {
        #[cfg(test)]
        crate::guarded::trap::spring(message.text());
        let now = self.directory.clock.now().instant;
        if self.is_leaving && !matches!(message, ToSession::Report(_)) {
            return self.directory.session(&self.pair.local, &self.pair.remote).do_send(message);
        }
        match message {
            ToSession::Want { shard, owed_bytes } => self.session.handle_want(shard, owed_bytes, now),
            ToSession::Stanzas { shard, count, bytes } => {
                self.session.handle_stanzas(shard, count, bytes, now);
            }
            ToSession::Message { shard, message, bytes } => {
                self.session.handle_message(shard, message, bytes, now);
            }
            ToSession::Withdraw { shard, message } => self.session.handle_withdraw(shard, message),
            ToSession::StreamUp { stream, window, max_stanza_bytes } => {
                // Shards hear it before they are granted anything on the stream.
                let lane = self.lane();
                self.directory
                    .tell_shards(|| Input::LaneLimit { lane: lane.clone(), bytes: max_stanza_bytes });
                self.last_failure = None;
                self.dials.clear();
                self.session.handle_stream_up(stream, window, now);
            }
            ToSession::Written { stream, last, bytes } => {
                self.session.handle_written(stream, last, bytes, now);
            }
            ToSession::StreamDown { stream, end, last_written } => {
                self.session.handle_standing(self.standing());
                self.session.handle_stream_down(stream, &end, last_written, now);
                self.last_failure = Some(end).filter(|end| !end.is_clean());
            }
            ToSession::DialFailed { dial, end } => {
                if let Some(at) = self.dials.iter().position(|known| *known == dial) {
                    self.dials.swap_remove(at);
                    self.session.handle_dial_failed(&end, now);
                    self.last_failure = Some(end);
                }
            }
            ToSession::IncomingBroken => {
                self.session.handle_standing(self.standing());
                self.session.handle_incoming_broken(now);
            }
            ToSession::Pong(id) => self.session.handle_pong(id, now),
            ToSession::Retry => self.session.handle_retry(now),
            ToSession::ShardRebuilt(shard) => {
                self.session.handle_shard_rebuilt(shard, now);
                if self.session.is_lost() {
                    let input = Input::PartnerReachable { lane: self.lane(), is_reachable: false };
                    self.directory.tell_shard(shard, input);
                }
            }
            ToSession::Report(answer) => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(self.report());
                return;
            }
        }
        self.drive(ctx);
    }
}

fn new_session(directory: &Directory, pair: &DomainPair, seed: u64) -> Session {
    Session::new(directory.session_settings, seed).with_ping(pair.local.as_str(), pair.remote.as_str())
}

#[cfg(test)]
impl ToSession {
    /// What a trap looks for.
    fn text(&self) -> &str {
        match self {
            Self::Want { .. } => "session: want",
            Self::Message { bytes, .. } => std::str::from_utf8(bytes).unwrap_or_default(),
            Self::Stanzas { bytes, .. } => std::str::from_utf8(bytes).unwrap_or_default(),
            Self::Written { .. } => "session: written",
            _ => "",
        }
    }
}
