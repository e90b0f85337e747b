//! Stream ids (RFC 6120 §4.7.3): made from a seed that comes from outside, so that nothing here is random.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A source of stream ids that nobody can guess (RFC 6120 §4.7.3): a seed of 32 random octets, one for each
/// connection, makes 128 bits for each header.
#[derive(Clone)]
pub struct StreamIds {
    seed: [u8; 32],
    count: u64,
}

impl StreamIds {
    /// Ids from this seed, which must be random and used for one connection only.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// The next id: 32 hex digits.
    pub fn next_id(&mut self) -> Box<str> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.seed).expect("HMAC takes keys of any length");
        mac.update(&self.count.to_be_bytes());
        self.count += 1;
        let tag = mac.finalize().into_bytes();
        tag[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }
}

impl fmt::Debug for StreamIds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "StreamIds({})", self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn xs_str_02_a_million_ids_are_unique() {
        let mut ids = HashSet::new();
        for seed in 0..1000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_be_bytes());
            let mut source = StreamIds::new(bytes);
            ids.extend((0..1000).map(|_| source.next_id()));
        }
        assert_eq!(ids.len(), 1_000_000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
