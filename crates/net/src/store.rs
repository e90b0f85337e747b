//! Our certificates and keys by domain, replaced while connections go on.
//!
//! In: PEM files. Out: a certified key for a domain. A file that cannot be used leaves what was there before; files are
//! read only when somebody asks for it.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{Error, InconsistentKeys, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{leaf, names::ascii};

/// Our certificates by domain.
#[derive(Default)]
pub struct CertificateStore {
    entries: ArcSwap<Entries>,
}

#[derive(Clone, Default)]
struct Entries {
    by_name: HashMap<String, Entry>,
    /// Whose certificate is shown to who names no domain: the first that was loaded.
    default: Option<String>,
}

#[derive(Clone)]
struct Entry {
    certified: Arc<CertifiedKey>,
    certificate: PathBuf,
    key: PathBuf,
    /// How the files looked when they were last tried.
    tried: Stamp,
}

/// When each of the two files was last changed, and its length; nothing for one that is not there.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct StoreError {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.entries.load().by_name.keys()).finish()
    }
}

impl CertificateStore {
    /// Takes the certificate and key of a domain from PEM files, in place of what was there.
    ///
    /// The domain may be in any script. The first domain loaded is the one shown to who names none.
    ///
    /// # Errors
    /// When a file cannot be read, holds nothing of the kind, or the two do not belong together; what was there stays.
    pub fn load(&self, domain: &str, certificate: &Path, key: &Path) -> Result<(), StoreError> {
        let name = ascii(domain);
        // Before they are read: a change meanwhile is seen as one.
        let tried = [stamp(certificate), stamp(key)];
        let certified = read(certificate, key).inspect_err(|_| self.note_tried(&name, tried))?;
        let entry = Entry {
            certified: Arc::new(certified),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            tried,
        };
        self.entries.rcu(|known| {
            let mut entries = Entries::clone(known);
            entries.default.get_or_insert_with(|| name.clone());
            entries.by_name.insert(name.clone(), entry.clone());
            entries
        });
        Ok(())
    }

    /// Reads all files again; new handshakes use what is new.
    ///
    /// Returns what could not be used: there the old certificate stays in use.
    pub fn reload(&self) -> Vec<StoreError> {
        self.reload_where(|_| true).1
    }

    /// Reads the files again that look other than when they were last read or tried. Returns the domains whose
    /// certificates are new, and what could not be used, once for each change of a file.
    pub fn reload_changed(&self) -> (Vec<String>, Vec<StoreError>) {
        self.reload_where(|entry| entry.tried != [stamp(&entry.certificate), stamp(&entry.key)])
    }

    fn reload_where(&self, is_wanted: impl Fn(&Entry) -> bool) -> (Vec<String>, Vec<StoreError>) {
        let (mut taken, mut faults) = (Vec::new(), Vec::new());
        for (name, entry) in &self.entries.load_full().by_name {
            if is_wanted(entry) {
                match self.load(name, &entry.certificate, &entry.key) {
                    Ok(()) => taken.push(name.clone()),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        (taken, faults)
    }

    fn note_tried(&self, name: &str, tried: Stamp) {
        self.entries.rcu(|known| {
            let mut entries = Entries::clone(known);
            if let Some(entry) = entries.by_name.get_mut(name) {
                entry.tried = tried;
            }
            entries
        });
    }

    /// The certificate of a domain, in any script.
    pub fn certificate(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.entries.load().by_name.get(&ascii(domain)).map(|entry| entry.certified.clone())
    }

    /// The one to show to who names no domain, or one that we do not have.
    pub fn default_certificate(&self) -> Option<Arc<CertifiedKey>> {
        let entries = self.entries.load();
        let name = entries.default.as_ref()?;
        entries.by_name.get(name).map(|entry| entry.certified.clone())
    }

    /// When the certificate of a domain runs out, since the Unix epoch.
    pub fn not_after(&self, domain: &str) -> Option<Duration> {
        leaf::not_after(self.certificate(domain)?.end_entity_cert().ok()?)
    }

    /// Each domain with the end of its certificate's validity since the Unix epoch, for alarms; by name.
    pub fn expiries(&self) -> Vec<(String, Duration)> {
        let entries = self.entries.load();
        let expiry = |(name, entry): (&String, &Entry)| {
            Some((name.clone(), leaf::not_after(entry.certified.end_entity_cert().ok()?)?))
        };
        let mut expiries: Vec<_> = entries.by_name.iter().filter_map(expiry).collect();
        expiries.sort();
        expiries
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, StoreError> {
    let fault = |path: &Path, reason: String| StoreError { path: path.display().to_string(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| fault(certificate, error.to_string()))?
        .collect();
    let chain = chain.map_err(|error| fault(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(fault(certificate, "holds no certificate".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, error.to_string()))?;
    let signer =
        aws_lc_rs::sign::any_supported_type(&secret).map_err(|error| fault(key, error.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err(fault(key, "is not the key of the certificate".to_owned())),
        Err(error) => Err(fault(certificate, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    fn shown(store: &CertificateStore, domain: &str) -> Vec<u8> {
        store.certificate(domain).expect("loaded").end_entity_cert().expect("one").to_vec()
    }

    #[test]
    fn a_reload_takes_what_is_new_and_keeps_the_old_where_a_file_is_bad() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let [a, b, new] = ["a", "b", "new"].map(|name| {
            let domain = format!("{name}.example");
            authority.issue(&domain, &[&domain]).expect("a certificate")
        });
        store.load("a.example", &a.0, &a.1).expect("it fits");
        store.load("b.example", &b.0, &b.1).expect("it fits");
        let old = (shown(&store, "a.example"), shown(&store, "b.example"));
        fs::copy(&new.0, &a.0).expect("copied");
        fs::copy(&new.1, &a.1).expect("copied");
        fs::write(&b.0, "no certificate").expect("written");
        let faults = store.reload();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].path.ends_with("b.example.pem"));
        assert_ne!(shown(&store, "a.example"), old.0);
        assert_eq!(shown(&store, "b.example"), old.1);
    }

    #[test]
    fn only_changed_files_are_read_again_and_a_bad_change_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let [a, new] = ["a", "new"].map(|name| authority.issue(name, &["a.example"]).expect("a certificate"));
        store.load("a.example", &a.0, &a.1).expect("it fits");
        let old = shown(&store, "a.example");
        let nothing = (0, 0);
        let count = |(taken, faults): (Vec<String>, Vec<StoreError>)| (taken.len(), faults.len());
        assert_eq!(count(store.reload_changed()), nothing, "no file changed");
        // The certificate is there before its key, as an operator's copy brings them.
        fs::write(&a.0, fs::read_to_string(&new.0).expect("text") + "\n").expect("written");
        assert_eq!(count(store.reload_changed()), (0, 1));
        assert_eq!(count(store.reload_changed()), nothing, "told once");
        assert_eq!(shown(&store, "a.example"), old);
        fs::write(&a.1, fs::read_to_string(&new.1).expect("text") + "\n").expect("written");
        assert_eq!(store.reload_changed().0, ["a.example"]);
        assert_ne!(shown(&store, "a.example"), old);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let a = authority.issue("a.example", &["a.example"]).expect("a certificate");
        let b = authority.issue("b.example", &["b.example"]).expect("a certificate");
        let store = CertificateStore::default();
        let error = store.load("a.example", &a.0, &b.1).expect_err("another key");
        assert_eq!(error.reason, "is not the key of the certificate");
        assert!(store.certificate("a.example").is_none());
        assert!(store.load("a.example", &a.1, &a.1).is_err(), "a key is no certificate");
    }

    #[test]
    fn the_first_domain_is_the_default_and_names_in_any_script_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        assert!(store.default_certificate().is_none());
        for (name, domain) in [("z", "zürich.example"), ("a", "a.example")] {
            let files = authority.issue(name, &["x.example"]).expect("a certificate");
            store.load(domain, &files.0, &files.1).expect("it fits");
        }
        let default = store.default_certificate().expect("one");
        assert_eq!(default.cert, store.certificate("ZÜRICH.example").expect("found").cert);
        assert_eq!(default.cert, store.certificate("xn--zrich-kva.example").expect("found").cert);
        let names: Vec<_> = store.expiries().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.example", "xn--zrich-kva.example"]);
    }
}
