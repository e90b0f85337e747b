//! A connection in memory under paused time: time moves only where everybody waits.

use std::{collections::VecDeque, future::Future, net::SocketAddr};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::{FlowId, Transport};

/// Takes what it has room for.
#[derive(Default)]
struct Ear {
    heard: Mutex<VecDeque<FromFlow>>,
    /// Messages that it refuses to take before it takes one, each time.
    refuses: Mutex<u32>,
}

impl FlowSink for Ear {
    fn offer(&self, value: FromFlow) -> Result<(), FromFlow> {
        if matches!(value, FromFlow::Messages { .. }) {
            let mut refuses = self.refuses.lock();
            if *refuses > 0 {
                *refuses -= 1;
                return Err(value);
            }
        }
        self.heard.lock().push_back(value);
        Ok(())
    }
}

impl Ear {
    /// The start of what came: methods or statuses by batch, or octets written.
    fn heard(&self) -> Vec<String> {
        let text = |value: FromFlow| match value {
            FromFlow::Messages { messages, .. } => {
                let starts = messages.iter().map(|message| match message.status() {
                    Some(status) => status.to_string(),
                    None => message.method_text().to_owned(),
                });
                starts.collect::<Vec<_>>().join(" ")
            }
            FromFlow::Written { bytes, .. } => format!("written {bytes}"),
            other => format!("{other:?}"),
        };
        self.heard.lock().drain(..).map(text).collect()
    }
}

struct Stage {
    ear: Arc<Ear>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    wire: Wire,
}

fn stage(proved: &[&str]) -> Stage {
    stage_of(proved, None)
}

fn stage_of(proved: &[&str], dial: Option<crate::DialId>) -> Stage {
    let facts = Arc::new(FlowFacts {
        flow: FlowId(7),
        transport: Transport::Tcp,
        local: SocketAddr::from(([192, 0, 2, 1], 5060)),
        remote: SocketAddr::from(([192, 0, 2, 9], 40_000)),
        sent_by: "192.0.2.1:5060".into(),
        dial,
        has_alternatives: false,
        proved_domains: proved.iter().map(|name| (*name).into()).collect(),
    });
    let (ear, outbox) = (Arc::new(Ear::default()), Arc::new(Outbox::default()));
    if !proved.is_empty() {
        // Its domain is a front end's.
        outbox.bind();
    }
    let metrics = Arc::new(Metrics::new(1));
    let limits = MessageLimits::default();
    let wire = Wire::new(facts, outbox.clone(), ear.clone(), metrics.clone(), limits);
    Stage { ear, outbox, metrics, wire }
}

impl Stage {
    /// Runs the connection beside a peer with its other end; why it ended, and what the peer gives back.
    async fn play<T, F: Future<Output = T>>(&self, peer: impl FnOnce(DuplexStream) -> F) -> (String, T) {
        let (ours, theirs) = duplex(4096);
        tokio::join!(self.wire.carry(ours), peer(theirs))
    }
}

fn request(method: &str, more: &str, body: &str) -> String {
    format!(
        "{method} sip:a@b.example SIP/2.0\r\nVia: SIP/2.0/TCP h.example;branch=z9hG4bKa;rport\r\n\
         From: <sip:c@d.example>;tag=1\r\nTo: <sip:a@b.example>\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n{more}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request whose length nobody can tell (RFC 4475 §3.1.2.3).
fn refused_request() -> String {
    request("OPTIONS", "", "").replace("Content-Length: 0", "Content-Length: -999")
}

async fn read_all(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("utf-8");
    text
}

/// Until the connection has nothing more to do at this moment.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn one_read_brings_one_batch_with_the_source_of_its_requests() {
    let stage = stage(&[]);
    let (cause, ()) = stage
        .play(|mut peer| async move {
            let two = request("SUBSCRIBE", "", "") + "SIP/2.0 200 OK\r\nv: SIP/2.0/TCP u\r\nl: 0\r\n\r\n";
            peer.write_all(two.as_bytes()).await.expect("written");
        })
        .await;
    assert_eq!(cause, "closed by the peer");
    let Some(FromFlow::Messages { flow, messages }) = stage.ear.heard.lock().front().cloned() else {
        panic!("no messages")
    };
    assert_eq!(flow.flow, FlowId(7));
    assert_eq!(messages[0].source(), Some(SocketAddr::from(([192, 0, 2, 9], 40_000))));
    assert_eq!(messages[1].source(), None);
    assert_eq!(stage.ear.heard(), ["SUBSCRIBE 200"]);
    assert!(stage.metrics.render().contains("tombolo_sip_responses_in_total 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_full_receiver_stops_the_reading_until_it_has_room() {
    let stage = stage(&[]);
    *stage.ear.refuses.lock() = 50;
    let ear = stage.ear.clone();
    let (_, ()) = stage
        .play(|mut peer| async move {
            peer.write_all(request("MESSAGE", "", "one").as_bytes()).await.expect("written");
            settle().await;
            // More than what fits between the two ends stays with the peer.
            let more = request("MESSAGE", "", &"x".repeat(9000)).repeat(3);
            let stuck = timeout(Duration::from_millis(90), peer.write_all(more.as_bytes())).await;
            assert!(stuck.is_err() && ear.heard().is_empty(), "nothing is read meanwhile");
        })
        .await;
    assert_eq!(stage.ear.heard(), ["MESSAGE"], "and nothing is lost or said twice");
    assert_eq!(*stage.ear.refuses.lock(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_with_some_room_takes_the_rest_later_and_in_order() {
    /// Takes one message of each offer.
    #[derive(Default)]
    struct OneByOne(Mutex<Vec<String>>);

    impl FlowSink for OneByOne {
        fn offer(&self, value: FromFlow) -> Result<(), FromFlow> {
            let FromFlow::Messages { flow, mut messages } = value else { return Ok(()) };
            self.0.lock().push(messages.remove(0).method_text().to_owned());
            if messages.is_empty() { Ok(()) } else { Err(FromFlow::Messages { flow, messages }) }
        }
    }

    let taker = Arc::new(OneByOne::default());
    let mut stage = stage(&[]);
    stage.wire.sink = taker.clone();
    let three = ["SUBSCRIBE", "MESSAGE", "PUBLISH"].map(|method| request(method, "", "")).concat();
    stage.play(|mut peer| async move { peer.write_all(three.as_bytes()).await }).await.1.expect("written");
    assert_eq!(*taker.0.lock(), ["SUBSCRIBE", "MESSAGE", "PUBLISH"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_one_write_and_what_is_written_is_credit() {
    let stage = stage(&[]);
    for part in ["first", "second"] {
        assert!(stage.outbox.push(Bytes::from_static(part.as_bytes()), 1));
    }
    let (outbox, ear) = (stage.outbox.clone(), stage.ear.clone());
    let (cause, text) = stage
        .play(|peer| async move {
            settle().await;
            assert_eq!(ear.heard(), ["written 11"]);
            assert!(outbox.push(Bytes::from_static(b"third"), 1));
            outbox.close();
            read_all(peer).await
        })
        .await;
    assert_eq!((cause.as_str(), text.as_str()), ("closed", "firstsecondthird"));
    assert_eq!(stage.ear.heard(), ["written 5"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_does_not_take_is_no_credit_and_ends_the_connection() {
    let stage = stage(&["d.example"]);
    assert!(stage.outbox.push(Bytes::from(vec![b'x'; 1 << 20]), 1));
    let begin = Instant::now();
    // The peer stays, and reads nothing.
    let (cause, _peer) = stage.play(|peer| async move { peer }).await;
    assert_eq!(cause, "the peer takes nothing");
    assert_eq!(begin.elapsed(), WRITE_LIMIT);
    assert_eq!(stage.ear.heard(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn sip_t_11_a_ping_is_answered_between_messages_only_and_gives_no_credit() {
    let stage = stage(&[]);
    let (_, answered) = stage
        .play(|mut peer| async move {
            let whole = request("MESSAGE", "", "a\r\n\r\nb");
            let (begin, rest) = whole.split_at(whole.len() - 4);
            let mut answered = Vec::new();
            for part in [begin, rest, "\r\n\r\n", "\r\n", "\r\n\r\n\r\n"] {
                peer.write_all(part.as_bytes()).await.expect("written");
                let mut answer = vec![0; 64];
                let len = timeout(Duration::from_millis(1), peer.read(&mut answer)).await;
                let len = len.map_or(0, |len| len.expect("readable"));
                answered.push(String::from_utf8_lossy(&answer[..len]).into_owned());
            }
            answered
        })
        .await;
    assert_eq!(answered, ["", "", "\r\n", "", "\r\n\r\n"]);
    assert_eq!(stage.ear.heard(), ["MESSAGE"]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_that_are_not_read_costs_a_counter() {
    let stage = stage(&["d.example"]);
    let (cause, ()) = stage
        .play(|mut peer| async move {
            for _ in 0..20_000 {
                peer.write_all(b"\r\n\r\n").await.expect("written");
            }
            // All were read though no answer was taken.
            settle().await;
            let mut answers = vec![0; 2 * 20_000];
            peer.read_exact(&mut answers).await.expect("as many answers");
        })
        .await;
    assert_eq!(cause, "closed by the peer");
    assert_eq!(stage.wire.own.pongs.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn sip_t_03_a_request_whose_length_is_negative_missing_or_told_twice_is_answered_with_400_and_a_close()
{
    let length = "Content-Length: 0\r\n";
    let told_twice = format!("l: 5\r\n{length}");
    for unclear in ["Content-Length: -999\r\n", "", &told_twice] {
        let stage = stage(&[]);
        let refused = request("OPTIONS", "", "").replace(length, unclear);
        let (cause, text) = stage
            .play(|mut peer| async move {
                let whole = request("MESSAGE", "", "one") + &refused + &request("PUBLISH", "", "");
                peer.write_all(whole.as_bytes()).await.expect("written");
                read_all(peer).await
            })
            .await;
        assert!(text.starts_with("SIP/2.0 400 "), "{unclear:?}: {text}");
        assert!(text.contains("rport=40000") && text.contains("received=192.0.2.9"), "{text}");
        assert!(text.contains("\r\nCall-ID: x\r\n"), "{text}");
        assert_eq!(cause, "a Content-Length that does not tell the length");
        assert_eq!(stage.ear.heard(), ["MESSAGE"], "what came before is served, what came behind is not");
        assert!(stage.metrics.render().contains("tombolo_malformed_total 1\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn sip_t_18_a_malformed_request_of_known_length_is_answered_and_costs_nobody_else_anything() {
    let good = request("MESSAGE", "", "one");
    for (malformed, answer) in [
        (good.replace("sip:a@b.example SIP", "sip:a<b@b.example SIP"), "SIP/2.0 400 "),
        (good.replace("sip:a@b.example SIP", "sip:a b@b.example SIP"), "SIP/2.0 400 "),
        (good.replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), "SIP/2.0 505 "),
        (request("MESSAGE", &format!("X: {}\r\n", "x".repeat(9000)), ""), "SIP/2.0 400 "),
        (request("MESSAGE", &"X: x\r\n".repeat(200), ""), "SIP/2.0 400 "),
        (request("MESSAGE", "no colon\r\n", "\r\n\r\nOPTIONS sip:a@b.example SIP/2.0\r\n"), "SIP/2.0 400 "),
        (good.replace("sip:a@b", &format!("sip:{}@b", "a".repeat(9000))), "SIP/2.0 414 "),
        (request("MESSAGE", "", &"x".repeat(1 << 20)), "SIP/2.0 513 "),
    ] {
        // A phone that has not registered yet, and a front end.
        for proved in [&[][..], &["d.example"]] {
            let (stage, malformed) = (stage(proved), &malformed);
            let (cause, text) = stage
                .play(|mut peer| async move {
                    let (first, last) = (request("PUBLISH", "", ""), request("SUBSCRIBE", "", ""));
                    for part in [&first, malformed, &last] {
                        peer.write_all(part.as_bytes()).await.expect("read");
                    }
                    let mut text = vec![0; 4096];
                    let len = peer.read(&mut text).await.expect("an answer");
                    settle().await;
                    String::from_utf8(text[..len].to_vec()).expect("UTF-8")
                })
                .await;
            assert!(text.starts_with(answer) && text.contains("rport=40000"), "{answer}: {text}");
            assert_eq!(text.matches("SIP/2.0 ").count(), 1, "{answer}: {text}");
            assert_eq!(stage.ear.heard().join(" "), "PUBLISH SUBSCRIBE", "{answer}");
            assert_eq!(cause, "closed by the peer", "{answer}");
            assert!(stage.metrics.render().contains("tombolo_malformed_total 1\n"), "{answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sip_t_17_behind_a_malformed_message_the_next_one_has_all_its_time() {
    let stage = stage(&["d.example"]);
    let malformed = request("MESSAGE", "no colon\r\n", &"x".repeat(100));
    let good = request("MESSAGE", "", "one");
    let (cause, ()) = stage
        .play(|mut peer| async move {
            let whole = malformed + &good;
            let (first, rest) = whole.split_at(9);
            // The end of the malformed message and the begin of the good one come together.
            let (second, third) = rest.split_at(rest.len() - good.len() + 9);
            peer.write_all(first.as_bytes()).await.expect("written");
            for part in [second, third] {
                sleep(MESSAGE_LIMIT - Duration::from_secs(1)).await;
                peer.write_all(part.as_bytes()).await.expect("written");
            }
        })
        .await;
    assert_eq!(cause, "closed by the peer");
    assert_eq!(stage.ear.heard(), ["MESSAGE"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_is_dropped_from_a_front_end_and_ends_a_strangers_connection() {
    let good = request("MESSAGE", "", "one");
    let without_via = good.split_once("Via").map(|(begin, rest)| format!("{begin}X{rest}")).expect("a Via");
    for malformed in [
        without_via,
        "SIP/2.0 999 x\r\nv: SIP/2.0/TCP u\r\nl: 0\r\n\r\n".to_owned(),
        "SIP/2.0 200 OK\r\nv: SIP/2.0/TCP u\r\nno colon\r\nl: 0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ] {
        for (stage, goes_on) in [
            (stage(&[]), false),
            (stage(&["d.example"]), true),
            (stage_of(&[], Some(crate::DialId(1))), true),
        ] {
            let whole = malformed.clone() + &good;
            let (_, text) = stage
                .play(|mut peer| async move {
                    peer.write_all(whole.as_bytes()).await.expect("written");
                    peer.shutdown().await.expect("closed");
                    read_all(peer).await
                })
                .await;
            assert_eq!(text, "", "{malformed}");
            assert_eq!(stage.ear.heard().concat(), if goes_on { "MESSAGE" } else { "" }, "{malformed}");
            assert!(stage.metrics.render().contains("tombolo_malformed_total 1\n"), "{malformed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_no_refusals_is_read_no_further_and_left_in_the_end() {
    let stage = stage(&["d.example"]);
    let refused = request("MESSAGE", "no colon\r\n", "");
    let (cause, sent) = stage
        .play(|mut peer| async move {
            let mut sent = 0;
            while peer.write_all(refused.as_bytes()).await.is_ok() {
                sent += refused.len();
            }
            sent
        })
        .await;
    assert_eq!(cause, "the peer takes nothing");
    assert!(sent < 4 * MAX_ANSWERS_BYTES, "{sent}");
    assert!(stage.wire.own.answers.borrow().len() < 2 * MAX_ANSWERS_BYTES);
}

#[tokio::test(start_paused = true)]
async fn requests_in_front_of_a_fault_are_answered_before_the_close() {
    for fault in [refused_request(), "\u{0}\u{1}\r\n\r\n".to_owned(), "GET / HTTP/1.1\r\n\r\n".to_owned()] {
        // A front end's connection too.
        for proved in [&[][..], &["d.example"]] {
            let (stage, fault) = (stage(proved), &fault);
            let answering = async {
                // Whoever serves a message may wait a while for an error.
                sleep(Duration::from_millis(600)).await;
                stage.outbox.push(Bytes::from_static(b"SIP/2.0 202 Accepted\r\n\r\n"), 1);
            };
            let playing = stage.play(|mut peer| async move {
                let whole = request("MESSAGE", "", "one") + fault + &"x".repeat(10_000);
                peer.write_all(whole.as_bytes()).await.expect("written");
                read_all(peer).await
            });
            let begin = Instant::now();
            let (_, (_, text)) = tokio::join!(answering, playing);
            assert!(text.contains("SIP/2.0 202 Accepted"), "{text}");
            assert!(begin.elapsed() <= ANSWER_LIMIT + CLOSE_LIMIT);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_the_connection_without_a_word() {
    for garbage in ["\u{0}\u{1}\u{2}\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "SIP/2.0 abc\r\n\r\n"] {
        let stage = stage(&[]);
        let (cause, text) = stage
            .play(|mut peer| async move {
                peer.write_all(garbage.as_bytes()).await.expect("written");
                read_all(peer).await
            })
            .await;
        assert_eq!(text, "", "{garbage:?}");
        assert_ne!(cause, "closed by the peer", "{garbage:?}");
        assert_eq!(stage.ear.heard(), [""; 0], "{garbage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_on_behind_its_fault_can_read_what_was_wrong() {
    let stage = stage(&[]);
    let (_, text) = stage
        .play(|mut peer| async move {
            peer.write_all(refused_request().as_bytes()).await.expect("written");
            // Far more than fits between the two ends: it would wait for ever if nobody read it away.
            peer.write_all(&vec![b'x'; 1 << 20]).await.expect("taken");
            read_all(peer).await
        })
        .await;
    assert!(text.starts_with("SIP/2.0 400 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn sip_t_17_the_time_of_a_message_does_not_begin_anew_with_each_octet() {
    let stage = stage(&["d.example"]);
    let begin = Instant::now();
    let (cause, sent) = stage
        .play(|mut peer| async move {
            let mut sent = 0;
            for octet in request("MESSAGE", "", &"x".repeat(1000)).bytes() {
                if peer.write_all(&[octet]).await.is_err() {
                    break;
                }
                sent += 1;
                sleep(Duration::from_secs(1)).await;
            }
            sent
        })
        .await;
    assert_eq!(cause, "a message took too long");
    assert!((30..=31).contains(&sent), "{sent}");
    assert!(begin.elapsed() <= MESSAGE_LIMIT + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn an_idle_partner_stays_and_its_next_message_has_all_its_time() {
    let stage = stage(&["d.example"]);
    let begin = Instant::now();
    let (cause, ()) = stage
        .play(|mut peer| async move {
            sleep(Duration::from_secs(86_400)).await;
            for _ in 0..3 {
                let whole = request("MESSAGE", "", "one");
                let (begin, rest) = whole.split_at(9);
                peer.write_all(begin.as_bytes()).await.expect("written");
                sleep(MESSAGE_LIMIT - Duration::from_secs(1)).await;
                peer.write_all(rest.as_bytes()).await.expect("written");
            }
        })
        .await;
    assert_eq!(cause, "closed by the peer");
    assert_eq!(stage.ear.heard(), ["MESSAGE"; 3]);
    assert!(begin.elapsed() > Duration::from_secs(86_400));
}

#[tokio::test(start_paused = true)]
async fn sip_t_17_a_stranger_must_prove_himself_soon_whatever_he_says_and_then_may_stay() {
    for is_talking in [false, true] {
        let stranger = stage(&[]);
        let begin = Instant::now();
        let (cause, ()) = stranger
            .play(|mut peer| async move {
                // The answer to a question is no proof.
                while is_talking && peer.write_all(request("OPTIONS", "", "").as_bytes()).await.is_ok() {
                    sleep(Duration::from_secs(7)).await;
                }
                if !is_talking {
                    sleep(Duration::from_secs(86_400)).await;
                }
            })
            .await;
        assert_eq!(cause, "nobody proved himself");
        let _ = begin;
    }
    let phone = stage(&[]);
    let begin = Instant::now();
    let outbox = phone.outbox.clone();
    let (cause, ()) = phone
        .play(|mut peer| async move {
            peer.write_all(request("REGISTER", "", "").as_bytes()).await.expect("written");
            sleep(STRANGER_LIMIT / 2).await;
            outbox.bind();
            sleep(Duration::from_secs(86_400)).await;
        })
        .await;
    assert_eq!(cause, "closed by the peer");
    assert!(begin.elapsed() > Duration::from_secs(86_400));
}

#[tokio::test(start_paused = true)]
async fn a_line_end_is_a_pong_between_messages_and_part_of_a_body_within_one() {
    let mut stage = stage_of(&[], Some(crate::DialId(1)));
    stage.wire = stage.wire.with_keep_alive(Some(Duration::from_secs(100)));
    let (_, ()) = stage
        .play(|mut peer| async move {
            let mut octets = [0; 4];
            // We ask while the peer is in the middle of a message.
            let whole = request("MESSAGE", "", "\r\n");
            let (head, body) = whole.split_at(whole.len() - 2);
            sleep(Duration::from_secs(79)).await;
            peer.write_all(head.as_bytes()).await.expect("written");
            peer.read_exact(&mut octets).await.expect("a ping");
            peer.write_all(body.as_bytes()).await.expect("written");
            settle().await;
        })
        .await;
    assert_eq!(stage.ear.heard(), ["MESSAGE"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_in_turn_is_left_after_a_while() {
    let stage = stage(&[]);
    stage.outbox.close();
    let begin = Instant::now();
    let (cause, _peer) = stage
        .play(|mut peer| async move {
            peer.write_all(request("MESSAGE", "", "late").as_bytes()).await.expect("written");
            peer
        })
        .await;
    assert_eq!((cause.as_str(), begin.elapsed()), ("closed", CLOSE_LIMIT));
    assert_eq!(stage.ear.heard(), ["MESSAGE"], "what it still says is heard");
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_closed_its_half_after_a_request_is_still_answered() {
    let stage = stage(&[]);
    let (cause, text) = stage
        .play(|peer| async {
            let (mut reader, mut writer) = split(peer);
            writer.write_all(request("OPTIONS", "", "").as_bytes()).await.expect("written");
            writer.shutdown().await.expect("closed");
            settle().await;
            assert!(stage.outbox.push(Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n"), 1));
            let mut text = vec![0; 18];
            reader.read_exact(&mut text).await.expect("an answer");
            String::from_utf8(text).expect("utf-8")
        })
        .await;
    assert_eq!((cause.as_str(), text.as_str()), ("closed by the peer", "SIP/2.0 200 OK\r\n\r\n"));
}

#[tokio::test(start_paused = true)]
async fn sip_t_11_our_keep_alive_is_awaited_for_10_s_where_a_setting_wants_it() {
    let mut silent = stage_of(&[], Some(crate::DialId(1)));
    silent.wire = silent.wire.with_keep_alive(Some(Duration::from_secs(100)));
    let begun = Instant::now();
    let (cause, text) = silent.play(read_all).await;
    assert_eq!((cause.as_str(), text.as_str()), ("a keep-alive was not answered", "\r\n\r\n"));
    let lasted = begun.elapsed();
    assert!((Duration::from_secs(90)..=Duration::from_secs(111)).contains(&lasted), "{lasted:?}");

    let mut living = stage_of(&[], Some(crate::DialId(1)));
    living.wire = living.wire.with_keep_alive(Some(Duration::from_secs(100)));
    let (cause, pings) = living
        .play(|mut peer| async move {
            let (mut octets, mut pings) = ([0; 4], 0);
            while pings < 5 && peer.read_exact(&mut octets).await.is_ok() {
                assert_eq!(&octets, b"\r\n\r\n");
                peer.write_all(b"\r\n").await.expect("written");
                pings += 1;
            }
            settle().await;
            pings
        })
        .await;
    assert_eq!((cause.as_str(), pings), ("closed by the peer", 5));
}

#[tokio::test(start_paused = true)]
async fn no_keep_alive_is_sent_on_a_connection_that_the_peer_opened() {
    let mut stage = stage(&["b.example"]);
    stage.wire = stage.wire.with_keep_alive(Some(Duration::from_secs(100)));
    let (_, octets) = stage
        .play(|mut peer| async move {
            let mut octets = Vec::new();
            let _ = timeout(Duration::from_secs(1000), peer.read_to_end(&mut octets)).await;
            octets
        })
        .await;
    assert_eq!(octets, b"");
}
