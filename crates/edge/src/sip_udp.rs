//! One UDP socket of SIP, as an actor: each remote address is a flow while it is heard of.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, WrapFuture, fut::ActorFutureExt};
use bytes::Bytes;
use tokio::net::UdpSocket;
use tombolo_sip::{build::ResponseBuilder, message::read_datagram};

use crate::{
    DialId, FlowFacts, FlowId, FromFlow, Transport,
    sip_edge::{SipShared, Way},
};

/// The actor of one socket.
pub(crate) struct UdpActor {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    shared: Arc<SipShared>,
    flows: HashMap<SocketAddr, Known>,
}

struct Known {
    facts: Arc<FlowFacts>,
    /// Sweeps since it was last heard of or met.
    silent_sweeps: u8,
}

/// A peer is to be reached by this socket.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Meet {
    pub(crate) remote: SocketAddr,
    pub(crate) dial: DialId,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Datagrams(Vec<(SocketAddr, Bytes)>);

impl UdpActor {
    /// Puts a socket on its arbiter.
    pub(crate) fn start(
        socket: UdpSocket,
        local: SocketAddr,
        shared: Arc<SipShared>,
    ) -> (Arc<UdpSocket>, Addr<Self>) {
        let socket = Arc::new(socket);
        let (own, placement) = (socket.clone(), shared.placement.clone());
        let index = placement.by_hash(u64::from(local.port()));
        let actor = placement.start_in(index, move |_: &mut _| Self {
            socket: own,
            local,
            shared,
            flows: HashMap::new(),
        });
        let (receiver, to) = (socket.clone(), actor.clone());
        placement.helpers().spawn(async move { receive(&receiver, &to).await });
        (socket, actor)
    }

    fn flow(&mut self, remote: SocketAddr, dial: Option<DialId>) -> Option<Arc<FlowFacts>> {
        if let Some(known) = self.flows.get_mut(&remote) {
            known.silent_sweeps = 0;
            if dial.is_none() || known.facts.dial.is_some() {
                return Some(known.facts.clone());
            }
        }
        if self.flows.len() >= MOST_FLOWS {
            return None;
        }
        let facts = Arc::new(FlowFacts {
            flow: self.shared.new_flow(),
            transport: Transport::Udp,
            local: self.local,
            remote,
            sent_by: self.shared.sent_by(Transport::Udp, self.local),
            dial,
            proved_domains: Arc::from([]),
        });
        self.shared.flows.write().insert(facts.flow, Way::Datagrams(self.socket.clone(), remote));
        if let Some(old) = self.flows.insert(remote, Known { facts: facts.clone(), silent_sweeps: 0 }) {
            self.shared.end(old.facts.flow, "met anew".to_owned());
        }
        self.shared.tell(FromFlow::FlowUp(facts.clone()));
        Some(facts)
    }

    fn take(&mut self, remote: SocketAddr, datagram: Bytes) {
        // Keep-alives of phones are line ends only.
        if datagram.iter().all(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
            return;
        }
        let mut message = match read_datagram(datagram.clone(), &self.shared.limits) {
            Ok(message) => message,
            Err(error) => {
                self.shared.metrics.malformed_input();
                tracing::debug!(%remote, %error, "malformed sip datagram");
                return self.refuse(remote, datagram, error.status());
            }
        };
        if message.is_request() {
            message.set_received(remote);
        } else {
            self.shared.metrics.responses_in(1);
        }
        let Some(facts) = self.flow(remote, None) else { return };
        // A full receiver loses the datagram, as the network may.
        let _ = self.shared.sink.offer(FromFlow::Messages { flow: facts, messages: vec![message] });
    }

    /// A request whose head can be read is told what is wrong with the rest (SIP-T-04).
    fn refuse(&self, remote: SocketAddr, datagram: Bytes, status: u16) {
        let Some(end) = datagram.windows(4).position(|window| window == b"\r\n\r\n") else { return };
        let head = datagram.slice(..end + 4);
        let message = tombolo_sip::message::Message::read(head, Bytes::new(), &self.shared.limits);
        let Ok(mut message) = message else { return };
        if message.is_request() && message.method() != Some(&tombolo_sip::method::Method::Ack) {
            message.set_received(remote);
            if let Ok(response) = ResponseBuilder::to(&message, status, None) {
                let _ = self.socket.try_send_to(&response.render(), remote);
            }
        }
    }

    /// Addresses that were not heard of for long are forgotten.
    fn sweep(&mut self) {
        let mut silent: Vec<(SocketAddr, FlowId)> = Vec::new();
        for (remote, known) in &mut self.flows {
            known.silent_sweeps = known.silent_sweeps.saturating_add(1);
            // A front end that we dialled stays met.
            if known.silent_sweeps > SILENT_SWEEPS && known.facts.dial.is_none() {
                silent.push((*remote, known.facts.flow));
            }
        }
        for (remote, flow) in silent {
            self.flows.remove(&remote);
            self.shared.end(flow, "not heard of for long".to_owned());
        }
    }
}

impl Actor for UdpActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(256);
        ctx.run_interval(SWEEP, |actor, _| actor.sweep());
    }
}

impl Handler<Datagrams> for UdpActor {
    type Result = ();

    fn handle(&mut self, Datagrams(datagrams): Datagrams, ctx: &mut Context<Self>) {
        for (remote, datagram) in datagrams {
            self.take(remote, datagram);
        }
        // Lets the arbiter's other actors run between two batches.
        ctx.wait(tokio::task::yield_now().into_actor(self).map(|(), _, _| ()));
    }
}

impl Handler<Meet> for UdpActor {
    type Result = ();

    fn handle(&mut self, Meet { remote, dial }: Meet, _: &mut Context<Self>) {
        if self.flow(remote, Some(dial)).is_none() {
            self.shared.tell(FromFlow::DialFailed { dial, cause: "too many datagram peers".to_owned() });
        }
    }
}

/// Receives in batches; while the actor is busy the kernel's buffer fills, and then the network loses.
async fn receive(socket: &UdpSocket, to: &Addr<UdpActor>) {
    let mut buffer = vec![0; MOST_DATAGRAM];
    loop {
        let mut batch = Vec::new();
        match socket.recv_from(&mut buffer).await {
            Ok((len, remote)) => batch.push((remote, Bytes::copy_from_slice(&buffer[..len]))),
            // An answer that could not be delivered comes back as an error of the next receive.
            Err(_) => continue,
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

const MOST_FLOWS: usize = 100_000;
const MOST_DATAGRAM: usize = 65_535;
const BATCH: usize = 64;
const SWEEP: Duration = Duration::from_secs(60);
const SILENT_SWEEPS: u8 = 60;
