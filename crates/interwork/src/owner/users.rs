//! Local users of a shard: those with rows, publications or watchers. A user without any costs nothing.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_fanout::ViewId;
use tombolo_presence::PresenceState;

use crate::owner::{addresses::AddressId, pairs::PairId, publish::Publications};

/// A local user.
#[derive(Debug)]
pub struct User {
    /// The user's pairs.
    pub pairs: Vec<PairId>,
    /// How many of them wait for the user's decision: counted, since each further request asks for it.
    pub waiting: u32,
    /// Dialogs in which somebody is notified, of all the user's pairs.
    pub dialogs: u32,
    /// What the states of the user's pairs are held against budgets for.
    pub state_octets: usize,
    /// Octets of the documents that the user's devices published.
    pub document_octets: usize,
    /// What the user's devices published; built-in home only.
    pub publications: Option<Box<Publications>>,
    /// What the publications make together.
    pub state: PresenceState,
    /// The view of [`User::state`].
    pub view: ViewId,
}

impl Default for User {
    fn default() -> Self {
        Self {
            pairs: Vec::new(),
            waiting: 0,
            dialogs: 0,
            state_octets: 0,
            document_octets: 0,
            publications: None,
            state: PresenceState::default(),
            view: ViewId::EMPTY,
        }
    }
}

/// All users of a shard.
pub type Users = HashMap<AddressId, User, RandomState>;
