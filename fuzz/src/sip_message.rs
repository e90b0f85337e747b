//! SIP messages from a stream: all cuts give the same frames, and every field of what was read can be asked for.

use bytes::Bytes;
use tombolo_sip::framer::{Frame, StreamFramer};
use tombolo_sip::message::{Message, MessageLimits};

/// Reads `data` as a stream, whole and octet by octet, and each message's fields.
pub(crate) fn stream(data: &[u8]) {
    let whole = frames(data, data.len().max(1));
    assert_eq!(whole, frames(data, 1), "the cut changes the frames");
}

/// Reads `data` as one datagram: a head up to the empty line, and whatever is behind it.
pub(crate) fn datagram(data: &[u8]) {
    let end = data.windows(4).position(|window| window == b"\r\n\r\n").map_or(data.len(), |at| at + 4);
    let (head, body) = data.split_at(end);
    let head = Bytes::copy_from_slice(head);
    if let Ok(message) = Message::read(head, Bytes::copy_from_slice(body), &MessageLimits::default()) {
        read_all(&message);
    }
}

fn frames(data: &[u8], step: usize) -> Vec<String> {
    let mut framer = StreamFramer::new(MessageLimits::default());
    let mut seen = Vec::new();
    for piece in data.chunks(step) {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Ping)) => seen.push("ping".to_owned()),
                Ok(Some(Frame::Message(message))) => {
                    read_all(&message);
                    seen.push(format!(
                        "{} {} {:?}",
                        message.method_text(),
                        message.body().len(),
                        message.status()
                    ));
                }
                Ok(Some(Frame::Malformed(malformed))) => seen.push(malformed.fault.to_string()),
                Ok(None) => break,
                Err(fault) => {
                    seen.push(fault.0.fault.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}

/// Asks for everything that our side ever asks for; a fault in a value is an answer, a panic is none.
fn read_all(message: &Message) {
    let _ = (message.request_uri(), message.from(), message.to(), message.call_id(), message.cseq());
    let _ = (message.top_via(), message.max_forwards(), message.event(), message.subscription_state());
    let _ = (message.expires(), message.min_expires(), message.retry_after(), message.reason());
    message.vias().for_each(drop);
    message.contacts().for_each(drop);
    message.record_routes().for_each(drop);
    message.routes().for_each(drop);
    message.accept().for_each(drop);
    message.require().for_each(drop);
    for (name, value) in message.all_rows() {
        assert!(!name.contains('\n') && !value.contains('\n'), "a field holds a line end");
    }
}
