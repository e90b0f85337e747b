//! Questions to authoritative servers: was this key made there (XEP-0220 §2.1.1, step 2)?
//!
//! In: the question of an incoming stream. Out: the answer, by a short-lived stream to the claimed domain, or why there
//! is none. A domain that is no partner is not asked.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tombolo_presence::Domain;
use tombolo_xmpp::{
    dialback::DialbackCondition,
    stream::{KeyAnswer, KeyQuestion, Purpose},
};

use crate::{DomainPair, StreamEnd, xmpp_edge::XmppShared};

impl XmppShared {
    /// Asks the authoritative server of a domain about a key that was shown for it.
    pub(crate) async fn ask(self: &Arc<Self>, question: KeyQuestion) -> KeyAnswer {
        // So many questions at once are somebody's flood; the asker may try again.
        let Ok(_permit) = self.questions.try_acquire() else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
        };
        let local = Domain::from_prepared(question.pair.local.as_str());
        let remote = Domain::from_prepared(question.pair.remote.as_str());
        let (Some(local), Some(remote)) = (local, remote) else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound);
        };
        let pair = DomainPair { local, remote };
        match timeout(QUESTION_LIMIT, self.open(&pair, Purpose::Verify, Some(question))).await {
            Ok(Ok((_, Some(answer)))) => answer,
            Ok(Ok((_, None))) | Err(_) => KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout),
            Ok(Err(StreamEnd::NotFound)) => KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound),
            Ok(Err(_)) => KeyAnswer::Failed(DialbackCondition::RemoteConnectionFailed),
        }
    }
}

const QUESTION_LIMIT: Duration = Duration::from_secs(20);
