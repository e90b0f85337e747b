//! The partner entries, of the main file and of the files of a directory.

use std::{path::Path, time::Duration};

use tombolo_policy::{
    Detail, DomainPattern, Limits, MessageType, Method, Partner, PartnerKind, Permitted, Proxy,
};

use super::{Context, domain::Claims, domain::prepared, table};
use crate::{
    described::{self, PARTNER_FILE},
    error::{ConfigError, Reason, Severity, Source},
    section::{Found, Section},
};

/// Every `[[partner]]`: first those of the main file, then those of the directory that `partners` names.
pub(super) fn partners(top: &Section<'_>, claims: &mut Claims, context: &Context<'_>) -> Vec<Partner> {
    let mut partners: Vec<Partner> =
        top.sections("partner", "partner").iter().filter_map(|section| read(section, claims)).collect();
    let Some(directory) = top.text("partners") else { return partners };
    let path = context.path(directory.value);
    let Ok(files) = context.files.toml_files(&path) else {
        let reason = Reason::MissingFile {
            key: "partners".into(),
            path: path.display().to_string(),
            problem: "is no readable directory",
        };
        top.error(directory.span, reason, described::accepted("", "partners"));
        return partners;
    };
    let others = context.files.other_files(&path);
    if !others.is_empty() {
        let reason = Reason::IgnoredFiles { files: others.join(", ") };
        top.note(Severity::Advice, directory.span.clone(), reason, "files whose names end in .toml");
    }
    for path in files {
        partners.extend(of_file(&path, claims, context));
    }
    partners
}

fn of_file(path: &Path, claims: &mut Claims, context: &Context<'_>) -> Vec<Partner> {
    let name = path.display().to_string();
    let text = match context.files.read(path) {
        Ok(text) => text,
        Err(error) => {
            context.errors.borrow_mut().push(ConfigError::unreadable(&name, &error));
            return Vec::new();
        }
    };
    let source = Source::new(&name, &text);
    let Some(table) = table(&source, context) else { return Vec::new() };
    let top = Section::new(PARTNER_FILE, &table, 0..0, &source, context);
    let partners =
        top.sections("partner", "partner").iter().filter_map(|section| read(section, claims)).collect();
    top.finish();
    partners
}

fn read(section: &Section<'_>, claims: &mut Claims) -> Option<Partner> {
    let domain = section.parsed("domain", prepared);
    match &domain {
        Some(domain) => {
            let pattern =
                Found { value: DomainPattern::Exact(domain.value.clone()), span: domain.span.clone() };
            claims.claim(section, "partner", &pattern);
        }
        None if !section.has("domain") => section.missing("domain"),
        None => {}
    }
    let shown = domain.as_ref().map_or("here".to_owned(), |domain| domain.value.to_string());
    let further = section.list("further_domains", pattern);
    for found in further.iter().flat_map(|list| &list.items) {
        claims.claim(section, "partner", found);
    }
    let kind = section.word("kind", KINDS);
    let insecure = section.boolean("insecure").is_some_and(|found| found.value);
    let authenticate = methods(section, &shown, insecure);
    let proxy = section.parsed("proxy", str::parse::<Proxy>);
    let detail = section.word("detail", DETAILS);
    let direction = section.word("direction", DIRECTIONS);
    let limits = section.section("limits", "partner.limits").map(|section| read_limits(&section));
    let allow_client_auth_only = section.boolean("allow_client_auth_only").is_some_and(|found| found.value);
    let message_type = section.word("message_type", MESSAGE_TYPES);
    let wait = section.span_of_time("message_answer_wait", Duration::ZERO..=Duration::from_secs(30));
    section.finish();

    let default = Partner::new(domain?.value);
    Some(Partner {
        further_domains: further.map_or_else(Vec::new, |list| list.into_values()),
        kind: kind.map_or(default.kind, |found| found.value),
        authenticate: authenticate.unwrap_or(default.authenticate),
        proxy: proxy.map(|found| found.value),
        detail: detail.map_or(default.detail, |found| found.value),
        direction: direction.map_or(default.direction, |found| found.value),
        limits: limits.unwrap_or_default(),
        allow_client_auth_only,
        insecure,
        message_type: message_type.map_or(default.message_type, |found| found.value),
        message_answer_wait: wait.unwrap_or(default.message_answer_wait),
        domain: default.domain,
    })
}

/// `authenticate`; an entry that could prove nothing is refused, and dialback in clear without the explicit flag.
fn methods(section: &Section<'_>, partner: &str, insecure: bool) -> Option<Vec<Method>> {
    let list = section.words("authenticate", METHODS)?;
    if list.items.is_empty()
        && list.is_whole
        && let Some(span) = section.value_span("authenticate")
    {
        let accepted = described::accepted("partner", "authenticate");
        section.error(span, Reason::NoMethod { partner: partner.to_owned() }, accepted);
    }
    for found in list.items.iter().filter(|found| found.value == Method::PlainDialback && !insecure) {
        let reason = Reason::PlainDialback { partner: partner.to_owned() };
        section.error(
            found.span.clone(),
            reason,
            "sasl-external, tls-dialback, or insecure = true beside it",
        );
    }
    Some(list.into_values())
}

fn read_limits(section: &Section<'_>) -> Limits {
    let default = Limits::default();
    let stanza_bytes = section.number("stanza_bytes", 10_000..=16_777_216);
    let accepted = section.number("accepted_stanza_bytes", 10_000..=16_777_216);
    let subscriptions = section.number("subscriptions", 1..=100_000_000);
    section.finish();
    Limits {
        stanza_bytes: stanza_bytes.map(|bytes| bytes as usize),
        accepted_stanza_bytes: accepted.map_or(default.accepted_stanza_bytes, |bytes| bytes as usize),
        subscriptions: subscriptions.map_or(default.subscriptions, |count| count as u32),
    }
}

/// A domain, or `*.` and a domain.
fn pattern(text: &str) -> Result<DomainPattern, &'static str> {
    match text.strip_prefix("*.") {
        Some(parent) => prepared(parent).map(DomainPattern::Below),
        None => prepared(text).map(DomainPattern::Exact),
    }
}

const KINDS: &[(&str, PartnerKind)] = &[
    ("federated", PartnerKind::Federated),
    ("public-verified", PartnerKind::PublicVerified),
    ("public-unverified", PartnerKind::PublicUnverified),
];

const METHODS: &[(&str, Method)] = &[
    ("sasl-external", Method::SaslExternal),
    ("tls-dialback", Method::TlsDialback),
    ("plain-dialback", Method::PlainDialback),
];

const DETAILS: &[(&str, Detail)] = &[
    ("full", Detail::Full),
    ("no-note", Detail::NoNote),
    ("availability-only", Detail::AvailabilityOnly),
    ("none", Detail::None),
];

const DIRECTIONS: &[(&str, Permitted)] =
    &[("both", Permitted::Both), ("inbound", Permitted::Inbound), ("outbound", Permitted::Outbound)];

const MESSAGE_TYPES: &[(&str, MessageType)] = &[("normal", MessageType::Normal), ("chat", MessageType::Chat)];
