//! Questions to authoritative servers: was this key made there (XEP-0220 §2.1.1, step 2)?
//!
//! In: the question of an incoming stream. Out: the answer, by a short-lived stream to the claimed domain, or why there
//! is none. A domain that is no partner is not asked, and what one partner's entry lets strangers ask leaves room for the
//! questions of all others.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::timeout;
use tombolo_presence::Domain;
use tombolo_xmpp::{
    dialback::DialbackCondition,
    stream::{KeyAnswer, KeyQuestion, Purpose},
};

use crate::{DomainPair, StreamEnd, xmpp_edge::XmppShared};

/// Questions in flight, by the partner entry that allows them; one with a wildcard allows them for any domain below it.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    by_entry: Mutex<HashMap<Domain, usize>>,
}

/// A question's place; given back when it is dropped.
struct Asking<'a> {
    entry: Domain,
    questions: &'a Questions,
}

impl Questions {
    /// A place for one more question of an entry. It may have no more than are left free: alone it gets half of all, and
    /// whoever comes later finds room.
    fn admit(&self, entry: &Domain) -> Option<Asking<'_>> {
        let mut by_entry = self.by_entry.lock();
        let free = MOST_QUESTIONS.saturating_sub(by_entry.values().sum());
        let own = by_entry.get(entry).copied().unwrap_or(0);
        if own >= free {
            return None;
        }
        by_entry.insert(entry.clone(), own + 1);
        Some(Asking { entry: entry.clone(), questions: self })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut by_entry = self.questions.by_entry.lock();
        if let Some(count) = by_entry.get_mut(&self.entry) {
            *count -= 1;
            if *count == 0 {
                by_entry.remove(&self.entry);
            }
        }
    }
}

impl XmppShared {
    /// Asks the authoritative server of a domain about a key that was shown for it.
    pub(crate) async fn ask(self: &Arc<Self>, question: KeyQuestion) -> KeyAnswer {
        let local = Domain::from_prepared(question.pair.local.as_str());
        let remote = Domain::from_prepared(question.pair.remote.as_str());
        let (Some(local), Some(remote)) = (local, remote) else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound);
        };
        let entry = self.policy.load().partner(remote.as_str()).map(|partner| partner.domain.clone());
        let Some(entry) = entry else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound);
        };
        // So many questions at once are somebody's flood; the asker may try again.
        let Some(_asking) = self.questions.admit(&entry) else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
        };
        let pair = DomainPair { local, remote };
        match timeout(QUESTION_LIMIT, self.open(&pair, Purpose::Verify, Some(question))).await {
            Ok(Ok((_, Some(answer)))) => answer,
            Ok(Ok((_, None))) | Err(_) => KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout),
            Ok(Err(StreamEnd::NotFound(_))) => KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound),
            Ok(Err(_)) => KeyAnswer::Failed(DialbackCondition::RemoteConnectionFailed),
        }
    }
}

const QUESTION_LIMIT: Duration = Duration::from_secs(20);
/// Dialback questions in flight.
const MOST_QUESTIONS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_many_ask_about_leaves_room_for_all_others() {
        let questions = Questions::default();
        let entry = |name: &str| Domain::from_prepared(name).expect("prepared");
        let fill = |name: &str| {
            let places: Vec<_> = std::iter::from_fn(|| questions.admit(&entry(name))).collect();
            places
        };
        let flood = fill("flood.example");
        assert_eq!(flood.len(), MOST_QUESTIONS / 2);
        let second = fill("second.example");
        assert_eq!(second.len(), MOST_QUESTIONS / 4);
        let others: Vec<_> = (0..5).map(|n| questions.admit(&entry(&format!("{n}.example")))).collect();
        assert!(others.iter().all(Option::is_some), "each of the others is still asked");
        drop((flood, second, others));
        assert!(questions.by_entry.lock().is_empty());
        assert_eq!(fill("flood.example").len(), MOST_QUESTIONS / 2);
    }
}
