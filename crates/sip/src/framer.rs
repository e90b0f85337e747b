//! Cuts a stream into messages by Content-Length only (RFC 3261 §18.3), the same whatever the segments were.
//!
//! Octets go in by [`StreamFramer::push`], frames come out by [`StreamFramer::next_frame`]. A malformed message whose length
//! is known is a frame too, for whatever is behind it on the stream is somebody else's. After a [`StreamFault`] the stream
//! is of no more use, because nobody can tell where the next message begins.

use bytes::{Buf, Bytes, BytesMut};

use crate::message::{Message, MessageFault, MessageLimits, body_len};

/// What came.
#[derive(Debug, Clone)]
pub enum Frame {
    /// A whole message.
    Message(Box<Message>),
    /// A whole message that cannot be served; the next one begins behind it.
    Malformed(Malformed),
    /// A keep-alive of two line ends between messages: to be answered with one (RFC 5626 §4.4.1).
    Ping,
}

/// A message that cannot be served.
#[derive(Debug, Clone)]
pub struct Malformed {
    /// What is wrong.
    pub fault: MessageFault,
    /// What is left of a request that can be answered; see [`Message::answerable`].
    pub head: Option<Box<Message>>,
}

/// Why the stream cannot be read any further: the length of this message is not known, or too large to skip.
#[derive(Debug)]
pub struct StreamFault(pub Malformed);

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
    body: Body,
}

/// The part of a message that the framer has not seen the end of.
#[derive(Debug)]
enum Body {
    /// None: the next octets are padding or a head.
    Outside,
    /// So many octets belong to this message.
    Wanted(Box<Message>, usize),
    /// So many octets are still to be thrown away, as they come.
    Skipped(Malformed, usize),
}

impl StreamFramer {
    /// A framer for a new stream.
    pub fn new(limits: MessageLimits) -> Self {
        Self { limits, buffer: BytesMut::new(), searched: 0, skipped: 0, body: Body::Outside }
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
        !matches!(self.body, Body::Outside) || !is_padding(&self.buffer)
    }

    /// The next message or keep-alive; `None` until more octets come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamFault> {
        if matches!(self.body, Body::Outside) {
            if self.take_padding()? {
                return Ok(Some(Frame::Ping));
            }
            self.take_head()?;
        }
        match std::mem::replace(&mut self.body, Body::Outside) {
            Body::Outside => Ok(None),
            Body::Wanted(mut message, len) if self.buffer.len() >= len => {
                if len > 0 {
                    message.set_body(self.buffer.split_to(len).freeze());
                }
                Ok(Some(Frame::Message(message)))
            }
            Body::Skipped(malformed, len) if self.buffer.len() >= len => {
                self.buffer.advance(len);
                Ok(Some(Frame::Malformed(malformed)))
            }
            Body::Skipped(malformed, len) => {
                self.body = Body::Skipped(malformed, len - self.buffer.len());
                self.buffer.clear();
                Ok(None)
            }
            wanted => {
                self.body = wanted;
                Ok(None)
            }
        }
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

    /// Reads a head, if a whole one is there, and finds how much of the stream is its body.
    fn take_head(&mut self) -> Result<(), StreamFault> {
        let from = self.searched.saturating_sub(3);
        let too_big = MessageFault::TooBig { what: "message" };
        let Some(at) = memchr::memmem::find(&self.buffer[from..], b"\r\n\r\n") else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > self.limits.head() {
                Err(self.fault(too_big, &self.buffer))
            } else {
                Ok(())
            };
        };
        let head = self.buffer.split_to(from + at + 4).freeze();
        (self.searched, self.skipped) = (0, 0);
        if head.len() > self.limits.head() {
            return Err(self.fault(too_big, &head));
        }
        self.body = match self.read_head(&head) {
            Ok((message, len)) => Body::Wanted(Box::new(message), len),
            Err(fault) => {
                let len = body_len(&head).map_err(|doubt| self.fault(doubt, &head))?;
                if len > self.limits.message.saturating_add(MAX_SKIPPED) {
                    return Err(self.fault(fault, &head));
                }
                Body::Skipped(self.malformed(fault, &head), len)
            }
        };
        Ok(())
    }

    fn read_head(&self, head: &Bytes) -> Result<(Message, usize), MessageFault> {
        let message = Message::read(head.clone(), Bytes::new(), &self.limits)?;
        let len = message.content_length()?.ok_or(MessageFault::ContentLength)?;
        if len.saturating_add(head.len()) > self.limits.message {
            return Err(MessageFault::TooBig { what: "message" });
        }
        if message.vias().next().is_none() {
            return Err(MessageFault::NoVia);
        }
        Ok((message, len))
    }

    fn malformed(&self, fault: MessageFault, octets: &[u8]) -> Malformed {
        Malformed { fault, head: Message::answerable(octets, &self.limits).map(Box::new) }
    }

    fn fault(&self, fault: MessageFault, octets: &[u8]) -> StreamFault {
        StreamFault(self.malformed(fault, octets))
    }
}

/// Octets over the limit of a message that are read away to reach the next one.
const MAX_SKIPPED: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `text` in pieces of `step` octets; malformed messages by their status.
    fn frames(text: &[u8], step: usize) -> Result<Vec<String>, MessageFault> {
        let mut framer = StreamFramer::new(MessageLimits::default());
        let mut seen = Vec::new();
        for part in text.chunks(step) {
            framer.push(part);
            while let Some(frame) = framer.next_frame().map_err(|fault| fault.0.fault)? {
                seen.push(match frame {
                    Frame::Message(message) => {
                        format!("{} {}", message.method_text(), String::from_utf8_lossy(message.body()))
                    }
                    Frame::Malformed(Malformed { fault, head: Some(_) }) => fault.status().to_string(),
                    Frame::Malformed(Malformed { fault, head: None }) => format!("dropped: {fault}"),
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
        let in_doubt = format!("MESSAGE sip:a b SIP/2.0\r\n{VIA}Subject: a\n\nb\r\nl: 0\r\n\r\n");
        assert_eq!(frames(in_doubt.as_bytes(), 9), Err(MessageFault::ContentLength), "a head with two ends");
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
    fn sip_t_17_a_body_over_the_limit_is_skipped_without_being_kept() {
        let mut framer = StreamFramer::new(MessageLimits::default());
        let mut frames = Vec::new();
        let len = MAX_SKIPPED;
        framer.push(format!("MESSAGE sip:a@b SIP/2.0\r\n{VIA}Content-Length: {len}\r\n\r\n").as_bytes());
        for _ in 0..len / 16_384 {
            assert!(framer.next_frame().expect("the length is known").is_none() && framer.is_inside());
            assert!(framer.buffer_mut().is_empty(), "nothing is kept");
            framer.push(&[b'x'; 16_384]);
        }
        framer.push(b"OPTIONS sip:a@b SIP/2.0\r\nv: x\r\nl: 0\r\n\r\n");
        while let Some(frame) = framer.next_frame().expect("legal") {
            frames.push(frame);
        }
        assert!(matches!(&frames[0], Frame::Malformed(malformed) if malformed.fault.status() == 513));
        assert!(matches!(&frames[1], Frame::Message(message) if message.method_text() == "OPTIONS"));
        assert!(framer.buffer_mut().capacity() < 100_000, "{}", framer.buffer_mut().capacity());
    }

    #[test]
    fn sip_t_17_a_body_too_large_to_skip_ends_the_stream_at_its_head() {
        for len in [MAX_SKIPPED + 65_537, usize::MAX] {
            let text = format!("OPTIONS sip:a@b SIP/2.0\r\n{VIA}Content-Length: {len}\r\n\r\n");
            assert_eq!(frames(text.as_bytes(), text.len()), Err(MessageFault::TooBig { what: "message" }));
        }
    }

    const VIA: &str = "Via: SIP/2.0/TCP h;branch=z9hG4bKa\r\n";

    #[test]
    fn sip_x_09_what_is_behind_a_malformed_message_of_known_length_is_read() {
        let request = |start: &str, more: &str, body: &str| {
            format!("{start}\r\n{VIA}{more}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        let message = |more: &str| request("MESSAGE sip:a@b SIP/2.0", more, "hi");
        for (malformed, status) in [
            (request("MESSAGE sip:a<b@c SIP/2.0", "", "hi"), "400"),
            (request("MESSAGE sip:a b@c SIP/2.0", "", "\r\n\r\n"), "400"),
            (request("MESSAGE sip:a@b SIP/3.0", "", "hi"), "505"),
            (request(&format!("MESSAGE sip:{}@b SIP/2.0", "a".repeat(9000)), "", ""), "414"),
            (message(&format!("X: {}\r\n", "x".repeat(9000))), "400"),
            (message(&"X: x\r\n".repeat(200)), "400"),
            (message(&VIA.repeat(71)), "400"),
            (message("no colon\r\n"), "400"),
            (message("To: \0\r\n"), "400"),
            (message("Subject: a\nb\r\n"), "400"),
            (request("MESSAGE sip:a@b SIP/2.0", "", &"x".repeat(70_000)), "513"),
            (message("Call-ID: \u{e9}\r\n").replace('\u{e9}', "\u{7f}"), "400"),
            (message("").replace(VIA, ""), "dropped: there is no Via"),
            (message("").replace(VIA, "Via: x\r\nno colon\r\n"), "dropped: a malformed header field"),
            (request("SIP/2.0 999 x", "", "hi"), "dropped: a malformed start line"),
            (request("SIP/7.0 200 OK", "", "hi"), "dropped: a malformed start line"),
            (request("SIP/2.0 200 OK", "no colon\r\n", "hi"), "dropped: a malformed header field"),
            (request("ACK sip:a@b SIP/3.0", "", ""), "dropped: the version is not SIP/2.0"),
            (request("SIP/2.0 200 OK", "", "hi").replace(VIA, ""), "dropped: there is no Via"),
        ] {
            let whole = message("") + &malformed + "\r\n\r\n" + &malformed + &message("");
            for step in [1, 7, whole.len()] {
                let seen = frames(whole.as_bytes(), step).expect(status);
                assert_eq!(seen, ["MESSAGE hi", status, "ping", status, "MESSAGE hi"], "{malformed:.99}");
            }
        }
        let latin = |field: &[u8]| {
            let (begin, end) = (request("MESSAGE sip:a@b SIP/2.0", "", "hi"), "\r\n".len());
            let at = begin.find("Content-Length").expect("a length");
            [&begin.as_bytes()[..at - end], b"\r\n", field, b"\r\n", &begin.as_bytes()[at..]].concat()
        };
        assert_eq!(frames(&latin(b"Subject: \xff\xfe").repeat(2), 9).expect("legal"), ["MESSAGE hi"; 2]);
        assert_eq!(frames(&latin(b"Call-ID: \xff").repeat(2), 9).expect("its length is known"), ["400"; 2]);
    }

    #[test]
    fn a_head_over_a_low_limit_is_refused_and_what_is_behind_it_is_read() {
        let mut framer = StreamFramer::new(MessageLimits { message: 2000, ..MessageLimits::default() });
        let rows = format!("X: {}\r\n", "x".repeat(900)).repeat(4);
        let large = format!("OPTIONS sip:a@b SIP/2.0\r\n{VIA}{rows}l: 0\r\n\r\n");
        framer.push((large.clone() + &large.replace(&rows, "")).as_bytes());
        let seen: Vec<_> = std::iter::from_fn(|| framer.next_frame().expect("lengths are known")).collect();
        assert!(matches!(&seen[..], [Frame::Malformed(malformed), Frame::Message(_)]
            if malformed.fault.status() == 513 && malformed.head.is_some()));
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
            framer.next_frame().map_or_else(
                |fault| fault.0,
                |frame| match frame {
                    Some(Frame::Malformed(malformed)) => malformed,
                    other => panic!("{other:?}"),
                },
            )
        };
        let via = "Via: SIP/2.0/TCP h;branch=z9hG4bKa\r\nCall-ID: c\r\n";
        for (start, more, status) in [
            ("OPTIONS sip:a@b SIP/7.0", "", 505),
            ("OPTIONS sip:a@b SIP/2.0", "Con tact: x\r\n", 400),
            ("OPTIONS  sip:a@b SIP/2.0", "", 400),
            ("OPTIONS sip:a@b SIP/2.0", "Content-Length: 70000000\r\n", 513),
        ] {
            let length = if more.starts_with("Content-Length") { "" } else { "l: 0\r\n" };
            let fault = fault(format!("{start}\r\n{via}{more}{length}\r\n"));
            assert_eq!(fault.fault.status(), status, "{start}");
            assert_eq!(fault.head.expect("answerable").call_id(), Ok("c"), "{start}");
        }
        let long = format!("OPTIONS sip:{}@b SIP/2.0\r\n{via}l: 0\r\n\r\n", "a".repeat(9000));
        assert_eq!(fault(long).fault.status(), 414);
        for (start, via) in [
            ("OPTIONS sip:a@b SIP/7.0", "Via: x\r\n"),
            ("ACK sip:a@b SIP/7.0", via),
            ("SIP/2.0 999 x", via),
            ("SIP/7.0 200 OK", via),
        ] {
            assert!(fault(format!("{start}\r\n{via}l: 0\r\n\r\n")).head.is_none(), "{start}");
        }
    }
}
