//! Homes of domains, and what has a place in which role.

use std::net::SocketAddr;

use tombolo_policy::Home;

use super::{DOMAIN, check, errors, whole_errors};
use crate::{LinkEnd, Role, files::AllThere};

/// A domain with this home, on line 2.
fn front_end(home: &str) -> String {
    format!("[[domain]]\nhome = {home}\nname = \"c.example\"\ncertificate = \"c\"\nkey = \"k\"\n")
}

#[test]
fn a_front_end_without_tls_needs_the_flag_and_its_addresses() {
    let clear = "kind = \"front-end\", next_hop = \"sip:127.0.0.31:5060;transport=tcp\"";
    assert_eq!(
        whole_errors(&front_end(&format!("{{ {clear} }}"))),
        [
            "2:41: the next hop of c.example is reached without TLS; accepted: transport=tls, or insecure = true with \
          trusted_addresses = [\"ADDRESS\"]"
        ]
    );
    let unnamed = "the front end of c.example may speak without TLS and nothing says from where; accepted: \
                   trusted_addresses = [\"ADDRESS\"] beside it";
    assert_eq!(
        whole_errors(&front_end(&format!("{{ {clear}, insecure = true }}"))),
        [format!("2:89: {unnamed}")]
    );
    let empty = format!("{{ {clear}, insecure = true, trusted_addresses = [] }}");
    assert_eq!(whole_errors(&front_end(&empty)), [format!("2:89: {unnamed}")]);
    let wrong = format!("{{ {clear}, insecure = true, trusted_addresses = [\"pool\"] }}");
    assert_eq!(
        whole_errors(&front_end(&wrong)),
        [
            "2:116: `domain.home.trusted_addresses` cannot be \"pool\"; accepted: IP addresses, such as \"192.0.2.1\" or \"2001:db8::1\""
        ]
    );
    let right = format!("{{ {clear}, insecure = true, trusted_addresses = [\"::ffff:127.0.0.31\"] }}");
    let settings = check(&front_end(&right)).expect("in order");
    let Some(Home::FrontEnd(home)) = &settings.domains[0].home else { panic!("{settings:?}") };
    assert_eq!(home.trusted_addresses, ["127.0.0.31".parse::<std::net::IpAddr>().expect("legal")]);
}

#[test]
fn a_home_takes_only_what_belongs_to_its_kind() {
    assert_eq!(
        whole_errors(&front_end("{ kind = \"built-in\", next_hop = \"sip:pool:5061\", insecure = true }")),
        [
            "2:40: `domain.home.next_hop` means nothing beside kind = \"built-in\"; accepted: kind = \"front-end\" beside it",
            "2:68: `domain.home.insecure` means nothing beside kind = \"built-in\"; accepted: kind = \"front-end\" beside it",
        ]
    );
    assert_eq!(
        whole_errors(&front_end("{ kind = \"front-end\" }")),
        [
            "2:8: missing key `domain.home.next_hop`; accepted: sip:HOST[:PORT][;transport=tls|tcp|udp], or sips:HOST[:PORT], such as \"sip:pool.corp.example:5061;transport=tls\""
        ]
    );
    assert_eq!(
        whole_errors(&front_end(
            "{ kind = \"front-end\", next_hop = \"sips:pool\", trusted_addresses = [\"127.0.0.1\"] }"
        )),
        [
            "2:74: `domain.home.trusted_addresses` means nothing beside insecure = false; accepted: insecure = true beside it"
        ]
    );
    assert_eq!(
        whole_errors(&front_end("{ next_hop = \"pool.c.example:5061\" }")),
        [
            "2:8: missing key `domain.home.kind`; accepted: built-in, front-end",
            "2:21: `domain.home.next_hop` cannot be \"pool.c.example:5061\"; accepted: \
             sip:HOST[:PORT][;transport=tls|tcp|udp], or sips:HOST[:PORT], such as \
             \"sip:pool.corp.example:5061;transport=tls\"",
        ]
    );
}

#[test]
fn an_edge_is_refused_what_belongs_to_users_and_store() {
    let edge = "role = \"edge\"\n[link]\nlisten = \"10.0.0.1:5300\"\n\
                gateways = [\"Gate.c.example\", \"10.0.0.2\"]\ncertificate = \"c\"\nkey = \"k\"\ntrust = \"t\"\n\
                [[domain]]\nname = \"c.example\"\ncertificate = \"c\"\nkey = \"k\"\n";
    let settings = check(edge).expect("in order");
    assert_eq!((settings.store.clone(), settings.accounts.clone(), settings.sip.clone()), (None, None, None));
    assert!(settings.xmpp.is_some() && settings.domains[0].home.is_none());
    let address: SocketAddr = "10.0.0.1:5300".parse().expect("legal");
    assert_eq!(
        settings.link.expect("there").end,
        LinkEnd::Listen { at: address, gateways: vec!["gate.c.example".to_owned(), "10.0.0.2".to_owned()] }
    );
    let more = "home = { kind = \"nonsense\" }\n[store]\npath = \"memory\"\n[accounts]\n[sip]\nlisten = 7\n";
    assert_eq!(
        whole_errors(
            &edge
                .replace("[link]\n", "[link]\nedges = []\n")
                .replace("[[domain]]\n", &format!("[[domain]]\n{more}[[domain]]\n"))
        ),
        [
            "3:1: `link.edges` has no place in role edge; accepted: role = gateway",
            "9:1: missing key `domain.name`; accepted: a domain name, such as \"corp.example\"",
            "9:1: missing key `domain.certificate`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "9:1: missing key `domain.key`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "10:1: `domain.home` has no place in role edge; accepted: role = all-in-one or gateway",
            "11:2: `store` has no place in role edge; accepted: role = all-in-one or gateway",
            "13:2: `accounts` has no place in role edge; accepted: role = all-in-one or gateway",
            "14:2: `sip` has no place in role edge; accepted: role = all-in-one or gateway",
        ]
    );
}

#[test]
fn an_edge_must_say_which_gateways_it_awaits() {
    let edge = |gateways: &str| {
        format!(
            "role = \"edge\"\n[link]\nlisten = \"10.0.0.1:5300\"\n{gateways}\ncertificate = \"c\"\nkey = \"k\"\ntrust = \"t\"\n\
             [[domain]]\nname = \"c.example\"\ncertificate = \"c\"\nkey = \"k\"\n"
        )
    };
    assert_eq!(
        whole_errors(&edge("")),
        [
            "2:1: missing key `link.gateways`; accepted: host names or IP addresses, such as \"gateway1.corp.example\""
        ]
    );
    assert_eq!(
        whole_errors(&edge("gateways = []")),
        [
            "4:12: missing key `link.gateways`; accepted: one host at least, such as [\"gateway1.corp.example\"]"
        ]
    );
    assert_eq!(
        whole_errors(&edge("gateways = [\"*.c.example\", \"g.c.example:5300\"]")),
        [
            "4:13: `link.gateways` cannot be \"*.c.example\"; accepted: host names or IP addresses, such as \"gateway1.corp.example\"",
            "4:28: `link.gateways` cannot be \"g.c.example:5300\"; accepted: host names or IP addresses, such as \"gateway1.corp.example\"",
        ]
    );
}

#[test]
fn a_gateway_needs_its_edges_and_has_no_public_side() {
    let home = "[[domain]]\nname = \"c.example\"\nhome = { kind = \"built-in\" }\ncertificate = \"c\"\nkey = \"k\"\n";
    assert_eq!(
        whole_errors(&format!("role = \"gateway\"\n{home}")),
        ["1:1: missing key `link`; accepted: a table"]
    );
    assert_eq!(
        whole_errors(&format!(
            "role = \"gateway\"\n{home}[link]\nlisten = \"[::]:5300\"\n[xmpp]\nlimits = {{}}\n"
        )),
        [
            "7:1: missing key `link.certificate`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "7:1: missing key `link.key`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "7:1: missing key `link.trust`; accepted: a PEM file, such as \"certs/corp.example.pem\"",
            "7:1: missing key `link.edges`; accepted: HOST:PORT, such as \"host1.example.com:5269\" or \"[2001:db8::1]:5269\"",
            "8:1: `link.listen` has no place in role gateway; accepted: role = edge",
            "10:1: `xmpp.limits` has no place in role gateway; accepted: role = all-in-one or edge",
        ]
    );
    let link = "[link]\ncertificate = \"c\"\nkey = \"k\"\ntrust = \"t\"\nedges = ";
    assert_eq!(
        whole_errors(&format!("role = \"gateway\"\n{home}{link}[]\n")),
        [
            "11:9: missing key `link.edges`; accepted: one HOST:PORT at least, such as [\"edge1.corp.example:5300\"]"
        ]
    );
    let settings =
        check(&format!("role = \"gateway\"\n{home}{link}[\"edge1.c.example:5300\"]\n")).expect("in order");
    assert!(settings.xmpp.is_none() && settings.sip.is_some() && settings.store.is_some());
    let pings =
        format!("role = \"gateway\"\n{home}[xmpp]\nping_after = \"45s\"\n{link}[\"e.c.example:5300\"]\n");
    assert_eq!(check(&pings).expect("its sessions ping").ping_after, std::time::Duration::from_secs(45));
}

#[test]
fn an_all_in_one_has_no_link() {
    assert_eq!(
        errors("[link]\nlisten = \"[::]:5300\"\n"),
        ["2:2: `link` has no place in role all-in-one; accepted: role = edge or gateway"]
    );
}

#[test]
fn the_role_of_the_command_line_goes_before_the_files() {
    let text = format!("role = \"edge\"\n{DOMAIN}");
    let settings =
        super::super::check(&text, "t.toml", Some(Role::AllInOne), &AllThere).expect("in order").settings;
    assert_eq!(settings.role, Role::AllInOne);
    assert!(
        super::super::check(DOMAIN, "t.toml", Some(Role::Edge), &AllThere).is_err(),
        "an edge needs its link"
    );
}
