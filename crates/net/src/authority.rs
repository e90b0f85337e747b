//! A certificate authority of our own, for the embedded defaults and for tests.
//!
//! In: a folder, and DNS names. Out: PEM files there, made once and then found again. It trusts nobody and renews nothing.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Why an authority cannot be opened or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is a certificate whose key is missing.
    #[error("{} is missing; remove {} too for a new authority", key.display(), certificate.display())]
    KeyIsGone {
        /// The file that is not there.
        key: PathBuf,
        /// The file that is.
        certificate: PathBuf,
    },
    /// A key or certificate cannot be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// An authority with its files in a folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority in `folder` (`ca.pem`, `ca.key`), or makes one there.
    ///
    /// # Errors
    /// When files cannot be read or written, or the key of an authority that others know is gone.
    pub fn open_or_create(folder: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        // The parameters are always the same, so the key alone makes the same issuer again.
        let params = parameters();
        let key_pair = match (key.exists(), certificate.exists()) {
            (true, _) => KeyPair::from_pem(&fs::read_to_string(&key).map_err(at(&key))?)?,
            (false, false) => KeyPair::generate()?,
            // Others trust this certificate: another in its place would be refused by them without a word to us.
            (false, true) => return Err(AuthorityError::KeyIsGone { key, certificate }),
        };
        if !key.exists() {
            write(&key, &key_pair.serialize_pem(), PRIVATE)?;
        }
        if !certificate.exists() {
            write(&certificate, &params.self_signed(&key_pair)?.pem(), PUBLIC)?;
        }
        let issuer = Issuer::new(params, key_pair);
        Ok(Self { folder: folder.to_owned(), issuer })
    }

    /// The authority's certificate, which others must trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The certificate and key files `NAME.pem` and `NAME.key`, for these DNS names; made if they are not there.
    pub fn issue(&self, name: &str, dns_names: &[&str]) -> Result<(PathBuf, PathBuf), AuthorityError> {
        let certificate = self.folder.join(format!("{name}.pem"));
        let key = self.folder.join(format!("{name}.key"));
        if certificate.exists() && key.exists() {
            return Ok((certificate, key));
        }
        let mut params =
            CertificateParams::new(dns_names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        // Peers that connect to us and peers that we connect to both look at the purposes.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key_pair = KeyPair::generate()?;
        let issued = params.signed_by(&key_pair, &self.issuer)?;
        write(&key, &key_pair.serialize_pem(), PRIVATE)?;
        write(&certificate, &issued.pem(), PUBLIC)?;
        Ok((certificate, key))
    }
}

fn parameters() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Tombolo local CA");
    params
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError + use<> {
    let path = path.to_owned();
    |error| AuthorityError::File { path, error }
}

/// Writes a file as a whole or not at all, with these rights from its first octet on.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".new");
    let partial = PathBuf::from(partial);
    // What a crash left may have other rights.
    let _ = fs::remove_file(&partial);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&partial).map_err(at(&partial))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&partial))?;
    fs::rename(&partial, path).map_err(at(path))
}

/// Nobody but the owner may read a key.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| (path.clone(), fs::read_to_string(path).expect("text")))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_second_start_finds_the_same_files_and_only_the_owner_reads_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = || {
            let authority = Authority::open_or_create(folder.path()).expect("an authority");
            authority.issue("a.example", &["a.example", "*.a.example"]).expect("a certificate");
        };
        start();
        let first = contents(folder.path());
        start();
        assert_eq!(contents(folder.path()), first);
        let names: Vec<_> = first.iter().map(|(path, _)| path.file_name().expect("a name")).collect();
        assert_eq!(names, ["a.example.key", "a.example.pem", "ca.key", "ca.pem"]);
        for (path, _) in &first {
            let mode = fs::metadata(path).expect("there").permissions().mode() & 0o777;
            if path.extension().is_some_and(|extension| extension == "key") {
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
    }

    #[test]
    fn a_lost_certificate_is_made_again_by_its_key_and_a_lost_key_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        Authority::open_or_create(folder.path()).expect("an authority");
        let key = fs::read_to_string(folder.path().join("ca.key")).expect("a key");
        fs::remove_file(folder.path().join("ca.pem")).expect("removed");
        let again = Authority::open_or_create(folder.path()).expect("an authority");
        assert!(again.certificate().exists());
        assert_eq!(fs::read_to_string(folder.path().join("ca.key")).expect("a key"), key);
        fs::remove_file(folder.path().join("ca.key")).expect("removed");
        let outcome = Authority::open_or_create(folder.path());
        assert!(matches!(outcome, Err(AuthorityError::KeyIsGone { .. })));
    }
}
