//! A simulated XMPP partner: accepts streams for its domains, opens one to ours, and hands over what comes. It answers pings
//! by its own stream, as servers do.

use std::{collections::HashMap, io, net::SocketAddr, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tombolo_edge::{
    DialId, DomainPair, EdgePort, FromEdge, StreamDirection, StreamEnd, StreamId, StreamSink, ToEdge,
    XmppEdge, XmppEdgeSettings,
};
use tombolo_net::{CertificateStore, Resolver, Trust};
use tombolo_policy::{Home, LocalDomain, Method, Partner as Entry, Proxy, Table};
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, Placement};
use tombolo_telemetry::Metrics;
use tombolo_xmpp::stream::StreamLimits;

/// What a partner hands over.
#[derive(Debug)]
pub enum PartnerEvent {
    /// A stream to us is open, for this pair (its `local` is the partner's own domain).
    Connected(StreamId, DomainPair),
    /// No stream to us.
    Failed(StreamEnd),
    /// Stanzas that came.
    Stanzas(Vec<Bytes>),
    /// A stream ended.
    Ended(StreamId, StreamEnd),
    /// So many octets were written to a stream.
    Written(StreamId, u32),
}

/// A partner with one or more domains.
pub struct Partner {
    edge: XmppEdge,
    events: mpsc::Receiver<PartnerEvent>,
    next_dial: u64,
    /// Our streams to the gateway, by their pairs; and the answers to pings that wait for one.
    ways: HashMap<DomainPair, StreamId>,
    unanswered: Vec<(DomainPair, Bytes)>,
}

/// Events that wait for the simulation; over it the partner reads no more, as any server would.
const WAITING_EVENTS: usize = 65_536;

struct Sink(mpsc::Sender<PartnerEvent>);

impl StreamSink for Sink {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        let place = match self.0.try_reserve() {
            Ok(place) => place,
            Err(TrySendError::Full(())) => return Err(value),
            // Nobody listens any more when the simulation ends.
            Err(TrySendError::Closed(())) => return Ok(()),
        };
        let event = match value {
            FromEdge::StreamUp { stream, direction: StreamDirection::Outgoing, pair, .. } => {
                PartnerEvent::Connected(stream, pair)
            }
            FromEdge::Stanzas { stanzas, .. } => PartnerEvent::Stanzas(stanzas),
            FromEdge::StreamDown { stream, end, .. } => PartnerEvent::Ended(stream, end),
            FromEdge::DialFailed { end, .. } => PartnerEvent::Failed(end),
            FromEdge::Written { stream, bytes, .. } => PartnerEvent::Written(stream, bytes),
            _ => return Ok(()),
        };
        place.send(event);
        Ok(())
    }
}

/// Answers that wait for a stream of ours.
const UNANSWERED: usize = 1024;

/// The answer to a ping (XEP-0199) as our own gateways write them, and the pair whose stream it goes by.
fn pong(iq: &[u8]) -> Option<(DomainPair, Bytes)> {
    let text = std::str::from_utf8(iq).ok().filter(|text| text.contains("urn:xmpp:ping"))?;
    let attribute = |name: &str| text.split_once(name)?.1.split_once('\'').map(|(value, _)| value);
    let (id, from, to) = (attribute(" id='")?, attribute(" from='")?, attribute(" to='")?);
    let pair = DomainPair { local: Domain::from_prepared(to)?, remote: Domain::from_prepared(from)? };
    Some((pair, format!("<iq type='result' id='{id}' from='{to}' to='{from}'/>").into()))
}

/// How a partner is set up.
pub struct PartnerSettings<'a> {
    /// Its own domains.
    pub domains: Vec<Domain>,
    /// The domains of the gateway that it talks to, and where the gateway listens.
    pub gateway: (Vec<Domain>, SocketAddr),
    /// Where it listens itself.
    pub listen: SocketAddr,
    /// A folder with `DOMAIN.pem`, `DOMAIN.key` for its domains, and `ca.pem`.
    pub certificates: &'a Path,
    /// How it lets the gateway prove itself.
    pub methods: Vec<Method>,
}

impl Partner {
    /// Begins to listen. Call it inside an actix `System`.
    pub fn start(settings: &PartnerSettings<'_>, placement: &Placement) -> io::Result<(Self, SocketAddr)> {
        let certificates = Arc::new(CertificateStore::default());
        for domain in &settings.domains {
            let file = |end: &str| settings.certificates.join(format!("{domain}.{end}"));
            certificates
                .load(domain.as_str(), &file("pem"), &file("key"))
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        let trust = Trust::from_pem_file(&settings.certificates.join("ca.pem"));
        let (gateway_domains, gateway) = &settings.gateway;
        let entry = |domain: &Domain| Entry {
            authenticate: settings.methods.clone(),
            proxy: Some(Proxy { host: gateway.ip().to_string().into(), port: gateway.port() }),
            ..Entry::new(domain.clone())
        };
        let locals =
            settings.domains.iter().map(|name| LocalDomain { name: name.clone(), home: Home::BuiltIn });
        let table = Table::new(1, locals.collect(), gateway_domains.iter().map(entry).collect())
            .map_err(|_| io::Error::other("a domain is named twice"))?;
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let edge_settings = XmppEdgeSettings {
            pace: tombolo_edge::StreamPace::default(),
            listen: vec![settings.listen],
            direct_tls_listen: Vec::new(),
            certificates,
            trust: trust.map_err(|error| io::Error::other(error.to_string()))?,
            dialback_secret: rand::random::<[u8; 32]>().to_vec(),
            limits: StreamLimits::default(),
            doors: tombolo_edge::DoorLimits {
                per_address: usize::MAX,
                unproved_per_address: usize::MAX,
                attempts_per_minute: usize::MAX,
                ..Default::default()
            },
            resolver: Resolver::with_servers(&[]).map_err(|error| io::Error::other(error.to_string()))?,
            memory: tombolo_runtime::MemoryGate::open(),
            outgoing_bytes: 64 << 20,
        };
        let (edge, bound) = XmppEdge::start(
            edge_settings,
            Arc::new(ArcSwap::from_pointee(table)),
            Arc::new(Sink(sender)),
            placement.clone(),
            Clock::system(),
            Arc::new(Metrics::new(1)),
        )?;
        let (ways, unanswered) = (HashMap::new(), Vec::new());
        Ok((Self { edge, events, next_dial: 1, ways, unanswered }, bound[0]))
    }

    /// The next thing that happened. Pings that are among it are answered.
    pub async fn event(&mut self) -> Option<PartnerEvent> {
        let event = self.events.recv().await?;
        match &event {
            PartnerEvent::Connected(stream, pair) => _ = self.ways.insert(pair.clone(), *stream),
            PartnerEvent::Ended(stream, _) => self.ways.retain(|_, way| way != stream),
            PartnerEvent::Stanzas(stanzas) => {
                let pongs =
                    stanzas.iter().filter(|stanza| stanza.starts_with(b"<iq ")).filter_map(|iq| pong(iq));
                self.unanswered.extend(pongs);
            }
            PartnerEvent::Failed(_) | PartnerEvent::Written(..) => {}
        }
        for (pair, bytes) in std::mem::take(&mut self.unanswered) {
            match self.ways.get(&pair) {
                Some(way) => self.send(*way, 1, bytes),
                None if self.unanswered.len() < UNANSWERED => self.unanswered.push((pair, bytes)),
                None => {}
            }
        }
        Some(event)
    }

    /// Opens a stream to the gateway; its end comes as an event.
    pub fn dial(&mut self, local: &Domain, remote: &Domain) {
        let pair = DomainPair { local: local.clone(), remote: remote.clone() };
        self.edge.send(ToEdge::Dial { dial: DialId(self.next_dial), pair });
        self.next_dial += 1;
    }

    /// Sends stanzas by a stream.
    pub fn send(&self, stream: StreamId, count: u32, bytes: impl Into<Bytes>) {
        self.edge.send(ToEdge::Stanzas { stream, count, bytes: bytes.into() });
    }

    /// Closes all streams in order; the other side may take a moment to close its own.
    pub fn close(&self) {
        self.edge.close_all();
    }

    /// Opens a stream and waits for it. What comes meanwhile is lost.
    pub async fn connect(&mut self, local: &Domain, remote: &Domain) -> Result<StreamId, String> {
        self.dial(local, remote);
        loop {
            match self.event().await {
                Some(PartnerEvent::Connected(stream, _)) => return Ok(stream),
                Some(PartnerEvent::Failed(end)) => return Err(end.to_string()),
                Some(_) => {}
                None => return Err("the partner ended".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_answered_to_whoever_asked_and_nothing_else_is() {
        let ping =
            b"<iq type='get' id='p7' from='corp.example' to='b.example'><ping xmlns='urn:xmpp:ping'/></iq>";
        let (pair, bytes) = pong(ping).expect("a ping");
        assert_eq!((pair.local.as_str(), pair.remote.as_str()), ("b.example", "corp.example"));
        assert_eq!(bytes, "<iq type='result' id='p7' from='b.example' to='corp.example'/>");
        assert_eq!(pong(b"<iq type='get' id='p7' from='corp.example' to='b.example'><query/></iq>"), None);
    }
}
