//! What an edge knows of its streams, so that those of partners outlive their gateway.
//!
//! In: what streams report. Out: how much of each is on its way to the gateway, and, for another gateway, the streams that
//! partners have open, each with the pairs that are proved on it.
//!
//! A gateway that was stopped and started again would otherwise lose what partners wrote meanwhile, for it lies unread in
//! streams that nobody would have read. Streams that we opened are of the gateway that wanted them, and end with it.

use std::collections::HashMap;

use crate::{DomainPair, FromEdge, StreamDirection, StreamId};

/// One stream.
#[derive(Debug, Default)]
struct Known {
    /// How it was reported, when it is a partner's.
    up: Option<FromEdge>,
    /// The pairs that are proved on it.
    pairs: Vec<DomainPair>,
    /// Octets of its stanzas that are on their way to the gateway and not taken.
    on_its_way: usize,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<StreamId, Known>);

impl Streams {
    /// A stream reports something that is no stanza.
    pub(super) fn note(&mut self, value: &FromEdge) {
        match value {
            FromEdge::StreamUp { stream, direction, pair, .. } => {
                let known = self.0.entry(*stream).or_default();
                if *direction == StreamDirection::Incoming {
                    known.up = Some(value.clone());
                    known.pairs.push(pair.clone());
                }
            }
            FromEdge::PairProved { stream, pair } => {
                if let Some(known) = self.0.get_mut(stream).filter(|known| !known.pairs.contains(pair)) {
                    known.pairs.push(pair.clone());
                }
            }
            FromEdge::PairLost { stream, pair } => {
                if let Some(known) = self.0.get_mut(stream) {
                    known.pairs.retain(|proved| proved != pair);
                }
            }
            FromEdge::StreamDown { stream, .. } => _ = self.0.remove(stream),
            FromEdge::Stanzas { .. }
            | FromEdge::Written { .. }
            | FromEdge::DialFailed { .. }
            | FromEdge::Beat => {}
        }
    }

    /// Octets of a stream's stanzas that are on their way.
    pub(super) fn on_its_way(&mut self, stream: StreamId) -> &mut usize {
        &mut self.0.entry(stream).or_default().on_its_way
    }

    /// The gateway has taken so many octets of a stream's stanzas.
    pub(super) fn taken(&mut self, stream: StreamId, bytes: usize) {
        if let Some(known) = self.0.get_mut(&stream) {
            known.on_its_way = known.on_its_way.saturating_sub(bytes);
        }
    }

    /// Another gateway comes, which knows none of the streams: what it is to be told, partners' streams with their proved
    /// pairs and, of `unacknowledged`, their stanzas. All other streams are forgotten.
    pub(super) fn hand_over(&mut self, unacknowledged: Vec<FromEdge>) -> Vec<FromEdge> {
        self.0.retain(|_, known| known.up.is_some() && !known.pairs.is_empty());
        let mut told = Vec::new();
        for (stream, known) in &mut self.0 {
            known.on_its_way = 0;
            let (first, more) = known.pairs.split_first().expect("those without were left out");
            if let Some(FromEdge::StreamUp {
                stream,
                direction,
                dial,
                method,
                tls,
                window_bytes,
                max_stanza_bytes,
                ..
            }) = known.up.clone()
            {
                told.push(FromEdge::StreamUp {
                    pair: first.clone(),
                    stream,
                    direction,
                    dial,
                    method,
                    tls,
                    window_bytes,
                    max_stanza_bytes,
                });
            }
            told.extend(more.iter().map(|pair| FromEdge::PairProved { stream: *stream, pair: pair.clone() }));
        }
        for value in unacknowledged {
            if let FromEdge::Stanzas { stream, stanzas, .. } = &value
                && let Some(known) = self.0.get_mut(stream)
            {
                known.on_its_way += stanzas.iter().map(bytes::Bytes::len).sum::<usize>();
                told.push(value);
            }
        }
        told
    }

    /// True for a partner's stream that is up.
    pub(super) fn has(&self, stream: StreamId) -> bool {
        self.0.contains_key(&stream)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tombolo_presence::Domain;

    use super::*;
    use crate::{ProofMethod, StreamEnd};

    fn pair(remote: &str) -> DomainPair {
        DomainPair {
            local: Domain::from_prepared("corp.example").expect("a domain"),
            remote: Domain::from_prepared(remote).expect("a domain"),
        }
    }

    fn up(stream: u64, direction: StreamDirection) -> FromEdge {
        FromEdge::StreamUp {
            stream: StreamId(stream),
            direction,
            dial: None,
            pair: pair("a.example"),
            method: ProofMethod::SaslExternal,
            tls: None,
            window_bytes: 1,
            max_stanza_bytes: None,
        }
    }

    fn stanza(stream: u64, first: u64) -> FromEdge {
        FromEdge::Stanzas {
            stream: StreamId(stream),
            first,
            stanzas: vec![Bytes::from_static(b"<message/>")],
        }
    }

    fn told(streams: &mut Streams, unacknowledged: Vec<FromEdge>) -> Vec<String> {
        let of = |value: &FromEdge| match value {
            FromEdge::StreamUp { stream, pair, .. } => format!("up {} {}", stream.0, pair.remote),
            FromEdge::PairProved { stream, pair } => format!("proved {} {}", stream.0, pair.remote),
            FromEdge::Stanzas { stream, first, .. } => format!("stanza {} {first}", stream.0),
            other => panic!("{other:?}"),
        };
        streams.hand_over(unacknowledged).iter().map(of).collect()
    }

    #[test]
    fn another_gateway_is_told_of_partners_streams_with_what_is_proved_and_was_not_taken() {
        let mut streams = Streams::default();
        streams.note(&up(1, StreamDirection::Incoming));
        streams.note(&up(2, StreamDirection::Outgoing));
        streams.note(&FromEdge::PairProved { stream: StreamId(1), pair: pair("b.example") });
        streams.note(&FromEdge::PairProved { stream: StreamId(1), pair: pair("c.example") });
        streams.note(&FromEdge::PairLost { stream: StreamId(1), pair: pair("a.example") });
        *streams.on_its_way(StreamId(1)) += 5000;
        let said = told(&mut streams, vec![stanza(1, 7), stanza(2, 1), stanza(1, 8)]);
        assert_eq!(said, ["up 1 b.example", "proved 1 c.example", "stanza 1 7", "stanza 1 8"]);
        assert_eq!(*streams.on_its_way(StreamId(1)), 20, "only what is said again");
        assert!(!streams.has(StreamId(2)));
    }

    #[test]
    fn a_stream_that_ended_or_carries_no_pair_any_more_is_not_handed_over() {
        let mut streams = Streams::default();
        for stream in [1, 2] {
            streams.note(&up(stream, StreamDirection::Incoming));
        }
        streams.note(&FromEdge::PairLost { stream: StreamId(1), pair: pair("a.example") });
        let end = StreamEnd::Closed;
        streams.note(&FromEdge::StreamDown { stream: StreamId(2), end, last_written: 0 });
        assert_eq!(told(&mut streams, vec![stanza(2, 1)]), Vec::<String>::new());
        assert!(streams.is_empty());
    }
}
