//! Budgets in octets, for values whose number the other side chooses.
//!
//! An [`Account`] is one bound and what is held against it. A [`Charge`] holds octets of several accounts at once, such as
//! those of a user, a partner and a shard, and gives them back when it is dropped. [`Charge::seal`] ties a charge to the
//! octets that it pays for, so that the last holder ends it, wherever the value went meanwhile. [`Accounts`] keeps one
//! account for each key.
//!
//! Rows that are never handed on don't need a guard: [`Octets`] measures a value, and its owner adds and subtracts.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

/// A value that knows how much memory it takes.
pub trait Octets {
    /// Octets of the value itself and of everything that it owns.
    fn octets(&self) -> usize;
}

impl Octets for u64 {
    fn octets(&self) -> usize {
        size_of::<Self>()
    }
}

impl Octets for String {
    fn octets(&self) -> usize {
        size_of::<Self>() + self.len()
    }
}

/// One bound, and what is held against it.
#[derive(Debug)]
pub struct Account {
    name: &'static str,
    limit: usize,
    held: AtomicUsize,
}

/// A value finds no room in a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked} octets find no room in the budget {account} of {limit} octets, {held} of which are held")]
pub struct Full {
    /// The name of the account that has no room.
    pub account: &'static str,
    /// Octets that were asked for.
    pub asked: usize,
    /// Octets that were held at that moment.
    pub held: usize,
    /// The account's limit in octets.
    pub limit: usize,
}

impl Account {
    /// An account that holds at most `limit` octets. `name` is for people.
    pub fn new(name: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { name, limit, held: AtomicUsize::new(0) })
    }

    /// Octets that are held. Another thread may have changed it meanwhile.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The most octets that may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn add(&self, octets: usize) -> Result<(), Full> {
        let sum = |held: usize| held.checked_add(octets).filter(|sum| *sum <= self.limit);
        let full = |held| Full { account: self.name, asked: octets, held, limit: self.limit };
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).map(|_| ()).map_err(full)
    }

    fn give_back(&self, octets: usize) {
        self.held.fetch_sub(octets, Ordering::Relaxed);
    }
}

/// Octets held against accounts until this is dropped.
#[derive(Debug)]
pub struct Charge {
    accounts: [Option<Arc<Account>>; MOST_ACCOUNTS],
    octets: usize,
}

/// Accounts that one charge may be held against.
const MOST_ACCOUNTS: usize = 4;

impl Charge {
    /// Holds `octets` against each of `accounts`, or against none.
    ///
    /// # Errors
    /// Names the first account without room.
    ///
    /// # Panics
    /// If there are more than four accounts.
    pub fn take(accounts: &[&Arc<Account>], octets: usize) -> Result<Self, Full> {
        assert!(accounts.len() <= MOST_ACCOUNTS, "a charge has at most {MOST_ACCOUNTS} accounts");
        let mut charge = Self { accounts: [const { None }; MOST_ACCOUNTS], octets };
        for (place, account) in charge.accounts.iter_mut().zip(accounts) {
            // Those before it are given back with the charge.
            account.add(octets)?;
            *place = Some(Arc::clone(account));
        }
        Ok(charge)
    }

    /// Octets that are held.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// The octets of `value`, which hold this charge until the last clone of them is dropped.
    pub fn seal(self, value: Vec<u8>) -> Bytes {
        Bytes::from_owner(Sealed { value, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for account in self.accounts.iter().flatten() {
            account.give_back(self.octets);
        }
    }
}

struct Sealed {
    value: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

/// One account for each key, all with the same limit. Keys of which nothing is held are forgotten.
#[derive(Debug)]
pub struct Accounts<K> {
    name: &'static str,
    limit: usize,
    by_key: HashMap<K, Arc<Account>>,
    /// At so many keys the idle ones are looked for.
    sweep_at: usize,
}

impl<K: Hash + Eq> Accounts<K> {
    /// None yet; each will hold at most `limit` octets.
    pub fn new(name: &'static str, limit: usize) -> Self {
        Self { name, limit, by_key: HashMap::new(), sweep_at: LEAST_SWEEP }
    }

    /// The account of `key`.
    pub fn of<Q>(&mut self, key: &Q) -> &Arc<Account>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= self.sweep_at {
                // A charge holds its account, so that one which nobody else holds is empty.
                self.by_key.retain(|_, account| Arc::strong_count(account) > 1);
                self.sweep_at = (self.by_key.len() * 2).max(LEAST_SWEEP);
            }
            self.by_key.insert(key.to_owned(), Account::new(self.name, self.limit));
        }
        &self.by_key[key]
    }

    /// Keys that are remembered.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True when no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

const LEAST_SWEEP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_holds_all_of_its_accounts_or_none_and_gives_back_what_it_held() {
        let (user, shard) = (Account::new("user", 100), Account::new("shard", 150));
        let first = Charge::take(&[&shard, &user], 80).expect("room");
        assert_eq!((user.held(), shard.held()), (80, 80));
        let full = Charge::take(&[&shard, &user], 30).expect_err("the user has 20 left");
        assert_eq!(full, Full { account: "user", asked: 30, held: 80, limit: 100 });
        assert_eq!((user.held(), shard.held()), (80, 80), "what the shard had room for is given back");
        let other = Account::new("user", 100);
        let second = Charge::take(&[&shard, &other], 70).expect("just fits");
        assert_eq!(Charge::take(&[&shard, &other], 1).expect_err("full").account, "shard");
        drop(first);
        drop(second);
        assert_eq!((user.held(), other.held(), shard.held()), (0, 0, 0));
    }

    #[test]
    fn sealed_octets_are_paid_for_until_their_last_clone_is_gone() {
        let account = Account::new("messages", 100);
        let charge = Charge::take(&[&account], 60).expect("room");
        assert_eq!(charge.octets(), 60);
        let body = charge.seal(b"Good morrow".to_vec());
        let (copy, part) = (body.clone(), body.slice(..4));
        assert_eq!((&body[..], &part[..]), (&b"Good morrow"[..], &b"Good"[..]));
        drop(body);
        drop(copy);
        assert_eq!(account.held(), 60);
        drop(part);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn any_number_of_keys_is_remembered_only_while_something_of_them_is_held() {
        let mut users: Accounts<String> = Accounts::new("user", 10);
        let kept = Charge::take(&[users.of("kept")], 10).expect("room");
        for n in 0..10_000 {
            Charge::take(&[users.of(n.to_string().as_str())], 10).expect("room");
        }
        assert!(users.len() <= 2 * LEAST_SWEEP, "{} keys", users.len());
        assert!(
            Charge::take(&[users.of("kept")], 1).is_err(),
            "the one that holds something is not forgotten"
        );
        drop(kept);
        assert!(Charge::take(&[users.of("kept")], 1).is_ok());
    }

    #[test]
    fn no_sum_of_octets_wraps_round() {
        let account = Account::new("all", usize::MAX);
        let _most = Charge::take(&[&account], usize::MAX).expect("room");
        assert!(Charge::take(&[&account], usize::MAX).is_err());
    }
}
