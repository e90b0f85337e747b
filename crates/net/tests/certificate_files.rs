//! Files of certificates and keys as operators bring them, and what is said of each.

use std::{fs, path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tombolo_net::{Authority, CertificateStore, FileFault, FileRole, inspect_pair, inspect_trust};

/// 17 March 2030.
const NOW: Duration = Duration::from_secs(1_900_000_000);

/// A certificate for `corp.example` in PEM, with its key.
fn issue(change: impl FnOnce(&mut CertificateParams)) -> (String, String, Vec<u8>) {
    let mut params = CertificateParams::new(vec!["corp.example".to_owned()]).expect("a name");
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed");
    (certificate.pem(), key.serialize_pem(), certificate.der().to_vec())
}

/// What is said of two files with these contents.
fn told(certificate: &[u8], key: &[u8]) -> Vec<FileFault> {
    let folder = tempfile::tempdir().expect("a folder");
    let (at, key_at) = (folder.path().join("c.pem"), folder.path().join("c.key"));
    fs::write(&at, certificate).expect("written");
    fs::write(&key_at, key).expect("written");
    let faults = inspect_pair(&at, &key_at, Some("corp.example"), NOW);
    // Whatever the checker lets through, the running process can use, and the other way round.
    let is_used = CertificateStore::default().load("corp.example", &at, &key_at);
    match faults.iter().find(|fault| fault.prevents_use()) {
        None => is_used.expect("the checker found nothing that prevents it"),
        Some(fault) => {
            let refused = is_used.expect_err("the checker found a reason");
            assert_eq!(refused.reason, fault.text());
        }
    }
    faults
}

fn one(certificate: &[u8], key: &[u8]) -> (FileRole, String) {
    let faults = told(certificate, key);
    assert_eq!(faults.len(), 1, "{faults:?}");
    (faults[0].file, faults[0].text())
}

#[test]
fn a_good_pair_is_good_in_every_form_that_tools_write() {
    let (certificate, key, _) = issue(|_| {});
    assert_eq!(told(certificate.as_bytes(), key.as_bytes()), []);
    let with_mark = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    assert_eq!(told(&with_mark(&certificate), &with_mark(&key)), [], "a byte order mark");
    let with_returns = |text: &str| text.replace('\n', "\r\n").into_bytes();
    assert_eq!(told(&with_returns(&certificate), &with_returns(&key)), [], "lines of Windows");
    let with_words = format!("Bag Attributes\n  friendlyName: corp\n{certificate}");
    assert_eq!(told(with_words.as_bytes(), key.as_bytes()), [], "words before the section");
    let both = format!("{key}{certificate}");
    assert_eq!(told(both.as_bytes(), both.as_bytes()), [], "both in one file");
}

#[test]
fn the_certificate_of_the_key_is_shown_first_wherever_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open_or_create(folder.path()).expect("an authority");
    let (at, key) = authority.issue("corp.example", &["corp.example"]).expect("issued");
    let own = fs::read_to_string(&at).expect("text");
    let issuer = fs::read_to_string(authority.certificate()).expect("text");
    fs::write(&at, format!("{issuer}{own}")).expect("written");
    assert_eq!(inspect_pair(&at, &key, Some("corp.example"), NOW), []);
    let store = CertificateStore::default();
    store.load("corp.example", &at, &key).expect("it fits");
    let shown = store.certificate("corp.example").expect("loaded");
    assert_eq!(shown.cert.len(), 2);
    store.load("plain.example", &write(folder.path(), "own.pem", &own), &key).expect("it fits");
    assert_eq!(shown.cert[0], store.certificate("plain.example").expect("loaded").cert[0]);
}

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    fs::write(folder.join(name), text).expect("written");
    folder.join(name)
}

#[test]
fn what_cannot_be_used_is_told_with_its_file_line_and_repair() {
    let (certificate, key, der) = issue(|_| {});
    let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
    let (_, other_key, _) = issue(|_| {});
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted_old = b"words\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let trusted =
        String::from_utf8(certificate.to_vec()).expect("text").replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let pkcs12: &[u8] = &[0x30, 0x06, 0x02, 0x01, 0x03, 0x30, 0x01, 0x00];
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(certificate.iter().flat_map(|octet| [*octet, 0])).collect();
    for (certificate, key, file, part) in [
        (b"".as_slice(), key, FileRole::Certificate, "is empty"),
        (b" \r\n", key, FileRole::Certificate, "is empty"),
        (b"hello", key, FileRole::Certificate, "-----BEGIN"),
        (&der, key, FileRole::Certificate, "openssl x509 -inform DER"),
        (pkcs12, key, FileRole::Certificate, "openssl pkcs12"),
        (&utf16, key, FileRole::Certificate, "UTF-16"),
        (trusted.as_bytes(), key, FileRole::Certificate, "line 1: is in OpenSSL's own form"),
        (certificate, encrypted, FileRole::Key, "line 1: the key is encrypted; decrypt it: openssl pkey -in"),
        (certificate, encrypted_old, FileRole::Key, "line 3: the key is encrypted"),
        (certificate, other_key.as_bytes(), FileRole::Key, "is not the key of the certificate"),
        (certificate, b"\x00\x01\x02\xff", FileRole::Key, "is no text"),
        (certificate, &[0x30, 0x03, 0x02, 0x01, 0x00], FileRole::Key, "openssl pkey -inform DER"),
        (
            certificate,
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            FileRole::Key,
            "no private key but public key",
        ),
        (b"-----BEGIN CERTIFICATE-----\nAAAA", key, FileRole::Certificate, "is no good PEM"),
    ] {
        let (at, text) = one(certificate, key);
        assert_eq!(at, file, "{text}");
        assert!(text.contains(part), "{text} lacks {part}");
    }
    let swapped = told(key, certificate);
    assert_eq!(swapped.len(), 2, "{swapped:?}");
    assert!(swapped.iter().all(|fault| fault.text().contains("swapped?")), "{swapped:?}");
    let missing = inspect_pair(Path::new("nowhere.pem"), Path::new("nowhere.key"), None, NOW);
    assert_eq!(missing.len(), 2, "{missing:?}");
}

#[test]
fn what_peers_would_refuse_is_told_and_does_not_keep_the_file_from_use() {
    for (change, part) in [
        (
            (|params: &mut CertificateParams| params.not_after = date_time_ymd(2024, 1, 31)) as fn(&mut _),
            "expired on 2024-01-31, 2237 days ago",
        ),
        (|params| params.not_before = date_time_ymd(2031, 1, 1), "is valid from 2031-01-01, in"),
        (|params| params.subject_alt_names = Vec::new(), "names no domain"),
        (
            |params| *params = CertificateParams::new(vec!["other.example".to_owned()]).expect("a name"),
            "is for other.example, not for corp.example",
        ),
        (
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "without serverAuth",
        ),
    ] {
        let (certificate, key, _) = issue(change);
        let (file, text) = one(certificate.as_bytes(), key.as_bytes());
        assert_eq!(file, FileRole::Certificate);
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn a_file_of_trust_is_looked_into() {
    let folder = tempfile::tempdir().expect("a folder");
    let texts = |name: &str, text: &str| -> Vec<String> {
        inspect_trust(&write(folder.path(), name, text), NOW).iter().map(FileFault::text).collect()
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "Corp CA");
    let key = KeyPair::generate().expect("a key");
    let root = params.self_signed(&key).expect("signed").pem();
    assert_eq!(texts("root.pem", &root), Vec::<String>::new());
    let (own, own_key, _) = issue(|_| {});
    assert_eq!(texts("own.pem", &own), Vec::<String>::new(), "a self-signed one proves itself");
    let issuer = Issuer::new(params, key);
    let leaf = CertificateParams::new(vec!["corp.example".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("signed").pem();
    let told = texts("leaf.pem", &format!("{root}{leaf}"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("corp.example is no authority's"), "{told:?}");
    assert!(texts("key.pem", &own_key)[0].contains("holds no certificate but private key"));
    assert_eq!(texts("empty.pem", ""), ["is empty"]);
}
