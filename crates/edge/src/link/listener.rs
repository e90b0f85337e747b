//! The edge's end: it waits for a gateway, takes its table, and hands it what streams bring.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tombolo_net::{Role, accept_tls, server_config};
use tombolo_policy::Table;
use tombolo_runtime::{Clock, Placement};

use super::{
    CREDIT_BYTES, Identity, LinkSettings, TLS_LIMIT,
    frame::LinkFrame,
    wire::{End, carry},
};
use crate::{EdgePort, FromEdge, StreamId, StreamSink, ToEdge, XmppEdge, outbox::Outbox};

#[derive(Default)]
struct Shared {
    /// The gateway that is linked, if one is.
    gateway: Mutex<Option<Arc<Outbox>>>,
    /// Octets of each stream that are on their way and not taken.
    on_their_way: Mutex<HashMap<StreamId, usize>>,
}

/// Where an edge's streams hand what they bring.
pub struct LinkSink {
    shared: Arc<Shared>,
}

impl StreamSink for LinkSink {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        let Some(gateway) = self.shared.gateway.lock().clone() else {
            // Without a gateway nothing is taken; streams are being closed.
            return match value {
                FromEdge::Stanzas { .. } => Err(value),
                _ => Ok(()),
            };
        };
        if let FromEdge::Stanzas { stream, stanzas, .. } = &value {
            let mut on_their_way = self.shared.on_their_way.lock();
            let sum = on_their_way.entry(*stream).or_insert(0);
            if *sum > CREDIT_BYTES {
                return Err(value);
            }
            *sum += stanzas.iter().map(Bytes::len).sum::<usize>();
        }
        if let FromEdge::StreamDown { stream, .. } = &value {
            self.shared.on_their_way.lock().remove(stream);
        }
        let is_stanzas = matches!(value, FromEdge::Stanzas { .. });
        let frame = LinkFrame::FromEdge(value);
        if gateway.push(frame.encode(), 0) {
            return Ok(());
        }
        match frame {
            LinkFrame::FromEdge(value) if is_stanzas => Err(value),
            // A gateway that lets so much pile up is lost.
            _ => {
                gateway.close();
                Ok(())
            }
        }
    }
}

/// Waits for gateways.
pub struct LinkListener {
    listener: TcpListener,
    identity: Identity,
    shared: Arc<Shared>,
    placement: Placement,
    clock: Clock,
}

impl LinkListener {
    /// Opens the listener; nobody is let in before [`LinkListener::start`].
    pub fn bind(
        settings: LinkSettings,
        listen: SocketAddr,
        placement: Placement,
        clock: Clock,
    ) -> io::Result<(LinkSink, Self)> {
        let identity = Identity::read(&settings)?;
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let listener = tombolo_net::listen(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("link {listen}: {error}")))?;
        let shared = Arc::new(Shared::default());
        let sink = LinkSink { shared: shared.clone() };
        Ok((sink, Self { listener, identity, shared, placement, clock }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound listener has an address")
    }

    /// Lets gateways in: what they say goes to `xmpp`, their table into `policy`.
    pub fn start(self, xmpp: Arc<XmppEdge>, policy: Arc<ArcSwap<Table>>) {
        let helpers = self.placement.helpers();
        helpers.spawn(async move {
            loop {
                let Ok((socket, remote)) = self.listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                // One gateway at a time: the next is let in when this one is gone.
                if let Err(error) = self.serve(socket, &xmpp, &policy).await {
                    tracing::warn!(%remote, %error, "link ended");
                }
            }
        });
    }

    async fn serve(
        &self,
        socket: TcpStream,
        xmpp: &Arc<XmppEdge>,
        policy: &Arc<ArcSwap<Table>>,
    ) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let config = server_config(&self.identity.certificates, &[]);
        let (stream, facts) = accept_tls(socket, config, TLS_LIMIT).await.map_err(io::Error::other)?;
        facts
            .certificates
            .verify(&self.identity.trust, Role::Client, true, false, self.clock.now().wall)
            .map_err(io::Error::other)?;
        tracing::info!("gateway linked");
        let outbox = Arc::new(Outbox::default());
        *self.shared.gateway.lock() = Some(outbox.clone());
        let error = carry(stream, End::Edge, outbox, |frame| {
            self.take(frame, xmpp, policy);
            std::future::ready(())
        })
        .await;
        *self.shared.gateway.lock() = None;
        self.shared.on_their_way.lock().clear();
        // Its end ends its streams: nobody is left who knows what they are for.
        xmpp.close_all();
        Err(error)
    }

    fn take(&self, frame: LinkFrame, xmpp: &XmppEdge, policy: &ArcSwap<Table>) {
        match frame {
            LinkFrame::ToEdge(ToEdge::Credit { stream, bytes }) => {
                if let Some(sum) = self.shared.on_their_way.lock().get_mut(&stream) {
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
                }
                None => tracing::error!("the gateway's partner table contradicts itself"),
            },
            LinkFrame::Hello { .. } | LinkFrame::FromEdge(_) => {}
        }
    }
}
