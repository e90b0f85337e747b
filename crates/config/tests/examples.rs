//! The example files of `config/`, copied to a directory with the certificate files that they name.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tombolo_config::{Role, Settings, load};
use tombolo_net::Authority;

/// 17 March 2030.
const NOW: Duration = Duration::from_secs(1_900_000_000);

/// A copy of `config/` with certificates of a private authority; removed at the end.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let to = std::env::temp_dir().join(format!("tombolo-config-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&to);
        let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config"));
        for directory in ["", "partners.d"] {
            fs::create_dir_all(to.join(directory)).expect("made");
            for entry in fs::read_dir(from.join(directory)).expect("the examples are there") {
                let path = entry.expect("readable").path();
                if path.is_file() {
                    let name = path.file_name().expect("a file has a name");
                    fs::copy(&path, to.join(directory).join(name)).expect("copied");
                }
            }
        }
        fs::create_dir_all(to.join("certs")).expect("made");
        let authority = Authority::open_or_create(&to.join("certs")).expect("an authority");
        for (name, host) in [
            ("corp.example", "corp.example"),
            ("phones.corp.example", "phones.corp.example"),
            ("edge1", "edge1.corp.example"),
            ("gateway", "corp.example"),
            ("gateway-link", "gateway.corp.example"),
        ] {
            authority.issue(name, &[host]).expect("issued");
        }
        for name in ["corp-ca.pem", "link-ca.pem"] {
            fs::copy(authority.certificate(), to.join("certs").join(name)).expect("copied");
        }
        Self(to)
    }

    fn load(&self, file: &str) -> Settings {
        let checked = load(&self.0.join(file), None, NOW);
        let checked = checked.unwrap_or_else(|errors| panic!("{}", tombolo_config::report(&errors)));
        assert!(checked.findings.is_empty(), "{}", tombolo_config::report(&checked.findings));
        checked.settings
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_example_of_an_all_in_one_is_in_order() {
    let copy = Copy::new("all-in-one");
    let settings = copy.load("all-in-one.toml");
    assert_eq!(settings.role, Role::AllInOne);
    let partners: Vec<&str> = settings.partners.iter().map(|partner| partner.domain.as_str()).collect();
    assert_eq!(partners, ["partner.example", "business.example", "public.example"]);
    assert!(settings.policy_table(1).partner("chat.business.example").is_some());
    assert_eq!(settings.data_dir, copy.0.join("tombolo-data"));
}

#[test]
fn the_example_of_an_edge_is_in_order() {
    let settings = Copy::new("edge").load("edge.toml");
    assert_eq!((settings.role, settings.partners.len()), (Role::Edge, 1));
}

#[test]
fn the_example_of_a_gateway_is_in_order() {
    let settings = Copy::new("gateway").load("gateway.toml");
    assert_eq!((settings.role, settings.partners.len()), (Role::Gateway, 2));
}

#[test]
fn every_missing_certificate_of_an_example_is_told() {
    let copy = Copy::new("missing");
    fs::remove_dir_all(copy.0.join("certs")).expect("removed");
    let errors = load(&copy.0.join("gateway.toml"), None, NOW).expect_err("no certificates");
    let missing = errors.iter().filter(|error| error.to_string().contains("no readable file")).count();
    assert_eq!((missing, errors.len()), (6, 6), "{errors:?}");
}

#[test]
fn a_file_that_is_not_there_is_one_error() {
    let errors = load(Path::new("/nowhere/tombolo.toml"), None, NOW).expect_err("not there");
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].to_string().starts_with("/nowhere/tombolo.toml:1:1: the file cannot be read: "),
        "{errors:?}"
    );
}

#[test]
fn another_role_on_the_command_line_is_checked_as_that_role() {
    let copy = Copy::new("role");
    let errors = load(&copy.0.join("gateway.toml"), Some(Role::AllInOne), NOW).expect_err("a gateway's file");
    assert!(errors[0].to_string().contains("`link` has no place in role all-in-one"), "{errors:?}");
}

/// xorshift: the same bytes every time.
fn noise(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn mutated_examples_never_panic_the_checker() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config"));
    let mut corpus: Vec<Vec<u8>> =
        ["all-in-one.toml", "edge.toml", "gateway.toml", "partners.d/example.toml"]
            .iter()
            .map(|file| fs::read(directory.join(file)).expect("the examples are there"))
            .collect();
    corpus.push(
        b"[[account]]\naor = \"alice@sip.localhost\"\nha1_md5 = \"00112233445566778899aabbccddeeff\"\n"
            .to_vec(),
    );
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut refused = 0;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    for round in 0..3_000 {
        let mut text = corpus[round % corpus.len()].clone();
        for _ in 0..1 + noise(&mut state) % 4 {
            let at = noise(&mut state) as usize % text.len().max(1);
            match noise(&mut state) % 4 {
                0 if !text.is_empty() => text[at] = (noise(&mut state) % 128) as u8,
                1 if !text.is_empty() => _ = text.remove(at),
                2 => text.truncate(at.max(1)),
                _ => {
                    let donor = &corpus[noise(&mut state) as usize % corpus.len()];
                    let from = noise(&mut state) as usize % donor.len();
                    let piece = donor[from..donor.len().min(from + 40)].to_vec();
                    text.splice(at..at, piece);
                }
            }
        }
        tombolo_config::fuzz_body(&text);
        fs::write(&file, &text).expect("written");
        refused += usize::from(load(&file, None, NOW).is_err());
    }
    assert!(refused > 1_000, "the mutations reach the checker: {refused} refused");
}
