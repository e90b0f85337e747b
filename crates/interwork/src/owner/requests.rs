//! Requests from SIP peers, by method, and what became of ours.

use tombolo_presence::Now;
use tombolo_sip::{message::Message, method::Method};

use super::{
    Asked, Owner,
    input::{RequestId, SipRequest},
};
use crate::{
    error::{Failure, NoResponse},
    sip_reply::Reply,
    sip_request::{Publish, Subscribe, new_address, retry_after},
    token::TokenKind,
};

impl Owner {
    pub(super) fn handle_request(&mut self, request: SipRequest, now: Now) {
        if self.is_without_account(&request.identity) {
            // It was on its way when the account went.
            return self.answer(&request, Reply::status(403), "the user has no account any more");
        }
        match request.message.method() {
            Some(Method::Subscribe) => match Subscribe::read(&request.message) {
                Ok(subscribe) if subscribe.to_tag.is_some() => {
                    self.handle_in_dialog(&request, &subscribe, now)
                }
                Ok(subscribe) => self.handle_subscribe_request(request, subscribe, now),
                Err(fault) => self.answer_fault(&request, &fault),
            },
            Some(Method::Notify) => self.handle_notify(&request, now),
            Some(Method::Message) => self.handle_message_request(request, now),
            Some(Method::Publish) if request.message.to().is_ok_and(|to| to.tag().is_some()) => {
                // SIP-PUB-06: a PUBLISH is in no dialog.
                self.answer(&request, Reply::status(481), "a PUBLISH belongs to no dialog");
            }
            Some(Method::Publish) => match Publish::read(&request.message) {
                Ok(publish) => self.handle_publish(&request, &publish, now),
                Err(fault) => self.answer_fault(&request, &fault),
            },
            _ => self.answer(&request, Reply::status(405), "no shard serves this method"),
        }
    }

    pub(super) fn answer_fault(&mut self, request: &SipRequest, fault: &crate::sip_request::RequestFault) {
        let headers = fault.rows();
        self.answer(request, Reply { headers: &headers, ..Reply::status(fault.status) }, fault.reason);
    }

    /// A SUBSCRIBE with a To tag: the token finds the row, and everything else must match too.
    fn handle_in_dialog(&mut self, request: &SipRequest, subscribe: &Subscribe, now: Now) {
        let token = subscribe.to_tag.as_deref().and_then(|tag| super::key(&self.settings).verify(tag));
        let found = token
            .filter(|token| token.kind == TokenKind::Notifier)
            .and_then(|token| self.dialogs.find(token.row))
            .filter(|at| {
                self.dialogs.dialog(*at).is_some_and(|dialog| {
                    let texts = dialog.texts();
                    let lane = super::LaneKey::Peer(request.peer.clone());
                    !dialog.is_ending()
                        && texts.call_id == subscribe.call_id
                        && texts.remote_tag == subscribe.from_tag
                        && texts.event_id == subscribe.event_id.as_deref().unwrap_or_default()
                        && self.lanes.ids.get(&lane) == Some(&dialog.lane)
                })
            });
        match found {
            Some(at) => self.handle_resubscribe(at, request, subscribe, now),
            None => self.answer(request, Reply::status(481), "no such dialog"),
        }
    }

    /// A request of ours ended.
    pub(super) fn handle_outcome(
        &mut self,
        request: RequestId,
        outcome: Result<Message, NoResponse>,
        now: Now,
    ) {
        let Some(asked) = self.requests.remove(&request.0) else { return };
        let (status, message) = match &outcome {
            Ok(message) => (message.status().unwrap_or(500), Some(message)),
            Err(none) => (none.status(), None),
        };
        match asked {
            Asked::Subscribe { upstream, row } => {
                self.handle_subscribe_outcome(upstream, row, &outcome, now);
                self.handle_swept(upstream, row, status, message.is_some(), now);
            }
            Asked::Notify { row, cseq } if matches!(outcome, Err(NoResponse::Timeout)) => {
                let at = self.dialogs.find(row);
                let is_newest = |at: &u32| self.dialogs.dialog(*at).is_some_and(|d| d.local_cseq == cseq);
                if let Some(at) = at.filter(is_newest) {
                    self.handle_notify_unanswered(at, now);
                }
            }
            Asked::Notify { row, cseq } => {
                let retry_after = message.and_then(retry_after);
                if let Some(at) = self.dialogs.find(row) {
                    self.handle_notify_outcome(at, cseq, status, retry_after, now);
                }
            }
            Asked::Message(id) => {
                let outcome = match outcome {
                    Ok(_) if status < 300 => Ok(()),
                    Ok(_) => Err(Failure::Response(status)),
                    Err(none) => Err(Failure::FrontEnd(none)),
                };
                self.handle_message_outcome(id, outcome, message.and_then(new_address).as_deref());
            }
            Asked::Nothing => {}
        }
    }
}
