//! Hellos that no library sends: too old, too weak, or cut into single octets.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs,
    version,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tombolo_net::{
    Authority, CertificateStore, ServerChoice, TlsError, TlsFacts, accept_tls, server_config,
    server_config_for,
};

const LIMIT: Duration = Duration::from_secs(5);

fn server(folder: &Path) -> (Arc<CertificateStore>, CertificateDer<'static>) {
    let authority = Authority::open_or_create(folder).expect("an authority");
    let store = Arc::new(CertificateStore::default());
    let (certificate, key) = authority.issue("a.example", &["a.example"]).expect("a certificate");
    store.load("a.example", &certificate, &key).expect("it fits");
    (store, CertificateDer::from_pem_file(authority.certificate()).expect("an anchor"))
}

/// Runs `client` on a thread of its own against our side; what both found.
async fn against<R: Send + 'static>(
    config: Arc<ServerConfig>,
    client: impl FnOnce(TcpStream) -> R + Send + 'static,
) -> (Result<TlsFacts, TlsError>, R) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let client = tokio::task::spawn_blocking(move || {
        let socket = TcpStream::connect(address).expect("connected");
        socket.set_read_timeout(Some(LIMIT)).expect("set");
        client(socket)
    });
    let (socket, _) = listener.accept().await.expect("a connection");
    let outcome = accept_tls(socket, config, LIMIT).await;
    let facts = outcome.map(|(_stream, facts)| facts);
    (facts, client.await.expect("no panic"))
}

/// A hello of up to TLS 1.2 in one record, with the extensions that a client of that time sends.
fn hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let two = |number: usize| u16::try_from(number).expect("short").to_be_bytes();
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // supported_groups: secp256r1
        0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // ec_point_formats: uncompressed
        0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03, // signature_algorithms: ecdsa_secp256r1_sha256
        0x00, 0x17, 0x00, 0x00, // extended_master_secret
    ];
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(two(suites.len() * 2));
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    body.extend(two(extensions.len()));
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend(two(body.len() + 4));
    record.extend([1, 0]);
    record.extend(two(body.len()));
    record.extend(body);
    record
}

/// The type of the first record that comes back, and its content.
fn first_record(mut socket: TcpStream, hello: &[u8]) -> (u8, Vec<u8>) {
    socket.write_all(hello).expect("sent");
    let mut head = [0; 5];
    socket.read_exact(&mut head).expect("an answer");
    let mut content = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    socket.read_exact(&mut content).expect("all of it");
    (head[0], content)
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;
const ECDHE_ECDSA_AES_128_GCM: u16 = 0xc02b;

#[tokio::test]
async fn xs_tls_03_sip_tls_08_old_versions_and_weak_suites_get_an_alert() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = server(folder.path());
    let strong: &[u16] = &[ECDHE_ECDSA_AES_128_GCM];
    let table: [(&str, u16, &[u16], Option<u8>); 9] = [
        ("TLS 1.2 with a strong suite", 0x0303, strong, None),
        ("TLS 1.1", 0x0302, strong, Some(PROTOCOL_VERSION)),
        ("TLS 1.0", 0x0301, strong, Some(PROTOCOL_VERSION)),
        ("SSL 3.0", 0x0300, strong, Some(PROTOCOL_VERSION)),
        ("no encryption", 0x0303, &[0x0001, 0x0002, 0x003b, 0xc006], Some(HANDSHAKE_FAILURE)),
        ("RC4", 0x0303, &[0x0004, 0x0005, 0xc007, 0xc011], Some(HANDSHAKE_FAILURE)),
        ("export", 0x0303, &[0x0003, 0x0006, 0x0008], Some(HANDSHAKE_FAILURE)),
        ("static RSA", 0x0303, &[0x002f, 0x0035, 0x009c], Some(HANDSHAKE_FAILURE)),
        ("CBC and 3DES", 0x0303, &[0xc009, 0xc023, 0xc008], Some(HANDSHAKE_FAILURE)),
    ];
    // As both sides of the edge listen.
    let sip = ServerChoice { is_classic: true, ..ServerChoice::default() };
    let configs = [server_config(&store, &["xmpp-server"]), server_config_for(&store, &sip)];
    let cases = configs.iter().flat_map(|config| table.iter().map(move |case| (config, *case)));
    for (config, (case, version, suites, alert)) in cases {
        let hello = hello(version, suites);
        let (facts, (kind, content)) =
            against(config.clone(), move |socket| first_record(socket, &hello)).await;
        assert!(facts.is_err(), "{case}: nobody finished a handshake");
        match alert {
            Some(alert) => assert_eq!((kind, &content[..]), (ALERT, &[FATAL, alert][..]), "{case}"),
            None => assert_eq!(kind, HANDSHAKE, "{case}: the hello is sound"),
        }
    }
}

fn client(anchor: CertificateDer<'static>, version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(anchor).expect("an anchor");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("a.example").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

#[tokio::test]
async fn a_hello_cut_into_records_of_one_octet_is_understood_in_both_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, anchor) = server(folder.path());
    for (version, name) in [(&version::TLS12, "TLSv1.2"), (&version::TLS13, "TLSv1.3")] {
        let mut client = client(anchor.clone(), version);
        let (facts, records) = against(server_config(&store, &["xmpp-server"]), move |mut socket| {
            let mut whole = Vec::new();
            client.write_tls(&mut whole).expect("a hello");
            let (head, body) = whole.split_at(5);
            for octet in body {
                socket.write_all(&[head[0], head[1], head[2], 0, 1, *octet]).expect("sent");
            }
            client.complete_io(&mut socket).expect("a handshake");
            body.len()
        })
        .await;
        assert_eq!(facts.expect("a handshake").version, name);
        assert!(records > 100, "{records} records");
    }
}
