//! Our certificates and keys by domain, replaced while connections go on.
//!
//! In: PEM files. Out: a certified key for a domain. A file that cannot be used leaves what was there before, and is tried
//! again; files are read only when somebody asks for it.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use crate::{
    certificate_file::{FileFault, FileRole, is_step_back, read_pair},
    leaf,
    names::ascii,
};

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
    /// Whom the certificate should prove; `None` where its name is no domain.
    domain: Option<String>,
    certified: Arc<CertifiedKey>,
    certificate: PathBuf,
    key: PathBuf,
    /// How the files looked when they were last tried.
    tried: Stamp,
    /// What was wrong with them then; they are tried again, since rights change without a trace in [`Stamp`].
    fault: Option<String>,
}

/// What is to be read, and for whom.
#[derive(Clone, Copy)]
struct Files<'a> {
    /// Under which it is kept.
    name: &'a str,
    domain: Option<&'a str>,
    certificate: &'a Path,
    key: &'a Path,
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

impl From<FileFault> for StoreError {
    fn from(fault: FileFault) -> Self {
        Self { path: fault.path.display().to_string(), reason: fault.text() }
    }
}

/// What a reload may put in the place of a certificate that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Only one that holds too.
    OnlyByValid,
    /// Whatever the file holds: the administrator insists.
    ByAny,
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
        self.read(&Files { name: &name, domain: Some(domain), certificate, key }, None, Duration::ZERO)
    }

    /// The same for a certificate that proves no domain of ours, such as that of the inside link, under any name.
    ///
    /// # Errors
    /// As [`CertificateStore::load`].
    pub fn load_as(&self, name: &str, certificate: &Path, key: &Path) -> Result<(), StoreError> {
        self.read(&Files { name, domain: None, certificate, key }, None, Duration::ZERO)
    }

    /// Takes the certificate of a domain from other files than before, as [`CertificateStore::reload`] does. `now` is the
    /// wall time since the Unix epoch.
    ///
    /// # Errors
    /// As [`CertificateStore::load`], and where the new certificate is worse than the one in use.
    pub fn replace(
        &self,
        domain: &str,
        certificate: &Path,
        key: &Path,
        replace: Replace,
        now: Duration,
    ) -> Result<(), StoreError> {
        let name = ascii(domain);
        let old = self.certificate(domain).filter(|_| replace == Replace::OnlyByValid);
        self.read(&Files { name: &name, domain: Some(domain), certificate, key }, old.as_deref(), now)
    }

    /// Reads two files and puts them in use, unless that would be a step back from `old`.
    fn read(&self, files: &Files<'_>, old: Option<&CertifiedKey>, now: Duration) -> Result<(), StoreError> {
        let Files { name, domain, certificate, key } = *files;
        // Before they are read: a change meanwhile is seen as one.
        let tried = [stamp(certificate), stamp(key)];
        let read = read_pair(certificate, key).map_err(StoreError::from).and_then(|new| {
            match old.and_then(|old| is_step_back(&new, old, domain, now)) {
                None => Ok(new),
                Some(problem) => {
                    let file = FileRole::Certificate;
                    let fault = FileFault { file, path: certificate.to_owned(), line: None, problem };
                    let reason = format!(
                        "{fault}; the one in use is better. To use it all the same: tombolo reload --force"
                    );
                    Err(StoreError { path: certificate.display().to_string(), reason })
                }
            }
        });
        let certified = read.inspect_err(|fault| self.note_tried(name, tried, fault))?;
        let entry = Entry {
            domain: domain.map(str::to_owned),
            certified: Arc::new(certified),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            tried,
            fault: None,
        };
        self.entries.rcu(|known| {
            let mut entries = Entries::clone(known);
            entries.default.get_or_insert_with(|| name.to_owned());
            entries.by_name.insert(name.to_owned(), entry.clone());
            entries
        });
        Ok(())
    }

    /// Reads all files again; new handshakes use what is new. `now` is the wall time since the Unix epoch.
    ///
    /// Returns what could not be used: there the old certificate stays in use. With [`Replace::OnlyByValid`] this is also
    /// so where peers would hold something against the new certificate that they do not hold against the old one: it is out
    /// of date, for another domain, or not for servers.
    pub fn reload(&self, replace: Replace, now: Duration) -> Vec<StoreError> {
        self.entries
            .load_full()
            .by_name
            .iter()
            .filter_map(|(name, entry)| self.again(name, entry, replace, now).err())
            .collect()
    }

    /// Reads the files again that look other than when they were last read or could not be used then. Returns the domains
    /// whose certificates are new, and what could not be used, where that is something else than the last time.
    pub fn reload_changed(&self, now: Duration) -> (Vec<String>, Vec<StoreError>) {
        let (mut taken, mut faults) = (Vec::new(), Vec::new());
        for (name, entry) in &self.entries.load_full().by_name {
            let has_changed = entry.tried != [stamp(&entry.certificate), stamp(&entry.key)];
            if !has_changed && entry.fault.is_none() {
                continue;
            }
            match self.again(name, entry, Replace::OnlyByValid, now) {
                Ok(()) => taken.push(name.clone()),
                Err(fault) if has_changed || entry.fault.as_deref() != Some(&*fault.to_string()) => {
                    faults.push(fault)
                }
                Err(_) => {}
            }
        }
        (taken, faults)
    }

    /// Reads an entry's files once more.
    fn again(&self, name: &str, entry: &Entry, replace: Replace, now: Duration) -> Result<(), StoreError> {
        let Entry { domain, certified, certificate, key, .. } = entry;
        let old = (replace == Replace::OnlyByValid).then_some(&**certified);
        self.read(&Files { name, domain: domain.as_deref(), certificate, key }, old, now)
    }

    fn note_tried(&self, name: &str, tried: Stamp, fault: &StoreError) {
        self.entries.rcu(|known| {
            let mut entries = Entries::clone(known);
            if let Some(entry) = entries.by_name.get_mut(name) {
                entry.tried = tried;
                entry.fault = Some(fault.to_string());
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

    /// What was wrong with files that were tried last and are not in use, in the order of their names.
    pub fn faults(&self) -> Vec<String> {
        let entries = self.entries.load();
        let mut faults: Vec<_> = entries
            .by_name
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.fault.clone()?)))
            .collect();
        faults.sort();
        faults.into_iter().map(|(_, fault)| fault).collect()
    }

    /// When each certificate in use runs out, by name.
    pub fn expiries(&self) -> Vec<Expiry> {
        let entries = self.entries.load();
        let expiry = |(name, entry): (&String, &Entry)| {
            let until = leaf::not_after(entry.certified.end_entity_cert().ok()?)?;
            Some(Expiry { name: name.clone(), file: entry.certificate.clone(), until })
        };
        let mut expiries: Vec<_> = entries.by_name.iter().filter_map(expiry).collect();
        expiries.sort();
        expiries
    }
}

/// When a certificate in use runs out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// Whose certificate: a domain, or the name it was loaded under.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The last moment at which it holds, since the Unix epoch.
    pub until: Duration,
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    /// 17 March 2030; certificates of the authority hold from 1975 to 4096.
    const NOW: Duration = Duration::from_secs(1_900_000_000);

    fn shown(store: &CertificateStore, domain: &str) -> Vec<u8> {
        store.certificate(domain).expect("loaded").end_entity_cert().expect("one").to_vec()
    }

    #[test]
    fn a_reload_takes_what_is_new_and_keeps_the_old_where_a_file_is_bad() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let [a, b, new] = [("a.example", "a.example"), ("b.example", "b.example"), ("new", "a.example")]
            .map(|(name, domain)| authority.issue(name, &[domain]).expect("a certificate"));
        store.load("a.example", &a.0, &a.1).expect("it fits");
        store.load("b.example", &b.0, &b.1).expect("it fits");
        let old = (shown(&store, "a.example"), shown(&store, "b.example"));
        fs::copy(&new.0, &a.0).expect("copied");
        fs::copy(&new.1, &a.1).expect("copied");
        fs::write(&b.0, "no certificate").expect("written");
        let faults = store.reload(Replace::OnlyByValid, NOW);
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
        assert_eq!(count(store.reload_changed(NOW)), nothing, "no file changed");
        // The certificate is there before its key, as an operator's copy brings them.
        fs::write(&a.0, fs::read_to_string(&new.0).expect("text") + "\n").expect("written");
        assert_eq!(count(store.reload_changed(NOW)), (0, 1));
        assert_eq!(count(store.reload_changed(NOW)), nothing, "told once");
        assert_eq!(shown(&store, "a.example"), old);
        fs::write(&a.1, fs::read_to_string(&new.1).expect("text") + "\n").expect("written");
        assert_eq!(store.reload_changed(NOW).0, ["a.example"]);
        assert_ne!(shown(&store, "a.example"), old);
    }

    #[test]
    fn a_file_that_could_not_be_read_is_tried_again_without_a_change_and_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let [a, new] = ["a", "new"].map(|name| authority.issue(name, &["a.example"]).expect("a certificate"));
        store.load("a.example", &a.0, &a.1).expect("it fits");
        let old = shown(&store, "a.example");
        fs::copy(&new.0, &a.0).expect("copied");
        // In the place of a key that only somebody else may read: as root we may read everything.
        fs::remove_file(&a.1).expect("removed");
        fs::create_dir(&a.1).expect("made");
        let told = store.reload_changed(NOW).1;
        assert!(told[0].reason.contains("cannot be read"), "{told:?}");
        assert!(store.reload_changed(NOW).1.is_empty(), "told once");
        fs::remove_dir(&a.1).expect("removed");
        fs::copy(&new.1, &a.1).expect("copied");
        assert_eq!(store.reload_changed(NOW).0, ["a.example"]);
        assert_ne!(shown(&store, "a.example"), old);

        // The same stamp as when it failed: only what failed is looked at again.
        store.entries.rcu(|known| {
            let mut entries = Entries::clone(known);
            entries.by_name.get_mut("a.example").expect("there").fault = Some("may not be read".to_owned());
            entries
        });
        assert_eq!(store.reload_changed(NOW).0, ["a.example"]);
        assert!(store.reload_changed(NOW).0.is_empty(), "it is in use");
    }

    #[test]
    fn an_expired_certificate_takes_the_place_of_a_valid_one_only_by_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let a = authority.issue("a.example", &["a.example"]).expect("a certificate");
        store.load("a.example", &a.0, &a.1).expect("it fits");
        let old = shown(&store, "a.example");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(2024, 1, 31);
        fs::write(&a.0, params.self_signed(&key).expect("signed").pem()).expect("written");
        fs::write(&a.1, key.serialize_pem()).expect("written");
        for fault in [store.reload(Replace::OnlyByValid, NOW), store.reload_changed(NOW).1] {
            if let Some(fault) = fault.first() {
                assert!(fault.reason.contains("expired on 2024-01-31"), "{fault}");
                assert!(fault.reason.contains("--force"), "{fault}");
            }
            assert_eq!(shown(&store, "a.example"), old);
        }
        assert!(store.reload(Replace::ByAny, NOW).is_empty());
        assert_ne!(shown(&store, "a.example"), old);
    }

    #[test]
    fn a_certificate_for_another_domain_takes_the_place_of_a_right_one_only_by_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let a = authority.issue("a.example", &["a.example"]).expect("a certificate");
        let other = authority.issue("other.example", &["other.example"]).expect("a certificate");
        store.load("a.example", &a.0, &a.1).expect("it fits");
        let old = shown(&store, "a.example");
        // By other files, as changed settings name them.
        let fault =
            store.replace("a.example", &other.0, &other.1, Replace::OnlyByValid, NOW).expect_err("refused");
        assert!(fault.reason.contains("is for other.example, not for a.example"), "{fault}");
        fs::copy(&other.0, &a.0).expect("copied");
        fs::copy(&other.1, &a.1).expect("copied");
        let fault = store.reload(Replace::OnlyByValid, NOW).pop().expect("refused");
        assert!(fault.reason.contains("is for other.example, not for a.example"), "{fault}");
        assert!(fault.reason.contains("--force"), "{fault}");
        assert_eq!(store.faults(), [fault.to_string()]);
        assert!(store.reload_changed(NOW).0.is_empty());
        assert_eq!(shown(&store, "a.example"), old);
        assert!(store.reload(Replace::ByAny, NOW).is_empty());
        assert_ne!(shown(&store, "a.example"), old);
        assert!(store.faults().is_empty());
        assert!(store.reload(Replace::OnlyByValid, NOW).is_empty(), "no worse than the one in use");
    }

    #[test]
    fn a_certificate_that_is_not_for_servers_takes_the_place_of_one_that_is_only_by_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open_or_create(folder.path()).expect("an authority");
        let store = CertificateStore::default();
        let a = authority.issue("a.example", &["a.example"]).expect("a certificate");
        store.load("a.example", &a.0, &a.1).expect("it fits");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        fs::write(&a.0, params.self_signed(&key).expect("signed").pem()).expect("written");
        fs::write(&a.1, key.serialize_pem()).expect("written");
        let fault = store.reload(Replace::OnlyByValid, NOW).pop().expect("refused");
        assert!(fault.reason.contains("not for servers"), "{fault}");
        // Under a name that is no domain any name may stand in the certificate, and the same holds.
        let link = CertificateStore::default();
        let b = authority.issue("b.example", &["b.example"]).expect("a certificate");
        link.load_as("link", &b.0, &b.1).expect("it fits");
        assert!(link.reload(Replace::OnlyByValid, NOW).is_empty());
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
        let names: Vec<_> = store.expiries().into_iter().map(|expiry| expiry.name).collect();
        assert_eq!(names, ["a.example", "xn--zrich-kva.example"]);
    }
}
