//! The accounts of built-in homes: a TOML file that `tombolo user` writes and a running process reads.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use serde::Serialize;
use tombolo_interwork::{address::domain_of_text, typed_address::typed_address};
use tombolo_policy::Approve;
use tombolo_presence::Address;

use crate::{
    check::{Context, table},
    described::{self, ACCOUNT_FILE},
    error::{ConfigError, Reason, Source},
    files,
    section::{Found, Section},
};

/// All accounts, by address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    by_address: BTreeMap<Address, Account>,
}

/// One user of a built-in home. Shown without its hashes, which are as good as the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The address of record, prepared.
    pub aor: Address,
    /// SHA-256 of `user:realm:password` in lower-case hexadecimal digits, the realm being the domain (RFC 8760).
    pub ha1_sha256: Option<Box<str>>,
    /// MD5 of the same.
    pub ha1_md5: Option<Box<str>>,
    /// SHA-256 with `user@domain` as user, for phones that log in so. Accounts of earlier versions have none.
    pub ha1_sha256_address: Option<Box<str>>,
    /// MD5 of the same.
    pub ha1_md5_address: Option<Box<str>>,
    /// Who may watch without asking.
    pub approve: Approve,
}

/// The hashes of one password, as [`Account`] has them.
#[derive(Clone, Default)]
pub struct Hashes {
    /// See [`Account::ha1_sha256`].
    pub sha256: Option<Box<str>>,
    /// See [`Account::ha1_md5`].
    pub md5: Option<Box<str>>,
    /// See [`Account::ha1_sha256_address`].
    pub sha256_address: Option<Box<str>>,
    /// See [`Account::ha1_md5_address`].
    pub md5_address: Option<Box<str>>,
}

/// Why an account cannot be added or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is one already.
    #[error("there is already an account {aor}")]
    Exists {
        /// The address.
        aor: Address,
    },
    /// There is none.
    #[error("there is no account {aor}")]
    Unknown {
        /// The address.
        aor: Address,
    },
    /// It has no hash, or one that is no hash.
    #[error("account {aor} needs ha1_sha256 of 64 or ha1_md5 of 32 hexadecimal digits")]
    BadHash {
        /// The address.
        aor: Address,
    },
}

impl Accounts {
    /// Reads a file of accounts; one that does not exist holds none. Gives every error that was found.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&text, &name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(vec![ConfigError::unreadable(&name, &error)]),
        }
    }

    /// Replaces the file: whole or not at all, durable when this returns, mode 0600.
    ///
    /// The text is read back before it replaces anything: a file that [`Accounts::load`] refuses would keep the next
    /// start from happening.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let written = Written { account: self.iter().map(WrittenAccount::from).collect() };
        let text = toml::to_string(&written).map_err(io::Error::other)?;
        match parse(&text, &path.display().to_string()) {
            Ok(read) if read == *self => {}
            Ok(_) => {
                return Err(io::Error::other("nothing was written: the accounts would be read differently"));
            }
            Err(errors) => {
                let first = errors.first().map(ToString::to_string).unwrap_or_default();
                return Err(io::Error::other(format!("nothing was written: {first}")));
            }
        }
        replace(path, &text)
    }

    /// The account of an address.
    pub fn account(&self, aor: &Address) -> Option<&Account> {
        self.by_address.get(aor)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.by_address.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Adds one; an address that is there already is left as it is.
    pub fn add(&mut self, account: Account) -> Result<(), AccountError> {
        if !account.has_good_hashes() {
            return Err(AccountError::BadHash { aor: account.aor });
        }
        if self.by_address.contains_key(&account.aor) {
            return Err(AccountError::Exists { aor: account.aor });
        }
        self.by_address.insert(account.aor.clone(), account);
        Ok(())
    }

    /// Takes one out.
    pub fn remove(&mut self, aor: &Address) -> Result<Account, AccountError> {
        self.by_address.remove(aor).ok_or_else(|| AccountError::Unknown { aor: aor.clone() })
    }

    /// Replaces the hashes of one, as with a new password. On an error nothing is changed.
    pub fn set_hashes(&mut self, aor: &Address, hashes: Hashes) -> Result<(), AccountError> {
        let Some(account) = self.by_address.get_mut(aor) else {
            return Err(AccountError::Unknown { aor: aor.clone() });
        };
        let changed = Account::new(aor.clone(), hashes, account.approve);
        if !changed.has_good_hashes() {
            return Err(AccountError::BadHash { aor: aor.clone() });
        }
        *account = changed;
        Ok(())
    }

    /// Says anew who may watch without asking.
    pub fn set_approve(&mut self, aor: &Address, approve: Approve) -> Result<(), AccountError> {
        match self.by_address.get_mut(aor) {
            Some(account) => {
                account.approve = approve;
                Ok(())
            }
            None => Err(AccountError::Unknown { aor: aor.clone() }),
        }
    }
}

impl Account {
    /// An account with these hashes.
    pub fn new(aor: Address, hashes: Hashes, approve: Approve) -> Self {
        let Hashes { sha256, md5, sha256_address, md5_address } = hashes;
        Self {
            aor,
            ha1_sha256: sha256,
            ha1_md5: md5,
            ha1_sha256_address: sha256_address,
            ha1_md5_address: md5_address,
            approve,
        }
    }

    fn has_good_hashes(&self) -> bool {
        let is_hash =
            |hash: &Option<Box<str>>, len| hash.as_deref().is_none_or(|hash| hex(hash, len).is_ok());
        let has_some = self.ha1_sha256.is_some() || self.ha1_md5.is_some();
        let are_sha256 =
            [&self.ha1_sha256, &self.ha1_sha256_address].map(|hash| is_hash(hash, SHA256_DIGITS));
        let are_md5 = [&self.ha1_md5, &self.ha1_md5_address].map(|hash| is_hash(hash, MD5_DIGITS));
        has_some && are_sha256 == [true; 2] && are_md5 == [true; 2]
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Account")
            .field("aor", &self.aor)
            .field("approve", &self.approve)
            .finish_non_exhaustive()
    }
}

/// Checks the text of an accounts file.
pub(crate) fn parse(text: &str, file_name: &str) -> Result<Accounts, Vec<ConfigError>> {
    let source = Source::new(file_name, text);
    let context = Context::new(file_name, &files::AllThere);
    let accounts = table(&source, &context).map(|table| {
        let top = Section::new(ACCOUNT_FILE, &table, 0..0, &source, &context);
        let mut accounts = BTreeMap::new();
        let mut places = BTreeMap::new();
        for section in top.sections("account", "account") {
            let place = section.value_span("aor").map_or(0, |span| span.start);
            let Some(account) = read(&section) else { continue };
            if let Some(first) = places.insert(account.aor.clone(), place)
                && let Some(span) = section.value_span("aor")
            {
                let first = source.place_text(first);
                let reason = Reason::AccountTwice { aor: account.aor.to_string(), first };
                section.error(span, reason, "each account once");
            }
            accounts.insert(account.aor.clone(), account);
        }
        top.finish();
        Accounts { by_address: accounts }
    });
    let mut errors = context.errors.into_inner();
    errors.sort_by_key(|error| (error.line, error.column));
    match accounts {
        Some(accounts) if errors.is_empty() => Ok(accounts),
        _ => Err(errors),
    }
}

fn read(section: &Section<'_>) -> Option<Account> {
    let aor = section.text("aor").and_then(|found| {
        let address = typed_address(found.value).ok().or_else(|| address_of_nodeprep(found.value));
        if address.is_none() {
            refuse_address(section, &found);
        }
        address
    });
    if !section.has("aor") {
        section.missing("aor");
    }
    let sha256 = section.parsed("ha1_sha256", |text| hex(text, SHA256_DIGITS));
    let md5 = section.parsed("ha1_md5", |text| hex(text, MD5_DIGITS));
    let sha256_address = section.parsed("ha1_sha256_address", |text| hex(text, SHA256_DIGITS));
    let md5_address = section.parsed("ha1_md5_address", |text| hex(text, MD5_DIGITS));
    let approve = section
        .word("approve", &[("ask", Approve::Ask), ("partner", Approve::Partner), ("all", Approve::All)]);
    section.finish();
    let aor = aor?;
    if !section.has("ha1_sha256") && !section.has("ha1_md5") {
        let reason = Reason::NoHash { aor: aor.to_string() };
        section.error(section.span.clone(), reason, "ha1_sha256, ha1_md5, or both");
    }
    let hashes = Hashes {
        sha256: sha256.map(|found| found.value),
        md5: md5.map(|found| found.value),
        sha256_address: sha256_address.map(|found| found.value),
        md5_address: md5_address.map(|found| found.value),
    };
    Some(Account::new(aor, hashes, approve.map_or(Approve::Ask, |found| found.value)))
}

/// An address that nobody can have keeps the whole file from being read, so the error says how to take it out.
fn refuse_address(section: &Section<'_>, found: &Found<&str>) {
    let reason = Reason::BadValue { key: section.path("aor"), value: found.value.to_owned() };
    let quoted = found.value.replace('\'', "'\\''");
    let accepted = format!(
        "{}; to take the account out: tombolo user remove '{quoted}' --file {}",
        described::accepted("account", "aor"),
        section.source.name
    );
    section.error(found.span.clone(), reason, accepted);
}

/// An address that an earlier version wrote and that RFC 7622 refuses, such as one with `ـ`, as it stands.
///
/// Nobody can register or be reached by it any more, but one such account must not make the file unreadable.
fn address_of_nodeprep(text: &str) -> Option<Address> {
    let (local, domain) = text.split_once('@')?;
    let is_name = |c: char| {
        if c.is_ascii() { c.is_ascii_graphic() && !"\"&'/:<>@".contains(c) } else { c.is_alphanumeric() }
    };
    let is_old = !local.is_ascii() && local.chars().all(is_name) && local == local.to_lowercase();
    Address::new(local, domain_of_text(domain)?.as_str()).ok().filter(|_| is_old)
}

fn hex(text: &str, digits: usize) -> Result<Box<str>, &'static str> {
    let is_hash = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { Ok(text.to_ascii_lowercase().into()) } else { Err("no hash") }
}

const SHA256_DIGITS: usize = 64;
const MD5_DIGITS: usize = 32;

/// Puts `text` in the place of the file: whole or not at all, durable when this returns, mode 0600.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(directory)?;
    let mut scratch_name = std::ffi::OsString::from(".");
    scratch_name.push(name);
    scratch_name.push(format!(".{}", std::process::id()));
    let scratch = directory.join(scratch_name);
    // Left by a process of the same number that was killed; opened anew, it would keep its old mode.
    let _ = std::fs::remove_file(&scratch);
    let written = write_durably(&scratch, text.as_bytes()).and_then(|()| std::fs::rename(&scratch, path));
    if written.is_err() {
        // What is left of it is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(&scratch);
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The file as it is written.
#[derive(Serialize)]
struct Written<'a> {
    account: Vec<WrittenAccount<'a>>,
}

#[derive(Serialize)]
struct WrittenAccount<'a> {
    aor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ha1_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ha1_md5: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ha1_sha256_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ha1_md5_address: Option<&'a str>,
    approve: &'static str,
}

impl<'a> From<&'a Account> for WrittenAccount<'a> {
    fn from(account: &'a Account) -> Self {
        Self {
            aor: account.aor.as_str(),
            ha1_sha256: account.ha1_sha256.as_deref(),
            ha1_md5: account.ha1_md5.as_deref(),
            ha1_sha256_address: account.ha1_sha256_address.as_deref(),
            ha1_md5_address: account.ha1_md5_address.as_deref(),
            approve: account.approve.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const MD5: &str = "00112233445566778899aabbccddeeff";

    fn aor(text: &str) -> Address {
        Address::from_prepared(text).expect("legal")
    }

    fn account(text: &str) -> Account {
        Account {
            aor: aor(text),
            ha1_sha256: Some(SHA256.into()),
            ha1_md5: Some(MD5.into()),
            ha1_sha256_address: None,
            ha1_md5_address: Some(MD5.into()),
            approve: Approve::Partner,
        }
    }

    fn errors(text: &str) -> Vec<String> {
        parse(text, "a.toml").expect_err("refused").iter().map(ToString::to_string).collect()
    }

    /// A path in a directory of its own.
    fn scratch(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("tombolo-accounts-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        directory.join("deeper/accounts.toml")
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let path = scratch("again");
        assert_eq!(Accounts::load(&path).expect("a missing file holds none"), Accounts::default());
        let mut accounts = Accounts::default();
        accounts.add(account("alice@sip.localhost")).expect("new");
        accounts
            .add(Account { ha1_md5: None, approve: Approve::All, ..account("bob@sip.localhost") })
            .expect("new");
        accounts.save(&path).expect("saved");
        let loaded = Accounts::load(&path).expect("loads");
        assert_eq!(loaded, accounts);
        assert_eq!(loaded.account(&aor("bob@sip.localhost")).expect("there").approve, Approve::All);
        assert_eq!(loaded.account(&aor("carol@sip.localhost")), None);
        accounts.remove(&aor("alice@sip.localhost")).expect("there");
        accounts.save(&path).expect("saved over");
        assert_eq!(Accounts::load(&path).expect("loads").len(), 1);
        let directory = path.parent().expect("a directory");
        assert_eq!(std::fs::read_dir(directory).expect("readable").count(), 1, "nothing else is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_its_owner_alone_even_when_it_was_not() {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch("mode");
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, "").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("set");
        Accounts::default().save(&path).expect("saved");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_account_is_added_once_and_only_with_a_hash() {
        let mut accounts = Accounts::default();
        accounts.add(account("alice@sip.localhost")).expect("new");
        let again = accounts.add(account("alice@sip.localhost"));
        assert_eq!(again, Err(AccountError::Exists { aor: aor("alice@sip.localhost") }));
        for (sha256, md5) in [(None, None), (Some("12"), None), (Some(SHA256), Some("x")), (Some(MD5), None)]
        {
            let bad = Account {
                ha1_sha256: sha256.map(Into::into),
                ha1_md5: md5.map(Into::into),
                ..account("bob@sip.localhost")
            };
            assert_eq!(accounts.add(bad), Err(AccountError::BadHash { aor: aor("bob@sip.localhost") }));
        }
        let alice = aor("alice@sip.localhost");
        let no_hash = Err(AccountError::BadHash { aor: alice.clone() });
        let short = Hashes { sha256: Some("12".into()), ..Hashes::default() };
        assert_eq!(accounts.set_hashes(&alice, short), no_hash);
        let short =
            Hashes { sha256: Some(SHA256.into()), md5_address: Some("12".into()), ..Hashes::default() };
        assert_eq!(accounts.set_hashes(&alice, short), no_hash);
        assert_eq!(accounts.account(&alice), Some(&account("alice@sip.localhost")), "as it was");
        let only_sha256 = Hashes { sha256: Some(SHA256.into()), ..Hashes::default() };
        accounts.set_hashes(&alice, only_sha256.clone()).expect("there");
        let changed = accounts.account(&alice).expect("there");
        assert_eq!((&changed.ha1_md5, &changed.ha1_md5_address), (&None, &None));
        assert!(accounts.set_hashes(&aor("bob@sip.localhost"), only_sha256).is_err());
        accounts.set_approve(&aor("alice@sip.localhost"), Approve::All).expect("there");
        assert_eq!(accounts.account(&aor("alice@sip.localhost")).expect("there").approve, Approve::All);
        assert!(accounts.set_approve(&aor("bob@sip.localhost"), Approve::All).is_err());
        assert!(accounts.remove(&aor("bob@sip.localhost")).is_err());
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let path = scratch("unreadable");
        let mut accounts = Accounts::default();
        accounts.add(account("alice@sip.localhost")).expect("new");
        accounts.save(&path).expect("saved");
        // Taken as prepared without being so, as a caller might by mistake.
        for bad in ["x/y@sip.localhost", "Alice@sip.localhost", "a b@sip.localhost", "bob@sip..localhost"] {
            let mut more = accounts.clone();
            more.add(account(bad)).expect("new");
            let error = more.save(&path).expect_err(bad).to_string();
            assert!(error.contains("nothing was written"), "{error}");
            assert_eq!(Accounts::load(&path).expect("still loads"), accounts, "{bad}");
        }
    }

    #[test]
    fn every_error_of_a_file_is_told_with_its_place() {
        let text = format!(
            "[[account]]\naor = \"alice@sip.localhost\"\nha1_md5 = \"{MD5}\"\napprove = \"always\"\n\
             [[account]]\naor = \"ALICE@sip.localhost.\"\nha1_md5 = \"xyz\"\n\
             [[account]]\naor = \"nobody\"\n[[account]]\naor = \"bob@sip.localhost\"\npassword = \"x\"\n\
             [[account]]\nha1_md5 = \"{MD5}\"\n"
        );
        assert_eq!(
            errors(&text),
            [
                "a.toml:4:11: `account.approve` cannot be \"always\"; accepted: ask, partner, all",
                "a.toml:6:7: there is already an account alice@sip.localhost, at a.toml:2:7; accepted: each account once",
                "a.toml:7:11: `account.ha1_md5` cannot be \"xyz\"; accepted: 32 hexadecimal digits, as tombolo user passwd \
                 writes them",
                "a.toml:9:7: `account.aor` cannot be \"nobody\"; accepted: USER@DOMAIN, such as \"alice@corp.example\"; to take \
                 the account out: tombolo user remove 'nobody' --file a.toml",
                "a.toml:10:1: account bob@sip.localhost has no hash of a password; accepted: ha1_sha256, ha1_md5, or both",
                "a.toml:12:1: unknown key `account.password`; accepted: aor, ha1_sha256, ha1_md5, ha1_sha256_address, ha1_md5_address, approve",
                "a.toml:13:1: missing key `account.aor`; accepted: USER@DOMAIN, such as \"alice@corp.example\"",
            ]
        );
    }

    #[test]
    fn an_account_that_an_earlier_version_wrote_does_not_make_the_file_unreadable() {
        let text = ["fussball", "fußball", "a\u{640}b", "௰"]
            .map(|local| format!("[[account]]\naor = \"{local}@sip.localhost\"\nha1_md5 = \"{MD5}\"\n"))
            .concat();
        let accounts = parse(&text, "a.toml").expect("readable");
        assert_eq!(accounts.len(), 4, "and none is another");
        assert!(accounts.account(&aor("fußball@sip.localhost")).is_some());
        for refused in
            ["x/y@sip.localhost", "♚@sip.localhost", "ü y@sip.localhost", "Üa\u{640}@sip.localhost"]
        {
            assert_eq!(errors(&format!("[[account]]\naor = \"{refused}\"\nha1_md5 = \"{MD5}\"\n")).len(), 1);
        }
    }

    #[test]
    fn an_account_is_shown_without_its_hashes() {
        let shown = format!("{:?}", account("alice@sip.localhost"));
        assert!(shown.contains("alice") && !shown.contains("0011"), "{shown}");
    }
}
