//! Names to targets and addresses, asked of name servers.
//!
//! In: a domain, host or SIP location. Out: targets in the order in which to try them, addresses, or why there are
//! none. The order itself is made in [`crate::order_srv`] and its neighbours; no connection is opened here.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hickory_resolver::{
    net::NetError,
    proto::rr::{Name, RData, RecordType},
};
use rand::RngExt;

use crate::{
    SipLocation, SipTarget, SipTransport, Srv, Target,
    canonical::canonical,
    last_good::LastGood,
    rotation::Rotation,
    sip_location::{self, Naptr, Next},
    srv::{usable, xmpp_order},
    system_names::{Made, Servers, SystemNames},
};

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

/// Asks name servers; cheap to clone, and clones share what they learned.
///
/// Answers are kept for their TTL, within 1 s and 1 h. Where name servers then fall silent, the last good answer serves
/// for 4 h more.
#[derive(Clone)]
pub struct Resolver {
    made: Arc<ArcSwap<Made>>,
    system: Arc<Mutex<System>>,
    kept: Arc<Mutex<Kept>>,
}

/// The machine's files, and when they were looked at.
struct System {
    names: SystemNames,
    looked_at: Option<Instant>,
}

#[derive(Default)]
struct Kept {
    records: LastGood<Vec<Srv>>,
    addresses: LastGood<Vec<IpAddr>>,
    rotation: Rotation,
    /// Of the hosts of domains.
    targets: Rotation,
}

impl Resolver {
    /// The system's name servers and hosts, followed as `/etc/resolv.conf` and `/etc/hosts` change. The machine may have
    /// none yet.
    ///
    /// # Errors
    /// [`Unresolved::NoAnswer`] when the settings cannot be used.
    pub fn system() -> Result<Self, Unresolved> {
        Self::from_files(Path::new(RESOLV_CONF), Path::new(HOSTS))
    }

    /// The name servers of a file like `/etc/resolv.conf` and the hosts of one like `/etc/hosts`, followed as they change.
    ///
    /// # Errors
    /// [`Unresolved::NoAnswer`] when the settings cannot be used.
    pub fn from_files(resolv_conf: &Path, hosts: &Path) -> Result<Self, Unresolved> {
        Self::from_system(SystemNames::new(Servers::File(resolv_conf.to_owned()), hosts.to_owned()))
    }

    /// These name servers and no others, and the machine's hosts.
    ///
    /// # Errors
    /// [`Unresolved::NoAnswer`] when the settings cannot be used.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, Unresolved> {
        Self::from_system(SystemNames::new(Servers::Fixed(servers.to_owned()), PathBuf::from(HOSTS)))
    }

    fn from_system(mut names: SystemNames) -> Result<Self, Unresolved> {
        let made = names.make_if_changed().map_err(|error| Unresolved::NoAnswer(error.to_string()))?;
        let Some(made) = made else { return Err(Unresolved::NoAnswer("nothing was made".to_owned())) };
        let system = Arc::new(Mutex::new(System { names, looked_at: None }));
        Ok(Self { made: Arc::new(ArcSwap::from_pointee(made)), system, kept: Arc::default() })
    }

    /// Looks at the machine's files now; otherwise that is done by questions, every few seconds at most.
    pub fn reload(&self) {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        system.looked_at = Some(now());
        match system.names.make_if_changed() {
            Ok(Some(made)) => self.made.store(Arc::new(made)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "changed name servers cannot be used; the old ones stay in use")
            }
        }
    }

    /// The resolver by what the machine's files hold.
    fn inner(&self) -> Arc<Made> {
        let is_due = {
            let system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
            system.looked_at.is_none_or(|looked_at| looked_at + LOOK_EVERY <= now())
        };
        if is_due {
            self.reload();
        }
        self.made.load_full()
    }

    /// The SRV records of a name, unordered, at most 32.
    ///
    /// # Errors
    /// [`Unresolved::NoService`] when the only targets are `.`.
    pub async fn srv(&self, name: &str) -> Result<Vec<Srv>, Unresolved> {
        let made = self.inner();
        let answer = made.resolver.srv_lookup(absolute(name)).await;
        let answer = answer.map_err(|error| unresolved(error, &made)).and_then(|answer| {
            let srv = |data: &RData| match data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: without_dot(&srv.target),
                }),
                _ => None,
            };
            usable(answer.answers().iter().filter_map(|record| srv(&record.data)).collect())
        });
        self.kept(|kept| kept.records.settle(name, answer, now()))
    }

    /// All addresses of a host, at most 64, IPv6 first; of an address literal, itself. After [`Resolver::pass_over`] they
    /// begin behind those that led nowhere.
    ///
    /// # Errors
    /// [`Unresolved::NotFound`] or [`Unresolved::NoAnswer`].
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![canonical(SocketAddr::new(address, port))]);
        }
        let made = self.inner();
        let answer = made.resolver.lookup_ip(absolute(host)).await;
        let answer = answer.map_err(|error| unresolved(error, &made)).and_then(|answer| {
            let addresses: Vec<IpAddr> = answer.iter().take(MOST_ADDRESSES).collect();
            if addresses.is_empty() { Err(Unresolved::NotFound) } else { Ok(addresses) }
        });
        let addresses = self.kept(|kept| {
            let mut addresses = kept.addresses.settle(host, answer, now())?;
            kept.rotation.turn(host, &mut addresses);
            Ok(addresses)
        })?;
        Ok(addresses.into_iter().map(|address| canonical(SocketAddr::new(address, port))).collect())
    }

    /// The first `count` addresses that [`Resolver::addresses`] gave for a host led nowhere: the next attempt begins behind
    /// them.
    pub fn pass_over(&self, host: &str, count: usize) {
        self.kept(|kept| kept.rotation.pass_over(host, count));
    }

    /// Where the XMPP server of a domain is, in the order in which to try (RFC 6120 §3.2, XEP-0368): both kinds of SRV
    /// as one list; without any, the domain itself at 5269.
    ///
    /// # Errors
    /// Any of [`Unresolved`]; with [`Unresolved::NoService`] nothing else may be tried.
    pub async fn xmpp_targets(&self, domain: &str) -> Result<Vec<Target>, Unresolved> {
        let (plain_name, tls_name) =
            (format!("_xmpp-server._tcp.{domain}"), format!("_xmpps-server._tcp.{domain}"));
        let (plain, tls) = tokio::join!(self.srv(&plain_name), self.srv(&tls_name));
        let mut targets = xmpp_order(domain, plain, tls, chance)?;
        self.kept(|kept| kept.targets.turn_in_order(domain, &mut targets));
        Ok(targets)
    }

    /// The first of what [`Resolver::xmpp_targets`] gave for a domain, beyond those that were passed over before, led
    /// nowhere: should this attempt find no other, the next one begins behind it.
    pub fn pass_over_target(&self, domain: &str) {
        self.kept(|kept| kept.targets.pass_over(domain, 1));
    }

    /// The domain was reached: the next attempt begins with its best target again.
    pub fn target_found(&self, domain: &str) {
        self.kept(|kept| kept.targets.forget(domain));
    }

    /// Where a SIP URI leads (RFC 3263 §4.1, §4.2), in the order in which to try; ask once a transaction.
    ///
    /// Without NAPTR records the transports that we speak are asked for in our own order.
    ///
    /// # Errors
    /// [`Unresolved::NoService`] where the domain has no service that we speak, or we speak nothing that the URI allows.
    pub async fn locate_sip(&self, location: &SipLocation<'_>) -> Result<Vec<SipTarget>, Unresolved> {
        let services: Vec<(SipTransport, String)> = match location.next() {
            Next::Done(target) => return Ok(vec![target]),
            Next::Nothing => return Err(Unresolved::NoService),
            Next::Srv(transport) => vec![(transport, under(transport, location.host))],
            Next::Naptr => {
                // Name servers that cannot tell NAPTR are taken to have none.
                let named = location.services(self.naptr(location.host).await.unwrap_or_default());
                if named.is_empty() {
                    location.allowed().map(|transport| (transport, under(transport, location.host))).collect()
                } else {
                    named
                }
            }
        };
        let mut found = Vec::new();
        let mut fault = Unresolved::NotFound;
        for (transport, name) in &services {
            match self.srv(name).await {
                Ok(records) => found.extend(sip_location::targets(records, *transport, chance)),
                Err(Unresolved::NotFound) => {}
                Err(other) => fault = other,
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        match (fault, location.transport, &services[..]) {
            (Unresolved::NotFound, Some(_), [(transport, _)]) => Ok(vec![location.itself(*transport)]),
            (Unresolved::NotFound, ..) => Ok(vec![location.itself(location.unasked())]),
            (fault, ..) => Err(fault),
        }
    }

    async fn naptr(&self, name: &str) -> Result<Vec<Naptr>, Unresolved> {
        let made = self.inner();
        let answer = made.resolver.lookup(absolute(name), RecordType::NAPTR).await;
        let answer = answer.map_err(|error| unresolved(error, &made))?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let naptr = |data: &RData| match data {
            RData::NAPTR(naptr) => Some(Naptr {
                order: naptr.order,
                preference: naptr.preference,
                flags: text(&naptr.flags),
                service: text(&naptr.services),
                replacement: without_dot(&naptr.replacement),
            }),
            _ => None,
        };
        let records = answer.answers().iter().filter_map(|record| naptr(&record.data));
        Ok(records.take(MOST_NAPTR).collect())
    }

    /// Nothing panics or waits while the lock is held.
    fn kept<R>(&self, work: impl FnOnce(&mut Kept) -> R) -> R {
        work(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn chance(most: u32) -> u32 {
    rand::rng().random_range(0..=most)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn under(transport: SipTransport, host: &str) -> String {
    format!("{}.{host}", transport.service())
}

/// With its final dot no search list is tried.
fn absolute(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

/// In A-labels; empty for the root.
fn without_dot(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

fn unresolved(error: NetError, made: &Made) -> Unresolved {
    if !made.has_servers {
        return Unresolved::NoAnswer("no name server is known".to_owned());
    }
    if error.is_nx_domain() || error.is_no_records_found() {
        return Unresolved::NotFound;
    }
    Unresolved::NoAnswer(error.to_string())
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// How often the machine's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const MOST_ADDRESSES: usize = 64;
const MOST_NAPTR: usize = 16;
