//! The frames of a link: four octets of length, then a value in postcard's form.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::partners::PartnerRows;
use crate::{FromEdge, ToEdge};

/// One frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum LinkFrame {
    /// The first frame of each side: what it speaks.
    Hello {
        /// [`VERSION`].
        version: u16,
    },
    /// From the edge.
    FromEdge(FromEdge),
    /// From the gateway.
    ToEdge(ToEdge),
    /// From the gateway: whom the edge may talk to.
    Partners(PartnerRows),
    /// Behind the hello of each side, the gateway's first: which link this is, and whether it goes on.
    Resume {
        /// Chosen by the gateway when the link began; it outlives connections.
        session: u128,
        /// Frames of the other side that were taken.
        received: u64,
        /// The edge knows the link: what each side lacks of the other's frames is sent again.
        is_resumed: bool,
    },
    /// So many frames of the other side were taken, since the link began.
    Ack {
        /// Frames.
        received: u64,
    },
    /// In place of a greeting, behind a hello, or as the last frame: why this end hangs up.
    Refused {
        /// For the operator of the other end.
        reason: String,
    },
}

/// The version of this form. Ends of different versions part at once.
pub(super) const VERSION: u16 = 7;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    #[error("a frame of {len} octets is over the limit of {LIMIT}")]
    TooBig { len: usize },
    #[error("a frame that cannot be read")]
    Malformed,
}

/// Octets of the largest frame: twice the largest stanza that settings allow, for what one read brings is one frame.
const LIMIT: usize = 32 << 20;

impl LinkFrame {
    /// True for what must not be lost with a connection, so that it is counted and acknowledged.
    pub(super) fn is_counted(&self) -> bool {
        match self {
            Self::FromEdge(value) => !matches!(value, FromEdge::Beat),
            Self::ToEdge(value) => !matches!(value, ToEdge::Beat),
            Self::Partners(_) => true,
            Self::Hello { .. } | Self::Resume { .. } | Self::Ack { .. } | Self::Refused { .. } => false,
        }
    }

    /// The frame's octets; a fault when the other end would not take so many.
    pub(super) fn encode(&self) -> Result<Bytes, FrameFault> {
        let mut bytes =
            postcard::to_extend(self, vec![0; 4]).expect("frames hold nothing that cannot be written");
        let len = bytes.len() - 4;
        match u32::try_from(len) {
            Ok(head) if len <= LIMIT => bytes[..4].copy_from_slice(&head.to_be_bytes()),
            _ => return Err(FrameFault::TooBig { len }),
        }
        Ok(bytes.into())
    }

    /// Takes one frame off the front of a buffer; `None` until it is whole.
    pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameFault> {
        let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        if len > LIMIT {
            return Err(FrameFault::TooBig { len });
        }
        if buffer.len() < 4 + len {
            return Ok(None);
        }
        buffer.advance(4);
        let body = buffer.split_to(len);
        postcard::from_bytes(&body).map(Some).map_err(|_| FrameFault::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamId;

    #[test]
    fn frames_come_back_whatever_the_segments_were() {
        let frame = LinkFrame::FromEdge(FromEdge::Stanzas {
            stream: StreamId(7),
            first: 3,
            stanzas: vec![Bytes::from_static(b"<presence/>"), Bytes::from_static(b"<message/>")],
        });
        let bytes = frame.encode().expect("small");
        for split in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..split]);
            assert!(LinkFrame::decode(&mut buffer).expect("no fault").is_none(), "at {split}");
            buffer.extend_from_slice(&bytes[split..]);
            let back = LinkFrame::decode(&mut buffer).expect("no fault").expect("whole");
            assert_eq!(format!("{back:?}"), format!("{frame:?}"));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn the_largest_stanza_that_settings_allow_passes_with_all_that_its_read_brought_and_more_is_not_sent() {
        let frame = |len: usize| {
            let stanzas = vec![Bytes::from(vec![b'x'; len]), Bytes::from(vec![b'y'; 16 << 10])];
            LinkFrame::FromEdge(FromEdge::Stanzas { stream: StreamId(7), first: 1, stanzas })
        };
        let mut buffer = BytesMut::from(&frame(16 << 20).encode().expect("within the limit")[..]);
        let back = LinkFrame::decode(&mut buffer).expect("no fault").expect("whole");
        let LinkFrame::FromEdge(FromEdge::Stanzas { stanzas, .. }) = back else { panic!("another frame") };
        assert_eq!(stanzas.iter().map(Bytes::len).collect::<Vec<_>>(), [16 << 20, 16 << 10]);
        assert!(matches!(frame(LIMIT).encode(), Err(FrameFault::TooBig { .. })));
    }

    #[test]
    fn oversized_and_senseless_frames_are_refused() {
        let mut buffer = BytesMut::from(&[0xff; 8][..]);
        assert!(matches!(LinkFrame::decode(&mut buffer), Err(FrameFault::TooBig { .. })));
        let mut buffer = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert!(matches!(LinkFrame::decode(&mut buffer), Err(FrameFault::Malformed)));
    }
}
