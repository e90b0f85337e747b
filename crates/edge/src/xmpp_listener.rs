//! Streams that partners open: who is let in, and how many at a time may have proved nothing.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::RngExt;
use tokio::net::TcpStream;
use tombolo_xmpp::stream::{InboundStream, S2sStream, StreamIds, TlsStart};

use crate::{
    StreamEnd, negotiation::Negotiation, stream_end::NotOpened, xmpp_connection::XmppConnection,
    xmpp_edge::XmppShared,
};

impl XmppShared {
    /// Room for one more connection that has proved nothing; given back when it is dropped.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let permit = self.unproved.clone().try_acquire_owned().ok()?;
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_insert(0);
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Admission { address, shared: self.clone(), _permit: permit })
    }
}

/// One unproved connection's place in the budgets.
pub(crate) struct Admission {
    address: IpAddr,
    shared: Arc<XmppShared>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut by_address = self.shared.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts for ever; what comes is negotiated in a task of its own, within the budgets.
pub(crate) async fn accept(listener: tokio::net::TcpListener, tls: TlsStart, shared: Arc<XmppShared>) {
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "xmpp listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let is_open = shared.is_open.load(Ordering::Acquire);
        let Some(admission) = is_open.then(|| shared.admit(remote.ip())).flatten() else {
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
            let outcome = negotiation.run(socket, index, tls).await;
            drop(admission);
            match outcome {
                Ok((negotiated, _)) => XmppConnection::start(negotiated, owner),
                // Such as a partner that only asked about a key of ours.
                Err(NotOpened { end: StreamEnd::Closed, .. }) => {
                    tracing::debug!(remote = %remote, "a stream without a proved pair was closed in order");
                }
                Err(NotOpened { end, .. }) => {
                    owner.metrics.refused_stream();
                    tracing::info!(remote = %remote, cause = %end, "s2s stream refused");
                }
            }
        });
    }
}
