//! Real handshakes over loopback with certificates of our own authority.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tombolo_net::{
    Authority, CertificateFault, CertificateStore, PeerCertificates, Role, TlsFacts, Trust, accept_tls,
    client_config, connect_tls, server_config,
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

/// What each side learned of the other: the server's facts first.
async fn handshake(server: &Side, client: &Side, own: Option<&str>, asks: &str) -> (TlsFacts, TlsFacts) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let config = server_config(&server.store, &[]);
    let accepted = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        let (mut stream, facts) = accept_tls(socket, config, LIMIT).await.expect("TLS");
        let mut octet = [0];
        stream.read_exact(&mut octet).await.expect("an octet");
        assert_eq!(&octet, b"x");
        facts
    });
    let own = own.and_then(|own| client.store.certificate(own));
    let socket = TcpStream::connect(address).await.expect("connected");
    let (mut stream, facts) = connect_tls(socket, client_config(own, &[]), asks, LIMIT).await.expect("TLS");
    stream.write_all(b"x").await.expect("written");
    stream.flush().await.expect("flushed");
    (accepted.await.expect("no panic"), facts)
}

fn xmpp(facts: &TlsFacts, trust: &Trust, domain: &str, role: Role) -> Result<(), CertificateFault> {
    facts.certificates.verify_xmpp(trust, domain, role, false, NOW)
}

#[tokio::test]
async fn xs_tls_04_certificates_are_chosen_by_name_and_proved_both_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = side(folder.path(), &["a.example", "b.example"]);
    let client = side(folder.path(), &["c.example"]);
    for asked in ["a.example", "b.example"] {
        let (of_client, of_server) = handshake(&server, &client, Some("c.example"), asked).await;
        assert_eq!(xmpp(&of_server, &client.trust, asked, Role::Server), Ok(()));
        assert_eq!(xmpp(&of_client, &server.trust, "c.example", Role::Client), Ok(()));
        assert!(matches!(
            xmpp(&of_client, &server.trust, "d.example", Role::Client),
            Err(CertificateFault::OtherName(_))
        ));
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
    assert!(matches!(verdict, Err(CertificateFault::NotTrusted(_))), "{verdict:?}");
    let (_, of_server) = handshake(&server, &server, None, "a.example").await;
    let far = Duration::from_secs(200_000_000_000);
    let verdict = of_server.certificates.verify_xmpp(&server.trust, "a.example", Role::Server, false, far);
    assert!(matches!(verdict, Err(CertificateFault::NotTrusted(_))), "{verdict:?}");
    assert_eq!(
        PeerCertificates::default().sip_domains(&server.trust, Role::Client, NOW),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn an_authority_is_the_same_after_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = side(folder.path(), &["a.example"]);
    let again = side(folder.path(), &["a.example", "new.example"]);
    let (_, of_server) = handshake(&again, &first, None, "new.example").await;
    assert_eq!(xmpp(&of_server, &first.trust, "new.example", Role::Server), Ok(()));
}
