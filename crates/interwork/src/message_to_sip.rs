//! A page-mode message as a SIP MESSAGE (RFC 7572 §4, RFC 3428).

use tombolo_presence::Address;
use tombolo_sip::headers::is_language_tag;

use crate::{address::sip_domain, request::RequestDraft};

/// What a MESSAGE is made of.
#[derive(Debug, Clone)]
pub struct PageMessage<'a> {
    /// The sender's URI; `gr` names its device.
    pub from_uri: String,
    /// The sender's tag.
    pub from_tag: String,
    /// The recipient's URI, also the Request-URI.
    pub to_uri: String,
    /// Call-ID.
    pub call_id: String,
    /// CSeq number.
    pub cseq: u32,
    /// Hops that are left for it.
    pub max_forwards: u8,
    /// Subject.
    pub subject: Option<&'a str>,
    /// Content-Language.
    pub lang: Option<&'a str>,
    /// The text, with line feeds.
    pub body: &'a str,
}

/// The request: `text/plain` in UTF-8, no Contact (STOX-M-01, STOX-M-02, SIP-M-01).
pub fn draft(message: &PageMessage<'_>) -> RequestDraft {
    let mut headers = Vec::new();
    if let Some(subject) = message.subject {
        headers.push(("Subject", one_line(subject)));
    }
    if let Some(lang) = message.lang.filter(|lang| is_language_tag(lang)) {
        headers.push(("Content-Language", lang.to_owned()));
    }
    RequestDraft {
        method: "MESSAGE",
        uri: message.to_uri.clone(),
        routes: Vec::new(),
        from: format!("<{}>;tag={}", message.from_uri, message.from_tag),
        to: format!("<{}>", message.to_uri),
        call_id: message.call_id.clone(),
        cseq: message.cseq,
        max_forwards: message.max_forwards,
        contact_user: None,
        headers,
        content_type: Some("text/plain;charset=UTF-8".to_owned()),
        body: with_crlf(message.body).into(),
    }
}

/// Octets of the request's head, with the longest Via that we write (STOX-M-12).
pub fn head_len(draft: &RequestDraft) -> usize {
    draft.render(&"v".repeat(VIA_LEN), "").len() - draft.body.len()
}

/// The Call-ID that stands for a thread between two users: legal whatever the thread holds, and theirs alone
/// (STOX-M-04).
pub fn call_id_of_thread(thread: &str, contact: &Address, user: &Address) -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    for part in [thread, contact.as_str(), user.as_str()] {
        digest.update(part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut call_id: String = digest.finalize()[..16].iter().map(|octet| format!("{octet:02x}")).collect();
    call_id.push('@');
    call_id.push_str(&sip_domain(contact.domain()));
    call_id
}

/// Line feeds as SIP text has them (STOX-M-19).
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Room for a Via with a long host name and our branch.
const VIA_LEN: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &str) -> PageMessage<'_> {
        PageMessage {
            from_uri: "sip:juliet@example.com;gr=balcony".into(),
            from_tag: "a".into(),
            to_uri: "sip:romeo@example.net".into(),
            call_id: "c".into(),
            cseq: 1,
            max_forwards: 70,
            subject: Some("two\r\nlines"),
            lang: Some("cs"),
            body,
        }
    }

    #[test]
    fn stox_m_01_stox_m_02_a_message_is_plain_text_with_its_length_in_octets() {
        let request = draft(&page("Proč?\nnaive"));
        let text = String::from_utf8(request.render("SIP/2.0/TLS h;branch=b", "h")).expect("UTF-8");
        assert!(text.starts_with("MESSAGE sip:romeo@example.net SIP/2.0\r\n"), "{text}");
        assert!(text.contains("From: <sip:juliet@example.com;gr=balcony>;tag=a\r\n"));
        assert!(text.contains("To: <sip:romeo@example.net>\r\n"));
        assert!(
            text.contains(
                "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 13\r\n\r\nProč?\r\nnaive"
            )
        );
        assert!(text.contains("Content-Language: cs\r\n"));
        assert!(text.contains("Subject: two lines\r\n"));
        assert!(!text.contains("Contact:"), "a MESSAGE has no Contact (SIP-M-01)");
    }

    #[test]
    fn stox_m_04_a_thread_of_any_text_makes_one_legal_call_id() {
        let juliet = Address::from_prepared("juliet@example.com").expect("legal");
        let romeo = Address::from_prepared("romeo@example.net").expect("legal");
        for thread in ["a b", "\"quoted\"", "x\r\nVia: y", "e0ffe42b28561960c6b12b944a092794b9683a38"] {
            let call_id = call_id_of_thread(thread, &juliet, &romeo);
            assert!(call_id.bytes().all(|b| b.is_ascii_alphanumeric() || b".@-".contains(&b)), "{call_id}");
            assert_eq!(call_id, call_id_of_thread(thread, &juliet, &romeo));
            assert_ne!(call_id, call_id_of_thread(thread, &romeo, &juliet));
        }
    }

    #[test]
    fn stox_m_12_the_whole_request_counts() {
        let short = draft(&page("x"));
        let mut long = short.clone();
        long.to = format!("<sip:{}@example.net>", "r".repeat(900));
        assert!(head_len(&long) > head_len(&short) + 850);
    }
}
