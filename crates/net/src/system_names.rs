//! What the machine itself says about names: its name servers (`resolv.conf`) and its own hosts (`hosts`).
//!
//! In: two files, or name servers from the settings and the second file. Out: a resolver, made anew when a file has
//! changed. A machine without name servers, or without these files, has a resolver that knows its hosts alone: networks
//! come and go while a process runs.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::parse_resolv_conf,
};

/// Where name servers come from.
#[derive(Debug, Clone)]
pub(crate) enum Servers {
    /// From the settings.
    Fixed(Vec<SocketAddr>),
    /// From a file like `/etc/resolv.conf`.
    File(PathBuf),
}

/// The sources of a resolver, and what they held when it was made.
#[derive(Debug)]
pub(crate) struct SystemNames {
    servers: Servers,
    hosts: PathBuf,
    held: Option<Held>,
}

/// What the two files held; nothing for one that cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    resolv_conf: Option<Vec<u8>>,
    hosts: Option<Vec<u8>>,
}

/// A resolver, and whether it can ask anybody.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) resolver: Arc<TokioResolver>,
    pub(crate) has_servers: bool,
}

impl SystemNames {
    pub(crate) fn new(servers: Servers, hosts: PathBuf) -> Self {
        Self { servers, hosts, held: None }
    }

    /// A resolver by what the files hold now; nothing where it would be the same as the last one.
    ///
    /// # Errors
    /// When the resolver's library refuses its settings. The next call tries again.
    pub(crate) fn make_if_changed(&mut self) -> Result<Option<Made>, NetError> {
        let now = Held { resolv_conf: self.resolv_conf().and_then(read), hosts: read(&self.hosts) };
        if self.held.as_ref() == Some(&now) {
            return Ok(None);
        }
        let (config, options) = match &self.servers {
            Servers::Fixed(servers) => (of_servers(servers), ResolverOpts::default()),
            Servers::File(path) => {
                let parsed = parse_resolv_conf(now.resolv_conf.as_deref().unwrap_or_default());
                parsed.unwrap_or_else(|error| {
                    tracing::warn!(
                        file = %path.display(), %error,
                        "no name server is known: only addresses and the machine's own hosts can be reached until it names one"
                    );
                    (of_servers(&[]), ResolverOpts::default())
                })
            }
        };
        let has_servers = !config.name_servers().is_empty();
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = tuned(options);
        let mut resolver = builder.build()?;
        let mut hosts = Hosts::default();
        if let Err(error) = hosts.read_hosts_conf(now.hosts.as_deref().unwrap_or_default()) {
            tracing::warn!(file = %self.hosts.display(), %error, "the machine's hosts cannot be read");
        }
        resolver.set_hosts(Arc::new(hosts));
        if self.held.is_some() {
            tracing::info!(has_servers, "name servers or hosts of the machine have changed and are used now");
        }
        self.held = Some(now);
        Ok(Some(Made { resolver: Arc::new(resolver), has_servers }))
    }

    fn resolv_conf(&self) -> Option<&Path> {
        match &self.servers {
            Servers::Fixed(_) => None,
            Servers::File(path) => Some(path),
        }
    }
}

fn read(path: impl AsRef<Path>) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

fn of_servers(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let mut config = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut config.connections {
            connection.port = address.port();
        }
        config
    };
    ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect())
}

fn tuned(mut options: ResolverOpts) -> ResolverOpts {
    options.timeout = Duration::from_secs(3);
    options.attempts = 2;
    options.positive_min_ttl = Some(Duration::from_secs(1));
    options.positive_max_ttl = Some(Duration::from_secs(3600));
    options.negative_max_ttl = Some(Duration::from_secs(60));
    options
}
