//! The embedded defaults: what runs without a settings file.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tombolo_policy::{Home, Method, Partner, PartnerKind, Proxy, SipTransport};
use tombolo_presence::Domain;

use crate::{
    memory::MemorySettings,
    settings::{
        AccountSettings, AdminSettings, CertificateFiles, DnsSettings, DomainSettings, LogSettings, Role,
        Settings, SipLimits, SipListen, SipSettings, StoreSettings, Trust, XmppLimits, XmppSettings,
    },
};

/// The settings of a process that was given no file, with everything it keeps under `data_dir`.
///
/// All on loopback: the local domain `sip.localhost` with a built-in home, and the partner `xmpp.localhost`, reached at
/// 127.0.0.1:15269. The certificates that they name are made by who starts the process, when they are not there.
pub fn embedded_defaults(data_dir: &Path) -> Settings {
    let domain = |name| Domain::from_prepared(name).expect("a prepared name");
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = |transport, port| SipListen { transport, address: loopback(port) };
    let certificates = data_dir.join("certs");
    let trust = Trust::File(certificates.join("ca.pem"));
    Settings {
        role: Role::AllInOne,
        data_dir: data_dir.to_owned(),
        domains: vec![DomainSettings {
            name: domain("sip.localhost"),
            home: Some(Home::BuiltIn),
            certificate: Some(CertificateFiles {
                certificate: certificates.join("sip.localhost.pem"),
                key: certificates.join("sip.localhost.key"),
            }),
        }],
        xmpp: Some(XmppSettings {
            listen: vec![loopback(5269)],
            direct_tls_listen: Vec::new(),
            trust: trust.clone(),
            limits: XmppLimits::default(),
        }),
        ping_after: Settings::PING_AFTER,
        sip: Some(SipSettings {
            listen: vec![
                listen(SipTransport::Tls, 5061),
                listen(SipTransport::Tcp, 5060),
                listen(SipTransport::Udp, 5060),
            ],
            trust,
            watcher_interval: SipSettings::WATCHER_INTERVAL,
            registration_is_presence: true,
            keep_alive: Duration::ZERO,
            limits: SipLimits::default(),
        }),
        partners: vec![Partner {
            kind: PartnerKind::Federated,
            authenticate: vec![Method::SaslExternal, Method::TlsDialback],
            proxy: Some(Proxy { host: "127.0.0.1".into(), port: 15269 }),
            ..Partner::new(domain("xmpp.localhost"))
        }],
        dns: DnsSettings::default(),
        link: None,
        store: Some(StoreSettings::File(data_dir.join("state.redb"))),
        accounts: Some(AccountSettings::new(data_dir.join("accounts.toml"))),
        memory: MemorySettings::default(),
        admin: AdminSettings { listen: loopback(8086) },
        log: LogSettings::default(),
    }
}
