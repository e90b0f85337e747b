//! Cuts a stream into messages by Content-Length only (RFC 3261 §18.3), the same whatever the segments were.
//!
//! Octets go in by [`StreamFramer::push`], frames come out by [`StreamFramer::next_frame`]. After a fault the stream is of no
//! more use: where the next message begins is not known.

use bytes::{Bytes, BytesMut};

use crate::message::{Message, MessageFault, MessageLimits};

/// What came.
#[derive(Debug, Clone)]
pub enum Frame {
    /// A whole message.
    Message(Box<Message>),
    /// A keep-alive of two line ends between messages: to be answered with one (RFC 5626 §4.4.1).
    Ping,
}

/// A fault, with what an answer needs: a request may still be told before the stream is closed.
#[derive(Debug)]
pub struct StreamFault {
    /// What is wrong.
    pub fault: MessageFault,
    /// What is left of a request that can be answered; see [`Message::answerable`].
    pub head: Option<Box<Message>>,
}

/// A keep-alive (RFC 5626 §3.5.1).
const PING: &[u8] = b"\r\n\r\n";

/// Whether octets between two messages say nothing: line ends (RFC 3261 §7.5), and the zeros and blanks that phones
/// send as keep-alives of their own making.
pub fn is_padding(octets: &[u8]) -> bool {
    octets.iter().all(|octet| matches!(octet, b'\r' | b'\n' | b'\0' | b' ' | b'\t'))
}

/// One stream's framer.
#[derive(Debug)]
pub struct StreamFramer {
    limits: MessageLimits,
    buffer: BytesMut,
    /// Octets of the buffer that were searched for the end of the head.
    searched: usize,
    /// Octets of padding since the last message or keep-alive.
    skipped: usize,
    /// A head whose body is awaited, and the body's length.
    waiting: Option<(Box<Message>, usize)>,
}

impl StreamFramer {
    /// A framer for a new stream.
    pub fn new(limits: MessageLimits) -> Self {
        Self { limits, buffer: BytesMut::new(), searched: 0, skipped: 0, waiting: None }
    }

    /// Takes octets in.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The buffer to read into; append only.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// True when a message has begun and is not whole (SIP-T-17: its time is limited).
    pub fn is_inside(&self) -> bool {
        self.waiting.is_some() || !is_padding(&self.buffer)
    }

    /// The next message or keep-alive; `None` until more octets come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamFault> {
        if self.waiting.is_none() {
            if self.take_padding()? {
                return Ok(Some(Frame::Ping));
            }
            if !self.take_head()? {
                return Ok(None);
            }
        }
        let Some((mut message, length)) = self.waiting.take() else { return Ok(None) };
        if self.buffer.len() < length {
            self.waiting = Some((message, length));
            return Ok(None);
        }
        if length > 0 {
            message.set_body(self.buffer.split_to(length).freeze());
        }
        Ok(Some(Frame::Message(message)))
    }

    /// Skips what stands between two messages; true when two line ends make a keep-alive.
    ///
    /// As much padding as a whole message may have, and no message or keep-alive in it, is no padding any more.
    fn take_padding(&mut self) -> Result<bool, StreamFault> {
        loop {
            if self.buffer.starts_with(PING) {
                let _ = self.buffer.split_to(PING.len());
                (self.searched, self.skipped) = (0, 0);
                return Ok(true);
            }
            // What may be the first part of a keep-alive waits for the rest.
            if PING.starts_with(&self.buffer) || !is_padding(&self.buffer[..1]) {
                return Ok(false);
            }
            let _ = self.buffer.split_to(1);
            self.searched = 0;
            self.skipped += 1;
            if self.skipped > self.limits.message {
                return Err(self.fault(MessageFault::TooBig { what: "padding" }, &[]));
            }
        }
    }

    fn take_head(&mut self) -> Result<bool, StreamFault> {
        let from = self.searched.saturating_sub(3);
        let Some(at) = memchr::memmem::find(&self.buffer[from..], b"\r\n\r\n") else {
            self.searched = self.buffer.len();
            if self.buffer.len() > self.limits.message {
                return Err(self.fault(MessageFault::TooBig { what: "message" }, &self.buffer));
            }
            return Ok(false);
        };
        let head = self.buffer.split_to(from + at + 4).freeze();
        (self.searched, self.skipped) = (0, 0);
        if head.len() > self.limits.message {
            return Err(self.fault(MessageFault::TooBig { what: "message" }, &head));
        }
        let message = Message::read(head.clone(), Bytes::new(), &self.limits);
        let message = message.map_err(|fault| self.fault(fault, &head))?;
        if message.vias().next().is_none() {
            return Err(self.fault(MessageFault::NoVia, &head));
        }
        let length = message.content_length().and_then(|length| length.ok_or(MessageFault::ContentLength));
        let length = length.map_err(|fault| self.fault(fault, &head))?;
        if length.saturating_add(head.len()) > self.limits.message {
            return Err(self.fault(MessageFault::TooBig { what: "message" }, &head));
        }
        self.waiting = Some((Box::new(message), length));
        Ok(true)
    }

    fn fault(&self, fault: MessageFault, octets: &[u8]) -> StreamFault {
        StreamFault { fault, head: Message::answerable(octets, &self.limits).map(Box::new) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &[u8], step: usize) -> Result<Vec<String>, MessageFault> {
        let mut framer = StreamFramer::new(MessageLimits::default());
        let mut seen = Vec::new();
        for part in text.chunks(step) {
            framer.push(part);
            while let Some(frame) = framer.next_frame().map_err(|fault| fault.fault)? {
                seen.push(match frame {
                    Frame::Message(message) => {
                        format!("{} {}", message.method_text(), String::from_utf8_lossy(message.body()))
                    }
                    Frame::Ping => "ping".to_owned(),
                });
            }
        }
        Ok(seen)
    }

    #[test]
    fn padding_that_never_ends_is_no_padding() {
        let most = MessageLimits::default().message;
        let zeros = |count: usize| vec![0; count];
        assert_eq!(frames(&zeros(most), 1000), Ok(Vec::new()));
        assert_eq!(frames(&zeros(most + 1), 1000), Err(MessageFault::TooBig { what: "padding" }));
        let kept_alive = [zeros(most), b"\r\n\r\n".to_vec(), zeros(most)].concat();
        assert_eq!(frames(&kept_alive, 1000).expect("a keep-alive between"), ["ping"]);
    }

    const TWO: &[u8] = b"\r\nMESSAGE sip:a@b SIP/2.0\r\nv: x\r\nContent-Length: 9\r\n\r\na\r\n\r\nb\r\n\r\
        \r\n\r\nOPTIONS sip:a@b SIP/2.0\r\nv: x\r\nl: 0\r\n\r\n";

    #[test]
    fn sip_t_02_pipelined_messages_are_the_same_at_every_split() {
        let whole = frames(TWO, TWO.len()).expect("legal");
        assert_eq!(whole, ["MESSAGE a\r\n\r\nb\r\n\r", "ping", "OPTIONS "]);
        for step in 1..TWO.len() {
            assert_eq!(frames(TWO, step).expect("legal"), whole, "at {step} octets");
        }
    }

    #[test]
    fn sip_t_03_a_length_that_does_not_tell_is_a_fault() {
        for length in ["", "Content-Length: -1\r\n", "l: 1\r\nContent-Length: 2\r\n", "l: 4294967296x\r\n"] {
            let text = format!("MESSAGE sip:a@b SIP/2.0\r\nv: x\r\n{length}\r\nhello");
            assert_eq!(frames(text.as_bytes(), 7), Err(MessageFault::ContentLength), "{length:?}");
        }
        let text = b"MESSAGE sip:a@b SIP/2.0\r\nv: x\r\nContent-Length: 4294967296\r\n\r\n";
        assert_eq!(frames(text, 99), Err(MessageFault::TooBig { what: "message" }));
    }

    #[test]
    fn sip_t_11_a_double_line_end_between_messages_is_a_keep_alive() {
        assert_eq!(frames(b"\r\n\r\n\r\n\r\n", 3).expect("legal"), ["ping", "ping"]);
        let inside = b"MESSAGE sip:a@b SIP/2.0\r\nv: x\r\nl: 4\r\n\r\n\r\n\r\n";
        assert_eq!(frames(inside, 1).expect("legal"), ["MESSAGE \r\n\r\n"]);
    }

    #[test]
    fn zeros_and_blanks_between_messages_are_keep_alives_of_phones_and_say_nothing() {
        let message = "OPTIONS sip:a@b SIP/2.0\r\nv: x\r\nl: 0\r\n\r\n";
        for junk in
            ["\r\n\0", "\0\0\0\0", "\0", "\n\n", " \r\n", "\r\r\n", "\r\n\r\0", "\t\0\r\n", "\r\n\0\r\n"]
        {
            let text = format!("{junk}{message}{junk}{message}{junk}");
            for step in [1, 2, 3, text.len()] {
                let seen = frames(text.as_bytes(), step).expect(junk);
                assert_eq!(seen, ["OPTIONS ", "OPTIONS "], "{junk:?} at {step} octets");
            }
            let mut framer = StreamFramer::new(MessageLimits::default());
            framer.push(junk.as_bytes());
            assert!(framer.next_frame().expect(junk).is_none() && !framer.is_inside(), "{junk:?}");
        }
        assert_eq!(frames(b"\0\r\n\r\n\0\r\n\r\n", 2).expect("legal"), ["ping", "ping"]);
        let body = b"MESSAGE sip:a@b SIP/2.0\r\nv: x\r\nl: 3\r\n\r\n\0\r\n";
        assert_eq!(frames(body, 1).expect("legal"), ["MESSAGE \0\r\n"], "a body is not touched");
    }

    #[test]
    fn sip_t_17_a_body_over_the_limit_is_not_waited_for() {
        let text = b"OPTIONS sip:a@b SIP/2.0\r\nv: x\r\nContent-Length: 65536\r\n\r\n";
        assert_eq!(frames(text, text.len()), Err(MessageFault::TooBig { what: "message" }));
    }

    #[test]
    fn sip_t_17_a_head_without_end_is_bounded() {
        let text = vec![b'a'; 70_000];
        assert_eq!(frames(&text, 1000), Err(MessageFault::TooBig { what: "message" }));
    }

    #[test]
    fn a_malformed_request_can_be_answered_where_its_via_can_be_read() {
        let fault = |text: String| {
            let mut framer = StreamFramer::new(MessageLimits::default());
            framer.push(text.as_bytes());
            framer.next_frame().expect_err("malformed")
        };
        let via = "Via: SIP/2.0/TCP h;branch=z9hG4bKa\r\nCall-ID: c\r\n";
        for (start, more, status) in [
            ("OPTIONS sip:a@b SIP/7.0", "", 505),
            ("OPTIONS sip:a@b SIP/2.0", "Con tact: x\r\n", 400),
            ("OPTIONS  sip:a@b SIP/2.0", "", 400),
            ("OPTIONS sip:a@b SIP/2.0", "Content-Length: 70000\r\n", 513),
        ] {
            let fault = fault(format!("{start}\r\n{via}{more}\r\n"));
            assert_eq!(fault.fault.status(), status, "{start}");
            assert_eq!(fault.head.expect("answerable").call_id(), Ok("c"), "{start}");
        }
        let long = format!("OPTIONS sip:{}@b SIP/2.0\r\n{via}\r\n", "a".repeat(9000));
        assert_eq!(fault(long).fault.status(), 414);
        for (start, via) in [
            ("OPTIONS sip:a@b SIP/7.0", "Via: x\r\n"),
            ("ACK sip:a@b SIP/7.0", via),
            ("SIP/2.0 999 x", via),
            ("SIP/7.0 200 OK", via),
        ] {
            assert!(fault(format!("{start}\r\n{via}\r\n")).head.is_none(), "{start}");
        }
    }
}
