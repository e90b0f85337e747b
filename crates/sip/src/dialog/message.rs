//! Dialogs made and renewed by whole messages: reads the header fields that [`Forming`] wants.

use super::{DialogFault, DialogState, Forming};
use crate::message::Message;

impl DialogState {
    /// The dialog of our request, by a 2xx (or a 101 to 199 with tag) to it. See [`DialogState::as_client`].
    pub fn from_response(response: &Message) -> Result<Self, DialogFault> {
        read(response, None, Self::as_client)
    }

    /// The dialog of the peer's request, which our answer gives `local_tag`. See [`DialogState::as_server`].
    pub fn from_request(request: &Message, local_tag: &str) -> Result<Self, DialogFault> {
        read(request, Some(local_tag), Self::as_server)
    }

    /// The dialog of our SUBSCRIBE, by the first NOTIFY for it. See [`DialogState::as_subscriber`].
    pub fn from_notify(notify: &Message, subscribe_cseq: u32) -> Result<Self, DialogFault> {
        read(notify, None, |forming| Self::as_subscriber(forming, subscribe_cseq))
    }

    /// Whether a request from the peer belongs to this dialog. See [`DialogState::matches`].
    pub fn matches_request(&self, request: &Message) -> bool {
        let (Ok(call_id), Ok(to), Ok(from)) = (request.call_id(), request.to(), request.from()) else {
            return false;
        };
        self.matches(call_id, to.tag().unwrap_or_default(), from.tag().unwrap_or_default())
    }

    /// Takes the Contact of a message in the dialog, if it has one. See [`DialogState::refresh_target`].
    pub fn refresh_target_by(&mut self, message: &Message) -> Result<bool, DialogFault> {
        match contact(message)? {
            Some(contact) => self.refresh_target(contact),
            None => Ok(false),
        }
    }
}

fn read(
    message: &Message,
    local_tag: Option<&str>,
    make: impl FnOnce(&Forming<'_>) -> Result<DialogState, DialogFault>,
) -> Result<DialogState, DialogFault> {
    let (from, to) = (message.from()?, message.to()?);
    let record_routes: Vec<_> = message.record_routes().collect();
    make(&Forming {
        call_id: message.call_id()?,
        from_uri: from.uri.as_str(),
        from_tag: from.tag().unwrap_or_default(),
        to_uri: to.uri.as_str(),
        to_tag: local_tag.or(to.tag()).unwrap_or_default(),
        contact: contact(message)?.ok_or(DialogFault::BadContact)?,
        record_routes: &record_routes,
        cseq: message.cseq()?.0,
    })
}

/// The URI of Contact, which may stand once (RFC 3261 §8.1.1.8).
fn contact(message: &Message) -> Result<Option<&str>, DialogFault> {
    let mut contacts = message.contacts();
    let Some(first) = contacts.next() else { return Ok(None) };
    if contacts.next().is_some() {
        return Err(DialogFault::BadContact);
    }
    first.map(|contact| Some(contact.uri.as_str())).map_err(|_| DialogFault::BadContact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageLimits, read_datagram};

    fn message(text: &str) -> Message {
        let text = text.replace('\n', "\r\n");
        read_datagram(text.into_bytes().into(), &MessageLimits::default()).expect("a message")
    }

    const SUBSCRIBE: &str = "SUBSCRIBE sip:juliet@corp.example SIP/2.0
Via: SIP/2.0/TCP p2.corp.example;branch=z9hG4bK2
Via: SIP/2.0/TCP pc.partner.example;branch=z9hG4bK1
Record-Route: <sip:p2.corp.example;lr>, <sip:p1.partner.example;lr;r2=on>
Record-Route: <sip:p0.partner.example;lr>
From: \"Romeo\" <sip:romeo@partner.example>;tag=from~1
To: sip:juliet@corp.example
Call-ID: call@partner.example
CSeq: 17 SUBSCRIBE
Contact: <sip:romeo@pc.partner.example;transport=tcp>
Event: presence
Max-Forwards: 70
Content-Length: 0

";

    #[test]
    fn a_request_makes_the_dialog_of_its_server() {
        let mut dialog = DialogState::from_request(&message(SUBSCRIBE), "ours").expect("a dialog");
        assert_eq!((&*dialog.local_tag, &*dialog.remote_tag), ("ours", "from~1"));
        assert_eq!(
            (&*dialog.local_uri, &*dialog.remote_uri),
            ("sip:juliet@corp.example", "sip:romeo@partner.example")
        );
        let routes =
            ["<sip:p2.corp.example;lr>", "<sip:p1.partner.example;lr;r2=on>", "<sip:p0.partner.example;lr>"];
        assert_eq!(dialog.routes.iter().collect::<Vec<_>>(), routes);
        assert_eq!(dialog.addressing().request_uri, "sip:romeo@pc.partner.example;transport=tcp");
        let refresh = SUBSCRIBE
            .replace("To: sip:juliet@corp.example", "To: <sip:juliet@corp.example>;tag=ours")
            .replace("pc.partner.example;transport", "new.partner.example;transport");
        let refresh = message(&refresh);
        assert!(dialog.matches_request(&refresh) && !dialog.matches_request(&message(SUBSCRIBE)));
        assert_eq!(dialog.refresh_target_by(&refresh), Ok(true));
        assert_eq!(&*dialog.remote_target, "sip:romeo@new.partner.example;transport=tcp");
        let without =
            message(&SUBSCRIBE.replace("Contact: <sip:romeo@pc.partner.example;transport=tcp>\n", ""));
        assert_eq!(dialog.refresh_target_by(&without), Ok(false));
        assert_eq!(DialogState::from_request(&without, "ours"), Err(DialogFault::BadContact));
    }

    #[test]
    fn a_response_and_a_notify_make_the_dialog_of_the_client() {
        let response = SUBSCRIBE
            .replace("SUBSCRIBE sip:juliet@corp.example SIP/2.0", "SIP/2.0 200 OK")
            .replace("To: sip:juliet@corp.example", "To: <sip:juliet@corp.example>;tag=theirs");
        let dialog = DialogState::from_response(&message(&response)).expect("a dialog");
        assert_eq!((&*dialog.local_tag, &*dialog.remote_tag), ("from~1", "theirs"));
        assert_eq!(dialog.routes.iter().next(), Some("<sip:p0.partner.example;lr>"));
        assert_eq!(dialog.local_cseq, 17);
        let notify = SUBSCRIBE
            .replace("SUBSCRIBE", "NOTIFY")
            .replace("To: sip:juliet@corp.example", "To: <sip:juliet@corp.example>;tag=ours");
        let dialog = DialogState::from_notify(&message(&notify), 3).expect("a dialog");
        assert_eq!((&*dialog.local_tag, &*dialog.remote_tag), ("ours", "from~1"));
        assert_eq!(dialog.routes.iter().next(), Some("<sip:p2.corp.example;lr>"));
        assert_eq!((dialog.local_cseq, dialog.remote_cseq.last()), (3, Some(17)));
    }

    #[test]
    fn two_contacts_make_no_dialog() {
        let two = SUBSCRIBE.replace("Contact: ", "Contact: <sip:a@b.example>, ");
        assert_eq!(DialogState::from_request(&message(&two), "ours"), Err(DialogFault::BadContact));
    }
}
