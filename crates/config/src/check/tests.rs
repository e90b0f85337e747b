//! One test for each kind of error, with the exact line that is shown.

mod roles;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tombolo_policy::{Detail, MessageType, Method, PartnerKind, Permitted};

use crate::{
    ConfigError, Role, Settings, StoreSettings, Trust, embedded_defaults,
    files::{AllThere, Files},
    settings::{DigestAlgorithm, LogFormat, LogLevel},
};

/// A disk that holds the files it was given.
#[derive(Default)]
struct Few(BTreeMap<PathBuf, &'static str>);

impl Files for Few {
    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn toml_files(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let found: Vec<PathBuf> =
            self.0.keys().filter(|path| path.parent() == Some(directory)).cloned().collect();
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }
}

fn files(files: &[(&str, &'static str)]) -> Few {
    Few(files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect())
}

/// A domain that is in order, in one line for the top of a test's file.
const DOMAIN: &str =
    "domain = [{ name = \"c.example\", home = { kind = \"built-in\" }, certificate = \"c\", key = \"k\" }]\n";

fn check(text: &str) -> Result<Settings, Vec<ConfigError>> {
    with_files(text, &AllThere)
}

fn with_files(text: &str, files: &dyn Files) -> Result<Settings, Vec<ConfigError>> {
    super::check(text, "etc/t.toml", None, files).map(|checked| checked.settings)
}

/// The errors of `text`, written after a domain that is in order; `text` begins on line 2.
fn errors(text: &str) -> Vec<String> {
    whole_errors(&format!("{DOMAIN}{text}"))
}

fn whole_errors(text: &str) -> Vec<String> {
    lines(check(text))
}

fn lines(result: Result<Settings, Vec<ConfigError>>) -> Vec<String> {
    let errors = result.expect_err("refused");
    errors.iter().map(|error| error.to_string().replace("etc/t.toml:", "")).collect()
}

fn accepted(text: &str) -> Settings {
    check(&format!("{DOMAIN}{text}")).unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn a_text_that_is_no_toml_gives_its_first_fault() {
    assert_eq!(
        whole_errors("a = \nb = 1\nb = 2\n"),
        ["1:5: this is not TOML: string values must be quoted, expected literal string; accepted: TOML 1.0"]
    );
    assert_eq!(whole_errors("b = 1\nb = 2\n"), ["2:1: this is not TOML: duplicate key; accepted: TOML 1.0"]);
}

#[test]
fn an_unknown_key_gives_the_keys_of_its_section() {
    assert_eq!(
        errors("[store]\npfad = \"x\"\n[log]\nlevel = \"info\"\ncolour = 1\n[lgo]\n"),
        [
            "3:1: unknown key `store.pfad`; accepted: path",
            "6:1: unknown key `log.colour`; accepted: format, level, show_addresses",
            "7:2: unknown key `lgo`; accepted: role, data_dir, domain, xmpp, sip, memory, partner, partners, dns, link, store, \
             accounts, admin, log",
        ]
    );
}

#[test]
fn an_unknown_key_in_an_inline_table_is_found() {
    assert_eq!(
        whole_errors(
            "[[domain]]\nname = \"c.example\"\ncertificate = \"c\"\nkey = \"k\"\n\
             home = { kind = \"built-in\", kidn = 1 }\n"
        ),
        ["5:29: unknown key `domain.home.kidn`; accepted: kind, next_hop, insecure, trusted_addresses"]
    );
}

#[test]
fn a_wrong_type_gives_what_is_accepted() {
    assert_eq!(
        errors(
            "role = 1\ndata_dir = true\ndns = 3\n[xmpp]\nlisten = \"[::]:5269\"\n[sip]\nlisten = [1]\n\
             [log]\nshow_addresses = \"yes\"\n[xmpp.limits]\ndepth = \"64\"\nidle = 10\n"
        ),
        [
            "2:8: `role` is of type integer; accepted: all-in-one, edge, gateway",
            "3:12: `data_dir` is of type boolean; accepted: a path, such as \"tombolo-data/accounts.toml\"",
            "4:7: `dns` is of type integer; accepted: a table with the keys servers",
            "6:10: `xmpp.listen` is of type string; accepted: a list of: addresses with a port, such as \"[::]:5269\" or \"192.0.2.1:5269\"",
            "8:11: `sip.listen` is of type integer; accepted: tls:ADDRESS:PORT, tcp:ADDRESS:PORT, udp:ADDRESS:PORT, such as \"tls:[::]:5061\" or \"udp:192.0.2.1:5060\"",
            "10:18: `log.show_addresses` is of type string; accepted: true, false, without quotes",
            "12:9: `xmpp.limits.depth` is of type string; accepted: a whole number from 8 to 1024, such as 64",
            "13:8: `xmpp.limits.idle` is of type integer; accepted: a span from 10s to 24h, which is a whole number followed by ms, s, m or h, such as \"10m\"",
        ]
    );
}

#[test]
fn a_section_that_is_no_list_of_tables_is_refused() {
    assert_eq!(
        errors("[partner]\ndomain = \"p.example\"\n"),
        ["2:1: [partner] at line 2 needs two brackets: [[partner]]; accepted: [[partner]]"]
    );
    assert_eq!(
        whole_errors("partner = 1\ndomain = []\n"),
        ["1:11: `partner` is of type integer; accepted: [[partner]] tables"]
    );
}

#[test]
fn a_bad_word_gives_the_words() {
    assert_eq!(
        errors("role = \"proxy\"\n[log]\nformat = \"xml\"\nlevel = \"warning\"\n"),
        [
            "2:8: `role` cannot be \"proxy\"; accepted: all-in-one, edge, gateway",
            "4:10: `log.format` cannot be \"xml\"; accepted: auto, text, json",
            "5:9: `log.level` cannot be \"warning\"; accepted: error, warn, info, debug, trace",
        ]
    );
}

#[test]
fn a_bad_address_gives_the_form() {
    assert_eq!(
        errors(
            "[xmpp]\nlisten = [\"[::]:5269\", \"localhost:5269\"]\n[sip]\nlisten = [\"sctp:[::]:5061\", \"[::]:5061\"]\n\
             [dns]\nservers = [\"127.0.0.53\", \"resolver\"]\n[admin]\nlisten = \"127.0.0.1\"\n"
        ),
        [
            "3:24: `xmpp.listen` cannot be \"localhost:5269\"; accepted: addresses with a port, such as \"[::]:5269\" or \"192.0.2.1:5269\"",
            "5:11: `sip.listen` cannot be \"sctp:[::]:5061\"; accepted: tls:ADDRESS:PORT, tcp:ADDRESS:PORT, udp:ADDRESS:PORT, such as \"tls:[::]:5061\" or \"udp:192.0.2.1:5060\"",
            "5:29: `sip.listen` cannot be \"[::]:5061\"; accepted: tls:ADDRESS:PORT, tcp:ADDRESS:PORT, udp:ADDRESS:PORT, such as \"tls:[::]:5061\" or \"udp:192.0.2.1:5060\"",
            "7:26: `dns.servers` cannot be \"resolver\"; accepted: addresses, with a port or without, such as \"192.0.2.53\" or \"[2001:db8::53]:53\"",
            "9:10: `admin.listen` cannot be \"127.0.0.1\"; accepted: a loopback address with a port, such as \"127.0.0.1:8086\" or \"[::1]:8086\"",
        ]
    );
}

#[test]
fn a_value_that_stands_twice_in_a_list_is_refused() {
    assert_eq!(
        errors("[xmpp]\nlisten = [\"[::]:5269\", \"[::]:5269\"]\n"),
        ["3:24: `xmpp.listen` lists \"[::]:5269\" twice; accepted: each value once"]
    );
}

#[test]
fn a_number_or_span_out_of_range_gives_the_range() {
    assert_eq!(
        errors(
            "[xmpp.limits]\nstanza_bytes = 9999\nsasl_attempts = -1\nidle = \"25h\"\nauthenticate_within = \"soon\"\n\
             [[partner]]\ndomain = \"p.example\"\nmessage_answer_wait = \"1m\"\nlimits = { subscriptions = 0 }\n"
        ),
        [
            "3:16: `xmpp.limits.stanza_bytes` = 9999 is out of range; accepted: a whole number from 10000 to 16777216, such as 262144",
            "4:17: `xmpp.limits.sasl_attempts` = -1 is out of range; accepted: a whole number from 2 to 5, such as 3",
            "5:8: `xmpp.limits.idle` = 25h is out of range; accepted: a span from 10s to 24h, which is a whole number followed by ms, s, m or h, such as \"10m\"",
            "6:23: `xmpp.limits.authenticate_within` cannot be \"soon\"; accepted: a span from 1s to 10m, which is a whole number followed by ms, s, m or h, such as \"30s\"",
            "9:23: `partner.message_answer_wait` = 1m is out of range; accepted: a span from 0 to 30s, which is a whole number followed by ms, s, m or h, such as \"500ms\"",
            "10:28: `partner.limits.subscriptions` = 0 is out of range; accepted: a whole number from 1 to 100000000, such as 100000",
        ]
    );
}

#[test]
fn a_missing_key_is_told_at_its_section() {
    assert_eq!(whole_errors("# nothing\n"), ["1:1: missing key `domain`; accepted: [[domain]] tables"]);
    assert_eq!(
        whole_errors("role = \"all-in-one\"\n\n[[domain]]\n[[partner]]\n"),
        [
            "3:1: missing key `domain.name`; accepted: a domain name, such as \"corp.example\"",
            "3:1: missing key `domain.home`; accepted: a table with the keys kind, next_hop, insecure, trusted_addresses",
            "3:1: missing key `domain.certificate`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "3:1: missing key `domain.key`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "4:1: missing key `partner.domain`; accepted: a domain name, such as \"corp.example\"",
        ]
    );
}

#[test]
fn a_missing_certificate_file_gives_the_whole_path() {
    let text = "[[domain]]\nname = \"c.example\"\nhome = { kind = \"built-in\" }\ncertificate = \"c.pem\"\nkey = \"/k.pem\"\n\
                [xmpp]\ntrust = \"ca.pem\"\n";
    let here = files(&[("etc/c.pem", "")]);
    assert_eq!(
        lines(with_files(text, &here)),
        [
            "5:7: `domain.key` names /k.pem, which is no readable file; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "7:9: `xmpp.trust` names etc/ca.pem, which is no readable file; accepted: system, or a PEM file, such as \"certs/authorities.pem\"",
        ]
    );
    let here = files(&[("etc/c.pem", ""), ("/k.pem", ""), ("etc/ca.pem", "")]);
    assert!(super::check(text, "etc/t.toml", None, &here).is_ok());
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let text = "role = \"gateway\"\n[link]\nedges = [\"e:1\"]\ncertificate = \"c\"\nkey = \"k\"\ntrust = \"t\"\n\
                [sip]\nlisten = [\"tcp:127.0.0.1:5060\"]\n\
                [[domain]]\nname = \"c.example\"\nhome = { kind = \"built-in\" }\n";
    assert!(check(text).is_ok(), "a gateway that speaks no TLS needs none: {:?}", check(text));
    assert_eq!(
        whole_errors(&format!("{text}certificate = \"c\"\n")),
        ["9:1: missing key `domain.key`; accepted: a PEM file, such as \"certs/corp.example.pem\""]
    );
    let by_tls = text.replace("tcp:127.0.0.1:5060", "tls:127.0.0.1:5061");
    assert_eq!(
        whole_errors(&by_tls),
        [
            "9:1: missing key `domain.certificate`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "9:1: missing key `domain.key`; accepted: a PEM file, such as \"certs/corp.example.pem\""
        ]
    );
    let by_front_end = text
        .replace("kind = \"built-in\"", "kind = \"front-end\", next_hop = \"sip:pool:5061;transport=tls\"");
    assert_eq!(whole_errors(&by_front_end).len(), 2);
}

#[test]
fn a_domain_that_is_owned_twice_gives_both_places() {
    let domain = "[[domain]]\nname = \"c.example\"\nhome = { kind = \"built-in\" }\ncertificate = \"c\"\nkey = \"k\"\n";
    let again = domain.replace("c.example", "C.Example.");
    assert_eq!(
        whole_errors(&format!("{domain}{again}[[partner]]\ndomain = \"c.example\"\n")),
        [
            "7:8: c.example is already claimed by the domain at 2:8; accepted: each domain once, in a [[domain]] or a \
             [[partner]]",
            "12:10: c.example is already claimed by the domain at 2:8; accepted: each domain once, in a [[domain]] or a \
             [[partner]]",
        ]
    );
}

#[test]
fn two_partners_that_claim_one_domain_give_both_places() {
    assert_eq!(
        errors(
            "[[partner]]\ndomain = \"one.example\"\nfurther_domains = [\"x.example\", \"*.x.example\"]\n\
             [[partner]]\ndomain = \"two.example\"\nfurther_domains = [\"*.X.example\", \"one.example\", \"y.x.example\"]\n"
        ),
        [
            "7:20: *.x.example is already claimed by the partner at 4:33; accepted: each domain once, in a [[domain]] or a \
             [[partner]]",
            "7:35: one.example is already claimed by the partner at 3:10; accepted: each domain once, in a [[domain]] or a \
             [[partner]]",
        ]
    );
}

#[test]
fn a_bad_domain_name_is_refused() {
    assert_eq!(
        errors(
            "[[partner]]\ndomain = \"*.example.com\"\nfurther_domains = [\"a..b\", \"*\", \"*.*.x\", \"\"]\nproxy = \"p.example\"\n"
        ),
        [
            "3:10: `partner.domain` cannot be \"*.example.com\"; accepted: a domain name, such as \"corp.example\"",
            "4:20: `partner.further_domains` cannot be \"a..b\"; accepted: domain names, *.DOMAIN for everything below one, such as \"example.org\" or \"*.example.org\"",
            "4:28: `partner.further_domains` cannot be \"*\"; accepted: domain names, *.DOMAIN for everything below one, such as \"example.org\" or \"*.example.org\"",
            "4:33: `partner.further_domains` cannot be \"*.*.x\"; accepted: domain names, *.DOMAIN for everything below one, such as \"example.org\" or \"*.example.org\"",
            "4:42: `partner.further_domains` cannot be \"\"; accepted: domain names, *.DOMAIN for everything below one, such as \"example.org\" or \"*.example.org\"",
            "5:9: `partner.proxy` cannot be \"p.example\"; accepted: HOST:PORT, such as \"host1.example.com:5269\" or \"[2001:db8::1]:5269\"",
        ]
    );
}

#[test]
fn a_partner_without_a_usable_method_is_refused() {
    assert_eq!(
        errors("[[partner]]\ndomain = \"p.example\"\nauthenticate = []\n"),
        [
            "4:16: partner p.example has no usable authentication method; accepted: sasl-external, tls-dialback, \
          plain-dialback"
        ]
    );
    assert_eq!(
        errors("[[partner]]\ndomain = \"p.example\"\nauthenticate = [\"password\"]\n"),
        [
            "4:17: `partner.authenticate` cannot be \"password\"; accepted: sasl-external, tls-dialback, plain-dialback"
        ]
    );
}

#[test]
fn sip_t_01_a_listener_for_datagrams_has_one_for_tcp_at_its_address_and_port() {
    assert_eq!(
        errors("[sip]\nlisten = [\"tcp:127.0.0.1:5070\", \"udp:127.0.0.1:5060\", \"tcp:127.0.0.2:5060\"]\n"),
        ["3:33: udp:127.0.0.1:5060 takes datagrams, and what is too large for one has no way in; accepted: \
          \"tcp:127.0.0.1:5060\" beside it"]
    );
}

#[test]
fn a_listener_that_is_written_as_a_mapped_address_is_one_of_ipv4_and_stands_once() {
    let settings = accepted(
        "[xmpp]\nlisten = [\"[::ffff:127.0.0.1]:5269\"]\n[admin]\nlisten = \"[::ffff:127.0.0.1]:8086\"\n",
    );
    let listen = settings.xmpp.expect("an all-in-one has it").listen;
    assert_eq!(listen, ["127.0.0.1:5269".parse().expect("an address")]);
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:8086");
    let twice = errors("[xmpp]\nlisten = [\"127.0.0.1:5269\", \"[::ffff:127.0.0.1]:5269\"]\n");
    assert!(twice.len() == 1 && twice[0].contains("twice"), "{twice:?}");
}

#[test]
fn keep_alives_are_off_or_rare_enough_to_be_answered() {
    assert_eq!(
        errors("[sip]\nkeep_alive = \"5s\"\n"),
        [
            "3:14: `sip.keep_alive` = 5s is out of range; accepted: 0, or a span from 20s to 1h, which is a whole number \
             followed by ms, s, m or h, such as \"30s\""
        ]
    );
}

#[test]
fn phones_get_a_challenge_of_one_known_hash_at_least_and_each_once() {
    assert_eq!(
        errors("[accounts]\ndigest = []\n"),
        ["3:10: phones have nothing to prove their password by; accepted: SHA-256, MD5"]
    );
    assert_eq!(
        errors("[accounts]\ndigest = [\"md5\", \"MD5\", \"MD5\"]\n"),
        [
            "3:11: `accounts.digest` cannot be \"md5\"; accepted: SHA-256, MD5",
            "3:25: `accounts.digest` lists \"MD5\" twice; accepted: each value once",
        ]
    );
}

#[test]
fn plain_dialback_needs_the_explicit_flag() {
    let partner =
        "[[partner]]\ndomain = \"p.example\"\nauthenticate = [\"sasl-external\", \"plain-dialback\"]\n";
    let refused = "4:34: partner p.example allows plain-dialback, which anybody on the path can forge; accepted: \
                   sasl-external, tls-dialback, or insecure = true beside it";
    assert_eq!(errors(partner), [refused]);
    assert_eq!(errors(&format!("{partner}insecure = false\n")), [refused]);
    let settings = accepted(&format!("{partner}insecure = true\n"));
    assert_eq!(settings.partners[0].authenticate, [Method::SaslExternal, Method::PlainDialback]);
}

#[test]
fn an_admin_listener_that_others_reach_needs_the_explicit_flag() {
    assert_eq!(
        errors("[admin]\nlisten = \"0.0.0.0:8086\"\n"),
        [
            "3:10: `admin.listen` = \"0.0.0.0:8086\" can be reached from other machines, and whoever reaches it is an \
          administrator; accepted: a loopback address with a port, such as \"127.0.0.1:8086\" or \"[::1]:8086\", or \
          insecure = true beside it"
        ]
    );
    let settings = accepted("[admin]\nlisten = \"0.0.0.0:8086\"\ninsecure = true\n");
    assert_eq!(settings.admin.listen.port(), 8086);
    assert!(check(&format!("{DOMAIN}[admin]\nlisten = \"[::1]:1\"\n")).is_ok());
}

#[test]
fn errors_in_partner_files_name_that_file() {
    let text =
        format!("{DOMAIN}partners = \"partners.d\"\nroll = 1\n[[partner]]\ndomain = \"one.example\"\n");
    let here = files(&[
        ("etc/c", ""),
        ("etc/k", ""),
        ("etc/partners.d/b.toml", "[[partner]]\ndomain = \"one.example\"\nkind = \"friend\"\n"),
        ("etc/partners.d/a.toml", "[[partner]\n"),
        ("etc/partners.d/c.toml", "role = \"edge\"\n[[partner]]\ndomain = \"three.example\"\n"),
    ]);
    assert_eq!(
        lines(with_files(&text, &here)),
        [
            "3:1: unknown key `roll`; accepted: role, data_dir, domain, xmpp, sip, memory, partner, partners, dns, link, store, \
             accounts, admin, log",
            "etc/partners.d/a.toml:1:11: this is not TOML: unclosed array table, expected `]`; accepted: TOML 1.0",
            "etc/partners.d/b.toml:2:10: one.example is already claimed by the partner at 5:10; accepted: each domain once, \
             in a [[domain]] or a [[partner]]",
            "etc/partners.d/b.toml:3:8: `partner.kind` cannot be \"friend\"; accepted: federated, public-verified, \
             public-unverified",
            "etc/partners.d/c.toml:1:1: unknown key `role`; accepted: partner",
        ]
    );
    let missing = with_files(&format!("{DOMAIN}partners = \"nowhere\"\n"), &here);
    assert_eq!(
        lines(missing),
        [
            "2:12: `partners` names etc/nowhere, which is no readable directory; accepted: a directory, such as \"partners.d\""
        ]
    );
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let settings = accepted(
        "data_dir = \"/var/lib/t\"\n\
         [xmpp]\nlisten = [\"127.0.0.1:5269\"]\ndirect_tls_listen = [\"127.0.0.1:5270\"]\ntrust = \"ca.pem\"\n\
         [xmpp.limits]\nstanza_bytes = 10_000\nidle = \"1m\"\n\
         [sip]\nlisten = [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]\nkeep_alive = \"2m\"\nwatcher_interval = \"0s\"\n[sip.limits]\nexpires = \"30m\"\nconnections_per_address = 7\n\
         [[partner]]\ndomain = \"p.example\"\nfurther_domains = [\"*.p.example\"]\nkind = \"federated\"\n\
         authenticate = [\"tls-dialback\", \"sasl-external\"]\nproxy = \"[::1]:15269\"\ndetail = \"no-note\"\n\
         direction = \"inbound\"\nlimits = { stanza_bytes = 20000, subscriptions = 5 }\nallow_client_auth_only = true\n\
         message_type = \"chat\"\nmessage_answer_wait = \"0\"\n\
         [dns]\nservers = [\"127.0.0.53:5353\", \"::1\"]\n[store]\npath = \"memory\"\n[accounts]\nfile = \"a.toml\"\ndigest = [\"MD5\"]\n\
         [log]\nformat = \"json\"\nlevel = \"debug\"\nshow_addresses = true\n",
    );
    assert_eq!(settings.data_dir, Path::new("/var/lib/t"));
    let xmpp = settings.xmpp.clone().expect("there");
    assert_eq!(xmpp.trust, Trust::File("etc/ca.pem".into()));
    assert_eq!((xmpp.limits.stanza_bytes, xmpp.limits.idle), (10_000, Duration::from_secs(60)));
    assert_eq!(xmpp.direct_tls_listen[0].port(), 5270);
    let sip = settings.sip.clone().expect("there");
    assert_eq!(sip.listen[0].to_string(), "udp:127.0.0.1:5060");
    assert_eq!((sip.keep_alive, sip.limits.connections_per_address), (Duration::from_secs(120), 7));
    assert_eq!((sip.trust, sip.limits.expires), (xmpp.trust, Duration::from_secs(1800)));
    assert_eq!(sip.watcher_interval, Duration::ZERO);
    let partner = &settings.partners[0];
    assert_eq!(partner.further_domains[0].to_string(), "*.p.example");
    assert_eq!(partner.kind, PartnerKind::Federated);
    assert_eq!(partner.authenticate, [Method::TlsDialback, Method::SaslExternal]);
    assert_eq!(partner.proxy.as_ref().expect("there").to_string(), "[::1]:15269");
    assert_eq!((partner.detail, partner.direction), (Detail::NoNote, Permitted::Inbound));
    assert_eq!((partner.limits.stanza_bytes, partner.limits.subscriptions), (Some(20_000), 5));
    assert!(partner.allow_client_auth_only && !partner.insecure);
    assert_eq!((partner.message_type, partner.message_answer_wait), (MessageType::Chat, Duration::ZERO));
    let servers: Vec<String> = settings.dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["127.0.0.53:5353", "[::1]:53"]);
    assert_eq!(settings.store, Some(StoreSettings::Memory));
    let accounts = settings.accounts.clone().expect("there");
    assert_eq!(
        (accounts.file.as_path(), &accounts.digest[..]),
        (Path::new("etc/a.toml"), &[DigestAlgorithm::Md5][..])
    );
    assert_eq!((settings.log.format, settings.log.level), (LogFormat::Json, LogLevel::Debug));
    assert!(settings.log.show_addresses);
    let table = settings.policy_table(3);
    assert_eq!(table.generation(), 3);
    assert!(table.partner("chat.p.example").is_some() && table.local_domain("c.example").is_some());
}

#[test]
fn what_is_left_out_has_its_default() {
    let settings = accepted("");
    assert_eq!(settings.role, Role::AllInOne);
    assert_eq!(settings.data_dir, Path::new("etc/tombolo-data"));
    assert_eq!(settings.store, Some(StoreSettings::File("etc/tombolo-data/state.redb".into())));
    let accounts = settings.accounts.expect("there");
    assert_eq!(accounts.file, Path::new("etc/tombolo-data/accounts.toml"));
    assert_eq!(accounts.digest, [DigestAlgorithm::Sha256, DigestAlgorithm::Md5]);
    assert_eq!(settings.xmpp.expect("there").listen[0].to_string(), "[::]:5269");
    assert_eq!(settings.sip.expect("there").listen[0].to_string(), "tls:[::]:5061");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:8086");
    let settings = accepted("[[partner]]\ndomain = \"p.example\"\n");
    let partner = &settings.partners[0];
    assert_eq!((partner.kind, partner.detail), (PartnerKind::PublicUnverified, Detail::Full));
    assert_eq!((partner.authenticate.as_slice(), partner.insecure), (&[Method::SaslExternal][..], false));
    assert_eq!(partner.message_answer_wait, Duration::from_millis(500));
}

/// The default of every setting, read by the checker, gives what the checker uses without it.
#[test]
fn the_documented_defaults_are_the_real_ones() {
    let mut text = String::from(DOMAIN);
    for section in ["", "xmpp", "xmpp.limits", "sip", "sip.limits", "partner", "dns", "admin", "log"] {
        match section {
            "" => {}
            "partner" => text.push_str("[[partner]]\ndomain = \"p.example\"\n"),
            _ => text.push_str(&format!("[{section}]\n")),
        }
        let rows =
            crate::settings().iter().filter(|row| row.section == section && !row.default.starts_with('('));
        for row in rows {
            text.push_str(&format!("{} = {}\n", row.key, row.default));
        }
    }
    let written = check(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut plain = accepted("[[partner]]\ndomain = \"p.example\"\n");
    plain.data_dir = "etc/tombolo-data".into();
    assert_eq!(written, plain);
}

#[test]
fn the_embedded_defaults_are_what_a_file_would_say() {
    let text = "\
        [[domain]]\nname = \"sip.localhost\"\nhome = { kind = \"built-in\" }\n\
        certificate = \"tombolo-data/certs/sip.localhost.pem\"\nkey = \"tombolo-data/certs/sip.localhost.key\"\n\
        [xmpp]\nlisten = [\"127.0.0.1:5269\"]\ntrust = \"tombolo-data/certs/ca.pem\"\n\
        [sip]\nlisten = [\"tls:127.0.0.1:5061\", \"tcp:127.0.0.1:5060\", \"udp:127.0.0.1:5060\"]\n\
        [[partner]]\ndomain = \"xmpp.localhost\"\nkind = \"federated\"\nauthenticate = [\"sasl-external\", \"tls-dialback\"]\n\
        proxy = \"127.0.0.1:15269\"\n[store]\npath = \"tombolo-data/state.redb\"\n\
        [accounts]\nfile = \"tombolo-data/accounts.toml\"\n[admin]\nlisten = \"127.0.0.1:8086\"\n";
    let written = super::check(text, "t.toml", None, &AllThere).expect("in order").settings;
    assert_eq!(embedded_defaults(Path::new("tombolo-data")), written);
    assert!(written.has_built_in_home());
}

#[test]
fn the_report_shows_the_line_of_every_error_and_the_place_in_the_text() {
    let errors = check(&format!("{DOMAIN}roll = 1\n[log]\nlevel = \"loud\"\n")).expect_err("refused");
    let report = crate::report(&errors);
    for part in ["etc/t.toml:2:1: unknown key", "etc/t.toml:4:9: `log.level`", "roll = 1", "level = \"loud\""]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn one_syntax_error_is_told_once_and_single_brackets_by_their_line() {
    let twice = "[domain]\nname = \"a.example\"\n\n[domain]\nname = \"b.example\"\n";
    assert_eq!(
        whole_errors(twice),
        ["1:1: [domain] at line 1 needs two brackets: [[domain]]; accepted: [[domain]]"]
    );
    let once = "# ours\n[domain]\nname = \"a.example\"\n";
    let told = whole_errors(once);
    assert_eq!(told, ["2:1: [domain] at line 2 needs two brackets: [[domain]]; accepted: [[domain]]"]);
    let partner = errors("[partner]\ndomain = \"p.example\"\n");
    assert_eq!(partner, ["2:1: [partner] at line 2 needs two brackets: [[partner]]; accepted: [[partner]]"]);
    let broken = errors("[xmpp\nlisten = [\"[::]:5269\"\ntrust = \n[sip]\nlisten = 5\n");
    assert_eq!(broken.len(), 1, "{broken:?}");
}

#[test]
fn no_address_and_port_is_listened_on_twice() {
    assert_eq!(
        errors(
            "[xmpp]\nlisten = [\"0.0.0.0:5269\", \"[::]:5269\"]\ndirect_tls_listen = [\"127.0.0.1:5269\"]\n"
        ),
        [
            "4:22: 127.0.0.1:5269 is already taken by the listener at 3:11; accepted: each address and port once"
        ]
    );
    assert_eq!(
        errors(
            "[sip]\nlisten = [\"tcp:127.0.0.1:5060\", \"udp:127.0.0.1:5060\", \"tls:127.0.0.1:5060\"]\n[admin]\nlisten = \"127.0.0.1:5060\"\n"
        ),
        [
            "3:55: tls:127.0.0.1:5060 is already taken by the listener at 3:11; accepted: each address and port once",
            "5:10: 127.0.0.1:5060 is already taken by the listener at 3:11; accepted: each address and port once",
        ]
    );
    accepted("[xmpp]\nlisten = [\"127.0.0.1:0\"]\ndirect_tls_listen = [\"127.0.0.1:0\"]\n");
}
