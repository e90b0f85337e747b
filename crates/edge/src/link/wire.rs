//! One connection of a link: greetings first, then frames in, frames out, and the beat of both sides.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::{interval, timeout},
};
use tombolo_net::AnyStream;
use tombolo_telemetry::Metrics;

use super::{
    frame::{LinkFrame, VERSION},
    journal::Journal,
};
use crate::{
    BEAT, BEAT_LOST, FromEdge, ToEdge,
    caught::{PANICKED, caught},
    stream_end::printable,
};

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Edge,
    Gateway,
}

/// What an end says before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Which link this is; a connection that ended may have been of the same.
    pub(super) session: u128,
    /// Frames of the other end that were taken.
    pub(super) received: u64,
    /// The link goes on. Only the edge knows.
    pub(super) is_resumed: bool,
}

/// Says who we are and how far we got. The gateway begins.
pub(super) async fn send_greeting(stream: &mut AnyStream, greeting: Greeting) -> io::Result<()> {
    let Greeting { session, received, is_resumed } = greeting;
    let mut bytes = BytesMut::new();
    for frame in [LinkFrame::Hello { version: VERSION }, LinkFrame::Resume { session, received, is_resumed }]
    {
        bytes.extend_from_slice(&frame.encode().expect("greetings are small"));
    }
    let written = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    timeout(BEAT_LOST, written).await.map_err(|_| takes_nothing())?
}

/// Hangs up, and says why as far as one can without waiting long. It begins with a hello, so that an end of another
/// version finds the cause itself.
pub(super) async fn send_refusal(stream: &mut AnyStream, reason: String) {
    let mut bytes = BytesMut::new();
    for frame in [LinkFrame::Hello { version: VERSION }, LinkFrame::Refused { reason }] {
        bytes.extend_from_slice(&frame.encode().expect("a refusal is small"));
    }
    let written = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        // Closed with octets unread, the connection would be reset and the reason lost.
        tokio::io::copy(&mut stream.take(REFUSED_OCTETS), &mut tokio::io::sink()).await
    };
    // The other end may be gone.
    let _ = timeout(REFUSAL_LIMIT, written).await;
}

/// The other end hung up, in its own words.
fn refused(reason: &str) -> io::Error {
    io::Error::other(format!("the other end refused the link: {}", printable(reason)))
}

/// The greeting of the other end; what came behind it stays in `buffer`.
pub(super) async fn read_greeting(stream: &mut AnyStream, buffer: &mut BytesMut) -> io::Result<Greeting> {
    let mut is_greeted = false;
    loop {
        match LinkFrame::decode(buffer).map_err(|fault| io::Error::other(fault.to_string()))? {
            None => {}
            Some(LinkFrame::Hello { version: VERSION }) if !is_greeted => {
                is_greeted = true;
                continue;
            }
            Some(LinkFrame::Hello { version }) => {
                return Err(io::Error::other(format!(
                    "the other end is of another version of Tombolo: its link frames are of version {version}, \
                     ours of {VERSION}; both must be the same"
                )));
            }
            Some(LinkFrame::Refused { reason }) => return Err(refused(&reason)),
            Some(LinkFrame::Resume { session, received, is_resumed }) if is_greeted => {
                return Ok(Greeting { session, received, is_resumed });
            }
            Some(_) => return Err(io::Error::other("a frame before the hello")),
        }
        match timeout(BEAT_LOST, stream.read_buf(buffer)).await {
            Err(_) => {
                let text = "no greeting from the other end; an edge answers one gateway at a time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Ok(Ok(0)) => {
                let text = "hung up before its greeting; its log says why";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Ok(read) => _ = read?,
        }
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no beat from the other end")
}

fn takes_nothing() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing")
}

/// Carries frames behind the greetings until the connection ends; why it did. `buffer` holds what came behind the other
/// end's greeting. `take` is given every frame that counts, and waited for; a frame is noted as received when `take` was
/// polled once, so what it awaits must not lose the frame. A panic over a frame ends the connection, and the frame does
/// not come again.
pub(super) async fn carry<F>(
    stream: AnyStream,
    mut buffer: BytesMut,
    end: End,
    journal: Arc<Journal>,
    metrics: &Metrics,
    mut take: impl FnMut(LinkFrame) -> F,
) -> io::Error
where
    F: Future<Output = ()>,
{
    let (mut reader, mut writer) = split(stream);
    // A write that was broken off may have left part of a frame behind.
    let is_mid_frame = AtomicBool::new(false);
    let reading = async {
        loop {
            match LinkFrame::decode(&mut buffer) {
                Ok(Some(frame)) if frame.is_counted() => {
                    journal.note_received();
                    take(frame).await;
                    continue;
                }
                Ok(Some(LinkFrame::Ack { received })) if journal.handle_ack(received) => continue,
                Ok(Some(LinkFrame::FromEdge(FromEdge::Beat) | LinkFrame::ToEdge(ToEdge::Beat))) => continue,
                Ok(Some(LinkFrame::Refused { reason })) => return refused(&reason),
                Ok(Some(_)) => return fault("a frame that has no place here"),
                Err(error) => return fault(&error.to_string()),
                Ok(None) => {}
            }
            buffer.reserve(64 << 10);
            match timeout(BEAT_LOST, reader.read_buf(&mut buffer)).await {
                Err(_) => return silent(),
                Ok(Err(error)) => return error,
                Ok(Ok(0)) => return io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other end"),
                Ok(Ok(_)) => {}
            }
        }
    };
    let writing = async {
        let beat = match end {
            End::Edge => LinkFrame::FromEdge(FromEdge::Beat),
            End::Gateway => LinkFrame::ToEdge(ToEdge::Beat),
        }
        .encode()
        .expect("a beat is small");
        let mut beats = interval(BEAT);
        loop {
            let bytes = tokio::select! {
                taken = journal.take() => match taken {
                    Some(bytes) => bytes,
                    None => return io::Error::other("more waits for the other end than may"),
                },
                _ = beats.tick() => beat.clone(),
            };
            let written = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            is_mid_frame.store(true, Ordering::Relaxed);
            match timeout(BEAT_LOST, written).await {
                Ok(Ok(())) => is_mid_frame.store(false, Ordering::Relaxed),
                Ok(Err(error)) => return error,
                Err(_) => return takes_nothing(),
            }
        }
    };
    let either = async {
        tokio::select! {
            error = reading => error,
            error = writing => error,
        }
    };
    let error = caught(metrics, "link", either).await.unwrap_or_else(|| io::Error::other(PANICKED));
    if error.kind() == io::ErrorKind::InvalidData && !is_mid_frame.into_inner() {
        let refused = LinkFrame::Refused { reason: error.to_string() }.encode().expect("a refusal is small");
        let written = async {
            writer.write_all(&refused).await?;
            writer.shutdown().await
        };
        // The other end may be gone.
        let _ = timeout(REFUSAL_LIMIT, written).await;
    }
    error
}

/// The other end broke the rules of the link, and is told so.
fn fault(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// How long an end that is refused may take to hear why.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);
/// Octets of it that are passed over meanwhile.
const REFUSED_OCTETS: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::StreamId;

    const OWN: Greeting = Greeting { session: 7, received: 0, is_resumed: false };

    /// The end of a link that `other` is at the other end of, and the frames that came until then.
    async fn carried<F: Future<Output = ()>>(other: impl FnOnce(TcpStream) -> F) -> (io::Error, Vec<String>) {
        carried_with(&Metrics::new(1), other).await
    }

    async fn carried_with<F: Future<Output = ()>>(
        metrics: &Metrics,
        other: impl FnOnce(TcpStream) -> F,
    ) -> (io::Error, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a listener");
        let (near, _) = listener.accept().await.expect("accepted");
        let taken = Mutex::new(Vec::new());
        let carrying = async {
            let (mut stream, mut buffer) = (AnyStream::Plain(near), BytesMut::new());
            if let Err(error) = read_greeting(&mut stream, &mut buffer).await {
                return error;
            }
            send_greeting(&mut stream, OWN).await.expect("written");
            carry(stream, buffer, End::Edge, Arc::default(), metrics, |frame| {
                assert!(!format!("{frame:?}").contains("StreamId(666)"), "as the test ordered");
                taken.lock().push(format!("{frame:?}"));
                std::future::ready(())
            })
            .await
        };
        let (error, ()) = tokio::join!(carrying, other(far));
        (error, taken.into_inner())
    }

    fn close(stream: u64) -> LinkFrame {
        LinkFrame::ToEdge(ToEdge::Close { stream: StreamId(stream) })
    }

    fn hello() -> [LinkFrame; 2] {
        [
            LinkFrame::Hello { version: VERSION },
            LinkFrame::Resume { session: 7, received: 0, is_resumed: false },
        ]
    }

    async fn send(socket: &mut TcpStream, frames: &[LinkFrame]) {
        for frame in frames {
            socket.write_all(&frame.encode().expect("small")).await.expect("written");
        }
    }

    async fn next(socket: &mut TcpStream, buffer: &mut BytesMut) -> LinkFrame {
        loop {
            if let Some(frame) = LinkFrame::decode(buffer).expect("frames") {
                return frame;
            }
            assert_ne!(socket.read_buf(buffer).await.expect("read"), 0);
        }
    }

    #[tokio::test]
    async fn frames_behind_the_greeting_are_taken_and_acknowledged_and_beats_are_not_told() {
        let (error, taken) = carried(|mut far| async move {
            send(&mut far, &hello()).await;
            send(&mut far, &[LinkFrame::ToEdge(ToEdge::Beat), close(1), close(2)]).await;
            let mut buffer = BytesMut::new();
            let first = next(&mut far, &mut buffer).await;
            assert!(matches!(first, LinkFrame::Hello { version: VERSION }), "{first:?}");
            let second = next(&mut far, &mut buffer).await;
            assert!(matches!(second, LinkFrame::Resume { session: 7, .. }), "{second:?}");
            while !matches!(next(&mut far, &mut buffer).await, LinkFrame::Ack { received: 2 }) {}
            far.shutdown().await.expect("closed");
        })
        .await;
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(taken, [format!("{:?}", close(1)), format!("{:?}", close(2))]);
    }

    #[tokio::test]
    async fn an_end_of_another_version_or_without_a_hello_is_left_before_it_has_said_anything() {
        let [hello, resume] = hello();
        let strangers = [
            vec![LinkFrame::Hello { version: VERSION + 1 }, resume.clone(), close(1)],
            vec![close(1), hello.clone(), resume.clone()],
            vec![resume, hello, close(1)],
        ];
        for frames in strangers {
            let (error, taken) = carried(|mut far| async move {
                send(&mut far, &frames).await;
                // Held open: what ends the link is what was said.
                let _ = far.read_to_end(&mut Vec::new()).await;
            })
            .await;
            assert_eq!(error.kind(), io::ErrorKind::Other, "{error}");
            assert_eq!(taken, Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn why_the_other_end_hangs_up_is_told_in_its_words_without_control_characters() {
        let refusal = || LinkFrame::Refused { reason: "expired\u{1b}[2J on 2024-01-31".to_owned() };
        let [hello, resume] = hello();
        for frames in [vec![hello.clone(), refusal()], vec![refusal()], vec![hello, resume, refusal()]] {
            let (error, _) = carried(|mut far| async move {
                send(&mut far, &frames).await;
                let _ = far.read_to_end(&mut Vec::new()).await;
            })
            .await;
            let text = "the other end refused the link: expired\u{fffd}[2J on 2024-01-31";
            assert_eq!(error.to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_frame_that_panics_ends_its_connection_and_is_counted() {
        let metrics = Metrics::new(1);
        let (error, taken) = carried_with(&metrics, |mut far| async move {
            send(&mut far, &hello()).await;
            send(&mut far, &[close(1), close(666), close(2)]).await;
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert_eq!(error.to_string(), PANICKED);
        assert_eq!(taken, [format!("{:?}", close(1))]);
        assert!(metrics.render().contains("tombolo_panics_total 1"), "{}", metrics.render());
    }

    #[tokio::test]
    async fn an_end_that_breaks_the_rules_is_told_so() {
        let (_, _) = carried(|mut far| async move {
            send(&mut far, &hello()).await;
            send(&mut far, &[LinkFrame::Ack { received: 1 }]).await;
            let mut buffer = BytesMut::new();
            loop {
                if let LinkFrame::Refused { reason } = next(&mut far, &mut buffer).await {
                    break assert_eq!(reason, "a frame that has no place here");
                }
            }
        })
        .await;
    }

    #[tokio::test]
    async fn octets_that_are_no_frame_and_acknowledgements_of_nothing_end_the_link() {
        let (error, _) = carried(|mut far| async move {
            far.write_all(&[0xff; 64]).await.expect("written");
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert!(error.to_string().contains("over the limit"), "{error}");
        let (error, _) = carried(|mut far| async move {
            send(&mut far, &hello()).await;
            send(&mut far, &[LinkFrame::Ack { received: 1 }]).await;
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert!(error.to_string().contains("no place"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_silent_for_15_seconds_is_lost_and_hears_beats_meanwhile() {
        let begun = tokio::time::Instant::now();
        let (error, _) = carried(|mut far| async move {
            send(&mut far, &hello()).await;
            let mut heard = Vec::new();
            // Ends when the other side hangs up; no octet is lost on the way.
            far.read_to_end(&mut heard).await.expect("read");
            let beat = LinkFrame::FromEdge(FromEdge::Beat).encode().expect("small");
            let beats = heard.windows(beat.len()).filter(|octets| **octets == beat[..]).count();
            assert!((2..=4).contains(&beats), "{beats} beats in 15 s");
        })
        .await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waited = begun.elapsed();
        assert!((BEAT_LOST..BEAT_LOST + Duration::from_secs(1)).contains(&waited), "{waited:?}");
    }
}
