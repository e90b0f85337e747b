//! One TCP or TLS connection of SIP, as an actor on its arbiter: bytes to messages, messages to bytes.

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{sleep, timeout},
};
use tombolo_net::AnyStream;
use tombolo_sip::{
    build::ResponseBuilder,
    framer::{Frame, StreamFramer},
};

use crate::{FlowFacts, FromFlow, outbox::Outbox, sip_edge::SipShared};

/// The actor of one connection. It ends with it.
pub(crate) struct SipConnection {
    facts: Arc<FlowFacts>,
    shared: Arc<SipShared>,
    socket: Option<(AnyStream, Arc<Outbox>)>,
    cause: String,
}

impl SipConnection {
    /// Begins to carry messages, on the arbiter that has the socket.
    pub(crate) fn start(
        stream: AnyStream,
        index: usize,
        facts: Arc<FlowFacts>,
        outbox: Arc<Outbox>,
        shared: Arc<SipShared>,
    ) {
        let placement = shared.placement.clone();
        placement.start_in(index, move |_: &mut _| Self {
            facts,
            shared,
            socket: Some((stream, outbox)),
            cause: String::new(),
        });
    }
}

impl Actor for SipConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some((stream, outbox)) = self.socket.take() else { return ctx.stop() };
        let (reader, writer) = split(stream);
        let (facts, shared) = (self.facts.clone(), self.shared.clone());
        let both = async move {
            tokio::select! {
                cause = read(reader, &facts, &outbox, &shared) => cause,
                cause = write(writer, &facts, &outbox, &shared) => cause,
            }
        };
        ctx.spawn(both.into_actor(self).map(|cause, actor, ctx| {
            actor.cause = cause;
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shared.end(self.facts.flow, std::mem::take(&mut self.cause));
    }
}

/// Reads until the connection ends; why it did.
async fn read(
    mut reader: ReadHalf<AnyStream>,
    facts: &Arc<FlowFacts>,
    outbox: &Outbox,
    shared: &SipShared,
) -> String {
    let mut framer = StreamFramer::new(shared.limits);
    loop {
        framer.buffer_mut().reserve(READ_BYTES);
        // Only a message that has begun is hurried; an idle connection may stay.
        let is_inside = framer.is_inside();
        let asked = reader.read_buf(framer.buffer_mut());
        let read = if is_inside {
            match timeout(MESSAGE_LIMIT, asked).await {
                Ok(read) => read,
                Err(_) => return "a message took too long".to_owned(),
            }
        } else {
            asked.await
        };
        match read {
            Ok(0) => return "closed by the peer".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
        let mut messages = Vec::new();
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(mut message))) => {
                    if message.is_request() {
                        message.set_received(facts.remote);
                    } else {
                        shared.metrics.responses_in(1);
                    }
                    messages.push(*message);
                }
                Ok(Some(Frame::Ping)) => {
                    outbox.push(Bytes::from_static(b"\r\n"), 0);
                }
                Ok(None) => break,
                Err(fault) => {
                    shared.metrics.malformed_input();
                    tracing::warn!(flow = facts.flow.0, remote = %facts.remote, error = %fault.fault, "malformed sip");
                    hand_over(facts, messages, shared).await;
                    // Where the request can be read it is answered; then nothing on this stream can be trusted.
                    let head = fault.head.filter(|head| head.is_request());
                    if let Some(response) = head
                        .as_ref()
                        .and_then(|head| ResponseBuilder::to(head, fault.fault.status(), None).ok())
                    {
                        outbox.push(Bytes::from(response.render()), 1);
                    }
                    outbox.close();
                    // The writer ends the connection once the answer is out.
                    sleep(CLOSE_LIMIT).await;
                    return fault.fault.to_string();
                }
            }
        }
        hand_over(facts, messages, shared).await;
    }
}

/// Offers messages until all are taken; meanwhile nothing is read.
async fn hand_over(facts: &Arc<FlowFacts>, messages: Vec<tombolo_sip::message::Message>, shared: &SipShared) {
    if messages.is_empty() {
        return;
    }
    let mut offered = FromFlow::Messages { flow: facts.clone(), messages };
    while let Err(rest) = shared.sink.offer(offered) {
        offered = rest;
        sleep(FULL_PAUSE).await;
    }
}

/// Writes what the outbox holds until it is closed; why the connection ends.
async fn write(
    mut writer: WriteHalf<AnyStream>,
    facts: &Arc<FlowFacts>,
    outbox: &Outbox,
    shared: &SipShared,
) -> String {
    while let Some((bytes, _)) = outbox.take().await {
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        match timeout(WRITE_LIMIT, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "the peer takes nothing".to_owned(),
        }
        shared.tell(FromFlow::Written { flow: facts.flow, bytes: bytes.len() as u32 });
    }
    let _ = timeout(CLOSE_LIMIT, writer.shutdown()).await;
    "closed".to_owned()
}

const READ_BYTES: usize = 16 << 10;
const MESSAGE_LIMIT: Duration = Duration::from_secs(30);
const WRITE_LIMIT: Duration = Duration::from_secs(30);
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection rests when its receiver is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);
