//! Phones that registered in an earlier life of the process: their stored rows, read once at the start.
//!
//! Rows go in, bindings by user come out, and which phones can be reached by UDP without their help. What a binding is
//! good for is its user's business.

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use tombolo_interwork::{
    owner::{PeerKey, PhoneKey},
    rows::{BindingRow, binding_key, decode, encode, table},
};
use tombolo_presence::{Address, LifetimeClock, Now, PARTITIONS};
use tombolo_store::{Row, StateStore, StoreError};

use crate::{
    accounts::Accounts,
    local_user::{Binding, MOST_EXPIRES, Origin},
};

/// What is still bound.
#[derive(Debug, Default)]
pub struct Restored {
    /// By user.
    pub bindings: HashMap<Address, Vec<Binding>>,
    /// Rows that hold no more: what expired, and what belongs to nobody.
    pub over: Vec<Row>,
    /// The phones of these rows: what they published is over too.
    pub gone: Vec<Arc<PhoneKey>>,
    /// Rows that could not be read; they are left as they are.
    pub unread: usize,
}

impl Restored {
    /// Reads what is stored.
    pub fn load(
        store: &dyn StateStore,
        accounts: &Accounts,
        lifetimes: &LifetimeClock,
        now: Now,
    ) -> Result<Self, StoreError> {
        let mut restored = Self::default();
        restored.load_partitions(store, 0..=PARTITIONS - 1, accounts, lifetimes, now)?;
        Ok(restored)
    }

    fn load_partitions(
        &mut self,
        store: &dyn StateStore,
        partitions: RangeInclusive<u16>,
        accounts: &Accounts,
        lifetimes: &LifetimeClock,
        now: Now,
    ) -> Result<(), StoreError> {
        store.load(partitions, table::BINDING, &mut |partition, key, value| {
            let Some(row) = decode::<BindingRow>(value) else {
                self.unread += 1;
                return;
            };
            let left = row.expires_at.saturating_sub(lifetimes.at(now.instant));
            if left == 0 || accounts.account(&row.phone.aor).is_none() {
                self.over.push(Row::delete(partition, table::BINDING, key));
                self.gone.push(Arc::new(row.phone));
                return;
            }
            self.take(row, now.instant + Duration::from_secs(left.min(MOST_EXPIRES.into())));
        })?;
        let Self { bindings, gone, .. } = self;
        // A phone may have had a second Contact that still holds.
        gone.retain(|phone| {
            let mut bound = bindings.get(&phone.aor).into_iter().flatten();
            !bound.any(|binding| matches!(&binding.peer, PeerKey::Phone(known) if known == phone))
        });
        Ok(())
    }

    fn take(&mut self, row: BindingRow, expires_at: Instant) {
        let BindingRow { phone, contact, call_id, cseq, is_datagram, remote, .. } = row;
        let (aor, origin) = (phone.aor.clone(), Origin { is_datagram, remote });
        let peer = PeerKey::Phone(Arc::new(phone));
        let binding = Binding { contact, peer, call_id, cseq, expires_at, origin };
        self.bindings.entry(aor).or_default().push(binding);
    }

    /// Phones by UDP, each once, and where each is.
    pub fn datagram_phones(&self) -> HashMap<PeerKey, SocketAddr> {
        let bindings = self.bindings.values().flatten().filter(|binding| binding.origin.is_datagram);
        bindings.map(|binding| (binding.peer.clone(), binding.origin.remote)).collect()
    }
}

/// The stored bindings of one user that still hold.
pub fn of_user(
    store: &dyn StateStore,
    accounts: &Accounts,
    lifetimes: &LifetimeClock,
    aor: &Address,
    now: Now,
) -> Result<Vec<Binding>, StoreError> {
    let mut restored = Restored::default();
    restored.load_partitions(store, aor.partition()..=aor.partition(), accounts, lifetimes, now)?;
    Ok(restored.bindings.remove(aor).unwrap_or_default())
}

/// The row of a binding; `None` when its peer is no phone.
pub fn row(aor: &Address, binding: &Binding, lifetimes: &LifetimeClock, now: Now) -> Option<Row> {
    let PeerKey::Phone(phone) = &binding.peer else { return None };
    let left = binding.expires_at.saturating_duration_since(now.instant);
    let value = BindingRow {
        phone: (**phone).clone(),
        contact: binding.contact.clone(),
        call_id: binding.call_id.clone(),
        cseq: binding.cseq,
        expires_at: lifetimes.at(now.instant) + left.as_secs(),
        is_datagram: binding.origin.is_datagram,
        remote: binding.origin.remote,
    };
    let key = binding_key(aor, &binding.contact);
    Some(Row::put(aor.partition(), table::BINDING, key, encode(&value)))
}

/// The row that takes a binding out.
pub fn deleted_row(aor: &Address, contact: &str) -> Row {
    Row::delete(aor.partition(), table::BINDING, binding_key(aor, contact))
}

#[cfg(test)]
mod tests {
    use tombolo_policy::Approve;
    use tombolo_store::MemoryStore;

    use super::*;
    use crate::accounts::Account;

    fn now() -> Now {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let instant = Instant::now();
        Now { instant, wall: Duration::from_secs(1_800_000_000) }
    }

    fn aor(text: &str) -> Address {
        Address::from_prepared(text).expect("legal")
    }

    fn binding(aor: &Address, contact: &str, is_datagram: bool, expires_at: Instant) -> Binding {
        let phone = PhoneKey { aor: aor.clone(), instance: contact.into() };
        Binding {
            contact: contact.into(),
            peer: PeerKey::Phone(Arc::new(phone)),
            call_id: "c".into(),
            cseq: 7,
            expires_at,
            origin: Origin { is_datagram, remote: ([192, 0, 2, 1], 5060).into() },
        }
    }

    #[test]
    fn what_is_still_bound_comes_back_and_the_rest_is_taken_out() {
        let now = now();
        let lifetimes = LifetimeClock::new(now);
        let (alice, gone) = (aor("alice@sip.example"), aor("gone@sip.example"));
        let accounts: Accounts = [Account {
            aor: alice.clone(),
            ha1: Vec::new(),
            ha1_of_address: Vec::new(),
            approve: Approve::Ask,
        }]
        .into_iter()
        .collect();
        let later = |seconds| now.instant + Duration::from_secs(seconds);
        let bindings = [
            binding(&alice, "sip:udp", true, later(600)),
            binding(&alice, "sip:tcp", false, later(600)),
            binding(&alice, "sip:brief", true, later(60)),
            binding(&gone, "sip:nobody", true, later(600)),
        ];
        let store = MemoryStore::new();
        let rows = [&alice, &alice, &alice, &gone].into_iter().zip(&bindings);
        let mut rows: Vec<Row> =
            rows.filter_map(|(aor, binding)| row(aor, binding, &lifetimes, now)).collect();
        rows.push(Row::put(alice.partition(), table::BINDING, *b"damaged", vec![99]));
        store.commit(rows, 1, Box::new(|_, result| assert!(result.is_ok())));

        let start = now.after(Duration::from_secs(100));
        let restored = Restored::load(&store, &accounts, &lifetimes, start).expect("it loads");
        assert_eq!(restored.bindings.len(), 1);
        let mut known = restored.bindings[&alice].clone();
        known.sort_by(|one, other| other.contact.cmp(&one.contact));
        assert_eq!(known, bindings[..2], "with what is left of their time");
        assert_eq!(
            restored.datagram_phones(),
            HashMap::from([(bindings[0].peer.clone(), bindings[0].origin.remote)])
        );
        assert_eq!((restored.over.len(), restored.unread), (2, 1));
        let mut over: Vec<&str> = restored.gone.iter().map(|phone| &*phone.instance).collect();
        over.sort_unstable();
        assert_eq!(over, ["sip:brief", "sip:nobody"], "what they published is over too");

        store.commit(restored.over, 2, Box::new(|_, result| assert!(result.is_ok())));
        store.commit(vec![deleted_row(&alice, "sip:udp")], 3, Box::new(|_, result| assert!(result.is_ok())));
        let left = Restored::load(&store, &accounts, &lifetimes, start).expect("it loads");
        assert_eq!((left.bindings[&alice].len(), left.over.len()), (1, 0));
    }
}
