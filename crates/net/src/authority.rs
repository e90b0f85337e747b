//! A certificate authority of our own, for the embedded defaults and for tests: files in a folder, made once.

use std::{
    fs, io,
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
    pub fn open_or_create(folder: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        // The parameters are always the same, so the key alone makes the same issuer again.
        let params = parameters();
        let key_pair = if certificate.exists() && key.exists() {
            KeyPair::from_pem(&fs::read_to_string(&key).map_err(at(&key))?)?
        } else {
            let key_pair = KeyPair::generate()?;
            let own = params.self_signed(&key_pair)?;
            write_private(&key, &key_pair.serialize_pem())?;
            fs::write(&certificate, own.pem()).map_err(at(&certificate))?;
            key_pair
        };
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
        write_private(&key, &key_pair.serialize_pem())?;
        fs::write(&certificate, issued.pem()).map_err(at(&certificate))?;
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

/// Nobody but the owner may read a key.
fn write_private(path: &Path, text: &str) -> Result<(), AuthorityError> {
    use io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(at(path))?;
    file.write_all(text.as_bytes()).map_err(at(path))
}
