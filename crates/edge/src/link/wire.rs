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
    let is_taken = outbox.push(LinkFrame::Hello { version: VERSION }.encode(), 0);
    debug_assert!(is_taken, "an empty outbox takes a hello");
    Arc::new(outbox)
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
        .encode();
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
