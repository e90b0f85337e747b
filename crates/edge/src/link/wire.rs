//! One link's bytes: frames in, frames out, and the beat of both sides.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::{interval, timeout},
};
use tombolo_net::AnyStream;

use super::frame::{LinkFrame, VERSION};
use crate::{BEAT, BEAT_LOST, FromEdge, STREAM_WINDOW_BYTES, ToEdge, outbox::Outbox};

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Edge,
    Gateway,
}

/// The outbox of a link that begins. The hello is in it from the start, so that nothing can come before it.
pub(super) fn greeted() -> Arc<Outbox> {
    let outbox = Outbox::with_limit(LIMIT_BYTES);
    push(&outbox, &LinkFrame::Hello { version: VERSION });
    Arc::new(outbox)
}

/// Hands a frame to a link. One for which there is no room ends it, for the other end takes next to nothing; one that the
/// other end would not take is left out.
pub(super) fn push(outbox: &Outbox, frame: &LinkFrame) {
    match frame.encode() {
        Ok(bytes) => {
            if !outbox.push(bytes, 0) {
                outbox.close();
            }
        }
        Err(error) => tracing::error!(%error, "a frame is left out of the link"),
    }
}

/// Carries frames until the link ends; why it did. `outbox` is a [`greeted`] one. `take` is given every frame but hellos and beats, and waited for.
pub(super) async fn carry<F>(
    stream: AnyStream,
    end: End,
    outbox: Arc<Outbox>,
    mut take: impl FnMut(LinkFrame) -> F,
) -> io::Error
where
    F: Future<Output = ()>,
{
    let (mut reader, mut writer) = split(stream);
    let reading = async {
        let mut buffer = BytesMut::new();
        let mut is_greeted = false;
        loop {
            buffer.reserve(64 << 10);
            match timeout(BEAT_LOST, reader.read_buf(&mut buffer)).await {
                Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "no beat from the other end"),
                Ok(Err(error)) => return error,
                Ok(Ok(0)) => return io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other end"),
                Ok(Ok(_)) => {}
            }
            loop {
                match LinkFrame::decode(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(LinkFrame::Hello { version })) if version == VERSION => is_greeted = true,
                    Ok(Some(LinkFrame::Hello { version })) => {
                        return io::Error::other(format!(
                            "the other end speaks version {version}, we {VERSION}"
                        ));
                    }
                    Ok(Some(_)) if !is_greeted => return io::Error::other("a frame before the hello"),
                    Ok(Some(LinkFrame::FromEdge(FromEdge::Beat) | LinkFrame::ToEdge(ToEdge::Beat))) => {}
                    Ok(Some(frame)) => take(frame).await,
                    Err(fault) => return io::Error::other(fault.to_string()),
                }
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
                taken = outbox.take() => match taken {
                    Some((bytes, _)) => bytes,
                    None => return io::Error::other("closed"),
                },
                _ = beats.tick() => beat.clone(),
            };
            let written = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            match timeout(BEAT_LOST, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing"),
            }
        }
    };
    tokio::select! {
        error = reading => error,
        error = writing => error,
    }
}

/// Octets that may wait for the other end: the windows of 4,096 streams. Past it the other end is lost.
const LIMIT_BYTES: usize = 4096 * STREAM_WINDOW_BYTES as usize;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::StreamId;

    /// The end of a link that `other` is at the other end of, and the frames that came until then.
    async fn carried<F: Future<Output = ()>>(other: impl FnOnce(TcpStream) -> F) -> (io::Error, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a listener");
        let (near, _) = listener.accept().await.expect("accepted");
        let taken = Mutex::new(Vec::new());
        let carrying = carry(AnyStream::Plain(near), End::Edge, greeted(), |frame| {
            taken.lock().push(format!("{frame:?}"));
            std::future::ready(())
        });
        let (error, ()) = tokio::join!(carrying, other(far));
        (error, taken.into_inner())
    }

    fn close(stream: u64) -> LinkFrame {
        LinkFrame::ToEdge(ToEdge::Close { stream: StreamId(stream) })
    }

    async fn send(socket: &mut TcpStream, frames: &[LinkFrame]) {
        for frame in frames {
            socket.write_all(&frame.encode().expect("small")).await.expect("written");
        }
    }

    #[tokio::test]
    async fn frames_behind_the_hello_are_taken_and_beats_are_not_told() {
        let (error, taken) = carried(|mut far| async move {
            let frames =
                [LinkFrame::Hello { version: VERSION }, LinkFrame::ToEdge(ToEdge::Beat), close(1), close(2)];
            send(&mut far, &frames).await;
            far.shutdown().await.expect("closed");
            // Our side speaks first too: its hello is there before anything else.
            let mut buffer = BytesMut::new();
            while buffer.len() < 4 || LinkFrame::decode(&mut buffer.clone()).expect("frames").is_none() {
                assert_ne!(far.read_buf(&mut buffer).await.expect("read"), 0);
            }
            let first = LinkFrame::decode(&mut buffer).expect("frames").expect("whole");
            assert!(matches!(first, LinkFrame::Hello { version: VERSION }), "{first:?}");
        })
        .await;
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(taken, [format!("{:?}", close(1)), format!("{:?}", close(2))]);
    }

    #[tokio::test]
    async fn an_end_of_another_version_or_without_a_hello_is_left_before_it_has_said_anything() {
        let strangers = [
            vec![LinkFrame::Hello { version: VERSION + 1 }, close(1)],
            vec![close(1), LinkFrame::Hello { version: VERSION }],
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
    async fn octets_that_are_no_frame_end_the_link() {
        let (error, _) = carried(|mut far| async move {
            far.write_all(&[0xff; 64]).await.expect("written");
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert!(error.to_string().contains("over the limit"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_silent_for_15_seconds_is_lost_and_hears_beats_meanwhile() {
        let begun = tokio::time::Instant::now();
        let (error, _) = carried(|mut far| async move {
            send(&mut far, &[LinkFrame::Hello { version: VERSION }]).await;
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
