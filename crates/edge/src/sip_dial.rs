//! A dial of SIP: from a host name to a flow whose other end proved who it is (RFC 3263 §4, RFC 5922 §7.3).
//!
//! A next hop goes in; a flow comes out that names the dial, or why there is none. When to dial again is decided elsewhere.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::oneshot, time::timeout};
use tombolo_net::{
    AnyStream, PeerCertificates, Role, SipLocation, SipTarget, SipTransport, client_config_classic, connect,
    connect_tls,
};

use crate::{
    DialId, FromFlow, Transport,
    caught::{PANICKED, caught},
    sip_connection::{Established, SipConnection},
    sip_edge::SipShared,
    sip_udp::Meet,
};

/// What is dialled; its parts are those of [`crate::ToFlow::Dial`].
#[derive(Debug, Clone)]
pub(crate) struct SipDial {
    pub(crate) dial: DialId,
    pub(crate) transport: Transport,
    pub(crate) is_transport_named: bool,
    /// In A-labels, as DNS and certificates write it.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// In A-labels.
    pub(crate) domain: String,
}

impl SipDial {
    /// Reports a flow, or that there is none.
    pub(crate) async fn run(self, shared: Arc<SipShared>) {
        let opened = caught(&shared.metrics, "sip dial", self.open(&shared)).await;
        if let Err(cause) = opened.unwrap_or_else(|| Err(PANICKED.to_owned())) {
            shared.tell(FromFlow::DialFailed { dial: self.dial, cause });
        }
    }

    /// Address after address of target after target, until one is there and is who it should be. Those that failed of
    /// late come last (RFC 3263 §4.3).
    async fn open(&self, shared: &Arc<SipShared>) -> Result<(), String> {
        let mut last = format!("{}: no target", self.host);
        let mut ways: Vec<(String, SocketAddr)> = Vec::new();
        let targets = self.targets(shared).await?;
        for target in &targets {
            match shared.resolver.addresses(&target.host, target.port).await {
                Ok(addresses) => ways.extend(addresses.into_iter().map(|to| (target.host.clone(), to))),
                Err(error) => last = format!("{}:{}: {error}", target.host, target.port),
            }
        }
        let now = shared.clock.now().instant;
        let is_last = |(_, to): &(String, SocketAddr)| shared.avoided.lock().is_avoided(*to, now);
        // A stable sort: the order of the records stays within both parts.
        ways.sort_by_cached_key(is_last);
        let has_alternatives = ways.len() > 1;
        for (host, to) in ways {
            match self.reach(to, has_alternatives, shared).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let until = shared.clock.now().instant + AVOIDED_FOR;
                    shared.avoided.lock().mark(to, until);
                    last = format!("{host}:{}: {error}", to.port());
                }
            }
        }
        Err(last)
    }

    async fn targets(&self, shared: &SipShared) -> Result<Vec<SipTarget>, String> {
        let transport = match self.transport {
            Transport::Udp => SipTransport::Udp,
            Transport::Tcp => SipTransport::Tcp,
            Transport::Tls => SipTransport::Tls,
        };
        let location = SipLocation {
            host: &self.host,
            port: self.port,
            transport: self.is_transport_named.then_some(transport),
            is_sips: false,
            // A next hop is spoken to as the settings allow, whatever its records offer.
            spoken: &[transport],
        };
        shared.resolver.locate_sip(&location).await.map_err(|error| format!("{}: {error}", self.host))
    }

    async fn reach(
        &self,
        to: SocketAddr,
        has_alternatives: bool,
        shared: &Arc<SipShared>,
    ) -> Result<(), String> {
        if self.transport == Transport::Udp {
            return self.meet(to, has_alternatives, shared);
        }
        let stream = connect(&[to], CONNECT_LIMIT).await.and_then(TcpStream::into_std);
        let stream = stream.map_err(|error| error.to_string())?;
        let index = shared.placement.by_hash(rand::rng().random());
        let (this, shared_there) = (self.clone(), shared.clone());
        let (done, waiting) = oneshot::channel();
        // The socket lives with the reactor of its arbiter from here on.
        shared.placement.spawn_in(index, async move {
            // Whoever asked may be gone; the flow is reported all the same.
            let established = this.establish(stream, index, has_alternatives, &shared_there);
            let outcome = caught(&shared_there.metrics, "sip handshake", established).await;
            let _ = done.send(outcome.unwrap_or_else(|| Err(PANICKED.to_owned())));
        });
        waiting.await.unwrap_or_else(|_| Err("the arbiter ended".to_owned()))
    }

    /// A flow of the first socket that can send there. Whether anybody is there is not known before an answer.
    fn meet(&self, to: SocketAddr, has_alternatives: bool, shared: &SipShared) -> Result<(), String> {
        let sockets = shared.sockets.read();
        let mut ways = sockets.iter().filter_map(|socket| Some((socket, socket.reaches(to)?)));
        let (socket, remote) = ways.next().ok_or("no UDP listener can send there")?;
        socket.actor.do_send(Meet { remote, dial: self.dial, has_alternatives });
        Ok(())
    }

    async fn establish(
        &self,
        stream: std::net::TcpStream,
        index: usize,
        has_alternatives: bool,
        shared: &Arc<SipShared>,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let stream = TcpStream::from_std(stream).map_err(text)?;
        let (stream, proved_domains) = if self.transport == Transport::Tls {
            let config = client_config_classic(shared.certificates.certificate(&self.domain), &[]);
            // A host with certificates for many domains shows the one that is asked for (SIP-TLS-07).
            let handshake = connect_tls(stream, config, &self.domain, HANDSHAKE_LIMIT).await;
            let (mut stream, facts) = handshake.map_err(|error| error.to_string())?;
            match self.proved(&facts.certificates, shared) {
                Ok(names) => (stream, names),
                Err(cause) => {
                    let _ = timeout(CLOSE_LIMIT, stream.shutdown()).await;
                    return Err(cause);
                }
            }
        } else {
            (AnyStream::Plain(stream), Vec::new())
        };
        let (transport, dial) = (self.transport, Some(self.dial));
        let established =
            Established { stream, transport, dial, has_alternatives, proved_domains, place: None };
        SipConnection::start(established, index, shared.clone()).map_err(text)
    }

    /// The hosts that the other end proved, the one that we look for among them: the domain, or the next hop's host, name or
    /// address, since both were our own choice. The target of an SRV record was not (RFC 5922 §7.3).
    fn proved(&self, certificates: &PeerCertificates, shared: &SipShared) -> Result<Vec<String>, String> {
        let now = shared.clock.now().wall;
        certificates
            .verify(&shared.trust, Role::Server, false, true, now)
            .map_err(|fault| fault.to_string())?;
        let names = certificates.names();
        let hosts = names.sip_hosts();
        let host = canonical_host(&self.host);
        let is_wanted =
            |name: &String| [&*host, &self.domain].iter().any(|own| name.eq_ignore_ascii_case(own));
        if hosts.iter().any(is_wanted) {
            return Ok(hosts);
        }
        let wanted = match self.host == self.domain {
            true => format!("not for {}", self.domain),
            false => format!("neither for {host} nor for {}", self.domain),
        };
        // Beside a `sip:` URI other names do not count (RFC 5922 §7.1): to list them would contradict what is said.
        let listed = if hosts.is_empty() { names.listed() } else { hosts };
        match listed.is_empty() {
            true => Err(format!("the certificate names nobody (subjectAltName), so it is {wanted}")),
            false => Err(format!("the certificate is for {}, {wanted}", listed.join(", "))),
        }
    }
}

/// A host as certificates are read: an address in its one form, without brackets.
fn canonical_host(host: &str) -> Cow<'_, str> {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => Cow::Owned(address.to_canonical().to_string()),
        Err(_) => Cow::Borrowed(host),
    }
}

/// How long an address that failed is tried last.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
