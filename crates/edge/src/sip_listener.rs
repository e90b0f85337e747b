//! The listeners of SIP: sockets are bound, connections accepted and shaken hands with.
//!
//! Addresses go in; connections that are ready for messages come out as actors. It reads no message.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rand::RngExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tombolo_net::{AnyStream, Role, accept_tls, canonical};
use tombolo_runtime::lasting;
use tombolo_telemetry::tell_lasting_panic;

use crate::{
    Transport,
    accept_trouble::AcceptTrouble,
    caught::caught,
    sip_admission::{Place, Refused},
    sip_connection::{Established, SipConnection},
    sip_edge::SipShared,
    sip_udp::UdpActor,
};

/// A socket that is bound and not read yet.
pub(crate) enum Bound {
    /// TCP or TLS.
    Stream(Transport, TcpListener),
    /// UDP.
    Datagrams(UdpSocket),
}

/// Binds all addresses or none.
///
/// # Errors
/// Of the first address that cannot be bound, which the error names.
pub(crate) fn bind(listen: &[(Transport, SocketAddr)]) -> io::Result<Vec<Bound>> {
    // One port may be listened on by TCP and by UDP.
    let of_kind = |is_udp: bool| -> Vec<SocketAddr> {
        let kind = listen.iter().filter(|(transport, _)| (*transport == Transport::Udp) == is_udp);
        kind.map(|(_, address)| *address).collect()
    };
    let (by_udp, by_tcp) = (of_kind(true), of_kind(false));
    let bind = |&(transport, address): &(Transport, SocketAddr)| -> io::Result<Vec<Bound>> {
        Ok(match transport {
            Transport::Udp => {
                tombolo_net::udp_all(address, &by_udp)?.into_iter().map(Bound::Datagrams).collect()
            }
            Transport::Tcp | Transport::Tls => {
                let listeners = tombolo_net::listen_all(address, &by_tcp)?.into_iter();
                listeners.map(|listener| Bound::Stream(transport, listener)).collect()
            }
        })
    };
    let named = |(transport, address): &(Transport, SocketAddr), error: io::Error| {
        io::Error::new(error.kind(), format!("sip {} {address}: {error}", transport.uri_name()))
    };
    let mut bound = Vec::new();
    for listener in listen {
        bound.extend(bind(listener).map_err(|error| named(listener, error))?);
    }
    Ok(bound)
}

impl Bound {
    /// The transport and the address that it got.
    pub(crate) fn address(&self) -> io::Result<(Transport, SocketAddr)> {
        Ok(match self {
            Self::Stream(transport, listener) => (*transport, listener.local_addr()?),
            Self::Datagrams(socket) => (Transport::Udp, socket.local_addr()?),
        })
    }

    /// Begins to take what comes.
    pub(crate) fn open(self, shared: &Arc<SipShared>) -> io::Result<()> {
        match self {
            Self::Stream(transport, listener) => {
                let (listener, owner, metrics) = (Arc::new(listener), shared.clone(), shared.metrics.clone());
                let accepting = lasting(
                    move || accept(listener.clone(), transport, owner.clone()),
                    move |panicked| tell_lasting_panic(&metrics, "sip listener", panicked),
                );
                shared.placement.helpers().spawn(accepting);
            }
            Self::Datagrams(socket) => {
                let side = UdpActor::start(socket, shared.clone())?;
                shared.sockets.write().push(side);
            }
        }
        Ok(())
    }
}

async fn accept(listener: Arc<TcpListener>, transport: Transport, shared: Arc<SipShared>) {
    let mut trouble = AcceptTrouble::new("sip");
    loop {
        // While so many are being welcomed, the kernel's queue holds the others.
        let Ok(permit) = shared.welcomes.clone().acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok((stream, remote)) => {
                trouble.is_over();
                (stream, canonical(remote))
            }
            Err(error) => {
                trouble.rest(&error, &shared.clock).await;
                continue;
            }
        };
        if shared.memory.is_full() {
            shared.metrics.refused_connection();
            tracing::warn!(%remote, "sip connection refused: the process has no memory for it");
            continue;
        }
        let place = match shared.admission.admit(remote.ip(), shared.clock.now().instant) {
            Ok(place) => place,
            Err(refused) => {
                refuse(&refused, remote, &shared);
                continue;
            }
        };
        let Ok(stream) = stream.into_std() else { continue };
        // The socket lives with the reactor of its arbiter from here on, and its handshake is no matter of this loop.
        let index = shared.placement.by_hash(rand::rng().random());
        let owner = shared.clone();
        let is_running = shared.placement.spawn_in(index, async move {
            let welcomed = welcome(stream, transport, index, place, &owner);
            let outcome = caught(&owner.metrics, "sip handshake", welcomed).await;
            drop(permit);
            if let Some(Err(error)) = outcome {
                owner.metrics.malformed_input();
                tracing::debug!(%remote, %error, "sip connection refused");
            }
        });
        if !is_running {
            return;
        }
    }
}

/// The connection is closed unread; operators learn of it, but not of each one of a flood.
fn refuse(refused: &Refused, remote: SocketAddr, shared: &SipShared) {
    shared.metrics.refused_connection();
    if let Some(count) = refused.to_tell {
        let limit = refused.limit;
        tracing::warn!(%remote, limit, count, "sip connections refused: over sip.limits");
    }
}

async fn welcome(
    stream: std::net::TcpStream,
    transport: Transport,
    index: usize,
    place: Place,
    shared: &Arc<SipShared>,
) -> io::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    let (stream, proved_domains) = if transport == Transport::Tls {
        let handshake = accept_tls(stream, shared.tls.clone(), HANDSHAKE_LIMIT).await;
        let (stream, facts) = handshake.map_err(io::Error::other)?;
        let now = shared.clock.now().wall;
        (stream, facts.certificates.sip_hosts(&shared.trust, Role::Client, now))
    } else {
        (AnyStream::Plain(stream), Vec::new())
    };
    let (dial, has_alternatives, place) = (None, false, Some(place));
    let established = Established { stream, transport, dial, has_alternatives, proved_domains, place };
    SipConnection::start(established, index, shared.clone())
}

/// Connections that are welcomed at a time.
pub(crate) const MOST_WELCOMES: usize = 4096;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
