//! A SIP request of ours before it is known by which connection it leaves.

use bytes::Bytes;

/// The Max-Forwards of a request that begins with us (RFC 3261 §8.1.1.6).
pub const MAX_FORWARDS: u8 = 70;

/// A request, less Via, and less the host of Contact: the peer that sends it adds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestDraft {
    /// The method.
    pub method: &'static str,
    /// The Request-URI.
    pub uri: String,
    /// Route header values.
    pub routes: Vec<String>,
    /// The value of From, with our tag.
    pub from: String,
    /// The value of To.
    pub to: String,
    /// Call-ID.
    pub call_id: String,
    /// CSeq number.
    pub cseq: u32,
    /// Max-Forwards: hops that are left for it.
    pub max_forwards: u8,
    /// The user part of Contact; `None` for a request without Contact (RFC 3428 §4).
    pub contact_user: Option<String>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The type of the body; `None` without one.
    pub content_type: Option<String>,
    /// The body. Clones of a draft share it.
    pub body: Bytes,
}

impl RequestDraft {
    /// Octets of everything but the body: what each clone of the draft takes for itself.
    pub fn head_octets(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + size_of::<String>());
        let routes = self.routes.iter().map(|route| route.len() + size_of::<String>());
        let texts = [&self.uri, &self.from, &self.to, &self.call_id].map(String::len);
        size_of::<Self>()
            + texts.into_iter().sum::<usize>()
            + self.contact_user.as_ref().map_or(0, String::len)
            + self.content_type.as_ref().map_or(0, String::len)
            + headers.chain(routes).sum::<usize>()
    }

    /// The request's text. `via` is the whole value of Via, `contact_host` what stands in Contact after the `@`.
    ///
    /// Whatever text stands in a field, the result is exactly one request: line ends and NUL in a field are written
    /// as spaces (SECURITY: CVE-2022-29166 and its kin).
    pub fn render(&self, via: &str, contact_host: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(600 + self.body.len());
        push(&mut out, &[self.method, " ", &self.uri, " SIP/2.0"]);
        push_header(&mut out, "Via", &[via]);
        push_header(&mut out, "Max-Forwards", &[&self.max_forwards.to_string()]);
        for route in &self.routes {
            push_header(&mut out, "Route", &[route]);
        }
        push_header(&mut out, "From", &[&self.from]);
        push_header(&mut out, "To", &[&self.to]);
        push_header(&mut out, "Call-ID", &[&self.call_id]);
        push_header(&mut out, "CSeq", &[&self.cseq.to_string(), " ", self.method]);
        if let Some(user) = &self.contact_user {
            push_header(&mut out, "Contact", &["<sip:", user, "@", contact_host, ">"]);
        }
        for (name, value) in &self.headers {
            push_header(&mut out, name, &[value]);
        }
        if let Some(content_type) = &self.content_type {
            push_header(&mut out, "Content-Type", &[content_type]);
        }
        push_header(&mut out, "Content-Length", &[&self.body.len().to_string()]);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

fn push_header(out: &mut Vec<u8>, name: &str, value: &[&str]) {
    out.extend_from_slice(b"\r\n");
    push(out, &[name, ": "]);
    push(out, value);
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        let begin = out.len();
        out.extend_from_slice(part.as_bytes());
        for byte in &mut out[begin..] {
            if matches!(*byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
    }
}

/// The value of From or To in a dialog; a party that gave no tag has none (RFC 3261 §12.2.1.1).
pub fn party(uri: &str, tag: &str) -> String {
    if tag.is_empty() { format!("<{uri}>") } else { format!("<{uri}>;tag={tag}") }
}

/// The Request-URI and the Route values of a request in a dialog (RFC 3261 §12.2.1.1).
///
/// With a loose router first, or without routes, the request is for the remote target; a strict router gets its own
/// URI as the Request-URI, and the target comes last.
pub fn route<'a>(target: &'a str, routes: Option<&'a [Box<str>]>) -> (&'a str, Vec<&'a str>) {
    let Some((first, rest)) = routes.and_then(|routes| routes.split_first()) else {
        return (target, Vec::new());
    };
    let uri = first.split_once('<').and_then(|(_, uri)| uri.split_once('>')).map_or(&**first, |(uri, _)| uri);
    let is_loose = uri.split(';').skip(1).any(|parameter| {
        parameter.split(['=', '?']).next().is_some_and(|name| name.eq_ignore_ascii_case("lr"))
    });
    if is_loose {
        return (target, std::iter::once(&**first).chain(rest.iter().map(|route| &**route)).collect());
    }
    (uri, rest.iter().map(|route| &**route).chain(std::iter::once(target)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> RequestDraft {
        RequestDraft {
            method: "MESSAGE",
            uri: "sip:romeo@sip.example".into(),
            routes: vec!["<sip:proxy.sip.example;lr>".into()],
            from: "<sip:juliet@xmpp.example>;tag=a".into(),
            to: "<sip:romeo@sip.example>".into(),
            call_id: "c1".into(),
            cseq: 3,
            max_forwards: MAX_FORWARDS,
            contact_user: None,
            headers: vec![("Subject", "hi".into())],
            content_type: Some("text/plain".into()),
            body: "Grüße".into(),
        }
    }

    #[test]
    fn a_request_is_written_whole_with_its_length_in_octets() {
        let text =
            String::from_utf8(draft().render("SIP/2.0/TCP h:5060;branch=z9hG4bKx", "h:5060")).expect("UTF-8");
        assert_eq!(
            text,
            "MESSAGE sip:romeo@sip.example SIP/2.0\r\nVia: SIP/2.0/TCP h:5060;branch=z9hG4bKx\r\n\
             Max-Forwards: 70\r\nRoute: <sip:proxy.sip.example;lr>\r\n\
             From: <sip:juliet@xmpp.example>;tag=a\r\nTo: <sip:romeo@sip.example>\r\nCall-ID: c1\r\n\
             CSeq: 3 MESSAGE\r\nSubject: hi\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nGrüße"
        );
    }

    #[test]
    fn no_text_in_a_field_makes_a_second_header_or_request() {
        for evil in ["a\r\nX: y", "a\nX: y", "a\rX: y", "\r\n\r\nBYE sip:x SIP/2.0\r\n", "a\0b"] {
            let mut draft = draft();
            draft.headers = vec![("Subject", evil.into())];
            draft.call_id = evil.into();
            draft.to = evil.into();
            let text = String::from_utf8(draft.render(evil, "h")).expect("UTF-8");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
            assert_eq!(body, "Grüße");
            assert_eq!(head.split("\r\n").count(), 11, "{evil:?} made {head:?}");
            assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn sip_d_06_loose_and_strict_first_hops() {
        let loose: Vec<Box<str>> = vec!["<sip:p1;lr>".into(), "<sip:p2>".into()];
        assert_eq!(route("sip:t", Some(&loose)), ("sip:t", vec!["<sip:p1;lr>", "<sip:p2>"]));
        let strict: Vec<Box<str>> = vec!["<sip:p1>".into(), "<sip:p2;lr>".into()];
        assert_eq!(route("sip:t", Some(&strict)), ("sip:p1", vec!["<sip:p2;lr>", "sip:t"]));
        assert_eq!(route("sip:t", None), ("sip:t", vec![]));
    }
}
