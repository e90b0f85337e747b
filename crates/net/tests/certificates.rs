//! Tables of certificates, and what each proves on XMPP and on SIP.

use std::{path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Purpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use tombolo_net::{CertificateFault, CertificateNames, PeerCertificates, Role, Trust};
use x509_cert::{
    der::{
        Any, Encode, Tag,
        asn1::{Ia5String, ObjectIdentifier},
    },
    ext::pkix::{
        SubjectAltName,
        name::{GeneralName, OtherName},
    },
};

/// 17 March 2030.
const NOW: Duration = Duration::from_secs(1_900_000_000);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// An authority that signs itself, or is signed by another.
fn authority(name: &str, by: Option<&Authority>, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = match by {
        Some(by) => params.signed_by(&key, &by.issuer),
        None => params.self_signed(&key),
    }
    .expect("a certificate");
    Authority {
        pem: certificate.pem(),
        certificate: certificate.der().clone(),
        issuer: Issuer::new(params, key),
    }
}

fn trust(folder: &Path, authority: &Authority) -> Trust {
    let file = folder.join("anchors.pem");
    std::fs::write(&file, &authority.pem).expect("written");
    Trust::from_pem_file(&file).expect("an anchor")
}

fn san(names: &[SanType]) -> impl FnOnce(&mut CertificateParams) + use<> {
    let names = names.to_vec();
    move |params| params.subject_alt_names = names
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// id-on-xmppAddr.
fn xmpp_address(domain: &str) -> SanType {
    SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], domain.into()))
}

/// An SRVName as RFC 4985 writes it: an IA5String, which the other constructors cannot make.
fn srv_name(name: &'static str) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        let text = Ia5String::new(name).expect("ASCII");
        let value = Any::new(Tag::Ia5String, text.as_bytes()).expect("short");
        let type_id = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.7");
        let names = SubjectAltName(vec![GeneralName::OtherName(OtherName { type_id, value })]);
        let der = names.to_der().expect("encodes");
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], der));
    }
}

/// A certificate for a key of its own, whose CN is always `example.com`.
fn issue(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "example.com");
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, &by.issuer).expect("a certificate").der().clone()
}

fn purposes(purposes: &[Purpose]) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params.subject_alt_names = vec![dns("example.com")];
        params.extended_key_usages = purposes.to_vec();
    }
}

/// id-kp-sipDomain.
fn sip_domain() -> Purpose {
    Purpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 20])
}

fn verdict(chain: &[CertificateDer<'static>], trust: &Trust, domain: &str, role: Role) -> &'static str {
    let peer = PeerCertificates::new(Some(chain));
    match peer.verify(trust, role, false, false, NOW) {
        Ok(()) if peer.names().prove_xmpp(domain) => "proved",
        Ok(()) => "other name",
        Err(CertificateFault::None) => "none",
        Err(CertificateFault::OtherHost { .. }) => "other name",
        Err(_) => "not trusted",
    }
}

#[test]
fn xs_tls_06_a_table_of_certificates_is_judged_by_path_validity_purpose_and_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("root", None, |_| ());
    let other = authority("another root", None, |_| ());
    let middle = authority("middle", Some(&root), |_| ());
    let deep = authority("no room beneath", Some(&root), |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let beneath = authority("beneath", Some(&deep), |_| ());
    let fenced = authority("fenced", Some(&root), |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.net".into())],
            excluded_subtrees: vec![],
        });
    });
    let trust = trust(folder.path(), &root);
    let good = || issue(&root, san(&[dns("example.com")]));
    let alone = || {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns("example.com")];
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    };
    let leaf_as_authority = || {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "no authority");
        params.subject_alt_names = vec![dns("example.org")];
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &root.issuer).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let mut beneath = CertificateParams::default();
        beneath.subject_alt_names = vec![dns("example.com")];
        let signed = beneath.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a certificate");
        vec![signed.der().clone(), leaf.der().clone()]
    };
    let usage = |usage: KeyUsagePurpose| {
        issue(&root, move |params| {
            params.subject_alt_names = vec![dns("example.com")];
            params.key_usages = vec![usage];
        })
    };
    let until = |from: i32, to: i32| {
        issue(&root, move |params| {
            params.subject_alt_names = vec![dns("example.com")];
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        })
    };
    let authority_as_leaf = issue(&root, |params| {
        params.subject_alt_names = vec![dns("example.com")];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let (client, server) = (Role::Client, Role::Server);
    let table: Vec<(&str, Vec<CertificateDer<'static>>, &str, Role, &str)> = vec![
        ("the domain as dNSName", vec![good()], "example.com", server, "proved"),
        ("the same from a client", vec![good()], "example.com", client, "proved"),
        ("capital letters", vec![issue(&root, san(&[dns("Example.COM")]))], "eXample.com", server, "proved"),
        ("another domain", vec![good()], "example.org", server, "other name"),
        ("a subdomain", vec![good()], "im.example.com", server, "other name"),
        (
            "second of two names",
            vec![issue(&root, san(&[dns("a.example"), dns("b.example")]))],
            "b.example",
            server,
            "proved",
        ),
        ("a wildcard", vec![issue(&root, san(&[dns("*.example.com")]))], "im.example.com", server, "proved"),
        (
            "a wildcard for its own domain",
            vec![issue(&root, san(&[dns("*.example.com")]))],
            "example.com",
            server,
            "other name",
        ),
        (
            "a wildcard for two labels",
            vec![issue(&root, san(&[dns("*.example.com")]))],
            "a.im.example.com",
            server,
            "other name",
        ),
        (
            "a wildcard inside a label",
            vec![issue(&root, san(&[dns("i*.example.com")]))],
            "im.example.com",
            server,
            "other name",
        ),
        (
            "SRVName of servers",
            vec![issue(&root, srv_name("_xmpp-server.example.com"))],
            "example.com",
            server,
            "proved",
        ),
        (
            "SRVName of clients",
            vec![issue(&root, srv_name("_xmpp-client.example.com"))],
            "example.com",
            server,
            "other name",
        ),
        (
            "id-on-xmppAddr",
            vec![issue(&root, san(&[xmpp_address("example.com")]))],
            "example.com",
            client,
            "proved",
        ),
        ("a CN and no other name", vec![issue(&root, san(&[]))], "example.com", server, "other name"),
        (
            "a CN beside another name",
            vec![issue(&root, san(&[dns("example.org")]))],
            "example.com",
            server,
            "other name",
        ),
        ("no certificate", vec![], "example.com", client, "none"),
        (
            "an unknown authority",
            vec![issue(&other, san(&[dns("example.com")]))],
            "example.com",
            server,
            "not trusted",
        ),
        ("signed by itself", vec![alone()], "example.com", server, "not trusted"),
        ("out of date", vec![until(2020, 2029)], "example.com", server, "not trusted"),
        ("not yet valid", vec![until(2031, 2040)], "example.com", server, "not trusted"),
        (
            "an intermediate that was sent",
            vec![issue(&middle, san(&[dns("example.com")])), middle.certificate.clone()],
            "example.com",
            server,
            "proved",
        ),
        (
            "an intermediate that was not sent",
            vec![issue(&middle, san(&[dns("example.com")]))],
            "example.com",
            server,
            "not trusted",
        ),
        ("a leaf as intermediate", leaf_as_authority(), "example.com", server, "not trusted"),
        ("an authority as leaf", vec![authority_as_leaf], "example.com", server, "not trusted"),
        (
            "a path too long",
            vec![
                issue(&beneath, san(&[dns("example.com")])),
                beneath.certificate.clone(),
                deep.certificate.clone(),
            ],
            "example.com",
            server,
            "not trusted",
        ),
        (
            "outside of a name constraint",
            vec![issue(&fenced, san(&[dns("example.com")])), fenced.certificate.clone()],
            "example.com",
            server,
            "not trusted",
        ),
        (
            "serverAuth from a client",
            vec![issue(&root, purposes(&[Purpose::ServerAuth]))],
            "example.com",
            client,
            "proved",
        ),
        (
            "both purposes",
            vec![issue(&root, purposes(&[Purpose::ServerAuth, Purpose::ClientAuth]))],
            "example.com",
            server,
            "proved",
        ),
        (
            "clientAuth alone",
            vec![issue(&root, purposes(&[Purpose::ClientAuth]))],
            "example.com",
            client,
            "not trusted",
        ),
        (
            "codeSigning",
            vec![issue(&root, purposes(&[Purpose::CodeSigning]))],
            "example.com",
            server,
            "not trusted",
        ),
        (
            "sipDomain on XMPP",
            vec![issue(&root, purposes(&[sip_domain()]))],
            "example.com",
            server,
            "not trusted",
        ),
        (
            "a key for signatures",
            vec![usage(KeyUsagePurpose::DigitalSignature)],
            "example.com",
            server,
            "proved",
        ),
        (
            "a key for other uses",
            vec![usage(KeyUsagePurpose::KeyEncipherment)],
            "example.com",
            server,
            "not trusted",
        ),
        (
            "no certificate at all in the octets",
            vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])],
            "example.com",
            server,
            "not trusted",
        ),
    ];
    for (case, chain, domain, role, wanted) in table {
        assert_eq!(verdict(&chain, &trust, domain, role), wanted, "{case}");
    }
}

#[test]
fn client_auth_alone_passes_only_for_a_client_of_a_partner_that_is_so_marked() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("root", None, |_| ());
    let trust = trust(folder.path(), &root);
    let peer = PeerCertificates::new(Some(&[issue(&root, purposes(&[Purpose::ClientAuth]))]));
    for (role, is_marked, passes) in
        [(Role::Client, true, true), (Role::Client, false, false), (Role::Server, true, false)]
    {
        let outcome = peer.verify(&trust, role, is_marked, false, NOW);
        assert_eq!(outcome.is_ok(), passes, "{role:?}, marked: {is_marked}");
    }
}

#[test]
fn sip_tls_01_the_identities_of_a_table_of_certificates_are_its_sip_uris_else_its_dns_names() {
    let root = authority("root", None, |_| ());
    let address = SanType::IpAddress("192.0.2.1".parse().expect("an address"));
    let table: Vec<(Vec<SanType>, &[&str])> = vec![
        (vec![uri("sip:example.com")], &["example.com"]),
        (vec![uri("SIP:EXAMPLE.com")], &["example.com"]),
        (vec![uri("sip:example.com:5061")], &["example.com"]),
        (vec![uri("sip:example.com;transport=tls")], &["example.com"]),
        (vec![uri("sip:a.example"), uri("sip:b.example")], &["a.example", "b.example"]),
        (vec![uri("sip:example.com"), dns("host.example.com")], &["example.com"]),
        (vec![dns("host.example.com"), uri("sip:example.com")], &["example.com"]),
        (vec![dns("example.com")], &["example.com"]),
        (vec![dns("a.example"), dns("b.example")], &["a.example", "b.example"]),
        (vec![uri("sips:example.com")], &[]),
        (vec![uri("sips:a.example"), dns("b.example")], &["b.example"]),
        (vec![uri("sip:user@example.com")], &[]),
        (vec![uri("sip:user@a.example"), dns("b.example")], &["b.example"]),
        (vec![uri("https://a.example"), dns("b.example")], &["b.example"]),
        (vec![uri("xmpp:example.com")], &[]),
        (vec![xmpp_address("example.com")], &[]),
        (vec![address], &[]),
        (vec![], &[]),
    ];
    for (names, wanted) in table {
        let case = format!("{names:?}");
        let certificate = issue(&root, san(&names));
        assert_eq!(CertificateNames::read(&certificate).sip_domains(), wanted, "{case}");
    }
}

#[test]
fn sip_tls_02_a_wildcard_certificate_is_refused_on_sip_and_accepted_on_xmpp() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("root", None, |_| ());
    let trust = trust(folder.path(), &root);
    let chain = [issue(&root, san(&[dns("*.example.com")]))];
    assert_eq!(verdict(&chain, &trust, "im.example.com", Role::Server), "proved");
    let peer = PeerCertificates::new(Some(&chain));
    assert_eq!(peer.sip_hosts(&trust, Role::Server, NOW), Vec::<String>::new());
}

#[test]
fn sip_tls_06_a_chain_for_another_purpose_or_out_of_date_has_no_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("root", None, |_| ());
    let other = authority("another root", None, |_| ());
    let trust = trust(folder.path(), &root);
    let (client, server) = (Role::Client, Role::Server);
    let old = issue(&root, |params| {
        params.subject_alt_names = vec![dns("example.com")];
        params.not_after = date_time_ymd(2029, 1, 1);
    });
    let table = [
        ("no purposes", issue(&root, purposes(&[])), server, true),
        ("serverAuth", issue(&root, purposes(&[Purpose::ServerAuth])), server, true),
        ("serverAuth from a client", issue(&root, purposes(&[Purpose::ServerAuth])), client, true),
        ("clientAuth from a client", issue(&root, purposes(&[Purpose::ClientAuth])), client, true),
        ("clientAuth from a server", issue(&root, purposes(&[Purpose::ClientAuth])), server, false),
        ("sipDomain", issue(&root, purposes(&[sip_domain()])), server, true),
        ("sipDomain from a client", issue(&root, purposes(&[sip_domain()])), client, true),
        ("codeSigning", issue(&root, purposes(&[Purpose::CodeSigning])), server, false),
        ("codeSigning from a client", issue(&root, purposes(&[Purpose::CodeSigning])), client, false),
        ("out of date", old, server, false),
        ("another authority", issue(&other, purposes(&[])), server, false),
    ];
    for (case, certificate, role, has_identity) in table {
        let peer = PeerCertificates::new(Some(&[certificate]));
        let wanted: &[&str] = if has_identity { &["example.com"] } else { &[] };
        assert_eq!(peer.sip_hosts(&trust, role, NOW), wanted, "{case}");
    }
}

#[test]
fn fingerprints_tell_certificate_and_key_apart_and_the_end_of_validity_is_read() {
    let root = authority("root", None, |_| ());
    let key = KeyPair::generate().expect("a key");
    let of_key = |name: &str, year| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns(name)];
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &root.issuer).expect("a certificate");
        PeerCertificates::new(Some(&[certificate.der().clone()]))
    };
    let (old, new) = (of_key("a.example", 2030), of_key("a.example", 2031));
    assert_ne!(old.fingerprint(), new.fingerprint());
    assert_eq!(old.public_key_fingerprint(), new.public_key_fingerprint());
    let another = PeerCertificates::new(Some(&[issue(&root, san(&[]))]));
    assert_ne!(old.public_key_fingerprint(), another.public_key_fingerprint());
    assert_eq!(old.not_after(), Some(Duration::from_secs(1_893_456_000)), "1 January 2030");
    let none = PeerCertificates::default();
    assert_eq!(
        (none.fingerprint().as_str(), none.public_key_fingerprint(), none.not_after()),
        ("", None, None)
    );
}

#[test]
fn on_the_inside_a_certificate_opens_or_awaits_links_only_by_its_purposes_and_as_the_host_that_it_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("root", None, |_| {});
    let other = authority("other", None, |_| {});
    let trust = trust(folder.path(), &root);
    let made = |by: &Authority, usages: &[Purpose]| {
        let usages = usages.to_vec();
        issue(by, move |params: &mut CertificateParams| {
            params.subject_alt_names =
                vec![dns("gate.corp.example"), SanType::IpAddress([10, 0, 0, 2].into())];
            params.extended_key_usages = usages;
        })
    };
    let both = [Purpose::ServerAuth, Purpose::ClientAuth];
    let cases: [(&str, CertificateDer<'static>, Role, &str, bool); 9] = [
        ("both purposes", made(&root, &both), Role::Client, "gate.corp.example", true),
        ("by address", made(&root, &both), Role::Server, "10.0.0.2", true),
        ("no purposes", made(&root, &[]), Role::Client, "gate.corp.example", true),
        ("a client's", made(&root, &[Purpose::ClientAuth]), Role::Client, "gate.corp.example", true),
        (
            "a server's, to open a link",
            made(&root, &[Purpose::ServerAuth]),
            Role::Client,
            "gate.corp.example",
            false,
        ),
        (
            "a client's, to await one",
            made(&root, &[Purpose::ClientAuth]),
            Role::Server,
            "gate.corp.example",
            false,
        ),
        ("another host", made(&root, &both), Role::Client, "gate2.corp.example", false),
        ("the domain of the host", made(&root, &both), Role::Client, "corp.example", false),
        ("another authority", made(&other, &both), Role::Client, "gate.corp.example", false),
    ];
    for (what, certificate, role, host, is_good) in cases {
        let peer = PeerCertificates::new(Some(&[certificate]));
        let verdict = peer.verify_host(&trust, role, &["else.example".to_owned(), host.to_owned()], NOW);
        assert_eq!(verdict.is_ok(), is_good, "{what}: {verdict:?}");
    }
    let peer = PeerCertificates::new(Some(&[made(&root, &both)]));
    let fault =
        peer.verify_host(&trust, Role::Client, &["g1.example".to_owned(), "g2.example".to_owned()], NOW);
    assert_eq!(
        fault.expect_err("another").to_string(),
        "the certificate is for gate.corp.example, 10.0.0.2, accepted: g1.example, g2.example"
    );
}

/// What an administrator reads when `chain` is refused as the one of `example.com`.
fn told(chain: &[CertificateDer<'static>], trust: &Trust) -> String {
    let peer = PeerCertificates::new(Some(chain));
    peer.verify(trust, Role::Server, false, false, NOW).expect_err("refused").to_string()
}

#[test]
fn each_reason_to_refuse_a_certificate_has_its_own_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("Root X", None, |_| ());
    let middle = authority("Middle Y", Some(&root), |_| ());
    let other = authority("Other Z", None, |_| ());
    let trust = trust(folder.path(), &root).called("xmpp.trust");
    let example = || san(&[dns("example.com")]);
    let dated = |from, until| {
        issue(&root, move |params| {
            params.subject_alt_names = vec![dns("example.com")];
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 31));
        })
    };
    let alone = || {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns("example.com")];
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    };
    let critical = |oid: &'static [u64]| {
        issue(&root, move |params| {
            params.subject_alt_names = vec![dns("example.com")];
            let mut extension = CustomExtension::from_oid_content(oid, vec![0x30, 0x00]);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        })
    };
    let impostor = authority("Root X", None, |_| ());
    for (chain, parts) in [
        (vec![dated(2020, 2024)], &["example.com", "expired on 2024-01-31", "days ago", "renew"][..]),
        (vec![dated(2031, 2040)], &["valid from 2031-01-01", "is our clock right?"]),
        (
            vec![issue(&middle, example())],
            &["\"Middle Y\"", "did not send along", "xmpp.trust", "intermediate"],
        ),
        (
            vec![issue(&other, example()), other.certificate.clone()],
            &["issued by \"Other Z\", which is not in xmpp.trust"],
        ),
        (vec![alone()], &["self-signed", "xmpp.trust"]),
        (
            vec![issue(&root, purposes(&[Purpose::ClientAuth]))],
            &["is for clientAuth only, not for serverAuth"],
        ),
        (vec![critical(&[2, 5, 29, 32])], &["critical extension certificatePolicies (2.5.29.32)"]),
        (vec![critical(&[1, 2, 3, 4])], &["critical extension 1.2.3.4"]),
        (vec![issue(&impostor, example())], &["signature", "Root X"]),
    ] {
        let text = told(&chain, &trust);
        for part in parts {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(!text.contains("Eku") && !text.contains("UnixTime"), "{text}");
    }
    // A purpose that was one of several to try does not hide what is wrong whatever the purpose.
    let stranger = PeerCertificates::new(Some(&[issue(&other, purposes(&[Purpose::ServerAuth]))]));
    let text = stranger.verify(&trust, Role::Server, true, true, NOW).expect_err("refused").to_string();
    assert!(text.contains("issued by \"Other Z\""), "{text}");
}

#[test]
fn the_very_certificate_that_is_trusted_proves_itself_though_it_says_that_it_is_an_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |until| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns("example.com")];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(until, 1, 1);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate")
    };
    let (own, old) = (of(2040), of(2025));
    let file = folder.path().join("anchors.pem");
    std::fs::write(&file, own.pem() + &old.pem()).expect("written");
    let trust = Trust::from_pem_file(&file).expect("anchors");
    let chain = [own.der().clone()];
    assert_eq!(verdict(&chain, &trust, "example.com", Role::Server), "proved");
    assert_eq!(verdict(&chain, &trust, "example.com", Role::Client), "proved");
    assert_eq!(verdict(&chain, &trust, "example.org", Role::Server), "other name");
    assert!(told(&[old.der().clone()], &trust).contains("expired on 2025-01-01"));
    // Another one of an authority still proves nothing.
    assert!(told(&[of(2040).der().clone()], &trust).contains("CA:TRUE"));
}

#[test]
fn the_chain_is_picked_out_of_whatever_else_a_peer_sends() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = authority("root", None, |_| ());
    let upper = authority("upper", Some(&root), |_| ());
    let lower = authority("lower", Some(&upper), |_| ());
    let trust = trust(folder.path(), &root);
    let mut chain = vec![issue(&lower, san(&[dns("example.com")]))];
    chain.extend((0..12).map(|at| authority(&format!("of no use {at}"), None, |_| ()).certificate));
    chain.extend([upper.certificate.clone(), lower.certificate.clone()]);
    assert_eq!(verdict(&chain, &trust, "example.com", Role::Server), "proved");
}
