//! Who is who at the built-in homes: accounts, and the proof of a request's user by digest.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tombolo_interwork::address::address_of_uri;
use tombolo_policy::Approve;
use tombolo_presence::{Address, Now};
use tombolo_sip::{
    digest::{Algorithm, Credentials, Ha1, Request, Server, ServerSettings, Verdict},
    message::Message,
};

/// One user of a built-in home.
#[derive(Debug, Clone)]
pub struct Account {
    /// The address.
    pub aor: Address,
    /// `H(user:realm:password)`, one per algorithm; the realm is the domain.
    pub ha1: Vec<Ha1>,
    /// How watchers are approved.
    pub approve: Approve,
}

/// All accounts; replaced as a whole.
#[derive(Debug, Default)]
pub struct Accounts {
    by_aor: HashMap<Address, Account>,
}

impl FromIterator<Account> for Accounts {
    fn from_iter<I: IntoIterator<Item = Account>>(accounts: I) -> Self {
        Self { by_aor: accounts.into_iter().map(|account| (account.aor.clone(), account)).collect() }
    }
}

impl Accounts {
    /// The account of an address.
    pub fn account(&self, aor: &Address) -> Option<&Account> {
        self.by_aor.get(aor)
    }

    /// What shards need of them.
    pub fn approvals(&self) -> tombolo_interwork::owner::Accounts {
        let approve = self.by_aor.values().map(|account| (account.aor.clone(), account.approve)).collect();
        tombolo_interwork::owner::Accounts { approve }
    }
}

/// What a request's credentials are worth.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// They prove this user.
    User(Address),
    /// None, wrong ones, or old ones: the values of WWW-Authenticate.
    Challenge(Vec<String>),
    /// The user whom From names is not at a built-in home.
    NoHome,
}

/// Proves users by digest. One for the process, so that a nonce counts everywhere.
pub struct Authenticator {
    accounts: ArcSwap<Accounts>,
    /// One a realm; realms are our own domains.
    servers: Mutex<HashMap<String, Server>>,
    secret: [u8; 32],
    nonce: AtomicU64,
}

impl Authenticator {
    /// Without accounts. `secret` signs nonces, `seed` begins their numbers.
    pub fn new(secret: [u8; 32], seed: u64) -> Self {
        Self { accounts: ArcSwap::default(), servers: Mutex::default(), secret, nonce: AtomicU64::new(seed) }
    }

    /// The accounts in force.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.accounts.load_full()
    }

    /// Replaces the accounts.
    pub fn set_accounts(&self, accounts: Accounts) {
        self.accounts.store(Arc::new(accounts));
    }

    /// Proves that a request comes from the user whom its From names (RFC 3261 §22).
    pub fn prove(&self, message: &Message, now: Now) -> Proof {
        let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok());
        let Some(aor) = from.map(|from| from.address) else { return Proof::NoHome };
        let accounts = self.accounts.load();
        let realm = aor.domain().to_owned();
        let mut servers = self.servers.lock();
        let server = servers
            .entry(realm.clone())
            .or_insert_with(|| Server::new(ServerSettings::new(&realm), self.secret));
        let mut is_stale = false;
        for value in message.authorization() {
            let Ok(credentials) = Credentials::parse(value) else { continue };
            let (method, uri) = (message.method_text(), message.request_uri_text());
            let covered = Request { method, uri, body: message.body() };
            // The user name is the local part of From, or the whole address.
            let is_own = *credentials.username == *aor.local() || *credentials.username == *aor.as_str();
            let account = accounts.account(&aor).filter(|_| is_own);
            let ha1 = account.and_then(|account| find(&account.ha1, credentials.algorithm));
            match server.verify(&credentials, &covered, ha1, now.wall) {
                Verdict::Accepted | Verdict::AcceptedForOtherUri => return Proof::User(aor),
                Verdict::Stale => is_stale = true,
                Verdict::OtherRealm | Verdict::Refused => {}
            }
        }
        let random = self.nonce.fetch_add(1, Ordering::Relaxed);
        Proof::Challenge(server.challenges(is_stale, now.wall, random))
    }
}

fn find(hashes: &[Ha1], algorithm: Algorithm) -> Option<&Ha1> {
    hashes.iter().find(|ha1| ha1.algorithm() == algorithm)
}
