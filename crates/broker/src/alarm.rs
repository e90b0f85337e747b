//! The one timer of an actor around a pure machine: set for the machine's deadline, moved only when that moves.

use std::time::Instant;

use actix::{Actor, AsyncContext, Context, SpawnHandle, WrapFuture, fut::ActorFutureExt};

/// When an actor's machine wants to be called next.
#[derive(Debug, Default)]
pub struct Alarm(Option<(Instant, SpawnHandle)>);

/// An actor with an [`Alarm`].
pub trait Alarmed: Actor<Context = Context<Self>> {
    /// Its alarm.
    fn alarm(&mut self) -> &mut Alarm;

    /// The time for which the alarm was set has come.
    fn handle_alarm(&mut self, ctx: &mut Context<Self>);

    /// Sets the alarm for `next`, in place of what it was set for; for nothing when `None`.
    fn set_alarm(&mut self, next: Option<Instant>, ctx: &mut Context<Self>) {
        if self.alarm().0.map(|(at, _)| at) == next {
            return;
        }
        if let Some((_, timer)) = self.alarm().0.take() {
            ctx.cancel_future(timer);
        }
        if let Some(at) = next {
            let sleep = tokio::time::sleep_until(at.into()).into_actor(self);
            let timer = ctx.spawn(sleep.map(|(), actor, ctx| {
                actor.alarm().0 = None;
                actor.handle_alarm(ctx);
            }));
            self.alarm().0 = Some((at, timer));
        }
    }
}
