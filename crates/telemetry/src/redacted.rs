//! Addresses of people in logs: a short mark that tells two apart within one life of the process, and no more.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

static SHOWN: AtomicBool = AtomicBool::new(false);
static SALT: OnceLock<RandomState> = OnceLock::new();

/// Shows an address as `u-3fa9c1`, unless [`show_addresses`] was asked for.
pub struct Redacted<T>(pub T);

/// Whether addresses are shown as they are.
pub(crate) fn shows_addresses() -> bool {
    SHOWN.load(Ordering::Relaxed)
}

/// From now on addresses are shown as they are, or not.
pub fn show_addresses(is_shown: bool) {
    SHOWN.store(is_shown, Ordering::Relaxed);
}

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if SHOWN.load(Ordering::Relaxed) {
            return self.0.fmt(out);
        }
        let mark = SALT.get_or_init(RandomState::new).hash_one(self.0.to_string());
        write!(out, "u-{:06x}", mark & 0xff_ffff)
    }
}

impl<T: fmt::Display> fmt::Debug for Redacted<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, for the switch is one for the process.
    #[test]
    fn an_address_is_never_shown_unless_it_is_asked_for() {
        let shown = Redacted("romeo@sip.example").to_string();
        let digits = shown.strip_prefix("u-").expect("a mark");
        assert!(digits.len() == 6 && digits.bytes().all(|octet| octet.is_ascii_hexdigit()), "{shown}");
        assert_eq!(shown, Redacted("romeo@sip.example").to_string());
        assert_eq!(shown, format!("{:?}", Redacted("romeo@sip.example")));
        assert_ne!(shown, Redacted("juliet@sip.example").to_string());
        show_addresses(true);
        assert_eq!(Redacted("romeo@sip.example").to_string(), "romeo@sip.example");
        show_addresses(false);
        assert_eq!(shown, Redacted("romeo@sip.example").to_string());
    }
}
