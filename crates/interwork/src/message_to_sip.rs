//! A page-mode message as a SIP MESSAGE (RFC 7572 §4, RFC 3428).

use tombolo_presence::{Address, cut_text};
use tombolo_sip::{
    body::cpim,
    headers::{NameAddr, is_language_tag},
};

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
    /// A program sent it by itself: marked as RFC 3834 §5 says.
    pub is_automatic: bool,
    /// The text, with line feeds.
    pub body: &'a str,
}

/// The request: `text/plain` in UTF-8, no Contact (STOX-M-01, STOX-M-02, SIP-M-01).
pub fn draft(message: &PageMessage<'_>) -> RequestDraft {
    let mut headers = Vec::new();
    if let Some(subject) = message.subject {
        headers.push(("Subject", cut_text(&one_line(subject), SUBJECT_LEN).into_owned()));
    }
    if let Some(lang) = message.lang.filter(|lang| is_language_tag(lang)) {
        headers.push(("Content-Language", lang.to_owned()));
    }
    if message.is_automatic {
        headers.push(("Auto-Submitted", "auto-generated".to_owned()));
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

/// The same message in CPIM (RFC 3862); `None` for a request that is no message of plain text.
pub fn in_cpim(draft: &RequestDraft) -> Option<RequestDraft> {
    let content_type = draft.content_type.as_deref().filter(|_| draft.method == "MESSAGE")?;
    let text = std::str::from_utf8(&draft.body).ok().filter(|_| content_type.starts_with("text/plain"))?;
    let uri = |party: &str| NameAddr::parse(party).ok().map(|party| party.uri.as_str().to_owned());
    let body = cpim::write(&uri(&draft.from)?, &uri(&draft.to)?, content_type, text);
    Some(RequestDraft { content_type: Some(cpim::MEDIA_TYPE.to_owned()), body: body.into(), ..draft.clone() })
}

/// Octets of the request's head, with the longest Via that we write (STOX-M-12).
pub fn head_len(draft: &RequestDraft) -> usize {
    draft.render(&"v".repeat(VIA_LEN), "").len() - draft.body.len()
}

/// The Call-ID that stands for a thread between two users: legal whatever the thread holds, and theirs alone
/// (STOX-M-04). A thread of at most [`MAX_THREAD_LEN`] octets can be read from it again, so that nothing need be remembered for a reply.
pub fn call_id_of_thread(thread: &str, contact: &Address, user: &Address) -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    for part in [thread, contact.as_str(), user.as_str()] {
        digest.update(part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut call_id = String::with_capacity(2 * MAX_THREAD_LEN + 64);
    if thread.len() <= MAX_THREAD_LEN {
        push_hex(thread.as_bytes(), &mut call_id);
        call_id.push('-');
    }
    push_hex(&digest.finalize()[..16], &mut call_id);
    call_id.push('@');
    call_id.push_str(&sip_domain(contact.domain()));
    call_id
}

/// The thread for which [`call_id_of_thread`] made a Call-ID between these two; `None` for any other Call-ID.
pub fn thread_of_call_id(call_id: &str, contact: &Address, user: &Address) -> Option<String> {
    let (digits, _) = call_id.split_once('-')?;
    let octets = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let thread = String::from_utf8(octets.collect::<Option<Vec<u8>>>()?).ok()?;
    let ours = call_id_of_thread(&thread, contact, user);
    // Each phone of a user sees a Call-ID with a number of its own behind it.
    let rest = call_id.strip_prefix(&*ours)?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    (rest.is_empty() || rest.strip_prefix('.').is_some_and(is_number)).then_some(thread)
}

fn push_hex(octets: &[u8], out: &mut String) {
    use std::fmt::Write as _;
    for octet in octets {
        write!(out, "{octet:02x}").expect("a String takes everything");
    }
}

/// Line feeds as SIP text has them (STOX-M-19).
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Octets of a thread that fits into a Call-ID; twice as many as the identifiers that clients make.
pub const MAX_THREAD_LEN: usize = 80;
/// Octets of a subject; a longer one ends with `…`. Many servers take no header of more than 8 KiB.
const SUBJECT_LEN: usize = 1000;
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
            is_automatic: false,
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
            for seen in [call_id.clone(), format!("{call_id}.0"), format!("{call_id}.12")] {
                assert_eq!(thread_of_call_id(&seen, &juliet, &romeo).as_deref(), Some(thread), "{seen}");
                assert_eq!(thread_of_call_id(&seen, &romeo, &juliet), None, "it is another two's");
            }
            for other in
                [format!("{call_id}.x"), format!("{call_id}."), format!("0{call_id}"), "6162-0@x".into()]
            {
                assert_eq!(thread_of_call_id(&other, &juliet, &romeo), None, "{other}");
            }
        }
        let long = "x".repeat(MAX_THREAD_LEN + 1);
        let call_id = call_id_of_thread(&long, &juliet, &romeo);
        assert!(call_id.len() < 60, "{call_id}");
        assert_eq!(thread_of_call_id(&call_id, &juliet, &romeo), None);
    }

    #[test]
    fn sip_m_06_a_message_in_cpim_says_the_same() {
        let plain = draft(&page("Proč?\nnaive"));
        let wrapped = in_cpim(&plain).expect("a message");
        let text = String::from_utf8(wrapped.render("v", "h")).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
        assert!(head.contains("\r\nContent-Type: message/cpim\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        assert_eq!(
            body,
            "From: <sip:juliet@example.com;gr=balcony>\r\nTo: <sip:romeo@example.net>\r\n\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 13\r\n\r\nProč?\r\nnaive"
        );
        assert_eq!(in_cpim(&wrapped), None, "it is in CPIM already");
        let notify = RequestDraft { method: "NOTIFY", ..plain };
        assert_eq!(in_cpim(&notify), None);
    }

    #[test]
    fn stox_m_12_the_whole_request_counts() {
        let short = draft(&page("x"));
        let mut long = short.clone();
        long.to = format!("<sip:{}@example.net>", "r".repeat(900));
        assert!(head_len(&long) > head_len(&short) + 850);
    }
}
