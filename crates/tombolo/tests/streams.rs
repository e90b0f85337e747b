//! A partner with a stream to a running process, and what operators are told of it.

mod common;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use common::{Running, text};
use tokio::sync::mpsc;
use tombolo_edge::{
    DialId, DomainPair, DoorLimits, EdgePort, FromEdge, StreamPace, StreamSink, ToEdge, XmppEdge,
    XmppEdgeSettings,
};
use tombolo_net::{Authority, CertificateStore, Resolver, Trust};
use tombolo_policy::{Home, LocalDomain, Partner, Proxy, Table};
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, Placement};
use tombolo_telemetry::Metrics;
use tombolo_xmpp::stream::StreamLimits;

const PARTNER: &str = "one.example";
const OURS: &str = "corp.example";

struct Ear(mpsc::Sender<FromEdge>);

impl StreamSink for Ear {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        // The test may be over.
        let _ = self.0.try_send(value);
        Ok(())
    }
}

fn domain(name: &str) -> Domain {
    Domain::from_prepared(name).expect("prepared")
}

/// Dials the process as the partner, with the certificate that is called so. Up until the edge is dropped.
async fn dial(running: &Running, certificate: &str) -> (XmppEdge, Arc<CertificateStore>) {
    let authority = Authority::open_or_create(&running.path("authority")).expect("an authority");
    let files = authority.issue(certificate, &[PARTNER]).expect("issued");
    let certificates = Arc::new(CertificateStore::default());
    certificates.load(PARTNER, &files.0, &files.1).expect("it fits");
    let mut partner = Partner::new(domain(OURS));
    partner.proxy = Some(Proxy { host: "127.0.0.1".into(), port: running.xmpp.port() });
    let local = LocalDomain { name: domain(PARTNER), home: Home::BuiltIn };
    let table = Table::new(1, vec![local], vec![partner]).expect("no conflict");
    let placement = Placement::threads(1).expect("threads");
    let settings = XmppEdgeSettings {
        listen: Vec::new(),
        direct_tls_listen: Vec::new(),
        certificates: certificates.clone(),
        trust: Trust::from_pem_file(&authority.certificate()).expect("made"),
        dialback_secret: vec![7; 32],
        limits: StreamLimits::default(),
        pace: StreamPace::default(),
        doors: DoorLimits::default(),
        resolver: Resolver::system().expect("a resolver"),
        memory: tombolo_runtime::MemoryGate::open(),
        outgoing_bytes: 64 << 20,
    };
    let (sender, mut heard) = mpsc::channel(100);
    let policy = Arc::new(ArcSwap::from_pointee(table));
    let metrics = Arc::new(Metrics::new(1));
    let edge = XmppEdge::start(settings, policy, Arc::new(Ear(sender)), placement, Clock::system(), metrics);
    let (edge, _) = edge.expect("started");
    let pair = DomainPair { local: domain(PARTNER), remote: domain(OURS) };
    edge.send(ToEdge::Dial { dial: DialId(1), pair });
    let first = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("an answer");
    assert!(matches!(first, Some(FromEdge::StreamUp { .. })), "{first:?}");
    (edge, certificates)
}

#[test]
fn xs_tls_10_an_operator_sees_how_a_stream_is_protected_and_proved_and_is_told_of_another_certificate() {
    let running = Running::start(&[PARTNER]);
    actix::System::new().block_on(async {
        let (first, _) = dial(&running, "partner-one").await;
        let stream = &running.json(&["status", "--json"])["streams"][0];
        assert_eq!(stream["direction"], "incoming");
        assert_eq!(stream["pairs"], serde_json::json!([format!("{OURS} ← {PARTNER}")]));
        assert_eq!(stream["proof"], "sasl-external");
        assert_eq!(stream["tls"]["version"], "TLSv1.3");
        assert!(
            stream["tls"]["cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS13_")),
            "{stream}"
        );
        let certificate = stream["tls"]["certificate"].as_str().expect("text");
        assert_eq!(certificate.len(), 64, "{stream}");
        assert!(
            stream["tls"]["certificate_days_left"].as_i64().is_some_and(|days| days > 10_000),
            "{stream}"
        );
        let shown = text(&running.order(&["partner", "show", PARTNER]).stdout);
        assert!(
            shown.contains("sasl-external over TLSv1.3") && shown.contains(&certificate[..16]),
            "{shown}"
        );
        let status = text(&running.order(&["status"]).stdout);
        let line = status.lines().find(|line| line.contains(PARTNER)).expect("the partner's line");
        assert!(line.contains("connected") && line.contains(" since "), "{status}");
        assert!(line.ends_with("1 stream in, 0 out, sasl-external over TLSv1.3"), "{status}");

        first.close_all();
        dial(&running, "partner-two").await;
        assert!(running.logged("a partner shows another certificate"));
    });
}
