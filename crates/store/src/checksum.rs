//! The checksum that every stored value ends with: it covers the key too, so that a row under a wrong key is found out.

/// Octets that a checksum takes.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// The stored form of a value: itself, and its checksum (CRC-32) behind.
pub(crate) fn seal(engine_key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(engine_key, &value);
    value.extend_from_slice(&sum.to_le_bytes());
    value
}

/// The value in a stored form; `None` when it, its key or its checksum was altered.
pub(crate) fn unseal<'a>(engine_key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = stored.split_last_chunk::<CHECKSUM_BYTES>()?;
    (checksum(engine_key, value) == u32::from_le_bytes(*sum)).then_some(value)
}

fn checksum(engine_key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // With its length, or an octet could move from the key to the value.
    hasher.update(&(engine_key.len() as u32).to_le_bytes());
    hasher.update(engine_key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_key_value_and_checksum_is_found() {
        let (key, value) = (b"\x00\x07\x01alice\0bob".to_vec(), b"a grant".to_vec());
        let stored = seal(&key, value.clone());
        assert_eq!(unseal(&key, &stored), Some(&value[..]));
        for bit in 0..stored.len() * 8 {
            let mut altered = stored.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&key, &altered), None, "bit {bit} of the value");
        }
        for bit in 0..key.len() * 8 {
            let mut altered = key.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&altered, &stored), None, "bit {bit} of the key");
        }
        for len in 0..stored.len() {
            assert_eq!(unseal(&key, &stored[..len]), None, "{len} octets");
        }
        assert_eq!(unseal(&key[..key.len() - 1], &[&key[key.len() - 1..], &stored].concat()), None);
    }
}
