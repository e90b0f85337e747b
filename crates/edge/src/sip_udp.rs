//! One UDP socket of SIP, as an actor: each remote address is a flow while it is heard of.
//!
//! Datagrams go in and out; which addresses are known is [`Remotes`]' matter.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix::{
    Actor, Addr, AsyncContext, Context, Handler, Message as ActorMessage, WrapFuture, fut::ActorFutureExt,
};
use bytes::Bytes;
use tokio::{net::UdpSocket, time::sleep};
use tombolo_net::canonical;
use tombolo_runtime::{guard, lasting};
use tombolo_sip::{
    build::ResponseBuilder,
    framer::is_padding,
    message::{Message, MessageLimits, read_datagram},
};
use tombolo_telemetry::{StatusClass, tell_lasting_panic};

use crate::{
    DialId, FlowFacts, FlowId, FromFlow, Transport, caught,
    sip_edge::{SipShared, Way},
    sip_remotes::Remotes,
};

/// A socket, from where it can be written and its actor reached.
#[derive(Clone)]
pub(crate) struct UdpSide {
    pub(crate) local: SocketAddr,
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) actor: Addr<UdpActor>,
}

impl UdpSide {
    /// How this socket writes an address, if it can send there at all.
    pub(crate) fn reaches(&self, remote: SocketAddr) -> Option<SocketAddr> {
        (self.local.is_ipv4() == remote.is_ipv4()).then_some(remote)
    }

    /// Sends a message to a flow. A full socket loses it, as the network may; transactions send it again.
    pub(crate) fn send(&self, remote: SocketAddr, bytes: &Bytes, limits: &MessageLimits) {
        if let Err(error) = self.socket.try_send_to(bytes, way_back(bytes, remote, limits)) {
            tracing::warn!(%remote, len = bytes.len(), %error, "sip datagram lost");
        }
    }
}

/// The actor of one socket.
pub(crate) struct UdpActor {
    side: UdpSide,
    shared: Arc<SipShared>,
    remotes: Remotes,
}

/// A peer is to be reached by this socket.
#[derive(ActorMessage)]
#[rtype(result = "()")]
pub(crate) struct Meet {
    pub(crate) remote: SocketAddr,
    pub(crate) dial: DialId,
    pub(crate) has_alternatives: bool,
}

/// The flow to an address is to end.
#[derive(ActorMessage)]
#[rtype(result = "()")]
pub(crate) struct Forget(pub(crate) SocketAddr);

/// The flow to an address is somebody's who proved himself.
#[derive(ActorMessage)]
#[rtype(result = "()")]
pub(crate) struct Keep {
    pub(crate) remote: SocketAddr,
    pub(crate) flow: FlowId,
}

#[derive(ActorMessage)]
#[rtype(result = "()")]
struct Datagrams(Vec<(SocketAddr, Bytes)>);

impl UdpActor {
    /// Puts a socket's actor on its arbiter and begins to receive.
    pub(crate) fn start(socket: UdpSocket, shared: Arc<SipShared>) -> io::Result<UdpSide> {
        let local = socket.local_addr()?;
        let socket = Arc::new(socket);
        let (own, placement) = (socket.clone(), shared.placement.clone());
        let (index, metrics) = (placement.by_hash(local.port().into()), shared.metrics.clone());
        let actor = placement.start_in(index, move |ctx: &mut Context<Self>| Self {
            side: UdpSide { local, socket: own, actor: ctx.address() },
            shared,
            remotes: Remotes::new(MOST_STRANGERS, MOST_BOUND),
        });
        let (receiver, to) = (socket.clone(), actor.clone());
        let receiving = lasting(
            move || {
                let (receiver, to) = (receiver.clone(), to.clone());
                async move { receive(&receiver, &to).await }
            },
            move |panicked| tell_lasting_panic(&metrics, "sip datagrams", panicked),
        );
        placement.helpers().spawn(receiving);
        Ok(UdpSide { local, socket, actor })
    }

    /// A panic over one address or datagram must not end the socket of all.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if let Err(panicked) = guard(|| work(self)) {
            caught::note(&self.shared.metrics, "sip datagram", &panicked);
        }
    }

    /// A new flow to an address that has none.
    fn meet(&mut self, remote: SocketAddr, dial: Option<DialId>, has_alternatives: bool) -> Arc<FlowFacts> {
        let local = canonical(own_address(self.side.local, remote));
        let facts = Arc::new(FlowFacts {
            flow: self.shared.new_flow(),
            transport: Transport::Udp,
            local,
            remote: canonical(remote),
            sent_by: self.shared.sent_by(Transport::Udp, local),
            dial,
            has_alternatives,
            proved_domains: Arc::from([]),
        });
        let now = self.shared.clock.now().instant;
        if let Some(ended) = self.remotes.insert(remote, facts.clone(), now) {
            self.shared.end(ended.flow, "others needed its place".to_owned());
        }
        self.shared.flows.write().insert(facts.flow, Way::Datagrams(self.side.clone(), remote));
        self.shared.tell(FromFlow::FlowUp(facts.clone()));
        facts
    }

    fn take(&mut self, remote: SocketAddr, datagram: Bytes) {
        let now = self.shared.clock.now().instant;
        let known = self.remotes.heard_of(remote, now).cloned();
        if is_padding(&datagram) {
            return;
        }
        let mut message = match read_datagram(datagram.clone(), &self.shared.limits) {
            Ok(message) => message,
            Err(error) => {
                self.shared.metrics.malformed_input();
                tracing::debug!(%remote, %error, "malformed sip datagram");
                return self.refuse(remote, &datagram, error.status());
            }
        };
        match message.status() {
            Some(status) => self.shared.metrics.response_in(StatusClass::of(status)),
            None => message.set_received(canonical(remote)),
        }
        let is_request = message.is_request();
        let flow = known.unwrap_or_else(|| self.meet(remote, None, false));
        let offered = self.shared.sink.offer(FromFlow::Messages { flow, messages: vec![message] });
        // A full receiver loses the datagram, as the network may.
        if offered.is_err() && is_request {
            self.shared.metrics.refused_request();
        }
    }

    /// A malformed request whose sender can be read is told what is wrong (SIP-T-03, SIP-T-04).
    fn refuse(&self, remote: SocketAddr, datagram: &[u8], status: u16) {
        let Some(mut message) = Message::answerable(datagram, &self.shared.limits) else { return };
        message.set_received(canonical(remote));
        if let Ok(response) = ResponseBuilder::to(&message, status, None) {
            self.side.send(remote, &response.render().into(), &self.shared.limits);
        }
    }
}

impl Actor for UdpActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(SWEEP, |actor, _| {
            actor.guarded(|actor| {
                let now = actor.shared.clock.now().instant;
                for _ in 0..SWEPT {
                    let Some(facts) = actor.remotes.poll_silent(now) else { break };
                    actor.shared.end(facts.flow, "not heard of for long".to_owned());
                }
            });
        });
    }
}

impl Handler<Datagrams> for UdpActor {
    type Result = ();

    fn handle(&mut self, Datagrams(datagrams): Datagrams, ctx: &mut Context<Self>) {
        for (remote, datagram) in datagrams {
            self.guarded(|actor| actor.take(remote, datagram));
        }
        // Lets the arbiter's other actors run between two batches.
        ctx.wait(tokio::task::yield_now().into_actor(self).map(|(), _, _| ()));
    }
}

impl Handler<Meet> for UdpActor {
    type Result = ();

    fn handle(&mut self, Meet { remote, dial, has_alternatives }: Meet, _: &mut Context<Self>) {
        // Several peers may share an address, each with a dial of its own: the flow is theirs all.
        self.guarded(|actor| match actor.remotes.keep(remote, dial) {
            Some(facts) => actor.shared.tell(FromFlow::FlowUp(facts)),
            None => drop(actor.meet(remote, Some(dial), has_alternatives)),
        });
    }
}

impl Handler<Keep> for UdpActor {
    type Result = ();

    fn handle(&mut self, Keep { remote, flow }: Keep, _: &mut Context<Self>) {
        self.guarded(|actor| {
            let now = actor.shared.clock.now().instant;
            match actor.remotes.bind(remote, flow, now) {
                Ok(None) => {}
                Ok(Some(ended)) => actor.shared.end(ended.flow, "others needed its place".to_owned()),
                // It ended just when it was given away, and that was told too early.
                Err(()) => actor.shared.end(flow, "ended before".to_owned()),
            }
        });
    }
}

impl Handler<Forget> for UdpActor {
    type Result = ();

    fn handle(&mut self, Forget(remote): Forget, _: &mut Context<Self>) {
        self.guarded(|actor| {
            if let Some(facts) = actor.remotes.forget(remote) {
                actor.shared.end(facts.flow, "closed".to_owned());
            }
        });
    }
}

/// Receives in batches, the next when the last was taken; until then the kernel's buffer fills, and then the network
/// loses.
async fn receive(socket: &UdpSocket, to: &Addr<UdpActor>) {
    let mut buffer = vec![0; MOST_DATAGRAM];
    loop {
        let mut batch = Vec::new();
        match socket.recv_from(&mut buffer).await {
            Ok((len, remote)) => batch.push((remote, Bytes::copy_from_slice(&buffer[..len]))),
            Err(error) => {
                tracing::error!(%error, "sip socket cannot receive");
                sleep(RECEIVE_PAUSE).await;
                continue;
            }
        }
        while batch.len() < BATCH
            && let Ok((len, remote)) = socket.try_recv_from(&mut buffer)
        {
            batch.push((remote, Bytes::copy_from_slice(&buffer[..len])));
        }
        if to.send(Datagrams(batch)).await.is_err() {
            return;
        }
    }
}

/// Where a message to a flow goes. A response goes to the port that its Via names unless the peer asked for the one it
/// sent from (RFC 3261 §18.2.2, RFC 3581 §4); `maddr` is not followed, so that nobody names us a third party.
fn way_back(datagram: &Bytes, source: SocketAddr, limits: &MessageLimits) -> SocketAddr {
    if !datagram.starts_with(b"SIP/2.0 ") {
        return source;
    }
    let message = read_datagram(datagram.clone(), limits);
    let via = message.as_ref().ok().and_then(|message| message.top_via().ok());
    match via.filter(|via| !via.params.has("rport")) {
        Some(via) => SocketAddr::new(source.ip(), via.sent_by.port.unwrap_or(DEFAULT_PORT)),
        None => source,
    }
}

/// The address that the system sends from to a remote one; a socket may be bound to all of them.
fn own_address(bound: SocketAddr, remote: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Nothing is sent by this: a connected socket is told its own address.
    let probe = std::net::UdpSocket::bind((bound.ip(), 0))
        .and_then(|socket| socket.connect(remote).and_then(|()| socket.local_addr()));
    probe.map_or(bound, |local| SocketAddr::new(local.ip(), bound.port()))
}

/// The port of SIP over UDP (RFC 3261 §19.1.2).
const DEFAULT_PORT: u16 = 5060;
/// Addresses that nobody proved himself from: they leave soon, and push out each other alone.
const MOST_STRANGERS: usize = 16_384;
/// Addresses of those who did.
const MOST_BOUND: usize = 100_000;
const MOST_DATAGRAM: usize = 65_535;
const BATCH: usize = 64;
const SWEEP: Duration = Duration::from_secs(1);
/// Flows that one sweep may end.
const SWEPT: usize = 256;
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn response(via: &str) -> Bytes {
        format!("SIP/2.0 200 OK\r\nVia: {via}\r\nContent-Length: 0\r\n\r\n").into()
    }

    #[test]
    fn a_response_goes_to_the_port_that_was_asked_for() {
        let source = SocketAddr::from(([192, 0, 2, 9], 40_000));
        let table = [
            ("SIP/2.0/UDP h.example:5070;branch=z9hG4bKa;rport=40000;received=192.0.2.9", 40_000),
            ("SIP/2.0/UDP h.example:5070;branch=z9hG4bKa", 5070),
            ("SIP/2.0/UDP h.example;branch=z9hG4bKa;received=192.0.2.9", 5060),
            ("SIP/2.0/UDP h.example:5070;branch=z9hG4bKa;maddr=198.51.100.1", 5070),
        ];
        for (via, port) in table {
            let target = way_back(&response(via), source, &MessageLimits::default());
            assert_eq!(target, SocketAddr::new(source.ip(), port), "{via}");
        }
        let request =
            Bytes::from("NOTIFY sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP us:5060;branch=z9hG4bKa\r\n\r\n");
        assert_eq!(way_back(&request, source, &MessageLimits::default()), source);
    }

    #[test]
    fn a_socket_for_all_addresses_knows_which_one_a_peer_sees() {
        let bound = SocketAddr::from(([0, 0, 0, 0], 5060));
        let remote = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(own_address(bound, remote), SocketAddr::from(([127, 0, 0, 1], 5060)));
        let chosen = SocketAddr::from(([127, 0, 0, 7], 5060));
        assert_eq!(own_address(chosen, remote), chosen);
    }
}
