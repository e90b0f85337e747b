//! What of a batch of stanzas has left when its connection breaks: whatever has not may be sent again by the next one.
//!
//! In: a batch, and a writer. Out: how many octets it took, and how many whole stanzas these are.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tombolo_xmpp::{
    framer::{Frame, Framer},
    xml::XmlLimits,
};

/// Writes all octets, and keeps in `written` how many have left, also when it fails or is given up half-way.
pub(crate) async fn write_counted(
    writer: &mut (impl AsyncWrite + Unpin),
    octets: &[u8],
    written: &mut usize,
) -> io::Result<()> {
    for piece in octets.chunks(PIECE_BYTES) {
        let mut rest = piece;
        while !rest.is_empty() {
            let len = writer.write(rest).await?;
            if len == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // What TLS has taken has left only once it is flushed.
            writer.flush().await?;
            *written += len;
            rest = &rest[len..];
        }
    }
    Ok(())
}

/// How many whole stanzas are in the first octets of a batch. The peer cannot have taken one of which a part is missing.
pub(crate) fn whole_stanzas(octets: &[u8]) -> u64 {
    // They are ours: only their ends are looked for.
    let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED.with_element_bytes(usize::MAX));
    framer.expect_stanzas();
    framer.push(HEADER);
    framer.push(octets);
    let mut count = 0;
    while let Ok(Some(frame)) = framer.next_frame() {
        count += u64::from(matches!(frame, Frame::Element(_)));
    }
    count
}

/// A stream whose prefixes are those of our streams.
const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
    xmlns:db='jabber:server:dialback'>";
/// One record of TLS: a peer takes it whole or not at all.
const PIECE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    fn batch(count: usize, padding: usize) -> Vec<u8> {
        let padding = "x".repeat(padding);
        let stanza =
            |n| format!("<message to='b@b.example' id='m{n}'><body>&lt;/message>{padding}</body></message>");
        (0..count).map(stanza).collect::<String>().into_bytes()
    }

    #[test]
    fn a_stanza_counts_when_its_last_octet_has_left() {
        let octets = batch(3, 20_000);
        let one = octets.len() / 3;
        for (len, count) in [(0, 0), (one - 1, 0), (one, 1), (one + 1, 1), (3 * one - 1, 2), (3 * one, 3)] {
            assert_eq!(whole_stanzas(&octets[..len]), count, "of {len} octets");
        }
    }

    #[tokio::test]
    async fn of_ten_messages_of_which_five_have_left_when_the_peer_goes_five_count() {
        let octets = batch(10, 7000);
        let room = octets.len() / 2 + 100;
        let (mut near, far) = duplex(room);
        let mut written = 0;
        tokio::select! {
            biased;
            result = write_counted(&mut near, &octets, &mut written) => panic!("too much room: {result:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!((written, whole_stanzas(&octets[..written])), (room, 5));
        drop(far);
        assert!(write_counted(&mut near, &octets[written..], &mut written).await.is_err());
        assert_eq!(written, room);
    }

    #[tokio::test]
    async fn all_octets_arrive_in_order() {
        let octets = batch(20, 7000);
        let (mut near, mut far) = duplex(1000);
        let (mut written, mut came) = (0, Vec::new());
        let writing = async {
            write_counted(&mut near, &octets, &mut written).await.expect("written");
            drop(near);
        };
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut came));
        read.expect("read");
        assert_eq!(came, octets);
        assert_eq!(written, octets.len());
    }
}
