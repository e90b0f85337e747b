//! A federated session on its arbiter: carries between shards, the edge and the pure [`Session`].

use std::{sync::Arc, time::Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use tombolo_edge::{DialId, DomainPair, StreamEnd, ToEdge};
use tombolo_interwork::owner::{Input, LaneKey};

use crate::{
    alarm::{Alarm, Alarmed},
    broker::SessionReport,
    directory::{Directory, LINGER},
    messages::ToSession,
    session::{Session, SessionOutput, Standing},
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
}

impl SessionActor {
    /// A session without a stream.
    pub fn new(pair: DomainPair, seed: u64, directory: Arc<Directory>) -> Self {
        let settings = directory.session_settings;
        let session = Session::new(settings, seed).with_ping(pair.local.as_str(), pair.remote.as_str());
        Self {
            pair,
            session,
            directory,
            alarm: Alarm::default(),
            last_failure: None,
            dials: Vec::new(),
            stanzas_out: 0,
            idle_until: None,
            is_leaving: false,
        }
    }

    fn lane(&self) -> LaneKey {
        LaneKey::Session { local: self.pair.local.clone(), remote: self.pair.remote.clone(), number: 0 }
    }

    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.session.poll_output() {
            self.carry(output);
        }
        // To be asked for a report keeps nobody here.
        let linger = || self.directory.clock.now().instant + LINGER;
        self.idle_until = self.session.is_idle().then(|| self.idle_until.unwrap_or_else(linger));
        self.set_alarm(self.idle_until.or(self.session.poll_timeout()), ctx);
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
        SessionReport {
            local: self.pair.local.clone(),
            remote: self.pair.remote.clone(),
            stream: self.session.stream(),
            is_lost: self.session.is_lost(),
            waiting: self.session.waiting(),
            stanzas_out: self.stanzas_out,
            last_failure: self.last_failure.as_ref().map(ToString::to_string),
        }
    }
}

impl Alarmed for SessionActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn handle_alarm(&mut self, ctx: &mut Context<Self>) {
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
        self.session.handle_timeout(now);
        self.drive(ctx);
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

impl Handler<ToSession> for SessionActor {
    type Result = ();

    fn handle(&mut self, message: ToSession, ctx: &mut Context<Self>) {
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
            ToSession::Report(answer) => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(self.report());
                return;
            }
        }
        self.drive(ctx);
    }
}
