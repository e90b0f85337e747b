//! Names of the ways out of a shard that mean the same in every shard and after a restart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tombolo_presence::{Address, Domain};

/// A SIP next hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerKey {
    /// The front end of one of our domains.
    FrontEnd(Domain),
    /// A phone that registered at the built-in home.
    Phone(Arc<PhoneKey>),
}

/// A phone: it keeps its identity over connections and restarts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PhoneKey {
    /// Whose phone it is.
    pub aor: Address,
    /// Its `+sip.instance`, else the Call-ID of its REGISTER.
    pub instance: Box<str>,
}

impl PhoneKey {
    /// The device by which watchers know the phone while it publishes none itself. The instance may hold a hardware
    /// address or a Call-ID, so it is not shown.
    pub fn device_id(&self) -> Box<str> {
        // FNV-1a: the same in every process; no secret rests on it.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for octet in self.instance.bytes() {
            hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("phone-{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff)).into()
    }
}

/// A lane: a way by which updates leave.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LaneKey {
    /// Lane `number` of the session between one of our domains and one of a partner.
    Session {
        /// Ours.
        local: Domain,
        /// The partner's.
        remote: Domain,
        /// Which of the session's lanes.
        number: u8,
    },
    /// The lane of a SIP peer.
    Peer(PeerKey),
}

impl LaneKey {
    /// The session between the domains of a user and a contact. A message needs no more than this: a lane that is kept for
    /// each domain that a partner writes from would have no bound.
    pub(super) fn of_session(user: &Address, contact: &Address) -> Option<Self> {
        Some(Self::Session {
            local: Domain::from_prepared(user.domain())?,
            remote: Domain::from_prepared(contact.domain())?,
            number: 0,
        })
    }

    /// The partner's domain of a session.
    pub(super) fn remote(&self) -> Option<&Domain> {
        match self {
            Self::Session { remote, .. } => Some(remote),
            Self::Peer(_) => None,
        }
    }
}
