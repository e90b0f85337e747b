//! The edge's end: it waits for a gateway, takes its table, and hands it what streams bring.
//!
//! Without a gateway and its table nobody is let in, and no stream is left without one who knows what it is for.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tombolo_net::{AnyStream, Role, accept_tls, server_config};
use tombolo_policy::Table;
use tombolo_runtime::{Clock, Placement};

use super::{
    BULK_BYTES, CREDIT_BYTES, LinkIdentity, MOST_HANDSHAKES, TLS_LIMIT,
    frame::LinkFrame,
    wire::{End, carry, greeted, push},
};
use crate::{EdgePort, FromEdge, StreamId, StreamSink, ToEdge, XmppEdge, outbox::Outbox};

#[derive(Default)]
struct Shared {
    /// The gateway that is linked, if one is.
    gateway: Mutex<Option<Arc<Outbox>>>,
    /// Octets of each stream that are on their way and not taken.
    on_their_way: Mutex<HashMap<StreamId, usize>>,
    /// Whose streams these are; it holds us too, so we hold it weakly.
    xmpp: OnceLock<Weak<XmppEdge>>,
}

/// Where an edge's streams hand what they bring.
pub struct LinkSink {
    shared: Arc<Shared>,
}

impl StreamSink for LinkSink {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        let gateway = self.shared.gateway.lock().clone();
        match (gateway, value) {
            (Some(gateway), FromEdge::Stanzas { stream, first, stanzas }) => self
                .offer_stanzas(&gateway, stream, first, stanzas)
                .map_err(|stanzas| FromEdge::Stanzas { stream, first, stanzas }),
            (None, value @ FromEdge::Stanzas { .. }) => Err(value),
            (gateway, value) => {
                match &value {
                    FromEdge::StreamDown { stream, .. } => {
                        self.shared.on_their_way.lock().remove(stream);
                    }
                    FromEdge::StreamUp { stream, .. } if gateway.is_none() => self.shared.close(*stream),
                    _ => {}
                }
                if let Some(gateway) = gateway {
                    push(&gateway, &LinkFrame::FromEdge(value));
                }
                Ok(())
            }
        }
    }
}

impl LinkSink {
    fn offer_stanzas(
        &self,
        gateway: &Outbox,
        stream: StreamId,
        first: u64,
        stanzas: Vec<Bytes>,
    ) -> Result<(), Vec<Bytes>> {
        if gateway.is_closing() || gateway.waiting_bytes() > BULK_BYTES {
            return Err(stanzas);
        }
        let bytes = stanzas.iter().map(Bytes::len).sum::<usize>();
        {
            let mut on_their_way = self.shared.on_their_way.lock();
            let sum = on_their_way.entry(stream).or_insert(0);
            if *sum > CREDIT_BYTES {
                return Err(stanzas);
            }
            *sum += bytes;
        }
        push(gateway, &LinkFrame::FromEdge(FromEdge::Stanzas { stream, first, stanzas }));
        Ok(())
    }
}

impl Shared {
    /// A stream that no gateway knows of.
    fn close(&self, stream: StreamId) {
        if let Some(xmpp) = self.xmpp.get().and_then(Weak::upgrade) {
            xmpp.send(ToEdge::Close { stream });
        }
    }
}

/// Waits for gateways.
pub struct LinkListener {
    listener: TcpListener,
    identity: LinkIdentity,
    gateways: Vec<String>,
    shared: Arc<Shared>,
    placement: Placement,
    clock: Clock,
}

impl LinkListener {
    /// Opens the listener; nobody is let in before [`LinkListener::start`], and then only whose certificate is for one of
    /// `gateways` (host names or IP addresses).
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn bind(
        identity: LinkIdentity,
        listen: SocketAddr,
        gateways: Vec<String>,
        placement: Placement,
        clock: Clock,
    ) -> io::Result<(LinkSink, Self)> {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let listener = tombolo_net::listen(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("link {listen}: {error}")))?;
        let shared = Arc::new(Shared::default());
        let sink = LinkSink { shared: shared.clone() };
        Ok((sink, Self { listener, identity, gateways, shared, placement, clock }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound listener has an address")
    }

    /// Lets gateways in, one at a time: what they say goes to `xmpp`, their table into `policy`.
    ///
    /// From here on `xmpp` lets partners in only while a gateway is linked and has given its table.
    pub fn start(self, xmpp: Arc<XmppEdge>, policy: Arc<ArcSwap<Table>>) {
        let Self { listener, identity, gateways, shared, placement, clock } = self;
        xmpp.let_in(false);
        // Only the first start counts, and there is only one.
        let _ = shared.xmpp.set(Arc::downgrade(&xmpp));
        let (proved, mut arrived) = mpsc::channel(1);
        let helpers = placement.helpers();
        helpers.spawn(accept(listener, Arc::new((identity, gateways)), clock, proved));
        helpers.spawn(async move {
            while let Some((stream, remote)) = arrived.recv().await {
                tracing::info!(%remote, "gateway linked");
                let error = serve(stream, &shared, &xmpp, &policy).await;
                tracing::warn!(%remote, %error, "link ended");
            }
        });
    }
}

/// Handshakes run beside each other, so that one who never finishes his keeps no gateway waiting.
async fn accept(
    listener: TcpListener,
    whom: Arc<(LinkIdentity, Vec<String>)>,
    clock: Clock,
    proved: mpsc::Sender<(AnyStream, SocketAddr)>,
) {
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    loop {
        let Ok((socket, remote)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = handshakes.clone().try_acquire_owned() else { continue };
        let (whom, clock, proved) = (whom.clone(), clock.clone(), proved.clone());
        tokio::spawn(async move {
            let outcome = prove(socket, &whom.0, &whom.1, &clock).await;
            drop(permit);
            match outcome {
                // Waits its turn while another gateway is linked.
                Ok(stream) => drop(proved.send((stream, remote)).await),
                Err(error) => tracing::warn!(%remote, %error, "link refused"),
            }
        });
    }
}

async fn prove(
    socket: TcpStream,
    identity: &LinkIdentity,
    gateways: &[String],
    clock: &Clock,
) -> io::Result<AnyStream> {
    socket.set_nodelay(true)?;
    let config = server_config(&identity.certificates, &[]);
    let (stream, facts) = accept_tls(socket, config, TLS_LIMIT).await.map_err(io::Error::other)?;
    facts
        .certificates
        .verify_host(&identity.trust, Role::Client, gateways, clock.now().wall)
        .map_err(io::Error::other)?;
    Ok(stream)
}

/// Serves one gateway until its link ends; why it did.
async fn serve(stream: AnyStream, shared: &Shared, xmpp: &XmppEdge, policy: &ArcSwap<Table>) -> io::Error {
    let outbox = greeted();
    *shared.gateway.lock() = Some(outbox.clone());
    let error = carry(stream, End::Edge, outbox, |frame| {
        shared.take(frame, xmpp, policy);
        std::future::ready(())
    })
    .await;
    *shared.gateway.lock() = None;
    xmpp.let_in(false);
    shared.on_their_way.lock().clear();
    // Its end ends its streams: nobody is left who knows what they are for. What they have not written yet, their gateway
    // sends again by others.
    xmpp.abandon_all();
    error
}

impl Shared {
    fn take(&self, frame: LinkFrame, xmpp: &XmppEdge, policy: &ArcSwap<Table>) {
        match frame {
            LinkFrame::ToEdge(ToEdge::Credit { stream, bytes }) => {
                if let Some(sum) = self.on_their_way.lock().get_mut(&stream) {
                    *sum = sum.saturating_sub(bytes as usize);
                }
            }
            LinkFrame::ToEdge(value) => xmpp.send(value),
            LinkFrame::Partners(rows) => match rows.table() {
                Some(table) => {
                    tracing::info!(
                        generation = table.generation(),
                        partners = table.partners().len(),
                        "partner table"
                    );
                    policy.store(Arc::new(table));
                    xmpp.policy_changed();
                    xmpp.let_in(true);
                }
                None => tracing::error!("the gateway's partner table contradicts itself"),
            },
            LinkFrame::Hello { .. } | LinkFrame::FromEdge(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{STREAM_WINDOW_BYTES, StreamEnd};

    fn stanzas(stream: u64, bytes: usize) -> FromEdge {
        FromEdge::Stanzas {
            stream: StreamId(stream),
            first: 1,
            stanzas: vec![Bytes::from(vec![b'x'; bytes])],
        }
    }

    fn linked() -> (LinkSink, Arc<Outbox>) {
        let (shared, outbox) = (Arc::new(Shared::default()), greeted());
        *shared.gateway.lock() = Some(outbox.clone());
        (LinkSink { shared }, outbox)
    }

    #[test]
    fn a_stream_sends_no_more_than_its_credit_and_goes_on_when_the_gateway_has_taken_some() {
        let (sink, _) = linked();
        let taken = (0..100).take_while(|_| sink.offer(stanzas(1, 32 << 10)).is_ok()).count();
        assert_eq!(taken, CREDIT_BYTES / (32 << 10) + 1);
        assert!(sink.offer(stanzas(2, 32 << 10)).is_ok(), "another stream has credit of its own");
        let sum = sink.shared.on_their_way.lock()[&StreamId(1)];
        assert!(sink.offer(stanzas(1, 1)).is_err());
        assert_eq!(sink.shared.on_their_way.lock()[&StreamId(1)], sum, "what was given back uses no credit");
        *sink.shared.on_their_way.lock().get_mut(&StreamId(1)).expect("known") -= 32 << 10;
        assert!(sink.offer(stanzas(1, 1)).is_ok());
    }

    #[test]
    fn a_link_full_of_stanzas_still_takes_everything_else_and_is_not_lost() {
        let (sink, outbox) = linked();
        let mut stream = 0;
        while outbox.waiting_bytes() <= BULK_BYTES {
            stream += 1;
            assert!(sink.offer(stanzas(stream, 64 << 10)).is_ok());
        }
        assert!(sink.offer(stanzas(stream + 1, 10)).is_err(), "no more stanzas");
        let before = outbox.waiting_bytes();
        let written = FromEdge::Written { stream: StreamId(1), last: 1, bytes: STREAM_WINDOW_BYTES };
        assert!(sink.offer(written).is_ok());
        assert!(outbox.waiting_bytes() > before, "the report waits behind the stanzas");
        assert!(!outbox.is_closing());
    }

    #[test]
    fn without_a_gateway_stanzas_are_given_back_and_the_end_of_a_stream_is_forgotten() {
        let (sink, _) = linked();
        sink.offer(stanzas(1, 10)).expect("taken");
        *sink.shared.gateway.lock() = None;
        assert!(sink.offer(stanzas(1, 10)).is_err());
        let down = FromEdge::StreamDown { stream: StreamId(1), end: StreamEnd::Closed, last_written: 0 };
        assert!(sink.offer(down).is_ok());
        assert!(sink.shared.on_their_way.lock().is_empty());
    }
}
