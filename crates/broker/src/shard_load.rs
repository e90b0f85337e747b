//! Loads the machine of a shard from the store: at the start of the process, and again after a panic.

use tombolo_interwork::{
    owner::{Input, Numbers, Owner, OwnerSettings},
    rows::{Row, table},
};
use tombolo_presence::PARTITIONS;
use tombolo_store::{StateStore, StoreError};

use crate::{directory::Directory, session::ShardIndex};

/// The machine of a shard that takes the place of one that panicked, loaded with what is stored now. `numbers` tells where
/// that one stopped counting. Reads from disk: not for an arbiter's thread.
pub fn load_owner(
    directory: &Directory,
    index: ShardIndex,
    settings: OwnerSettings,
    numbers: Option<Numbers>,
) -> Result<Owner, StoreError> {
    let mut rows = Vec::new();
    for table in table::ALL {
        directory.store.load(0..=PARTITIONS - 1, table, &mut |partition, key, value| {
            if directory.shard_of(partition) == index {
                rows.push(Row { partition, table, key: key.to_vec(), value: Some(value.to_vec()) });
            }
        })?;
    }
    let now = directory.clock.now();
    let mut owner = Owner::new(settings, directory.policy.load_full(), now);
    owner.handle(Input::Accounts(directory.authenticator.accounts().approvals().into()), now);
    if let Some(numbers) = numbers {
        owner.continue_from(numbers);
    }
    load_rows(&mut owner, &*directory.store, index, rows, directory.clock.now());
    Ok(owner)
}

/// Gives a machine its rows; the store learns where some cannot be read.
pub fn load_rows(
    owner: &mut Owner,
    store: &dyn StateStore,
    index: ShardIndex,
    rows: Vec<Row>,
    now: tombolo_presence::Now,
) {
    let unread = owner.load(rows, now);
    if unread > 0 {
        store.note_missing();
        tracing::error!(shard = index, rows = unread, "stored rows cannot be read and are left alone");
    }
}
