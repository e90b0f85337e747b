//! One TCP or TLS connection of SIP, as an actor on the arbiter that has its socket.
//!
//! It owns the socket and reports the begin and the end of the flow; the octets are [`Wire`]'s.

use std::{io, mem, sync::Arc};

use actix::{Actor, ActorContext, AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use tombolo_net::{AnyStream, canonical};

use crate::{
    DialId, FlowFacts, FlowId, FromFlow, Transport,
    caught::{PANICKED, caught},
    outbox::Outbox,
    sip_admission::Place,
    sip_edge::{SipShared, Way},
    sip_wire::Wire,
};

/// The actor of one connection. It ends with it.
pub(crate) struct SipConnection {
    shared: Arc<SipShared>,
    flow: FlowId,
    /// Until the actor has begun.
    carried: Option<(AnyStream, Wire)>,
    cause: String,
    _place: Option<Arc<Place>>,
}

/// A connection whose handshakes are done.
pub(crate) struct Established {
    /// The connection.
    pub(crate) stream: AnyStream,
    /// What it is.
    pub(crate) transport: Transport,
    /// The dial that it answers.
    pub(crate) dial: Option<DialId>,
    /// See [`FlowFacts`].
    pub(crate) has_alternatives: bool,
    /// SIP domains that the peer proved.
    pub(crate) proved_domains: Vec<String>,
    /// Its place among those that peers open; `None` for one of ours.
    pub(crate) place: Option<Place>,
}

impl SipConnection {
    /// Reports a flow and begins to carry its messages, on arbiter `index`, whose reactor has the socket already.
    pub(crate) fn start(established: Established, index: usize, shared: Arc<SipShared>) -> io::Result<()> {
        let Established { stream, transport, dial, has_alternatives, proved_domains, place } = established;
        let (local, remote) = (canonical(stream.tcp().local_addr()?), canonical(stream.tcp().peer_addr()?));
        let facts = Arc::new(FlowFacts {
            flow: shared.new_flow(),
            transport,
            local,
            remote,
            sent_by: shared.sent_by(transport, local),
            dial,
            has_alternatives,
            proved_domains: proved_domains.into_iter().map(Into::into).collect(),
        });
        let flow = facts.flow;
        let outbox = Arc::new(Outbox::for_stranger().in_budget(shared.outgoing.clone()));
        let place = place.map(Arc::new);
        shared.flows.write().insert(flow, Way::Connection(outbox.clone(), remote, place.clone()));
        shared.tell(FromFlow::FlowUp(facts.clone()));
        let wire = Wire::new(facts, outbox, shared.sink.clone(), shared.metrics.clone(), shared.limits)
            .with_keep_alive(shared.keep_alive);
        let placement = shared.placement.clone();
        placement.start_in(index, move |_: &mut _| Self {
            shared,
            flow,
            carried: Some((stream, wire)),
            cause: "the connection failed".to_owned(),
            _place: place,
        });
        Ok(())
    }
}

impl Actor for SipConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some((stream, wire)) = self.carried.take() else { return ctx.stop() };
        let metrics = self.shared.metrics.clone();
        let carried = async move { caught(&metrics, "sip connection", wire.carry(stream)).await };
        ctx.spawn(carried.into_actor(self).map(|cause, actor, ctx| {
            actor.cause = cause.unwrap_or_else(|| PANICKED.to_owned());
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shared.end(self.flow, mem::take(&mut self.cause));
    }
}
