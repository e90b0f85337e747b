//! Streams that partners open: who is let in, and how many at a time may have proved nothing.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use rand::RngExt;
use tokio::net::TcpStream;
use tombolo_presence::Domain;
use tombolo_xmpp::{
    stream::{InboundStream, S2sStream, StreamIds, TlsStart},
    stream_error::StreamCondition,
};

use crate::{
    StreamEnd, accept_trouble::AcceptTrouble, caught::caught, negotiation::Negotiation,
    stream_end::NotOpened, xmpp_connection::XmppConnection, xmpp_edge::XmppShared,
};

impl XmppShared {
    /// Room for one more connection; given back when it is dropped.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let outcome = self.doors.lock().knock(address, self.clock.now().instant);
        match outcome {
            Ok(()) => Some(Admission { address, shared: self.clone(), is_proved: false }),
            Err((limit, is_first)) => {
                if is_first {
                    tracing::warn!(%address, %limit, "connections of an address are shut out, for a limit is reached");
                }
                None
            }
        }
    }

    /// Room for one more stream of a partner, given back when it is dropped; or the partner's entry. All domains of an
    /// entry are counted together: below a wildcard the partner chooses how many there are.
    fn make_room(self: &Arc<Self>, remote: &Domain) -> Result<PartnerRoom, Box<str>> {
        let entry: Box<str> = self.policy.load().entry_of(remote.as_str()).into();
        let mut by_partner = self.by_partner.lock();
        let count = by_partner.entry(entry.clone()).or_insert(0);
        if *count >= self.per_partner {
            return Err(entry);
        }
        *count += 1;
        Ok(PartnerRoom { entry, shared: self.clone() })
    }
}

/// One connection's place in the budgets.
pub(crate) struct Admission {
    address: IpAddr,
    shared: Arc<XmppShared>,
    is_proved: bool,
}

impl Admission {
    fn prove(&mut self) {
        self.is_proved = true;
        self.shared.doors.lock().prove(self.address);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.doors.lock().leave(self.address, self.is_proved);
    }
}

/// One stream's place in the budget of its partner.
pub(crate) struct PartnerRoom {
    entry: Box<str>,
    shared: Arc<XmppShared>,
}

impl Drop for PartnerRoom {
    fn drop(&mut self) {
        let mut by_partner = self.shared.by_partner.lock();
        if let Some(count) = by_partner.get_mut(&self.entry) {
            *count -= 1;
            if *count == 0 {
                by_partner.remove(&self.entry);
            }
        }
    }
}

/// Says why nobody is let in, as far as that takes no memory: a stream that begins inside TLS is hung up on.
fn refuse_for_memory(socket: &TcpStream, tls: TlsStart) {
    const ANSWER: &[u8] = b"<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' version='1.0'><stream:error><resource-constraint \
        xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";
    if tls == TlsStart::StartTls {
        // A new socket has room for it.
        let _ = socket.try_write(ANSWER);
    }
}

/// Accepts for ever; what comes is negotiated in a task of its own, within the budgets.
pub(crate) async fn accept(listener: Arc<tokio::net::TcpListener>, tls: TlsStart, shared: Arc<XmppShared>) {
    let mut trouble = AcceptTrouble::new("xmpp");
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok((socket, remote)) => {
                trouble.is_over();
                (socket, tombolo_net::canonical(remote))
            }
            Err(error) => {
                trouble.rest(&error, &shared.clock).await;
                continue;
            }
        };
        if shared.memory.is_full() {
            shared.metrics.refused_stream();
            refuse_for_memory(&socket, tls);
            continue;
        }
        let is_open = shared.is_open.load(Ordering::Acquire);
        let Some(mut admission) = is_open.then(|| shared.admit(remote.ip())).flatten() else {
            shared.metrics.refused_stream();
            continue;
        };
        let Ok(socket) = socket.set_nodelay(true).and_then(|()| socket.into_std()) else { continue };
        let owner = shared.clone();
        let index = shared.placement.by_hash(rand::rng().random());
        shared.placement.spawn_in(index, async move {
            let Ok(socket) = TcpStream::from_std(socket) else { return };
            let now = owner.clock.now().instant;
            let ids = StreamIds::new(rand::rng().random());
            let stream = InboundStream::new(owner.inbound.clone(), tls, ids, now);
            let negotiation = Negotiation::incoming(S2sStream::Inbound(stream), owner.clone());
            let negotiated = negotiation.run(socket, index, tls);
            let Some(outcome) = caught(&owner.metrics, "xmpp negotiation", negotiated).await else { return };
            match outcome {
                Ok((mut negotiated, _)) => {
                    admission.prove();
                    match owner.make_room(&negotiated.pair.remote) {
                        Ok(room) => {
                            negotiated.places = Some((admission, room));
                            XmppConnection::start(negotiated, owner);
                        }
                        Err(partner) => {
                            owner.metrics.refused_stream();
                            let domain = &negotiated.pair.remote;
                            let limit = owner.per_partner;
                            tracing::warn!(partner, %domain, limit, "a partner has too many streams");
                            negotiated.refuse(StreamCondition::ResourceConstraint, "too many streams").await;
                        }
                    }
                }
                // Such as a partner that only asked about a key of ours.
                Err(NotOpened { end: StreamEnd::Closed, .. }) => {
                    tracing::debug!(remote = %remote, "a stream without a proved pair was closed in order");
                }
                Err(NotOpened { end, claimed, .. }) => {
                    owner.metrics.refused_stream();
                    tracing::info!(remote = %remote, partner = claimed, cause = %end, "s2s stream refused");
                }
            }
        });
    }
}
