//! Names to addresses: SRV in the order of RFC 2782, then A and AAAA.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use rand::RngExt;

/// Why a name gives no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The name does not exist, or has no record of the kind.
    #[error("no such name or record")]
    NotFound,
    /// The domain says that it has no such service (SRV target `.`).
    #[error("the domain says that it has no such service")]
    NoService,
    /// The name servers did not answer, or with a failure.
    #[error("the name servers gave no answer: {0}")]
    NoAnswer(String),
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among records of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host, without its final dot; empty for `.`.
    pub target: String,
}

/// Where a connection may be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS from the first octet (XEP-0368), else STARTTLS.
    pub is_direct_tls: bool,
}

/// Puts records into the order in which to try them (RFC 2782): by priority, and by chance in proportion to their
/// weights within one. `random(n)` gives a number from 0 to `n` inclusive.
pub fn order_srv(mut records: Vec<Srv>, mut random: impl FnMut(u32) -> u32) -> Vec<Srv> {
    // Records of weight 0 come first among their priority, so that they keep a small chance.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let same = records.iter().take_while(|record| record.priority == priority).count();
        let sum: u32 = records[..same].iter().map(|record| u32::from(record.weight)).sum();
        let mark = random(sum);
        let mut running = 0;
        let chosen = records[..same].iter().position(|record| {
            running += u32::from(record.weight);
            running >= mark
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

/// Asks name servers.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
}

impl Resolver {
    /// The system's name servers.
    pub fn system() -> Result<Self, Unresolved> {
        let builder =
            TokioResolver::builder_tokio().map_err(|error| Unresolved::NoAnswer(error.to_string()))?;
        Self::build(builder)
    }

    /// These name servers and no others.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, Unresolved> {
        let server = |address: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            config
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(
        mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>,
    ) -> Result<Self, Unresolved> {
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(3);
        options.attempts = 2;
        options.positive_min_ttl = Some(Duration::from_secs(1));
        options.positive_max_ttl = Some(Duration::from_secs(3600));
        options.negative_max_ttl = Some(Duration::from_secs(60));
        let inner = builder.build().map_err(|error| Unresolved::NoAnswer(error.to_string()))?;
        Ok(Self { inner })
    }

    /// The SRV records of a name, unordered. A single target `.` is [`Unresolved::NoService`].
    pub async fn srv(&self, name: &str) -> Result<Vec<Srv>, Unresolved> {
        let answer = self.inner.srv_lookup(absolute(name)).await.map_err(unresolved)?;
        let records: Vec<Srv> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            })
            .collect();
        match &records[..] {
            [] => Err(Unresolved::NotFound),
            [only] if only.target.is_empty() => Err(Unresolved::NoService),
            _ => Ok(records.into_iter().filter(|record| !record.target.is_empty()).collect()),
        }
    }

    /// All addresses of a host, which may be an address itself.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let answer = self.inner.lookup_ip(absolute(host)).await.map_err(unresolved)?;
        let addresses: Vec<SocketAddr> =
            answer.iter().map(|address| SocketAddr::new(address, port)).collect();
        if addresses.is_empty() { Err(Unresolved::NotFound) } else { Ok(addresses) }
    }

    /// Where the XMPP server of a domain is, in the order in which to try (RFC 6120 §3.2, XEP-0368): both kinds of SRV
    /// as one list; without any, the domain itself at 5269.
    pub async fn xmpp_targets(&self, domain: &str) -> Result<Vec<Target>, Unresolved> {
        let (plain_name, tls_name) =
            (format!("_xmpp-server._tcp.{domain}"), format!("_xmpps-server._tcp.{domain}"));
        let (plain, tls) = tokio::join!(self.srv(&plain_name), self.srv(&tls_name));
        xmpp_order(domain, plain, tls, |most| rand::rng().random_range(0..=most))
    }

    /// Where a SIP host is by transport (RFC 3263 §4.2): SRV of `service` (`_sips._tcp`, `_sip._tcp`, `_sip._udp`),
    /// else its addresses at `default_port`.
    pub async fn sip_targets(
        &self,
        host: &str,
        service: &str,
        default_port: u16,
    ) -> Result<Vec<Target>, Unresolved> {
        let plain = |host: &str, port| Target { host: host.to_owned(), port, is_direct_tls: false };
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Ok(vec![plain(host, default_port)]);
        }
        match self.srv(&format!("{service}.{host}")).await {
            Ok(records) => {
                let ordered = order_srv(records, |most| rand::rng().random_range(0..=most));
                Ok(ordered.into_iter().map(|srv| plain(&srv.target, srv.port)).collect())
            }
            Err(Unresolved::NotFound) => Ok(vec![plain(host, default_port)]),
            Err(other) => Err(other),
        }
    }
}

/// One list of both kinds of records; see [`Resolver::xmpp_targets`].
fn xmpp_order(
    domain: &str,
    plain: Result<Vec<Srv>, Unresolved>,
    tls: Result<Vec<Srv>, Unresolved>,
    random: impl FnMut(u32) -> u32,
) -> Result<Vec<Target>, Unresolved> {
    let mut records: Vec<Srv> = Vec::new();
    let mut direct = Vec::new();
    for (answer, is_direct) in [(&plain, false), (&tls, true)] {
        for record in answer.iter().flatten() {
            if is_direct {
                direct.push((record.target.clone(), record.port));
            }
            records.push(record.clone());
        }
    }
    if !records.is_empty() {
        let target = |srv: Srv| {
            let key = (srv.target, srv.port);
            let is_direct_tls = direct.contains(&key);
            Target { host: key.0, port: key.1, is_direct_tls }
        };
        return Ok(order_srv(records, random).into_iter().map(target).collect());
    }
    match (plain, tls) {
        (Err(Unresolved::NoService), _) | (_, Err(Unresolved::NoService)) => Err(Unresolved::NoService),
        (Err(Unresolved::NoAnswer(cause)), _) => Err(Unresolved::NoAnswer(cause)),
        _ => Ok(vec![Target { host: domain.to_owned(), port: 5269, is_direct_tls: false }]),
    }
}

/// With its final dot no search list is tried.
fn absolute(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

fn unresolved(error: NetError) -> Unresolved {
    if error.is_nx_domain() || error.is_no_records_found() {
        return Unresolved::NotFound;
    }
    Unresolved::NoAnswer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5269, target: target.to_owned() }
    }

    #[test]
    fn xs_dns_01_records_of_both_kinds_are_one_list_by_priority_and_weight() {
        let plain = Ok(vec![srv(10, 0, "late"), srv(5, 1, "light")]);
        let tls = Ok(vec![srv(5, 3, "heavy")]);
        let mut state = 7_u64;
        let mut firsts = 0;
        for _ in 0..1000 {
            let targets = xmpp_order("x", plain.clone(), tls.clone(), |most| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) % (u64::from(most) + 1)) as u32
            })
            .expect("records");
            assert_eq!(targets[2].host, "late");
            let heavy = targets.iter().find(|target| target.host == "heavy").expect("there");
            assert!(heavy.is_direct_tls);
            firsts += u32::from(targets[0].host == "heavy");
        }
        // Weight 3 of 4, and the mark runs from 0 to 4 inclusive: 3 or 4 of 5.
        assert!((550..850).contains(&firsts), "{firsts} of 1000");
    }

    #[test]
    fn xs_dns_02_xs_dns_03_a_dot_means_no_service_and_no_record_means_the_domain_itself() {
        let no = || Err(Unresolved::NotFound);
        let dot = || Err(Unresolved::NoService);
        let order = |plain, tls| xmpp_order("x.example", plain, tls, |_| 0);
        assert_eq!(order(dot(), dot()), Err(Unresolved::NoService));
        assert_eq!(order(no(), dot()), Err(Unresolved::NoService));
        assert_eq!(order(Ok(vec![srv(1, 1, "h")]), dot()).expect("records")[0].host, "h");
        let own = order(no(), no()).expect("the domain itself");
        assert_eq!((own[0].host.as_str(), own[0].port), ("x.example", 5269));
        assert!(matches!(order(Err(Unresolved::NoAnswer("x".into())), no()), Err(Unresolved::NoAnswer(_))));
    }
}
