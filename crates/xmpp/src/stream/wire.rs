//! What both directions of a stream share: framing, output, events, and the end of the stream.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{CloseCause, StreamEvent, StreamFault};
use crate::{
    framer::{Frame, Framer},
    ns,
    stream_error::{StreamCondition, write_stream_error},
    write,
    xml::{Checked, Scope, XmlLimits},
};

/// Bounds of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bounds of an element before a pair is proved.
    pub unauthenticated: XmlLimits,
    /// Octets of a stanza once a pair is proved; under 10,000 counts as 10,000.
    pub stanza_bytes: usize,
    /// Elements that a peer may send before it proved a pair.
    pub unauthenticated_elements: usize,
    /// From the first byte to the first proved pair.
    pub time_to_authenticate: Duration,
    /// From a dialback request to its answer.
    pub dialback_wait: Duration,
    /// From our end of the stream to the peer's.
    pub close_wait: Duration,
    /// Failed attempts of SASL.
    pub sasl_attempts: u32,
    /// Pairs on a stream, proved and asked for.
    pub pairs: usize,
    /// Stanzas with a malformed address that a peer may send in a minute.
    pub malformed_addresses: u32,
    /// Keys of a peer that has proved no pair yet that are asked about at one time.
    pub keys_before_proof: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            unauthenticated: XmlLimits::UNAUTHENTICATED,
            stanza_bytes: 256 * 1024,
            unauthenticated_elements: 128,
            time_to_authenticate: Duration::from_secs(30),
            dialback_wait: Duration::from_secs(30),
            close_wait: Duration::from_secs(5),
            sasl_attempts: 3,
            pairs: 128,
            malformed_addresses: 600,
            keys_before_proof: 4,
        }
    }
}

/// One connection's bytes, and how far its life has come.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) framer: Framer,
    pub(super) output: Vec<u8>,
    pub(super) events: VecDeque<StreamEvent>,
    pub(super) life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// We ended our side and wait for the peer's end.
    Closing {
        until: Instant,
    },
    Closed,
}

impl Wire {
    pub(super) fn new(limits: XmlLimits) -> Self {
        Self { framer: Framer::new(limits), output: Vec::new(), events: VecDeque::new(), life: Life::Open }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.life == Life::Closed
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output).into())
    }

    /// Ends our side in order.
    pub(super) fn close(&mut self, until: Instant) {
        if self.life == Life::Open {
            self.output.extend_from_slice(END);
            self.life = Life::Closing { until };
        }
    }

    /// The peer ended its side.
    pub(super) fn peer_ended(&mut self) {
        if self.life == Life::Open {
            self.output.extend_from_slice(END);
        }
        self.closed(CloseCause::Ordered);
    }

    /// The peer sent a stream error.
    pub(super) fn peer_failed(&mut self, cause: CloseCause) {
        if self.life == Life::Open {
            self.output.extend_from_slice(END);
        }
        self.closed(cause);
    }

    /// Ends the stream with an error; our header was sent before.
    pub(super) fn fail(
        &mut self,
        condition: StreamCondition,
        text: Option<&str>,
        application: Option<&str>,
        cause: CloseCause,
    ) {
        // Behind our own end of the stream nothing may follow.
        if self.life == Life::Open {
            write_stream_error(&mut self.output, condition, text, application);
            self.output.extend_from_slice(END);
        }
        self.closed(cause);
    }

    /// Over: the event is given once, and nothing is read any more.
    pub(super) fn closed(&mut self, cause: CloseCause) {
        if self.life != Life::Closed {
            self.life = Life::Closed;
            self.framer.forget();
            self.events.push_back(StreamEvent::Closed(cause));
        }
    }

    /// The next frame. `None` when more bytes are needed.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, StreamFault> {
        Ok(self.framer.next_frame()?)
    }
}

const END: &[u8] = b"</stream:stream>";

/// The stanza with every namespace declared in itself that so far only the stream header declares.
///
/// Nearly no stanza needs it; one that does is copied.
pub(super) fn complete(frame: Bytes, checked: &Checked<'_>, scope: &Scope) -> Bytes {
    if checked.borrowed_prefixes.is_empty() {
        return frame;
    }
    let text = checked.text;
    let name_end = text.find([' ', '\t', '\n', '\r', '/', '>']).unwrap_or(text.len());
    let mut whole = Vec::with_capacity(text.len() + 64);
    whole.extend_from_slice(&text.as_bytes()[..name_end]);
    for prefix in &checked.borrowed_prefixes {
        if let Some(namespace) = scope.namespace(prefix) {
            write::attribute(&mut whole, &format!("xmlns:{prefix}"), namespace);
        }
    }
    whole.extend_from_slice(&text.as_bytes()[name_end..]);
    whole.into()
}

/// Appends `<proceed/>` or `<starttls/>`.
pub(super) fn write_tls_element(out: &mut Vec<u8>, name: &str) {
    write::empty_element(out, name, ns::TLS);
}
