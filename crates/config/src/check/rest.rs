//! The link, the store, accounts, DNS, administration and the log.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use tombolo_policy::Proxy;

use super::{Context, domain::prepared};
use crate::{
    described,
    error::Reason,
    section::{List, Section},
    settings::{
        AccountSettings, AdminSettings, DigestAlgorithm, DnsSettings, LinkEnd, LinkSettings, LogFormat,
        LogLevel, LogSettings, StoreSettings, address, socket_address,
    },
};

/// `[link]`, which roles edge and gateway must have and an all-in-one must not.
pub(super) fn link(top: &Section<'_>, context: &Context<'_>) -> Option<LinkSettings> {
    if !top.has("link") {
        top.missing("link");
    }
    let section = top.section("link", "link")?;
    let certificate = context.certificate(&section, true, None);
    let trust = context.trust_file(&section);
    let listen = section.parsed("listen", address);
    let edges = section.list("edges", str::parse::<Proxy>);
    let gateways = section.list("gateways", host);
    for key in ["trust", "listen", "gateways", "edges"] {
        if !section.has(key) {
            section.missing(key);
        }
    }
    let is_empty = |list: Option<(usize, bool)>| list == Some((0, true));
    let lists = [
        (
            "gateways",
            gateways.as_ref().map(|list| (list.items.len(), list.is_whole)),
            "one host at least, such as [\"gateway1.corp.example\"]",
        ),
        (
            "edges",
            edges.as_ref().map(|list| (list.items.len(), list.is_whole)),
            "one HOST:PORT at least, such as [\"edge1.corp.example:5300\"]",
        ),
    ];
    for (key, list, accepted) in lists {
        if is_empty(list)
            && let Some(span) = section.value_span(key)
        {
            section.error(span, Reason::MissingKey { key: section.path(key) }, accepted);
        }
    }
    section.finish();
    let end = match (listen, gateways, edges) {
        (Some(listen), Some(gateways), None) => {
            LinkEnd::Listen { at: listen.value, gateways: gateways.into_values() }
        }
        (None, None, Some(edges)) => LinkEnd::Edges(edges.into_values()),
        // Said above; where the role is not known both may stand here.
        _ => return None,
    };
    Some(LinkSettings { end, certificate: certificate?, trust: trust? })
}

/// A host as a certificate may name it: a whole name, or an IP address.
fn host(text: &str) -> Result<String, &'static str> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        // A wildcard is no domain.
        Err(_) => prepared(text).map(|domain| domain.to_string()),
    }
}

/// `[store]`: a file, or the word `memory`.
pub(super) fn store(top: &Section<'_>, data_dir: &Path, context: &Context<'_>) -> StoreSettings {
    let default = StoreSettings::File(data_dir.join("state.redb"));
    let Some(section) = top.section("store", "store") else { return default };
    let store = match section.text("path") {
        Some(found) if found.value == "memory" => StoreSettings::Memory,
        Some(found) => StoreSettings::File(context.path(found.value)),
        None => default,
    };
    section.finish();
    store
}

/// `[accounts]`: where the file is, which need not exist, and what challenges offer.
pub(super) fn accounts(top: &Section<'_>, data_dir: &Path, context: &Context<'_>) -> AccountSettings {
    let default = AccountSettings::new(data_dir.join("accounts.toml"));
    let Some(section) = top.section("accounts", "accounts") else { return default };
    let file = section.text("file").map_or(default.file, |found| context.path(found.value));
    let digest = section.words("digest", DIGESTS);
    if let Some(list) = &digest
        && list.items.is_empty()
        && list.is_whole
        && let Some(span) = section.value_span("digest")
    {
        section.error(span, Reason::NoDigest, described::accepted("accounts", "digest"));
    }
    section.finish();
    AccountSettings { file, digest: digest.map_or(default.digest, List::into_values) }
}

const DIGESTS: &[(&str, DigestAlgorithm)] =
    &[("SHA-256", DigestAlgorithm::Sha256), ("MD5", DigestAlgorithm::Md5)];

/// `[dns]`.
pub(super) fn dns(top: &Section<'_>) -> DnsSettings {
    let Some(section) = top.section("dns", "dns") else { return DnsSettings::default() };
    let servers =
        section.list("servers", |text| socket_address(text, 53)).map_or_else(Vec::new, List::into_values);
    section.finish();
    DnsSettings { servers }
}

/// `[admin]`: loopback, unless the file says that it means another address.
pub(super) fn admin(top: &Section<'_>) -> AdminSettings {
    let default = AdminSettings { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8086)) };
    let Some(section) = top.section("admin", "admin") else { return default };
    let listen = section.parsed("listen", address);
    let insecure = section.boolean("insecure").is_some_and(|found| found.value);
    section.finish();
    let Some(listen) = listen else { return default };
    if !listen.value.ip().is_loopback() && !insecure {
        let reason = Reason::ExposedAdmin { key: section.path("listen"), value: listen.value.to_string() };
        let accepted = format!("{}, or insecure = true beside it", described::accepted("admin", "listen"));
        section.error(listen.span, reason, accepted);
    }
    AdminSettings { listen: listen.value }
}

/// `[log]`.
pub(super) fn log(top: &Section<'_>) -> LogSettings {
    let default = LogSettings::default();
    let Some(section) = top.section("log", "log") else { return default };
    let format = section
        .word("format", &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let level = section.word(
        "level",
        &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
    );
    let show_addresses = section.boolean("show_addresses").is_some_and(|found| found.value);
    section.finish();
    LogSettings {
        format: format.map_or(default.format, |found| found.value),
        level: level.map_or(default.level, |found| found.value),
        show_addresses,
    }
}
