//! The two public sides: XMPP streams and SIP listeners, and what they may cost.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use tombolo_policy::SipTransport;

use super::Context;
use crate::{
    described,
    error::Reason,
    section::{List, Section},
    settings::{Settings, SipLimits, SipListen, SipSettings, Trust, XmppLimits, XmppSettings, address},
};

/// `[xmpp]`, or its defaults: what streams are set to, and `ping_after`, which belongs to the sessions behind them.
pub(super) fn xmpp(top: &Section<'_>, context: &Context<'_>) -> (XmppSettings, Duration) {
    let default = XmppSettings {
        listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5269))],
        direct_tls_listen: Vec::new(),
        trust: Trust::System,
        limits: XmppLimits::default(),
    };
    let Some(section) = top.section("xmpp", "xmpp") else { return (default, Settings::PING_AFTER) };
    let ping_after = section
        .span_of_time("ping_after", Duration::from_secs(5)..=Duration::from_secs(3_600))
        .unwrap_or(Settings::PING_AFTER);
    let settings = XmppSettings {
        listen: section.list("listen", address).map_or(default.listen, List::into_values),
        direct_tls_listen: section
            .list("direct_tls_listen", address)
            .map_or_else(Vec::new, List::into_values),
        trust: context.trust(&section).unwrap_or(default.trust),
        limits: section
            .section("limits", "xmpp.limits")
            .map_or(default.limits, |limits| xmpp_limits(&limits)),
    };
    section.finish();
    (settings, ping_after)
}

fn xmpp_limits(section: &Section<'_>) -> XmppLimits {
    let default = XmppLimits::default();
    let size = |key, range, default: usize| section.number(key, range).map_or(default, |n| n as usize);
    let seconds = Duration::from_secs;
    let limits = XmppLimits {
        stanza_bytes: size("stanza_bytes", 10_000..=16_777_216, default.stanza_bytes),
        early_element_bytes: size("early_element_bytes", 10_000..=1_000_000, default.early_element_bytes),
        depth: size("depth", 8..=1_024, default.depth),
        attributes: size("attributes", 8..=1_024, default.attributes),
        declarations: size("declarations", 4..=1_024, default.declarations),
        pairs: size("pairs", 1..=10_000, default.pairs),
        sasl_attempts: section.number("sasl_attempts", 2..=5).map_or(default.sasl_attempts, |n| n as u32),
        authenticate_within: section
            .span_of_time("authenticate_within", seconds(1)..=seconds(600))
            .unwrap_or(default.authenticate_within),
        idle: section.span_of_time("idle", seconds(10)..=seconds(86_400)).unwrap_or(default.idle),
        connections: size("connections", 1..=1_000_000, default.connections),
        connections_per_partner: size("connections_per_partner", 1..=10_000, default.connections_per_partner),
        unproved_connections: size("unproved_connections", 1..=1_000_000, default.unproved_connections),
        unproved_connections_per_address: size(
            "unproved_connections_per_address",
            1..=10_000,
            default.unproved_connections_per_address,
        ),
        connections_per_address: size(
            "connections_per_address",
            1..=1_000_000,
            default.connections_per_address,
        ),
        attempts_per_address: size("attempts_per_address", 1..=1_000_000, default.attempts_per_address),
        bytes_per_second: section
            .number("bytes_per_second", 10_000..=10_000_000_000)
            .unwrap_or(default.bytes_per_second),
        stanzas_per_second: section
            .number("stanzas_per_second", 1..=10_000_000)
            .unwrap_or(default.stanzas_per_second),
        malformed_addresses_per_minute: section
            .number("malformed_addresses_per_minute", 0..=1_000_000)
            .map_or(default.malformed_addresses_per_minute, |n| n as u32),
        keepalive: section
            .span_of_time("keepalive", seconds(10)..=seconds(86_400))
            .unwrap_or(default.keepalive),
    };
    section.finish();
    limits
}

/// `[sip]`, or its defaults; `trust` is what the XMPP side trusts.
pub(super) fn sip(top: &Section<'_>, trust: Trust, context: &Context<'_>) -> SipSettings {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5061));
    let default = SipSettings {
        listen: vec![SipListen { transport: SipTransport::Tls, address: everywhere }],
        trust,
        watcher_interval: SipSettings::WATCHER_INTERVAL,
        registration_is_presence: true,
        keep_alive: Duration::ZERO,
        limits: SipLimits::default(),
    };
    let Some(section) = top.section("sip", "sip") else { return default };
    let settings = SipSettings {
        listen: sip_listen(&section).unwrap_or(default.listen),
        trust: context.trust(&section).unwrap_or(default.trust),
        watcher_interval: section
            .span_of_time("watcher_interval", Duration::ZERO..=Duration::from_secs(60))
            .unwrap_or(default.watcher_interval),
        registration_is_presence: section
            .boolean("registration_is_presence")
            .map_or(default.registration_is_presence, |found| found.value),
        keep_alive: keep_alive(&section).unwrap_or(default.keep_alive),
        limits: section.section("limits", "sip.limits").map_or(default.limits, |limits| sip_limits(&limits)),
    };
    section.finish();
    settings
}

/// `listen`; who can be reached by UDP must be by TCP too, for what is too large for a datagram (RFC 3261 §18).
fn sip_listen(section: &Section<'_>) -> Option<Vec<SipListen>> {
    let list = section.list::<SipListen, _>("listen", str::parse)?;
    // What could not be read may have been the one.
    for found in list.items.iter().filter(|found| list.is_whole && found.value.transport == SipTransport::Udp)
    {
        let tcp = SipListen { transport: SipTransport::Tcp, ..found.value };
        if list.items.iter().all(|other| other.value != tcp) {
            let reason = Reason::UdpAlone { listener: found.value.to_string() };
            section.error(found.span.clone(), reason, format!("\"{tcp}\" beside it"));
        }
    }
    Some(list.into_values())
}

/// `keep_alive`: zero, or long enough for an answer.
fn keep_alive(section: &Section<'_>) -> Option<Duration> {
    let span = section.span_of_time("keep_alive", Duration::ZERO..=Duration::from_secs(3_600))?;
    if span > Duration::ZERO && span < Duration::from_secs(20) {
        let found = section.peek_text("keep_alive")?;
        let reason = Reason::OutOfRange { key: section.path("keep_alive"), value: found.value.to_owned() };
        section.error(found.span, reason, described::accepted("sip", "keep_alive"));
        return None;
    }
    Some(span)
}

fn sip_limits(section: &Section<'_>) -> SipLimits {
    let default = SipLimits::default();
    let size = |key, range, default: usize| section.number(key, range).map_or(default, |n| n as usize);
    let expires = || Duration::from_secs(60)..=Duration::from_secs(86_400);
    let limits = SipLimits {
        message_bytes: size("message_bytes", 1_300..=16_777_216, default.message_bytes),
        header_bytes: size("header_bytes", 256..=65_536, default.header_bytes),
        headers: size("headers", 16..=1_024, default.headers),
        vias: size("vias", 1..=256, default.vias),
        expires: section.span_of_time("expires", expires()).unwrap_or(default.expires),
        front_end_expires: section
            .span_of_time("front_end_expires", expires())
            .unwrap_or(default.front_end_expires),
        connections: size("connections", 1..=1_000_000, default.connections),
        connections_per_address: size(
            "connections_per_address",
            1..=1_000_000,
            default.connections_per_address,
        ),
        unproved_connections_per_address: size(
            "unproved_connections_per_address",
            1..=1_000_000,
            default.unproved_connections_per_address,
        ),
    };
    section.finish();
    limits
}
