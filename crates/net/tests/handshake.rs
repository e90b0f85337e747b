//! Real handshakes over loopback with certificates of our own authority.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, ServerConfig, sign::CertifiedKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tombolo_net::{
    Authority, CertificateFault, CertificateStore, PeerCertificates, Role, ServerChoice, TlsError, TlsFacts,
    Trust, accept_tls, client_config, client_config_classic, connect_tls, server_config, server_config_for,
};

/// Somewhere in 2030, when certificates made by the tests are valid.
const NOW: Duration = Duration::from_secs(1_900_000_000);
const LIMIT: Duration = Duration::from_secs(5);

struct Side {
    store: Arc<CertificateStore>,
    trust: Trust,
}

fn side(folder: &Path, names: &[&str]) -> Side {
    let authority = Authority::open_or_create(folder).expect("an authority");
    let store = Arc::new(CertificateStore::default());
    for name in names {
        let (certificate, key) = authority.issue(name, &[name]).expect("a certificate");
        store.load(name, &certificate, &key).expect("it fits");
    }
    Side { store, trust: Trust::from_pem_file(&authority.certificate()).expect("an anchor") }
}

/// Two ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.expect("a connection").0, connected.expect("connected"))
}

/// What each side learned of the other, the server's facts first; nothing if either side refused.
async fn meet(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    asks: &str,
) -> Option<(TlsFacts, TlsFacts)> {
    let (accepted, connected) = pair().await;
    let accept = async {
        let (mut stream, facts) = accept_tls(accepted, server, LIMIT).await.ok()?;
        stream.write_all(b"x").await.ok()?;
        stream.flush().await.ok()?;
        Some(facts)
    };
    let connect = async {
        let (mut stream, facts) = connect_tls(connected, client, asks, LIMIT).await.ok()?;
        // A client learns only from the first octet that its certificate was taken.
        stream.read_exact(&mut [0]).await.ok()?;
        Some(facts)
    };
    let (of_client, of_server) = tokio::join!(accept, connect);
    of_client.zip(of_server)
}

/// [`meet`] with nothing chosen, where both must take each other.
async fn handshake(server: &Side, client: &Side, own: Option<&str>, asks: &str) -> (TlsFacts, TlsFacts) {
    let own = own.and_then(|own| client.store.certificate(own));
    meet(server_config(&server.store, &[]), client_config(own, &[]), asks).await.expect("TLS")
}

/// Whether a trusted certificate is for an XMPP domain.
fn xmpp(facts: &TlsFacts, trust: &Trust, domain: &str, role: Role) -> Result<bool, CertificateFault> {
    facts.certificates.verify(trust, role, false, false, NOW)?;
    Ok(facts.certificates.names().prove_xmpp(domain))
}

#[tokio::test]
async fn xs_tls_04_certificates_are_chosen_by_name_and_proved_both_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example", "b.example"]);
    let client = side(folder.path(), &["c.example"]);
    for asked in ["a.example", "b.example"] {
        let (of_client, of_server) = handshake(&server, &client, Some("c.example"), asked).await;
        assert_eq!(xmpp(&of_server, &client.trust, asked, Role::Server), Ok(true));
        assert_eq!(xmpp(&of_client, &server.trust, "c.example", Role::Client), Ok(true));
        assert_eq!(xmpp(&of_client, &server.trust, "d.example", Role::Client), Ok(false));
        assert_eq!(of_server.certificates.fingerprint().len(), 64);
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_let_in_and_proves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example"]);
    let (of_client, _) = handshake(&server, &server, None, "a.example").await;
    assert!(of_client.certificates.is_empty());
    assert_eq!(xmpp(&of_client, &server.trust, "a.example", Role::Client), Err(CertificateFault::None));
}

#[tokio::test]
async fn a_chain_of_another_authority_or_out_of_date_proves_nothing() {
    let (ours, theirs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let server = side(ours.path(), &["a.example"]);
    let client = side(theirs.path(), &["c.example"]);
    let (of_client, _) = handshake(&server, &client, Some("c.example"), "a.example").await;
    let verdict = xmpp(&of_client, &server.trust, "c.example", Role::Client);
    // Both authorities have one name.
    assert!(matches!(verdict, Err(CertificateFault::BadSignature { .. })), "{verdict:?}");
    let (_, of_server) = handshake(&server, &server, None, "a.example").await;
    let far = Duration::from_secs(200_000_000_000);
    let verdict = of_server.certificates.verify(&server.trust, Role::Server, false, false, far);
    assert!(matches!(verdict, Err(CertificateFault::Expired { .. })), "{verdict:?}");
    assert_eq!(PeerCertificates::default().sip_hosts(&server.trust, Role::Client, NOW), Vec::<String>::new());
}

#[tokio::test]
async fn xs_dns_05_a_certificate_for_the_srv_target_only_does_not_prove_the_domain() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["xmpp1.hosting.example"]);
    let (_, of_server) = handshake(&server, &server, None, "partner.example").await;
    assert_eq!(xmpp(&of_server, &server.trust, "partner.example", Role::Server), Ok(false));
}

#[tokio::test]
async fn a_handshake_makes_known_version_suite_and_a_post_quantum_key_exchange() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example"]);
    let (of_client, of_server) = handshake(&server, &server, Some("a.example"), "a.example").await;
    for facts in [&of_client, &of_server] {
        assert_eq!(facts.version, "TLSv1.3");
        assert!(facts.cipher.starts_with("TLS13_"), "{}", facts.cipher);
        assert_eq!(facts.key_exchange, "X25519MLKEM768");
    }
}

#[tokio::test]
async fn a_classic_client_gets_a_classic_key_exchange() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example"]);
    let config = client_config_classic(None, &[]);
    let (of_client, _) = meet(server_config(&server.store, &[]), config, "a.example").await.expect("TLS");
    assert_eq!(of_client.key_exchange, "X25519");
}

#[tokio::test]
async fn a_client_that_names_nobody_is_shown_the_certificate_that_was_chosen_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example", "b.example"]);
    for (without_sni, shown) in
        [(None, "a.example"), (Some("b.example"), "b.example"), (Some("x"), "a.example")]
    {
        let choice = ServerChoice { without_sni, ..ServerChoice::default() };
        let config = server_config_for(&server.store, &choice);
        // An address is never sent as SNI.
        let (_, of_server) = meet(config, client_config(None, &[]), "127.0.0.1").await.expect("TLS");
        assert_eq!(of_server.certificates.names().dns, [shown], "{without_sni:?}");
    }
}

#[tokio::test]
async fn a_client_that_offers_only_another_protocol_is_refused_and_one_that_offers_none_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example"]);
    let table: [(&[&str], Option<Option<&str>>); 3] =
        [(&["xmpp-server"], Some(Some("xmpp-server"))), (&[], Some(None)), (&["xmpp-client"], None)];
    for (offered, agreed) in table {
        let config = server_config(&server.store, &["xmpp-server"]);
        let outcome = meet(config, client_config(None, offered), "a.example").await;
        let alpn = outcome.map(|(of_client, of_server)| {
            assert_eq!(of_client.alpn, of_server.alpn);
            of_client.alpn
        });
        assert_eq!(alpn.as_ref().map(|alpn| alpn.as_deref()), agreed, "{offered:?}");
    }
}

#[tokio::test]
async fn a_certificate_shown_without_its_key_ends_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example", "b.example"]);
    let [a, b] = ["a.example", "b.example"].map(|name| server.store.certificate(name).expect("loaded"));
    let stolen = Arc::new(CertifiedKey::new(a.cert.clone(), b.key.clone()));
    let outcome =
        meet(server_config(&server.store, &[]), client_config(Some(stolen), &[]), "a.example").await;
    assert!(outcome.is_none(), "the key of another certificate was taken for a proof");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_after_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example"]);
    let (socket, _silent) = pair().await;
    let limit = Duration::from_millis(50);
    let outcome = accept_tls(socket, server_config(&server.store, &[]), limit).await;
    assert!(matches!(outcome, Err(TlsError::Timeout(_))), "{outcome:?}");
    let (socket, _silent) = pair().await;
    let outcome = connect_tls(socket, client_config(None, &[]), "a.example", limit).await;
    assert!(matches!(outcome, Err(TlsError::Timeout(_))), "{outcome:?}");
}

#[tokio::test]
async fn an_authority_is_the_same_after_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = side(folder.path(), &["a.example"]);
    let again = side(folder.path(), &["a.example", "new.example"]);
    let (_, of_server) = handshake(&again, &first, None, "new.example").await;
    assert_eq!(xmpp(&of_server, &first.trust, "new.example", Role::Server), Ok(true));
}

/// The certificate of a key in X.509 version 1: no version, no extensions. Whoever signed it is not looked at here.
fn in_version_1(der: &[u8]) -> Vec<u8> {
    use x509_cert::der::{AnyRef, Decode, Encode, Reader, SliceReader, Tag, Tagged};
    let outer = AnyRef::from_der(der).expect("DER");
    let mut outer = SliceReader::new(outer.value()).expect("short");
    let body = AnyRef::decode(&mut outer).expect("a body");
    let mut fields = SliceReader::new(body.value()).expect("short");
    let mut kept = Vec::new();
    while !fields.is_finished() {
        let field = AnyRef::decode(&mut fields).expect("a field");
        if !field.tag().is_context_specific() {
            kept.extend(field.to_der().expect("encodes"));
        }
    }
    let sequence =
        |octets: &[u8]| AnyRef::new(Tag::Sequence, octets).expect("short").to_der().expect("encodes");
    let mut all = sequence(&kept);
    while !outer.is_finished() {
        all.extend(AnyRef::decode(&mut outer).expect("a field").to_der().expect("encodes"));
    }
    sequence(&all)
}

/// Dialback needs a key and nothing else of a certificate.
#[tokio::test]
async fn a_certificate_that_no_path_builder_reads_still_proves_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = side(folder.path(), &["c.example"]);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
    let plain = params.self_signed(&key).expect("signed").der().to_vec();
    let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0x05, 0x00]);
    unknown.set_criticality(true);
    params.custom_extensions.push(unknown);
    let critical = params.self_signed(&key).expect("signed").der().to_vec();
    for certificate in [in_version_1(&plain), critical] {
        let own = |key: &rcgen::KeyPair| {
            let secret = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&secret).expect("supported");
            Arc::new(rustls::sign::CertifiedKey::new(vec![certificate.clone().into()], signer))
        };
        for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
            let answers = |key| {
                let mut config = rustls::ServerConfig::builder_with_protocol_versions(&versions)
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own(key))));
                config.send_tls13_tickets = 0;
                Arc::new(config)
            };
            let (_, of_server) =
                meet(answers(&key), client_config(None, &[]), "a.example").await.expect("TLS");
            assert!(!of_server.certificates.is_empty());
            let fault = of_server.certificates.verify(&client.trust, Role::Server, false, false, NOW);
            assert!(fault.is_err(), "and proves no domain");
            // A key that is not the one of the certificate is still noticed.
            let stranger = rcgen::KeyPair::generate().expect("a key");
            assert!(meet(answers(&stranger), client_config(None, &[]), "a.example").await.is_none());
        }
    }
}
