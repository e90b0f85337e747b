//! The accounts of built-in homes while the process runs: the file, and what the broker is told of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tombolo_admin::UserBook;
use tombolo_broker::{Account, Accounts, Broker};
use tombolo_config::{AccountError, Hashes, take_out_account};
use tombolo_interwork::{address::login_name, typed_address::typed_address};
use tombolo_policy::Approve;
use tombolo_presence::Address;
use tombolo_sip::digest::{Algorithm, Ha1, ha1};

/// The accounts of a process.
pub struct Book {
    path: PathBuf,
    /// Domains with a built-in home.
    homes: Vec<String>,
    broker: OnceLock<Arc<Broker>>,
    /// Held while the file is changed.
    turn: Mutex<()>,
}

impl Book {
    /// The accounts in a file, which need not exist yet.
    pub fn new(path: PathBuf, homes: Vec<String>) -> Self {
        Self { path, homes, broker: OnceLock::new(), turn: Mutex::new(()) }
    }

    /// Names the broker that is told of changes, once.
    pub fn connect(&self, broker: Arc<Broker>) {
        // A second name would be a fault of the assembly; the first one stays.
        let _ = self.broker.set(broker);
    }

    /// What the file says. Refuses one that looks like an accident while its users are known: it is missing, empty, or has
    /// lost most of them. Everything that those users agreed on would be ended.
    pub fn load_checked(&self) -> Result<tombolo_config::Accounts, String> {
        let known = self.broker.get().map_or(0, |broker| broker.count_accounts());
        let path = self.path.display();
        if known > 0
            && let Some(fault) = file_fault(&self.path)
        {
            return Err(format!(
                "accounts: {path} is {fault}, and {known} users are known. Put it back; or, if all users are gone: \
                 tombolo reload --force"
            ));
        }
        let accounts = self.load()?;
        let left = accounts.len();
        if known >= LEAST_FOR_SHRINKING && left < known / 2 {
            return Err(format!(
                "accounts: {path} has {left} accounts, and {known} users are known: was it cut off? Put it back; or, if \
                 the others are gone: tombolo reload --force"
            ));
        }
        Ok(accounts)
    }

    /// What the file says; none when it does not exist.
    pub fn load(&self) -> Result<tombolo_config::Accounts, String> {
        if !self.path.exists() {
            return Ok(tombolo_config::Accounts::default());
        }
        tombolo_config::Accounts::load(&self.path).map_err(|errors| tombolo_config::report(&errors))
    }

    /// The form that the broker takes.
    pub fn for_broker(accounts: &tombolo_config::Accounts) -> Accounts {
        accounts.iter().map(account).collect()
    }

    /// Changes the file, and tells the broker. One change at a time: each begins with what the last one wrote.
    fn change(
        &self,
        aor: &Address,
        change: impl FnOnce(&mut tombolo_config::Accounts) -> Result<(), AccountError>,
    ) -> Result<(), String> {
        let _turn = self.turn.lock();
        if !self.homes.iter().any(|home| home == aor.domain()) {
            let homes = self.homes.join(", ");
            return Err(format!("{} has no built-in home here; accepted: a user of {homes}", aor.domain()));
        }
        let mut accounts = self.load_checked()?;
        change(&mut accounts).map_err(|error| match error {
            AccountError::Unknown { .. } => format!("{error}; see: tombolo user list"),
            error => error.to_string(),
        })?;
        accounts.save(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        if let Some(broker) = self.broker.get() {
            broker.set_accounts(Self::for_broker(&accounts));
        }
        Ok(())
    }

    /// Takes out what stands in the file under exactly this text, also where the file cannot be read because of it.
    fn take_out(&self, written: &str) -> Result<(), String> {
        let _turn = self.turn.lock();
        let is_known = self.broker.get().is_some_and(|broker| broker.count_accounts() > 0);
        if is_known && let Some(fault) = file_fault(&self.path) {
            return Err(format!("accounts: {} is {fault}. Put it back", self.path.display()));
        }
        let accounts = take_out(&self.path, written)?;
        if let Some(broker) = self.broker.get() {
            broker.set_accounts(Self::for_broker(&accounts));
        }
        Ok(())
    }
}

/// Why a file of accounts looks like an accident. One that was emptied on purpose has a comment: a file without an octet is
/// what a full disk or a wrong redirection leaves.
pub(crate) fn file_fault(file: &Path) -> Option<&'static str> {
    match file.metadata() {
        Ok(facts) if facts.is_file() && facts.len() == 0 => Some("empty (0 octets)"),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("missing"),
        // Whoever reads it says why it cannot be read.
        Err(_) => None,
    }
}

/// Fewer accounts than this may go at once without an order.
const LEAST_FOR_SHRINKING: usize = 10;

/// Takes out of an accounts file what stands there under exactly this text. An error when nothing does, or when something
/// else is wrong in the file; what was taken out stays so.
pub(crate) fn take_out(file: &Path, written: &str) -> Result<tombolo_config::Accounts, String> {
    let taken = take_out_account(file, written).map_err(|error| error.to_string())?;
    let left = taken.left.map_err(|errors| tombolo_config::report(&errors));
    match (taken.count, left) {
        (0, Ok(_)) => {
            Err(format!("{}: no account stands under {written:?}; see: tombolo user list", file.display()))
        }
        (0, Err(errors)) => Err(format!("{}: no account stands under {written:?}\n{errors}", file.display())),
        (_, Ok(accounts)) => Ok(accounts),
        (_, Err(errors)) => Err(format!("{written:?} is taken out; more is wrong in the file:\n{errors}")),
    }
}

impl UserBook for Book {
    fn list(&self) -> Result<Vec<(Address, Approve)>, String> {
        let accounts = self.load()?;
        Ok(accounts.iter().map(|account| (account.aor.clone(), account.approve)).collect())
    }

    fn add(&self, aor: &Address, password: &str, approve: Approve) -> Result<(), String> {
        let new = tombolo_config::Account::new(aor.clone(), hashes(aor, password)?, approve);
        self.change(aor, |accounts| accounts.add(new))
    }

    fn remove(&self, written: &str) -> Result<String, String> {
        match typed_address(written) {
            Ok(aor) if self.load().is_ok() => {
                self.change(&aor, |accounts| accounts.remove(&aor).map(drop))?;
                Ok(aor.to_string())
            }
            // What is no address, or the file as a whole cannot be read.
            _ => self.take_out(written).map(|()| written.to_owned()),
        }
    }

    fn set_password(&self, aor: &Address, password: &str) -> Result<(), String> {
        let hashes = hashes(aor, password)?;
        self.change(aor, |accounts| accounts.set_hashes(aor, hashes))
    }
}

/// The hashes of user, realm and password (RFC 8760). Some phones log in as `user`, some as `user@domain`, both without the
/// escapes of XEP-0106: a phone knows its user as SIP does.
fn hashes(aor: &Address, password: &str) -> Result<Hashes, String> {
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    let user = login_name(aor);
    let whole = format!("{user}@{}", aor.domain());
    let hash = |user: &str, algorithm| Some(ha1(algorithm, user, aor.domain(), password).hex().into());
    Ok(Hashes {
        sha256: hash(&user, Algorithm::Sha256),
        md5: hash(&user, Algorithm::Md5),
        sha256_address: hash(&whole, Algorithm::Sha256),
        md5_address: hash(&whole, Algorithm::Md5),
    })
}

fn account(account: &tombolo_config::Account) -> Account {
    let both = |sha256: &Option<Box<str>>, md5: &Option<Box<str>>| {
        let sha256 = sha256.as_deref().and_then(|hash| Ha1::from_hex(Algorithm::Sha256, hash));
        let md5 = md5.as_deref().and_then(|hash| Ha1::from_hex(Algorithm::Md5, hash));
        sha256.into_iter().chain(md5).collect()
    };
    Account {
        aor: account.aor.clone(),
        ha1: both(&account.ha1_sha256, &account.ha1_md5),
        ha1_of_address: both(&account.ha1_sha256_address, &account.ha1_md5_address),
        approve: account.approve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_the_hashes_of_the_name_that_its_phones_know() {
        for (aor, user) in
            [("o\\27neil@corp.test", "o'neil"), ("a\\5cb@corp.test", "a\\5cb"), ("bob@corp.test", "bob")]
        {
            let aor = Address::from_prepared(aor).expect("legal");
            let hashes = hashes(&aor, "secret").expect("a password");
            let hex = |user: &str| ha1(Algorithm::Md5, user, "corp.test", "secret").hex().to_owned();
            assert_eq!(hashes.md5.as_deref(), Some(&*hex(user)), "{user}");
            assert_eq!(hashes.md5_address.as_deref(), Some(&*hex(&format!("{user}@corp.test"))), "{user}");
        }
    }
}
