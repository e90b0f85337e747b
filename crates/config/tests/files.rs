//! What the checker says of the files that settings name.

use std::{fs, path::Path, time::Duration};

use tombolo_config::{ConfigError, Severity, load};
use tombolo_net::Authority;

/// 17 March 2030.
const NOW: Duration = Duration::from_secs(1_900_000_000);

/// The settings of a domain whose certificate and key are `c.pem` and `c.key`, and a directory of partners.
const SETTINGS: &str = "partners = \"partners.d\"\n[[domain]]\nname = \"corp.example\"\nhome = { kind = \"built-in\" }\n\
     certificate = \"c.pem\"\nkey = \"c.key\"\n[xmpp]\ntrust = \"ca.pem\"\n";

fn prepared(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open_or_create(&folder.path().join("authority")).expect("an authority");
    let (certificate, key) = authority.issue("own", names).expect("issued");
    for (from, to) in [(&*certificate, "c.pem"), (&*key, "c.key"), (&*authority.certificate(), "ca.pem")] {
        fs::copy(from, folder.path().join(to)).expect("copied");
    }
    fs::create_dir(folder.path().join("partners.d")).expect("made");
    fs::write(folder.path().join("t.toml"), SETTINGS).expect("written");
    folder
}

/// Everything that is found, as severity, line and text.
fn found(folder: &Path) -> Vec<(Severity, usize, String)> {
    let told = |error: &ConfigError| (error.severity, error.line, error.to_string());
    match load(&folder.join("t.toml"), None, NOW) {
        Ok(checked) => checked.findings.iter().map(told).collect(),
        Err(errors) => errors.iter().map(told).collect(),
    }
}

#[test]
fn files_in_order_are_not_mentioned() {
    assert_eq!(found(prepared(&["corp.example"]).path()), []);
}

#[test]
fn a_certificate_that_peers_refuse_is_a_problem_and_one_that_cannot_be_used_an_error() {
    let other = prepared(&["other.example"]);
    let told = found(other.path());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0, told[0].1), (Severity::Problem, 5));
    assert!(told[0].2.contains("is for other.example, not for corp.example"), "{told:?}");

    let swapped = prepared(&["corp.example"]);
    let (certificate, key) = (swapped.path().join("c.pem"), swapped.path().join("c.key"));
    let text = fs::read_to_string(&certificate).expect("text");
    fs::copy(&key, &certificate).expect("copied");
    fs::write(&key, text).expect("written");
    let told = found(swapped.path());
    let lines: Vec<_> = told.iter().map(|(severity, line, _)| (*severity, *line)).collect();
    assert_eq!(lines, [(Severity::Error, 5), (Severity::Error, 6)], "{told:?}");
    assert!(told.iter().all(|(_, _, text)| text.contains("swapped?")), "{told:?}");
}

#[test]
fn trust_in_a_server_certificate_and_files_that_are_not_read_are_pointed_out() {
    let folder = prepared(&["corp.example"]);
    fs::copy(folder.path().join("c.pem"), folder.path().join("ca.pem")).expect("copied");
    for name in ["acme.conf", "old.toml.bak", ".hidden", "good.toml"] {
        fs::write(folder.path().join("partners.d").join(name), "").expect("written");
    }
    let told = found(folder.path());
    assert!(told.iter().all(|(severity, _, _)| *severity == Severity::Advice), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].2.contains("not read, since their names do not end in .toml: acme.conf, old.toml.bak"),
        "{told:?}"
    );
    assert!(told[1].2.contains("is no authority's"), "{told:?}");
}
