//! Every setting: where it stands, its default, what it means, what is accepted, and in which roles it has a place.
//!
//! The checker takes its lists of keys from here, and `docs/settings.md` is written from here, so neither can forget one.

use std::{borrow::Cow, fmt::Write};

use crate::{forms, settings::Role};

/// One setting, described for people.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The table it stands in; empty at the top of the file.
    pub section: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Its default, as it would be written; words in brackets say that there is none to write.
    pub default: &'static str,
    /// What may stand there.
    pub accepted: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// The roles it has a place in.
    pub roles: &'static [Role],
}

/// Every setting, in the order of the documentation.
pub fn settings() -> &'static [Setting] {
    SETTINGS
}

/// The settings as the text of `docs/settings.md`.
pub fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    for (section, heading, introduction) in SECTIONS {
        let rows = || SETTINGS.iter().filter(|setting| setting.section == *section);
        // A restriction that all rows share is said once, above them.
        let shared = rows().next().map_or(ALL, |first| first.roles);
        let shared = if rows().all(|setting| setting.roles == shared) { shared } else { ALL };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n## {heading}\n\n{introduction}{}\n", only_in(shared));
        text.push_str("| key | default | accepted | meaning |\n|---|---|---|---|\n");
        for setting in rows() {
            let roles = if setting.roles == shared { String::new() } else { only_in(setting.roles) };
            let default = match setting.default.starts_with('(') {
                true => setting.default.to_owned(),
                false => format!("`{}`", setting.default),
            };
            let accepted = setting.accepted.replace('|', "\\|");
            let Setting { key, meaning, .. } = setting;
            let _ = writeln!(text, "| `{key}` | {default} | {accepted} | {meaning}{roles} |");
        }
    }
    text
}

/// ` Only in role ...`, or nothing where every role is meant.
fn only_in(roles: &[Role]) -> String {
    if roles.len() == ALL.len() { String::new() } else { format!(" Only in role {}.", role_list(roles)) }
}

/// `section.key`, as errors show it.
pub(crate) fn path(section: &str, key: &str) -> String {
    match section {
        "" | PARTNER_FILE | ACCOUNT_FILE => key.to_owned(),
        _ => format!("{section}.{key}"),
    }
}

/// The keys of a section.
pub(crate) fn keys_of(section: &str) -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter(move |setting| setting.section == section).map(|setting| setting.key)
}

/// The keys of a section, as a list for people.
pub(crate) fn keys(section: &str) -> String {
    keys_of(section).collect::<Vec<_>>().join(", ")
}

/// True when the section has this key.
pub(crate) fn has(section: &str, key: &str) -> bool {
    keys_of(section).any(|known| known == key)
}

/// What is accepted for a key, with the form of such a value and an example, for errors.
pub(crate) fn accepted(section: &str, key: &str) -> Cow<'static, str> {
    find(section, key).map_or(Cow::Borrowed("nothing"), forms::with_form)
}

/// `, such as 64`, or nothing where the default is no number.
pub(crate) fn number_example(section: &str, key: &str) -> String {
    find(section, key).map_or_else(String::new, forms::example_number)
}

/// The roles a key has a place in; empty when it is unknown.
pub(crate) fn roles(section: &str, key: &str) -> &'static [Role] {
    find(section, key).map_or(&[], |setting| setting.roles)
}

/// Roles in words: `all-in-one or gateway`.
pub(crate) fn role_list(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ")
}

fn find(section: &str, key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.section == section && setting.key == key)
}

/// The section name of the top of a partner file.
pub(crate) const PARTNER_FILE: &str = "partner file";
/// The section name of the top of an accounts file.
pub(crate) const ACCOUNT_FILE: &str = "account file";

const ALL: &[Role] = &[Role::AllInOne, Role::Edge, Role::Gateway];
const STREAMS: &[Role] = &[Role::AllInOne, Role::Edge];
const USERS: &[Role] = &[Role::AllInOne, Role::Gateway];
const LINKED: &[Role] = &[Role::Edge, Role::Gateway];
const EDGE: &[Role] = &[Role::Edge];
const GATEWAY: &[Role] = &[Role::Gateway];

const fn setting(
    section: &'static str,
    key: &'static str,
    roles: &'static [Role],
    default: &'static str,
    accepted: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { section, key, default, accepted, meaning, roles }
}

const INTRODUCTION: &str = "# Settings

One TOML file, read by `tombolo run --config FILE` and checked by `tombolo check FILE`, which reports every error with its
line and column. Without a file the embedded defaults apply: role `all-in-one`, the local domain `sip.localhost` with a
built-in home, listeners on loopback only, one partner `xmpp.localhost`, and everything that is kept under
`./tombolo-data`, the certificates included, which are made at the first start.

- Relative paths are relative to the directory of the settings file.
- An unknown key is an error, and so is a key that has no place in the role.
- A span of time is a whole number with `ms`, `s`, `m` or `h` behind it.
- An address with a port is `127.0.0.1:5269` or `[::1]:5269`.
- `config/` holds a commented example for each role.
- `tombolo reload`, or SIGHUP, brings into a running process: certificates and keys, authorities (`trust`), the accounts
  file, and partners; a partner that was removed loses its streams, and its contacts' subscriptions are judged anew. A user
  whose account was removed is gone: contacts and watchers are told, and nothing is kept. An
  edge takes its partners from its gateway. A file that cannot be used changes nothing, and is told. Changed certificate
  files are also noticed within 30 seconds, without an order. Every other setting needs a restart; a reload names those
  that differ.

The tables below are written from the list that the checker itself uses.
";

/// Section, heading, introduction; in the order of the documentation.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("", "Top of the file", "What the process is and where it keeps its things."),
    (
        "domain",
        "[[domain]]",
        "A local SIP domain that is served toward XMPP. One at least; no domain twice, and none that is a partner's.",
    ),
    (
        "domain.home",
        "domain.home",
        "Where the users of the domain live: `home = { kind = \"built-in\" }`, or a front end: `home = { kind = \"front-end\", \
         next_hop = \"sip:pool.corp.example:5061;transport=tls\" }`.",
    ),
    ("xmpp", "[xmpp]", "The side toward partners."),
    (
        "xmpp.limits",
        "[xmpp.limits]",
        "What streams may cost. An element over its limit ends the stream with `policy-violation`; a connection too many is \
         hung up on, a partner's stream too many is refused with `resource-constraint`.",
    ),
    ("sip", "[sip]", "The side toward front ends and phones."),
    ("sip.limits", "[sip.limits]", "What SIP messages may cost, and how long subscriptions may be."),
    (
        "partner",
        "[[partner]]",
        "An organisation that we federate with. A domain without an entry is refused by name, both ways. Entries stand in \
         the main file or in files of the `partners` directory.",
    ),
    ("partner.limits", "partner.limits", "What one partner may cost."),
    (PARTNER_FILE, "Files of the partners directory", "Each `*.toml` file there, in the order of the names."),
    ("dns", "[dns]", "How names are looked up."),
    (
        "link",
        "[link]",
        "The inside link between edges and gateways: mutual TLS, opened by the gateway. \
         Where a certificate states purposes, a gateway's must hold clientAuth and an edge's serverAuth.",
    ),
    ("store", "[store]", "Where subscriptions, dialogs and pending requests are kept."),
    ("accounts", "[accounts]", "The accounts of built-in homes."),
    (
        "memory",
        "[memory]",
        "How many octets the process may hold for others, in all and for one partner or user. Where a budget has no room, what \
         comes is refused with `resource-constraint`, or 500 and Retry-After, and `tombolo_over_budget_total` counts it. Shards \
         (one a core) divide a budget evenly; a partner has at most half of a shard's part, and a user a quarter. Where the \
         budgets together are more than half of what the system leaves above `limit`, all of them are made smaller alike, so \
         that what is there when `limit` is reached cannot get the process ended by the system: with the defaults below 6 GiB.",
    ),
    (
        "admin",
        "[admin]",
        "Administration over HTTP: `/healthz`, `/readyz`, `/metrics` and `/api/v1/status`, for whoever asks by the listener's own\n\
         address or `localhost` (another `Host` is refused). Whatever names people, and every order, goes by the unix socket in the\n\
         data directory (`tombolo user`, `tombolo explain`, `tombolo partner`).",
    ),
    ("log", "[log]", "What is written to standard error."),
    (ACCOUNT_FILE, "The accounts file", "Written by `tombolo user`, mode 0600; need not exist."),
    ("account", "[[account]]", "One user of a built-in home. One of the two hashes at least."),
];

const SETTINGS: &[Setting] = &[
    setting("", "role", ALL, "\"all-in-one\"", "all-in-one, edge, gateway", "What this process is."),
    setting(
        "",
        "data_dir",
        ALL,
        "\"tombolo-data\"",
        "a path",
        "Directory of what the process keeps for itself: keys, the administration socket, by default store and accounts.",
    ),
    setting("", "domain", ALL, "(required)", "[[domain]] tables", "The local domains."),
    setting("", "xmpp", ALL, "(its defaults)", "a table", "The side toward partners."),
    setting("", "sip", USERS, "(its defaults)", "a table", "The side toward front ends and phones."),
    setting(
        "",
        "memory",
        ALL,
        "(its defaults)",
        "a table",
        "How much memory the process may hold for others.",
    ),
    setting("", "partner", ALL, "(none)", "[[partner]] tables", "The partners."),
    setting(
        "",
        "partners",
        ALL,
        "(none)",
        "a directory",
        "Directory whose `*.toml` files hold further `[[partner]]` tables.",
    ),
    setting("", "dns", ALL, "(its defaults)", "a table", "How names are looked up."),
    setting("", "link", LINKED, "(required)", "a table", "The inside link."),
    setting("", "store", USERS, "(its defaults)", "a table", "Where state is kept."),
    setting("", "accounts", USERS, "(its defaults)", "a table", "The accounts of built-in homes."),
    setting("", "admin", ALL, "(its defaults)", "a table", "Administration."),
    setting("", "log", ALL, "(its defaults)", "a table", "Logging."),
    //
    setting("domain", "name", ALL, "(required)", "a domain name", "The domain, in Unicode or A-labels."),
    setting(
        "domain",
        "home",
        USERS,
        "(required)",
        "a table with the keys kind, next_hop, insecure, trusted_addresses",
        "Where its users live.",
    ),
    setting(
        "domain",
        "certificate",
        ALL,
        "(required where TLS is spoken)",
        "a PEM file",
        "Certificate chain of the domain, own certificate first. A gateway needs it only when it has a `tls:` listener or a front end by TLS.",
    ),
    setting(
        "domain",
        "key",
        ALL,
        "(required where TLS is spoken)",
        "a PEM file",
        "Private key of the certificate.",
    ),
    //
    setting(
        "domain.home",
        "kind",
        USERS,
        "(required)",
        "built-in, front-end",
        "`built-in`: we are registrar and presence agent. `front-end`: a SIP server behind us is.",
    ),
    setting(
        "domain.home",
        "next_hop",
        USERS,
        "(required with front-end)",
        "sip:HOST[:PORT][;transport=tls|tcp|udp], or sips:HOST[:PORT]",
        "Where requests go; TLS unless a transport is named, with a certificate for HOST or the domain.",
    ),
    setting(
        "domain.home",
        "insecure",
        USERS,
        "false",
        "true, false",
        "The front end may be spoken to without TLS. Needs `trusted_addresses`.",
    ),
    setting(
        "domain.home",
        "trusted_addresses",
        USERS,
        "[]",
        "IP addresses",
        "From where the front end may speak for its domain without TLS. Only with `insecure = true`.",
    ),
    //
    setting(
        "xmpp",
        "listen",
        STREAMS,
        "[\"[::]:5269\"]",
        "addresses with a port",
        "Where streams with STARTTLS are accepted.",
    ),
    setting(
        "xmpp",
        "direct_tls_listen",
        STREAMS,
        "[]",
        "addresses with a port",
        "Where streams inside TLS are accepted (XEP-0368), usually port 5270.",
    ),
    setting(
        "xmpp",
        "trust",
        STREAMS,
        "\"system\"",
        "system, or a PEM file",
        "The authorities that partners' certificates must lead to.",
    ),
    setting(
        "xmpp",
        "ping_after",
        USERS,
        "\"30s\"",
        "a span from 5s to 1h",
        "A partner that was not heard for so long is pinged (XEP-0199). No answer within 30 s ends the stream; a partner \
         that never answers pings is left to TCP, which notices after 90 s that a host is gone.",
    ),
    setting("xmpp", "limits", STREAMS, "(its defaults)", "a table", "What streams may cost."),
    //
    setting(
        "xmpp.limits",
        "stanza_bytes",
        STREAMS,
        "262144",
        "10000 to 16777216",
        "Largest stanza in octets; a partner entry may say another.",
    ),
    setting(
        "xmpp.limits",
        "early_element_bytes",
        STREAMS,
        "10000",
        "10000 to 1000000",
        "Largest element in octets before a domain is proved.",
    ),
    setting("xmpp.limits", "depth", STREAMS, "64", "8 to 1024", "Depth of elements."),
    setting("xmpp.limits", "attributes", STREAMS, "64", "8 to 1024", "Attributes of one element."),
    setting(
        "xmpp.limits",
        "declarations",
        STREAMS,
        "32",
        "4 to 1024",
        "Namespace declarations of one element.",
    ),
    setting("xmpp.limits", "pairs", STREAMS, "128", "1 to 10000", "Domain pairs that one stream may prove."),
    setting(
        "xmpp.limits",
        "sasl_attempts",
        STREAMS,
        "3",
        "2 to 5",
        "SASL attempts of one stream (RFC 6120 §6.4.5).",
    ),
    setting(
        "xmpp.limits",
        "authenticate_within",
        STREAMS,
        "\"30s\"",
        "a span from 1s to 10m",
        "How long a stream may take to prove a domain.",
    ),
    setting(
        "xmpp.limits",
        "idle",
        STREAMS,
        "\"10m\"",
        "a span from 10s to 24h",
        "A stream with nothing to carry is closed after this.",
    ),
    setting("xmpp.limits", "connections", STREAMS, "10000", "1 to 1000000", "Streams from partners in all."),
    setting(
        "xmpp.limits",
        "connections_per_partner",
        STREAMS,
        "100",
        "1 to 10000",
        "Streams that one partner may have open toward us, all domains of its entry together.",
    ),
    setting(
        "xmpp.limits",
        "unproved_connections",
        STREAMS,
        "1000",
        "1 to 1000000",
        "Streams from partners in all that have proved nothing yet.",
    ),
    setting(
        "xmpp.limits",
        "unproved_connections_per_address",
        STREAMS,
        "20",
        "1 to 10000",
        "Such streams from one address; on IPv6 from one /64, here and below.",
    ),
    setting(
        "xmpp.limits",
        "connections_per_address",
        STREAMS,
        "1000",
        "1 to 1000000",
        "Streams from one address, proved or not.",
    ),
    setting(
        "xmpp.limits",
        "attempts_per_address",
        STREAMS,
        "600",
        "1 to 1000000",
        "Connections that one address may begin in a minute. Over it they are hung up on until the minute is over.",
    ),
    setting(
        "xmpp.limits",
        "bytes_per_second",
        STREAMS,
        "16777216",
        "10000 to 10000000000",
        "Octets a second that a partner may send on one stream. Over it, with two seconds in hand, the stream is read \
         slower and nothing is lost.",
    ),
    setting("xmpp.limits", "stanzas_per_second", STREAMS, "20000", "1 to 10000000", "The same of stanzas."),
    setting(
        "xmpp.limits",
        "malformed_addresses_per_minute",
        STREAMS,
        "600",
        "0 to 1000000",
        "Stanzas with a malformed address that one stream may bring in a minute. Each is dropped; one more ends the stream.",
    ),
    setting(
        "xmpp.limits",
        "keepalive",
        STREAMS,
        "\"5m\"",
        "a span from 10s to 24h",
        "A stream that wrote nothing for so long writes a space, so that a broken connection is noticed.",
    ),
    //
    setting(
        "sip",
        "listen",
        USERS,
        "[\"tls:[::]:5061\"]",
        "tls:ADDRESS:PORT, tcp:ADDRESS:PORT, udp:ADDRESS:PORT",
        "Where requests are accepted. A listener for UDP has one for TCP at the same address and port beside it.",
    ),
    setting(
        "sip",
        "keep_alive",
        USERS,
        "\"0\"",
        "0, or a span from 20s to 1h",
        "About how often two line ends are sent on TCP and TLS connections that we opened to front ends; one that answers nothing for 10 s is closed and opened anew. Only for front ends that answer them (RFC 5626). Such keep-alives of others are always answered.",
    ),
    setting(
        "sip",
        "trust",
        USERS,
        "(as xmpp.trust)",
        "system, or a PEM file",
        "The authorities that front ends' certificates must lead to. In a gateway, which has no `xmpp.trust`, the default is `system`.",
    ),
    setting(
        "sip",
        "watcher_interval",
        USERS,
        "\"5s\"",
        "a span from 0 to 60s",
        "The least time between two states of one user to one SIP watcher (RFC 3856 §6.10 wants 5 s); what comes sooner is \
         sent as the newest state then.",
    ),
    setting(
        "sip",
        "registration_is_presence",
        USERS,
        "true",
        "true, false",
        "A phone of a built-in home that registers and never publishes is shown as available while it is registered and \
         reachable. With `false` such a phone is never shown as available, though messages reach it.",
    ),
    setting("sip", "limits", USERS, "(its defaults)", "a table", "What messages may cost."),
    //
    setting(
        "sip.limits",
        "message_bytes",
        USERS,
        "65536",
        "1300 to 16777216",
        "Largest message in octets, in and out.",
    ),
    setting("sip.limits", "header_bytes", USERS, "8192", "256 to 65536", "Largest header field in octets."),
    setting("sip.limits", "headers", USERS, "128", "16 to 1024", "Header fields of one message."),
    setting("sip.limits", "vias", USERS, "70", "1 to 256", "Via values of one message."),
    setting(
        "sip.limits",
        "expires",
        USERS,
        "\"1h\"",
        "a span from 60s to 24h",
        "Longest subscription or binding of phones and unknown peers.",
    ),
    setting(
        "sip.limits",
        "front_end_expires",
        USERS,
        "\"8h\"",
        "a span from 60s to 24h",
        "Longest subscription of front ends.",
    ),
    setting(
        "sip.limits",
        "connections",
        USERS,
        "20000",
        "1 to 1000000",
        "TCP and TLS connections that peers may have with us. Further ones are closed, counted, and told of in the log once a minute.",
    ),
    setting(
        "sip.limits",
        "connections_per_address",
        USERS,
        "2000",
        "1 to 1000000",
        "Such connections from one address, or from one network of 64 bits of IPv6.",
    ),
    setting(
        "sip.limits",
        "unproved_connections_per_address",
        USERS,
        "100",
        "1 to 1000000",
        "Those of them by which nobody has proved himself yet: no user has registered and no front end has shown who it is. Such a connection is closed after 30 s.",
    ),
    //
    setting("partner", "domain", ALL, "(required)", "a domain name", "The domain that names the entry."),
    setting(
        "partner",
        "further_domains",
        ALL,
        "[]",
        "domain names, *.DOMAIN for everything below one",
        "Further domains of the same organisation. Sub-domains are not implied. The exact domain goes before the longest `*.`.",
    ),
    setting(
        "partner",
        "kind",
        ALL,
        "\"public-unverified\"",
        "federated, public-verified, public-unverified",
        "How far its users' identities are trusted, and so the ceiling of the rest. `public-unverified` always asks before its users see presence, and its messages pass only to users who asked for that contact. Both public kinds never see status notes.",
    ),
    setting(
        "partner",
        "authenticate",
        ALL,
        "[\"sasl-external\"]",
        "sasl-external, tls-dialback, plain-dialback",
        "How it may prove its domains, best first. `plain-dialback` needs `insecure = true`.",
    ),
    setting(
        "partner",
        "proxy",
        ALL,
        "(the hosts that DNS names)",
        "HOST:PORT",
        "Where streams to it are opened instead.",
    ),
    setting(
        "partner",
        "detail",
        ALL,
        "\"full\"",
        "full, no-note, availability-only, none",
        "The most that its users see of ours; `none` refuses watchers.",
    ),
    setting(
        "partner",
        "direction",
        ALL,
        "\"both\"",
        "both, inbound, outbound",
        "Which side may begin: `inbound` is the partner's users, `outbound` ours.",
    ),
    setting(
        "partner",
        "limits",
        ALL,
        "(its defaults)",
        "a table with the keys stanza_bytes, subscriptions",
        "What it may cost.",
    ),
    setting(
        "partner",
        "allow_client_auth_only",
        ALL,
        "false",
        "true, false",
        "A certificate that holds clientAuth alone passes as its client certificate.",
    ),
    setting(
        "partner",
        "insecure",
        ALL,
        "false",
        "true, false",
        "Streams without TLS are allowed for this partner.",
    ),
    setting(
        "partner",
        "message_type",
        ALL,
        "\"normal\"",
        "normal, chat",
        "Type of messages toward it; many clients show only `chat` as a conversation.",
    ),
    setting(
        "partner",
        "message_answer_wait",
        ALL,
        "\"500ms\"",
        "a span from 0 to 30s",
        "How long a MESSAGE toward it waits for an error before it is answered with 202.",
    ),
    //
    setting(
        "partner.limits",
        "stanza_bytes",
        ALL,
        "(xmpp.limits.stanza_bytes)",
        "10000 to 16777216",
        "Largest stanza in octets.",
    ),
    setting(
        "partner.limits",
        "accepted_stanza_bytes",
        USERS,
        "262144",
        "10000 to 16777216",
        "Largest stanza in octets that the partner takes, where its streams do not announce it (XEP-0478). A message that \
         would be larger is refused to its sender with 513; notes are cut to fit.",
    ),
    setting(
        "partner.limits",
        "subscriptions",
        ALL,
        "100000",
        "1 to 100000000",
        "Most pairs of a user of ours and one of the partner, whichever of the two watches.",
    ),
    //
    setting(PARTNER_FILE, "partner", ALL, "(none)", "[[partner]] tables", "Partners, as in the main file."),
    //
    setting(
        "dns",
        "servers",
        ALL,
        "[]",
        "addresses, with a port or without",
        "The servers to ask; none means the system's.",
    ),
    //
    setting("link", "listen", EDGE, "(required)", "an address with a port", "Where gateways are awaited."),
    setting(
        "link",
        "gateways",
        EDGE,
        "(required)",
        "host names or IP addresses",
        "The gateways that may open a link: one of these must stand in the certificate (dNSName or iPAddress, no wildcard).",
    ),
    setting(
        "link",
        "edges",
        GATEWAY,
        "(required)",
        "HOST:PORT",
        "The edges to open links to. The host must stand in the edge's certificate (dNSName or iPAddress, no wildcard).",
    ),
    setting("link", "certificate", LINKED, "(required)", "a PEM file", "Certificate chain of this end."),
    setting("link", "key", LINKED, "(required)", "a PEM file", "Private key of the certificate."),
    setting(
        "link",
        "trust",
        LINKED,
        "(required)",
        "a PEM file",
        "The private authority that the other end's certificate must lead to.",
    ),
    //
    setting(
        "store",
        "path",
        USERS,
        "(DATA_DIR/state.redb)",
        "a path, or memory",
        "The file of the state; `memory` keeps nothing over a restart.",
    ),
    //
    setting("accounts", "file", USERS, "(DATA_DIR/accounts.toml)", "a path", "The file of the accounts."),
    setting(
        "accounts",
        "digest",
        USERS,
        "[\"SHA-256\", \"MD5\"]",
        "SHA-256, MD5",
        "The challenges that phones get, in this order, and no other hash is taken. Some phones (baresip before 2.0, SIPp) give up at a SHA-256 challenge even with an MD5 one beside it: `[\"MD5\"]` lets them in. Phones that send digest without `qop` (RFC 2069) are let in only where MD5 stands here, with a nonce that is good for one request. MD5 is broken for other uses and weak here: who reads the exchange of a phone without TLS tries passwords against it fast, and a stored MD5 hash falls sooner. `[\"SHA-256\"]` keeps old phones out.",
    ),
    //
    setting(
        "memory",
        "limit",
        ALL,
        "(80 % of what the cgroup or machine has)",
        "67108864 to 1099511627776",
        "What the process may take by itself. Above it new connections, phones and subscriptions are refused with \
         `resource-constraint`, or 500 and Retry-After, until it is a twentieth below; what is there goes on. `/readyz` says \
         `degraded` meanwhile.",
    ),
    setting(
        "memory",
        "messages",
        USERS,
        "134217728",
        "1048576 to 1099511627776",
        "Messages whose fate is not known yet, and requests that wait for the store.",
    ),
    setting(
        "memory",
        "messages_per_partner",
        USERS,
        "33554432",
        "1048576 to 1099511627776",
        "Those that one partner sent, or that wait for it: all domains of its entry together.",
    ),
    setting(
        "memory",
        "messages_per_user",
        USERS,
        "8388608",
        "1048576 to 1099511627776",
        "Those to or from one local user.",
    ),
    setting(
        "memory",
        "states",
        USERS,
        "268435456",
        "1048576 to 1099511627776",
        "What contacts and users say of themselves, and published documents. One contact or user has 32 KiB at most, a note \
         2,048 octets; a longer note ends with `…`.",
    ),
    setting(
        "memory",
        "states_per_partner",
        USERS,
        "67108864",
        "1048576 to 1099511627776",
        "What the contacts of one partner say, all domains of its entry together, beyond the 2 KiB that each always has. A \
         state without room loses notes, then its least available devices.",
    ),
    setting(
        "memory",
        "states_per_user",
        USERS,
        "8388608",
        "1048576 to 1099511627776",
        "The same for the contacts of one local user; for its own documents 512 KiB at most.",
    ),
    setting(
        "memory",
        "outgoing",
        ALL,
        "134217728",
        "1048576 to 1099511627776",
        "What waits to be written on all connections together, half of it toward partners and half toward SIP peers, beyond \
         the 128 KiB that each connection always has. A connection that finds no room is closed: its peer takes nothing.",
    ),
    setting(
        "admin",
        "listen",
        ALL,
        "\"127.0.0.1:8086\"",
        "a loopback address with a port",
        "Where HTTP is served. It asks for no password.",
    ),
    setting(
        "admin",
        "insecure",
        ALL,
        "false",
        "true, false",
        "Any address may be listened on: something else keeps strangers away.",
    ),
    //
    setting(
        "log",
        "format",
        ALL,
        "\"auto\"",
        "auto, text, json",
        "`text` is for people, `json` for programs; `auto` is text at a terminal and JSON elsewhere.",
    ),
    setting("log", "level", ALL, "\"info\"", "error, warn, info, debug, trace", "The least that is written."),
    setting(
        "log",
        "show_addresses",
        ALL,
        "false",
        "true, false",
        "Addresses of people are written as they are, not hidden.",
    ),
    //
    setting(ACCOUNT_FILE, "account", ALL, "(none)", "[[account]] tables", "The accounts."),
    setting("account", "aor", ALL, "(required)", "USER@DOMAIN", "The address of record."),
    setting(
        "account",
        "ha1_sha256",
        ALL,
        "(none)",
        "64 hexadecimal digits",
        "SHA-256 of `user:realm:password`, the realm being the domain.",
    ),
    setting(
        "account",
        "ha1_md5",
        ALL,
        "(none)",
        "32 hexadecimal digits",
        "MD5 of the same, for phones that know nothing better.",
    ),
    setting(
        "account",
        "ha1_sha256_address",
        ALL,
        "(none)",
        "64 hexadecimal digits",
        "SHA-256 with `user@domain` as user, for phones that log in so. `tombolo user passwd` adds it to older accounts.",
    ),
    setting("account", "ha1_md5_address", ALL, "(none)", "32 hexadecimal digits", "MD5 of the same."),
    setting(
        "account",
        "approve",
        ALL,
        "\"ask\"",
        "ask, partner, all",
        "Who may watch without asking: nobody, users of federated and public-verified partners, or those and our own users.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stands_in_a_documented_section_and_once() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(SECTIONS.iter().any(|(section, ..)| *section == setting.section), "{setting:?}");
            let is_twice = SETTINGS[..at]
                .iter()
                .any(|known| (known.section, known.key) == (setting.section, setting.key));
            assert!(!is_twice && !setting.roles.is_empty(), "{setting:?}");
        }
    }

    /// Written again with `TOMBOLO_WRITE_DOCS=1 cargo test -p tombolo-config docs_settings`.
    #[test]
    fn docs_settings_md_is_what_the_checker_knows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        if std::env::var_os("TOMBOLO_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).expect("written");
        }
        let written = std::fs::read_to_string(path).expect("docs/settings.md is there");
        assert!(written == markdown(), "docs/settings.md is not what the checker knows; write it again");
    }
}
