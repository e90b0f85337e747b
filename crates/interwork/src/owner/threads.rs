//! Threads of XMPP by the Call-IDs that we made of them (STOX-M-04): the last CSeq of each, and its name where the Call-ID
//! does not hold it.
//!
//! Threads go in, Call-IDs and CSeqs come out, and threads again for Call-IDs of replies. Bounded in number and in octets;
//! what is forgotten begins anew.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_presence::Address;

use crate::message_to_sip::{MAX_THREAD_LEN, call_id_of_thread, thread_of_call_id};

/// The threads of a shard. See the [module](self).
#[derive(Debug, Default)]
pub struct Threads {
    by_call_id: HashMap<String, Thread, RandomState>,
    /// Octets of the names that are kept.
    name_octets: usize,
}

#[derive(Debug, Default)]
struct Thread {
    cseq: u32,
    /// Kept only where it is too long for its Call-ID.
    name: Option<Box<str>>,
}

impl Threads {
    /// The Call-ID of a thread between two users, and the next CSeq in it (STOX-M-03).
    pub fn next(&mut self, name: &str, contact: &Address, user: &Address) -> (String, u32) {
        let call_id = call_id_of_thread(name, contact, user);
        if self.by_call_id.len() >= MAX_THREADS && !self.by_call_id.contains_key(&call_id) {
            // Forgetting all at once is rare; a CSeq that begins again comes with a new From tag (D-22).
            *self = Self::default();
        }
        let is_kept = (MAX_THREAD_LEN + 1..=MAX_NAME_LEN).contains(&name.len());
        if is_kept && self.name_octets + name.len() > MAX_NAME_OCTETS {
            self.by_call_id.values_mut().for_each(|thread| thread.name = None);
            self.name_octets = 0;
        }
        let thread = self.by_call_id.entry(call_id.clone()).or_default();
        if is_kept && thread.name.is_none() {
            thread.name = Some(name.into());
            self.name_octets += name.len();
        }
        thread.cseq = thread.cseq.wrapping_add(1) & 0x7fff_ffff;
        (call_id, thread.cseq.max(1))
    }

    /// The thread for which we made this Call-ID between these two; `None` for any other Call-ID, and for a long thread that
    /// was forgotten.
    pub fn find(&self, call_id: &str, contact: &Address, user: &Address) -> Option<String> {
        if let Some(name) = thread_of_call_id(call_id, contact, user) {
            return Some(name);
        }
        // Each phone of a user sees a Call-ID with a number of its own behind it.
        let without_number = call_id.rsplit_once('.').map(|(call_id, _)| call_id);
        let mut forms = [Some(call_id), without_number].into_iter().flatten();
        let (known, name) =
            forms.find_map(|form| Some((form, self.by_call_id.get(form)?.name.as_deref()?)))?;
        (call_id_of_thread(name, contact, user) == known).then(|| name.to_owned())
    }
}

/// Threads whose CSeq is remembered.
const MAX_THREADS: usize = 10_000;
/// Octets of a thread that is remembered because it is too long for a Call-ID.
const MAX_NAME_LEN: usize = 1024;
/// Octets of all of these.
const MAX_NAME_OCTETS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::from_prepared(text).expect("legal")
    }

    #[test]
    fn stox_m_04_a_long_thread_is_found_again_by_its_own_two_users_only() {
        let (juliet, romeo) = (address("juliet@xmpp.example"), address("romeo@sip.example"));
        let mut threads = Threads::default();
        for len in [81, 200, 1024] {
            let name = "ž".repeat(len / 2) + &"x".repeat(len % 2);
            let (call_id, cseq) = threads.next(&name, &juliet, &romeo);
            assert_eq!(cseq, 1);
            assert_eq!(threads.next(&name, &juliet, &romeo), (call_id.clone(), 2));
            for form in [call_id.clone(), format!("{call_id}.0"), format!("{call_id}.17")] {
                assert_eq!(threads.find(&form, &juliet, &romeo).as_deref(), Some(&*name), "{form}");
                assert_eq!(threads.find(&form, &address("nurse@xmpp.example"), &romeo), None, "{form}");
            }
            assert_eq!(threads.find(&format!("{call_id}.0.1"), &juliet, &romeo), None);
        }
        let (call_id, _) = threads.next(&"x".repeat(1025), &juliet, &romeo);
        assert_eq!(threads.find(&call_id, &juliet, &romeo), None, "too long to be kept");
    }

    #[test]
    fn long_threads_take_so_many_octets_and_no_more() {
        let (juliet, romeo) = (address("juliet@xmpp.example"), address("romeo@sip.example"));
        let mut threads = Threads::default();
        for number in 0..9_000 {
            threads.next(&format!("{number:01000}"), &juliet, &romeo);
            let kept: usize = threads.name_octets;
            assert!(kept <= MAX_NAME_OCTETS, "{kept}");
        }
        let kept = threads.by_call_id.values().filter_map(|thread| thread.name.as_deref()).map(str::len);
        assert_eq!(kept.sum::<usize>(), threads.name_octets);
        let (call_id, cseq) = threads.next(&format!("{:01000}", 1), &juliet, &romeo);
        assert_eq!(cseq, 2, "its CSeq goes on all the same");
        assert!(threads.find(&call_id, &juliet, &romeo).is_some(), "and it is remembered anew");
    }
}
