//! In which form those behind a peer write their messages, so that they are written to in the same (RFC 3862). Pure.
//!
//! Requests that came and drafts that leave go in; a draft in the form that its recipient used last comes out.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
};

use tombolo_interwork::{address::address_of_uri, head_len, in_cpim, request::RequestDraft};
use tombolo_sip::{headers::NameAddr, message::Message, method::Method};

/// Who behind one peer wrote in CPIM last; all others write plain text.
#[derive(Debug, Default)]
pub struct BodyForms {
    /// Hashes of addresses: where two share one, one of them gets a form that it can read too.
    in_cpim: HashSet<u64>,
    hasher: RandomState,
}

impl BodyForms {
    /// Takes note of the form of a MESSAGE; of other requests nothing is learnt.
    pub fn note(&mut self, request: &Message) {
        if request.method() != Some(&Method::Message) {
            return;
        }
        let Some(sender) = request.from().ok().and_then(|from| self.key(&from)) else { return };
        let is_cpim = request.content_type().ok().flatten().is_some_and(|media| media.is("message", "cpim"));
        if !is_cpim {
            self.in_cpim.remove(&sender);
            return;
        }
        if self.in_cpim.len() >= MAX_SPEAKERS && !self.in_cpim.contains(&sender) {
            // They are asked nothing: whoever writes again is known again.
            self.in_cpim.clear();
        }
        self.in_cpim.insert(sender);
    }

    /// The draft in CPIM, where its recipient writes so; `None` where it is to leave as it is, and where it would be too
    /// long then: for a datagram (RFC 3428 §8), or by a stream for a peer that takes as much as we do by default.
    pub fn in_form_of_recipient(
        &self,
        draft: &RequestDraft,
        uri: Option<&str>,
        is_reliable: bool,
    ) -> Option<RequestDraft> {
        if self.in_cpim.is_empty() {
            return None;
        }
        let recipient = NameAddr::parse(&draft.to).ok().and_then(|to| self.key(&to))?;
        let wrapped = in_cpim(draft).filter(|_| self.in_cpim.contains(&recipient))?;
        let most = if is_reliable { MAX_STREAM_LEN } else { MAX_DATAGRAM_LEN };
        let len = head_len(&wrapped) + uri.map_or(0, str::len) + wrapped.body.len();
        (len <= most).then_some(wrapped)
    }

    fn key(&self, party: &NameAddr<'_>) -> Option<u64> {
        address_of_uri(&party.uri).ok().map(|party| self.hasher.hash_one(party.address.as_str()))
    }
}

/// Of one peer: a phone has one, a front end many.
const MAX_SPEAKERS: usize = 10_000;
const MAX_DATAGRAM_LEN: usize = 1300;
/// The default of `sip.limits.message_bytes`.
const MAX_STREAM_LEN: usize = 65_536;

#[cfg(test)]
mod tests {
    use tombolo_sip::message::{MessageLimits, read_datagram};

    use super::*;

    fn request(method: &str, from: &str, content_type: &str) -> Message {
        let text = format!(
            "{method} sip:j@x SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:{from}>;tag=f\r\nTo: <sip:j@x>\r\n\
             Call-ID: c\r\nCSeq: 1 {method}\r\nContent-Type: {content_type}\r\n\r\n"
        );
        read_datagram(text.into(), &MessageLimits::default()).expect("legal")
    }

    fn draft(to: &str, text: &str) -> RequestDraft {
        RequestDraft {
            method: "MESSAGE",
            uri: format!("sip:{to}"),
            routes: Vec::new(),
            from: "<sip:j@x>;tag=1".into(),
            to: format!("<sip:{to}>"),
            call_id: "c".into(),
            cseq: 1,
            max_forwards: 70,
            contact_user: None,
            headers: Vec::new(),
            content_type: Some("text/plain;charset=UTF-8".into()),
            body: text.to_owned().into(),
        }
    }

    fn is_wrapped(forms: &BodyForms, to: &str) -> bool {
        forms.in_form_of_recipient(&draft(to, "hi"), None, true).is_some()
    }

    #[test]
    fn a_message_leaves_in_the_form_that_its_recipient_used_last() {
        let mut forms = BodyForms::default();
        assert!(!is_wrapped(&forms, "al@corp.example"));
        forms.note(&request("MESSAGE", "al@corp.example", "Message/CPIM"));
        assert!(is_wrapped(&forms, "al@corp.example") && is_wrapped(&forms, "AL@corp.example;gr=desk"));
        assert!(!is_wrapped(&forms, "bo@corp.example"), "that is another user");
        forms.note(&request("PUBLISH", "al@corp.example", "application/pidf+xml"));
        assert!(is_wrapped(&forms, "al@corp.example"), "only messages tell");
        forms.note(&request("MESSAGE", "al@corp.example", "text/plain"));
        assert!(!is_wrapped(&forms, "al@corp.example"));
    }

    #[test]
    fn what_would_be_too_long_for_its_way_stays_plain() {
        let mut forms = BodyForms::default();
        forms.note(&request("MESSAGE", "al@corp.example", "message/cpim"));
        for (len, fits) in [(100, true), (1000, false)] {
            let draft = draft("al@corp.example", &"x".repeat(len));
            assert_eq!(forms.in_form_of_recipient(&draft, None, false).is_some(), fits, "{len}");
            assert!(forms.in_form_of_recipient(&draft, None, true).is_some());
        }
        // The wrapping would take it beyond what any peer must take.
        let draft = draft("al@corp.example", &"x".repeat(65_500));
        assert!(forms.in_form_of_recipient(&draft, None, true).is_none());
    }

    #[test]
    fn no_more_speakers_are_remembered_than_may_be() {
        let mut forms = BodyForms::default();
        for number in 0..MAX_SPEAKERS + 10 {
            forms.note(&request("MESSAGE", &format!("u{number}@corp.example"), "message/cpim"));
            assert!(forms.in_cpim.len() <= MAX_SPEAKERS);
        }
        assert!(is_wrapped(&forms, &format!("u{}@corp.example", MAX_SPEAKERS + 9)));
    }
}
