//! Requests from SIP peers: whom they speak for, and who serves them.

use std::sync::{Arc, atomic::Ordering};

use tombolo_edge::{FlowFacts, Transport};
use tombolo_interwork::{
    address::address_of_uri,
    owner::{Input, PeerKey, PeerWay, PhoneKey, ReplyTo, SipRequest},
    token::TokenKey,
};
use tombolo_policy::{LocalDomain, PeerProof, SipTransport};
use tombolo_presence::{Address, Domain};
use tombolo_sip::{
    body,
    build::allow,
    message::Message,
    method::Method,
    uas::{self, SERVED, Verdict},
    uri::Scheme,
};
use tombolo_telemetry::{Redacted, SipMethod};

use crate::{
    accounts::Proof,
    directory::Directory,
    messages::{ToPeer, ToUser},
    peer::respond,
    salvage::refuse_request,
};

/// True when a flow comes from the front end of a local domain.
///
/// A datagram's source is whatever its sender wrote, so it counts for those only whose next hop is spoken to by UDP.
pub fn is_front_end(local: &LocalDomain, facts: &FlowFacts) -> bool {
    let names: Vec<&str> = facts.proved_domains.iter().map(|name| &**name).collect();
    let proof = match facts.transport {
        Transport::Tls => PeerProof::Tls { names: &names },
        Transport::Udp
            if local.front_end().is_none_or(|home| home.next_hop.transport != SipTransport::Udp) =>
        {
            return false;
        }
        Transport::Tcp | Transport::Udp => PeerProof::Plain { address: facts.remote.ip() },
    };
    local.admits(proof)
}

/// What becomes of a phone's request before anything is kept of it.
#[derive(Debug)]
pub enum Admission {
    /// It goes on to its transaction.
    Serve {
        /// It proved its user itself, and so that the phone is met where it came from.
        is_proved: bool,
    },
    /// It is answered without a transaction.
    Answer {
        /// The status.
        status: u16,
        /// Headers that the status wants.
        headers: Vec<(&'static str, String)>,
    },
    /// It is not answered.
    Drop,
}

/// Looks at a request by a flow of `phone`: what is refused, and what anybody may ask, leaves no trace. A datagram's
/// source may be forged, so that whatever is kept before the proof would be kept for strangers.
///
/// `is_proved` says that the digest of this request was seen already.
pub fn admit(
    directory: &Directory,
    phone: &PhoneKey,
    flow: &FlowFacts,
    message: &Message,
    is_proved: bool,
) -> Admission {
    let refuse = |status| Admission::Answer { status, headers: Vec::new() };
    // Both name another request.
    if matches!(message.method(), Some(Method::Ack | Method::Cancel)) {
        return Admission::Serve { is_proved: false };
    }
    match uas::check(message) {
        Verdict::Accept => {}
        Verdict::Refuse { status, headers } => return Admission::Answer { status, headers },
        Verdict::Drop => return Admission::Drop,
    }
    if message.method() == Some(&Method::Options) {
        return Admission::Answer { status: 200, headers: capabilities() };
    }
    let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok());
    if from.is_none_or(|from| from.address != phone.aor) {
        directory.note_failed_login(message, flow, 403, &"From is not the user who registered there");
        return refuse(403);
    }
    // A connection speaks for the one user who registered by it, unless a proxy, or another user, speaks there too.
    // One that we opened is to whom the phone's datagrams come from, which proves nothing about who answers there.
    let must_prove = flow.transport == Transport::Udp
        || flow.dial.is_some()
        || message.method() == Some(&Method::Register)
        || message.vias().count() > 1
        || directory.flows.has_several_users(flow.flow);
    if must_prove && !is_proved {
        match directory.prove(message, flow) {
            Proof::User(user) if user == phone.aor => {}
            Proof::User(_) | Proof::NoHome => {
                directory.note_failed_login(
                    message,
                    flow,
                    403,
                    &"the user is not the one who registered there",
                );
                return refuse(403);
            }
            Proof::Challenge { values, .. } => {
                return Admission::Answer { status: 401, headers: challenge(values) };
            }
        }
    }
    Admission::Serve { is_proved: must_prove || is_proved }
}

/// Serves a request that passed its transaction and is from whom it says: hands it to the shard or user concerned.
pub fn serve(
    directory: &Arc<Directory>,
    key: &PeerKey,
    way: PeerWay,
    flow: &FlowFacts,
    reply: ReplyTo,
    message: Box<Message>,
) {
    let answer = |status, headers: &[(&'static str, String)]| {
        if status >= 400 {
            directory.metrics.refused_request();
        }
        if let Some(bytes) = respond(&message, status, headers) {
            directory.tell_peer(key, ToPeer::Respond { reply, bytes });
        }
    };
    directory.metrics.request_in(SipMethod::of(message.method_text()));
    if message.method() == Some(&Method::Options) {
        return answer(200, &capabilities());
    }
    let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok());
    let Some(identity) = from.map(|from| from.address) else { return answer(403, &[]) };
    match key {
        // A front end speaks for its own domain only (SIP-TLS-05).
        PeerKey::FrontEnd(domain) => {
            // What comes in a dialog of ours is from whom we asked, or for one of its users.
            if let Some(status) = front_end_refusal(domain, &identity, message.method()) {
                return answer(status, &[]);
            }
        }
        PeerKey::Phone(phone) => {
            // Looked at by `admit` too; but a connection outlives the account of whom it was proved to be.
            if identity != phone.aor || directory.authenticator.accounts().account(&identity).is_none() {
                directory.note_failed_login(&message, flow, 403, &"the user has no account any more");
                return answer(403, &[]);
            }
            if message.method() == Some(&Method::Register) {
                if let Some((status, reason)) = register_refusal(&message, &identity) {
                    tracing::info!(
                        aor = %Redacted(&identity), remote = %flow.remote, status, reason, "a registration is refused"
                    );
                    return answer(status, &[("Warning", format!("399 tombolo \"{reason}\""))]);
                }
                if let Some(contact) = message.contacts().flatten().next() {
                    directory.flows.note_contact(flow.flow, key, contact.uri.as_str());
                }
                let register = ToUser::Register { peer: key.clone(), origin: flow.into(), reply, message };
                return directory.user(&identity).do_send(register);
            }
        }
    }
    let Some(shard) = shard_of(directory, &message, &identity) else { return answer(404, &[]) };
    let request = SipRequest { peer: key.clone(), reply, message: *message, identity, way };
    let shard = &directory.shards()[shard];
    if let Err(Input::Request(request)) = shard.inbox.push(Input::Request(request)) {
        if shard.is_down.load(Ordering::Relaxed) {
            return refuse_request(directory, &request);
        }
        // STOX-E-02 keeps 503 for this: we ourselves have too much to do.
        let retry = [("Retry-After", "2".to_owned())];
        if let Some(bytes) = respond(&request.message, 503, &retry) {
            directory.tell_peer(key, ToPeer::Respond { reply, bytes });
        }
    }
}

/// The status for what a front end may not ask for: in another domain's name, or for a registration.
fn front_end_refusal(domain: &Domain, identity: &Address, method: Option<&Method>) -> Option<u16> {
    match method {
        _ if identity.domain() != domain.as_str() => Some(403),
        Some(Method::Register) => Some(405),
        _ => None,
    }
}

/// The status, and why, for a REGISTER that nobody may ask for: of another user than the one who asks (RFC 3261 §10.3
/// step 5), with a `*` that does not take everything out (step 6), or with a Contact at which no phone can be reached.
fn register_refusal(message: &Message, identity: &Address) -> Option<(u16, &'static str)> {
    let to = message.to().ok().and_then(|to| address_of_uri(&to.uri).ok());
    if to.is_none_or(|to| to.address != *identity) {
        return Some((403, "only the user may register"));
    }
    let is_all = message.expires() == Some(0) && message.contacts().next().is_none();
    if message.has_contact_star() && !is_all {
        return Some((400, "a Contact of * needs Expires: 0 and no other Contact"));
    }
    for contact in message.contacts() {
        match contact.map(|contact| contact.uri.scheme()) {
            Ok(Scheme::Sip | Scheme::Sips) => {}
            // §10.3 lets a registrar take any scheme; we send requests to SIP phones only, so it is forbidden (§21.4.4),
            // not malformed. 416 would speak of the Request-URI.
            Ok(_) => return Some((403, "only sip and sips Contacts can be registered")),
            Err(_) => return Some((400, "a malformed Contact")),
        }
    }
    None
}

/// The shard that owns what a request is about: the row that our tag names, else the user of the Request-URI when its
/// domain is ours, else that of From.
fn shard_of(directory: &Directory, message: &Message, identity: &Address) -> Option<usize> {
    if let Some(partition) = partition_of_dialog(&directory.key, message) {
        return Some(directory.shard_of(partition));
    }
    let target = message.request_uri().ok().and_then(|uri| address_of_uri(&uri).ok());
    let policy = directory.policy.load();
    match target {
        Some(target) if policy.local_domain(target.address.domain()).is_some() => {
            Some(directory.shard_of(target.address.partition()))
        }
        _ => {
            policy.local_domain(identity.domain())?;
            Some(directory.shard_of(identity.partition()))
        }
    }
}

/// The partition of the dialog that a request belongs to. Only in methods that have dialogs does a tag of ours say
/// anything: elsewhere it must not lead to a shard that does not own the user.
fn partition_of_dialog(key: &TokenKey, message: &Message) -> Option<u16> {
    if !matches!(message.method(), Some(Method::Subscribe | Method::Notify)) {
        return None;
    }
    key.verify(message.to().ok()?.tag()?).map(|token| token.partition)
}

/// The challenge of a 401.
pub fn challenge(values: Vec<String>) -> Vec<(&'static str, String)> {
    values.into_iter().map(|value| ("WWW-Authenticate", value)).collect()
}

/// What an OPTIONS is told (SIP-D-17).
pub fn capabilities() -> Vec<(&'static str, String)> {
    vec![
        ("Allow", allow(&SERVED)),
        ("Accept", body::ACCEPTED.to_owned()),
        ("Accept-Encoding", body::ACCEPTED_CODINGS.to_owned()),
        ("Accept-Language", body::ACCEPTED_LANGUAGES.to_owned()),
        ("Supported", "gruu".to_owned()),
        ("Allow-Events", "presence".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use tombolo_edge::FlowId;
    use tombolo_interwork::token::{Token, TokenKind};
    use tombolo_policy::{FrontEnd, Home, NextHop};
    use tombolo_sip::message::{MessageLimits, read_datagram};

    use super::*;

    fn address(text: &str) -> Address {
        Address::from_prepared(text).expect("legal")
    }

    #[test]
    fn sip_tls_05_a_front_end_speaks_for_its_own_domain_only() {
        let corp = Domain::from_prepared("corp.example").expect("legal");
        let refusal = |from, method| front_end_refusal(&corp, &address(from), Some(&method));
        assert_eq!(refusal("a@corp.example", Method::Message), None);
        for from in ["a@other.example", "a@sub.corp.example", "corp.example@evil.example"] {
            for method in [Method::Message, Method::Subscribe, Method::Notify, Method::Register] {
                assert_eq!(refusal(from, method), Some(403), "{from}");
            }
        }
        assert_eq!(refusal("a@corp.example", Method::Register), Some(405));
    }

    #[test]
    fn a_datagrams_source_proves_a_front_end_only_where_it_is_spoken_to_by_datagrams() {
        let local = |transport| {
            let next_hop =
                NextHop { host: "127.0.0.31".into(), port: Some(5060), transport, is_transport_named: true };
            let trusted_addresses = vec![[127, 0, 0, 31].into()];
            let home = Home::FrontEnd(FrontEnd { next_hop, insecure: true, trusted_addresses });
            LocalDomain { name: Domain::from_prepared("corp.example").expect("legal"), home }
        };
        let by = |transport| FlowFacts {
            flow: FlowId(1),
            transport,
            local: ([127, 0, 0, 1], 5060).into(),
            remote: ([127, 0, 0, 31], 5060).into(),
            sent_by: "127.0.0.1:5060".into(),
            dial: None,
            has_alternatives: false,
            proved_domains: Arc::from([]),
        };
        assert!(is_front_end(&local(SipTransport::Tcp), &by(Transport::Tcp)));
        assert!(is_front_end(&local(SipTransport::Udp), &by(Transport::Udp)));
        assert!(!is_front_end(&local(SipTransport::Tcp), &by(Transport::Udp)));
    }

    #[test]
    fn a_register_for_another_user_and_a_star_that_removes_nothing_are_refused() {
        let refusal = |to: &str, more: &str| {
            let text = format!(
                "REGISTER sip:corp.example SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@corp.example>;tag=f\r\n\
                 To: <sip:{to}@corp.example>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{more}\r\n"
            );
            let message = read_datagram(text.into(), &MessageLimits::default()).expect("legal");
            register_refusal(&message, &address("a@corp.example")).map(|(status, _)| status)
        };
        assert_eq!(refusal("a", "Contact: <sip:a@h>\r\nExpires: 600\r\n"), None);
        assert_eq!(refusal("b", "Contact: <sip:a@h>\r\nExpires: 600\r\n"), Some(403));
        assert_eq!(refusal("a", "Contact: *\r\nExpires: 0\r\n"), None);
        for more in ["", "Expires: 600\r\n", "Contact: <sip:a@h>\r\nExpires: 0\r\n"] {
            assert_eq!(refusal("a", &format!("Contact: *\r\n{more}")), Some(400), "{more}");
        }
        for uri in ["tel:+12015550123", "mailto:a@corp.example", "TEL:911", "pres:a@h", "im:a@h", "http://h/"]
        {
            assert_eq!(refusal("a", &format!("Contact: <{uri}>\r\nExpires: 600\r\n")), Some(403), "{uri}");
            let second = format!("Contact: <sip:a@h>, <{uri}>;expires=0\r\n");
            assert_eq!(refusal("a", &second), Some(403), "{uri}");
        }
        assert_eq!(refusal("a", "Contact: <sips:a@h>;expires=60\r\n"), None);
        assert_eq!(refusal("a", "Contact: <sip:a@b@c>\r\n"), Some(400));
    }

    /// What the first checks say to a request with this method and these headers.
    fn verdict(method: &str, more: &str) -> Verdict {
        let text = format!(
            "{method} sip:a@corp.example SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@corp.example>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{more}\r\n"
        );
        uas::check(&read_datagram(text.into(), &MessageLimits::default()).expect("legal"))
    }

    #[test]
    fn a_tag_of_ours_leads_to_a_shard_in_methods_with_dialogs_only() {
        let key = TokenKey::new(&[9; 32]);
        let tag = key.sign(Token { kind: TokenKind::Notifier, partition: 77, row: 1 });
        let partition = |method: &str, tag: &str| {
            let text = format!(
                "{method} sip:a@corp.example SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=f\r\n\
                 To: <sip:a@corp.example>;tag={tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
            );
            let message = read_datagram(text.into(), &MessageLimits::default()).expect("legal");
            partition_of_dialog(&key, &message)
        };
        for method in ["SUBSCRIBE", "NOTIFY"] {
            assert_eq!(partition(method, &tag), Some(77), "{method}");
            assert_eq!(partition(method, "of-somebody-else"), None, "{method}");
        }
        for method in ["PUBLISH", "MESSAGE"] {
            assert_eq!(partition(method, &tag), None, "{method}");
        }
    }

    #[test]
    fn sip_d_17_what_options_says_is_what_is_served() {
        let said = capabilities();
        let list = |name| -> Vec<&str> {
            let value = said.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
            value.expect("said").split(", ").collect()
        };
        for method in
            ["REGISTER", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE", "OPTIONS", "INVITE", "BYE", "INFO"]
        {
            let is_served = verdict(method, "") == Verdict::Accept;
            assert_eq!(list("Allow").contains(&method), is_served, "{method}");
        }
        for extension in ["gruu", "timer", "outbound", "path"] {
            let is_supported = verdict("MESSAGE", &format!("Require: {extension}\r\n")) == Verdict::Accept;
            assert_eq!(list("Supported").contains(&extension), is_supported, "{extension}");
        }
        // Which bodies and packages are taken is the shard's matter (STOX-M-10, SIP-E-15).
        assert_eq!(list("Accept")[..3], ["application/pidf+xml", "text/plain", "message/cpim"]);
        assert_eq!(list("Accept-Encoding"), ["deflate", "gzip", "identity"]);
        assert_eq!(list("Allow-Events"), ["presence"]);
    }
}
