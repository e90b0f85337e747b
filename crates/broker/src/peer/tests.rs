//! A peer without its actor: outputs for inputs.

use tombolo_edge::{DialId, Transport};
use tombolo_interwork::owner::RequestId;
use tombolo_sip::message::{MessageLimits, read_datagram};

use super::*;

mod beside;

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    Instant::now()
}

fn flow(number: u64) -> Arc<FlowFacts> {
    Arc::new(FlowFacts {
        flow: FlowId(number),
        transport: Transport::Tcp,
        local: ([127, 0, 0, 1], 5060).into(),
        remote: ([127, 0, 0, 2], 5060).into(),
        sent_by: "127.0.0.1:5060".into(),
        dial: None,
        has_alternatives: false,
        proved_domains: Arc::from([]),
    })
}

/// A flow that we opened.
fn dialled(number: u64) -> Arc<FlowFacts> {
    Arc::new(FlowFacts { dial: Some(DialId(number)), ..(*flow(number)).clone() })
}

fn front_end(now: Instant) -> Peer {
    Peer::front_end("p", "corp.example", 1, now)
}

/// A front end that answered by a flow of ours.
fn front_end_up(number: u64, now: Instant) -> Peer {
    let mut peer = front_end(now);
    peer.handle_flow_up(dialled(number), now);
    let asked = all_outputs(&mut peer);
    peer.handle_message(&dialled(number), answer(&asked, "200 OK"), now);
    let out = all_outputs(&mut peer);
    assert!(matches!(out[..], [PeerOutput::Health(PeerHealth::Up)]), "{out:?}");
    peer
}

fn draft() -> Box<RequestDraft> {
    Box::new(RequestDraft {
        method: "MESSAGE",
        uri: "sip:a@b".into(),
        routes: Vec::new(),
        from: "<sip:x@y>;tag=f".into(),
        to: "<sip:a@b>".into(),
        call_id: "c".into(),
        cseq: 1,
        max_forwards: 70,
        contact_user: None,
        headers: Vec::new(),
        content_type: None,
        body: Bytes::new(),
    })
}

fn all_outputs(peer: &mut Peer) -> Vec<PeerOutput> {
    std::iter::from_fn(|| peer.poll_output()).collect()
}

/// All but what concerns the front end's health.
fn outputs(peer: &mut Peer) -> Vec<PeerOutput> {
    let mut out = all_outputs(peer);
    out.retain(|output| !matches!(output, PeerOutput::Health(_)) && !is_question(output));
    out
}

fn is_question(output: &PeerOutput) -> bool {
    matches!(output, PeerOutput::Bytes { bytes, .. } if bytes.starts_with(b"OPTIONS "))
}

#[test]
fn a_request_to_a_front_end_waits_for_its_dial_and_then_leaves() {
    let now = start();
    let mut peer = front_end(now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    assert!(matches!(outputs(&mut peer)[..], [PeerOutput::Dial]));
    peer.handle_flow_up(dialled(1), now);
    let out = outputs(&mut peer);
    assert!(matches!(&out[..], [PeerOutput::Way(Some(_)), PeerOutput::Bytes { .. }]), "{out:?}");
}

#[test]
fn a_request_to_a_phone_that_is_gone_fails_at_once() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    let out = outputs(&mut peer);
    assert!(matches!(&out[..], [PeerOutput::Ended { outcome: Err(NoResponse::Transport), .. }]), "{out:?}");
}

#[test]
fn sip_m_06_who_writes_in_cpim_is_written_to_in_cpim() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(flow(1), now);
    let write = |peer: &mut Peer| {
        let plain = RequestDraft {
            content_type: Some("text/plain".into()),
            body: Bytes::from_static(b"hi"),
            ..*draft()
        };
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, Box::new(plain), now);
        let sent = outputs(peer).into_iter().find_map(|output| match output {
            PeerOutput::Bytes { bytes, .. } => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        });
        sent.expect("a request")
    };
    assert!(write(&mut peer).ends_with("Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"));
    for (content_type, form) in [("message/cpim", "message/cpim"), ("text/plain", "text/plain")] {
        let text = format!(
            "MESSAGE sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{form}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\n\
             Call-ID: {form}\r\nCSeq: 1 MESSAGE\r\nContent-Type: {content_type}\r\n\r\n"
        )
        .replace("z9hG4bKmessage/", "z9hG4bKm")
        .replace("z9hG4bKtext/", "z9hG4bKt");
        let message = read_datagram(text.into(), &MessageLimits::default()).expect("legal");
        peer.handle_message(&flow(1), message, now);
        outputs(&mut peer);
        let sent = write(&mut peer);
        assert!(sent.contains(&format!("\r\nContent-Type: {form}\r\n")), "{sent}");
        assert!(sent.ends_with("hi"), "{sent}");
    }
}

fn ended(out: &[PeerOutput]) -> Vec<&Result<Box<Message>, NoResponse>> {
    let mut ended = Vec::new();
    for output in out {
        if let PeerOutput::Ended { outcome, .. } = output {
            ended.push(outcome);
        }
    }
    ended
}

/// The request that `out` has, and a response to it.
fn answer(out: &[PeerOutput], status: &str) -> Message {
    let request = out.iter().find_map(|output| match output {
        PeerOutput::Bytes { bytes, .. } => read_datagram(bytes.clone(), &MessageLimits::default()).ok(),
        _ => None,
    });
    let request = request.expect("a request");
    let via = request.vias().next().expect("a Via");
    let method = request.method_text();
    let text = format!(
        "SIP/2.0 {status}\r\nVia: {via}\r\nFrom: <sip:x@y>;tag=f\r\nTo: <sip:a@b>;tag=t\r\nCall-ID: c\r\n\
         CSeq: 1 {method}\r\n\r\n"
    );
    read_datagram(text.into(), &MessageLimits::default()).expect("legal")
}

#[test]
fn a_lost_flow_of_a_phone_fails_what_was_open_and_its_credit() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(flow(1), now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    peer.handle_want(0, 5000, now);
    outputs(&mut peer);
    peer.handle_flow_down(FlowId(1), now);
    let out = outputs(&mut peer);
    assert!(out.iter().any(|o| matches!(o, PeerOutput::Way(None))));
    assert!(matches!(ended(&out)[..], [Err(NoResponse::Transport)]), "{out:?}");
    assert!(peer.way().is_none());
}

#[test]
fn a_request_whose_connection_to_a_front_end_breaks_goes_by_a_new_one_once() {
    let now = start();
    let mut peer = front_end_up(1, now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    outputs(&mut peer);
    peer.handle_flow_down(FlowId(1), now);
    let out = outputs(&mut peer);
    assert!(matches!(out[..], [PeerOutput::Way(None), PeerOutput::Dial]), "{out:?}");
    peer.handle_flow_up(dialled(2), now);
    let out = outputs(&mut peer);
    assert!(out.iter().any(|o| matches!(o, PeerOutput::Bytes { flow: FlowId(2), .. })), "{out:?}");
    peer.handle_flow_down(FlowId(2), now);
    let out = outputs(&mut peer);
    assert!(matches!(ended(&out)[..], [Err(NoResponse::Transport)]), "{out:?}");
}

/// A flow to the address of this number by a dial that had others.
fn of_many(number: u8) -> Arc<FlowFacts> {
    let remote = ([127, 0, 0, number], 5060).into();
    let (dial, has_alternatives) = (Some(DialId(number.into())), true);
    Arc::new(FlowFacts { remote, dial, has_alternatives, ..(*flow(number.into())).clone() })
}

#[test]
fn sip_d_14_a_503_and_silence_send_a_request_to_the_next_address_where_there_is_one() {
    for is_silent in [false, true] {
        let mut now = start();
        let mut peer = front_end(now);
        peer.handle_flow_up(of_many(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let sent = outputs(&mut peer);
        if is_silent {
            now += Duration::from_secs(32);
            peer.handle_timeout(now);
        } else {
            let refusal = answer(&sent, "503 Busy\r\nRetry-After: 7");
            peer.handle_message(&of_many(1), refusal, now);
        }
        let out = outputs(&mut peer);
        match &out[..] {
            // Nothing at all came: the address is given up.
            [PeerOutput::Avoid { flow: FlowId(1), span }, PeerOutput::Way(None), PeerOutput::Dial] => {
                assert!(is_silent && *span == Duration::from_secs(60), "{span:?}");
                // The end of what was left means nothing; the next answers.
                peer.handle_flow_down(FlowId(1), now);
            }
            [PeerOutput::Mark { flow: FlowId(1), span }, PeerOutput::Dial] => {
                assert!(!is_silent && *span == Duration::from_secs(7), "{span:?}");
            }
            _ => panic!("{out:?}"),
        }
        peer.handle_flow_up(of_many(2), now);
        let sent = outputs(&mut peer);
        peer.handle_message(&of_many(2), answer(&sent, "200 OK"), now);
        let out = outputs(&mut peer);
        let [Ok(message)] = ended(&out)[..] else { panic!("{out:?}") };
        assert_eq!(message.status(), Some(200));
    }
}

#[test]
fn sip_d_14_a_failure_of_one_request_moves_that_one_alone_while_the_flow_lives() {
    for is_silent in [false, true] {
        let mut now = start();
        let mut peer = front_end(now);
        peer.handle_flow_up(of_many(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let first = outputs(&mut peer);
        now += Duration::from_secs(10);
        peer.handle_request(Requester::Shard(0, RequestId(2)), None, draft(), now);
        let second = outputs(&mut peer);
        if is_silent {
            // One device does not answer; others by the same front end do.
            now += Duration::from_secs(10);
            peer.handle_heard(FlowId(1), now);
            now += Duration::from_secs(12);
            peer.handle_timeout(now);
        } else {
            // A relayed 503 says nothing of how long.
            peer.handle_message(&of_many(1), answer(&first, "503 Busy"), now);
        }
        let out = outputs(&mut peer);
        assert!(matches!(out[..], [PeerOutput::Mark { flow: FlowId(1), .. }, PeerOutput::Dial]), "{out:?}");
        peer.handle_flow_up(of_many(2), now);
        let again = outputs(&mut peer);
        assert!(matches!(again[..], [PeerOutput::Bytes { flow: FlowId(2), .. }]), "{again:?}");
        peer.handle_message(&of_many(1), answer(&second, "200 OK"), now);
        assert!(matches!(ended(&outputs(&mut peer))[..], [Ok(_)]), "the other waits where it was");
        peer.handle_message(&of_many(2), answer(&again, "200 OK"), now);
        assert!(matches!(ended(&outputs(&mut peer))[..], [Ok(_)]));
        peer.handle_request(Requester::Shard(0, RequestId(3)), None, draft(), now);
        let next = outputs(&mut peer);
        assert!(matches!(next[..], [PeerOutput::Bytes { flow: FlowId(1), .. }]), "{next:?}");
    }
}

#[test]
fn who_asks_for_rest_gets_no_further_requests_once_there_is_another() {
    let now = start();
    let mut peer = front_end(now);
    peer.handle_flow_up(of_many(1), now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    let sent = outputs(&mut peer);
    peer.handle_message(&of_many(1), answer(&sent, "503 Busy\r\nRetry-After: 7"), now);
    peer.handle_flow_up(of_many(2), now);
    outputs(&mut peer);
    peer.handle_request(Requester::Shard(0, RequestId(2)), None, draft(), now);
    let next = outputs(&mut peer);
    assert!(matches!(next[..], [PeerOutput::Bytes { flow: FlowId(2), .. }]), "{next:?}");
}

#[test]
fn where_no_other_address_is_there_a_failure_is_the_answer_and_the_flow_stays() {
    let now = start();
    for is_same in [false, true] {
        let mut peer = front_end(now);
        peer.handle_flow_up(of_many(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let sent = outputs(&mut peer);
        peer.handle_message(&of_many(1), answer(&sent, "503 Busy\r\nRetry-After: 7"), now);
        outputs(&mut peer);
        if is_same {
            let same = FlowFacts { flow: FlowId(2), ..(*of_many(1)).clone() };
            peer.handle_flow_up(Arc::new(same), now);
        } else {
            peer.handle_dial_failed(now);
        }
        let out = outputs(&mut peer);
        let [Ok(message)] = ended(&out)[..] else { panic!("{out:?}") };
        assert_eq!(message.status(), Some(503));
        let is_closed = out.iter().any(|o| matches!(o, PeerOutput::Close { flow: FlowId(2) }));
        assert_eq!(is_closed, is_same, "a second connection to one address is of no use: {out:?}");
        assert!(peer.way().is_some());
    }
}

#[test]
fn a_dial_ends_by_its_report_however_long_it_takes() {
    let mut now = start();
    let mut peer = front_end(now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    outputs(&mut peer);
    // Three addresses that do not answer, and one that does.
    now += Duration::from_secs(46);
    peer.handle_timeout(now);
    assert!(outputs(&mut peer).is_empty());
    peer.handle_flow_up(of_many(4), now);
    assert!(outputs(&mut peer).iter().any(|o| matches!(o, PeerOutput::Bytes { .. })));
}

#[test]
fn a_phone_is_met_where_it_spoke_last_and_where_that_ends_by_its_other_flow() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    let target = |peer: &mut Peer| {
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        outputs(peer).iter().find_map(|output| match output {
            PeerOutput::Bytes { flow, .. } => Some(flow.0),
            _ => None,
        })
    };
    for number in [1, 2, 1] {
        peer.handle_flow_up(flow(number), now);
        assert_eq!(target(&mut peer), Some(number));
    }
    peer.handle_flow_down(FlowId(1), now);
    assert_eq!(target(&mut peer), Some(2));
    peer.handle_flow_down(FlowId(2), now);
    assert_eq!(target(&mut peer), None);
}

#[test]
fn what_is_dialled_is_known_even_where_the_flow_was_there_before() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(flow(1), now);
    peer.handle_flow_up(flow(2), now);
    assert!(peer.dialled_flows().is_empty());
    for number in [1, 2] {
        peer.handle_flow_up(Arc::new(FlowFacts { dial: Some(DialId(7)), ..(*flow(number)).clone() }), now);
    }
    assert_eq!(peer.dialled_flows(), [FlowId(1), FlowId(2)]);
}

#[test]
fn a_peer_keeps_so_many_requests_and_refuses_the_rest_without_a_trace() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    let by = Arc::new(FlowFacts { transport: Transport::Udp, ..(*flow(1)).clone() });
    let request = |n: usize| {
        let text = format!(
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{n}\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@b>\r\nCall-ID: c{n}\r\nCSeq: 1 MESSAGE\r\n\r\n"
        );
        read_datagram(text.into(), &MessageLimits::default()).expect("legal")
    };
    for n in 0..1000 {
        peer.handle_message(&by, request(n), now);
    }
    let out = outputs(&mut peer);
    let served = out.iter().filter(|output| matches!(output, PeerOutput::Serve { .. })).count();
    let is_refusal = |output: &&PeerOutput| matches!(output, PeerOutput::Bytes { bytes, .. } if bytes.starts_with(b"SIP/2.0 503 "));
    assert_eq!((served, out.iter().filter(is_refusal).count()), (PHONE_SERVERS, 1000 - PHONE_SERVERS));
    assert_eq!(peer.transactions.servers(), PHONE_SERVERS);
    peer.handle_message(&by, request(0), now);
    assert!(outputs(&mut peer).is_empty(), "a copy is none more");
}

#[test]
fn a_503_of_the_only_address_or_of_the_second_is_the_answer() {
    let now = start();
    let mut peer = front_end(now);
    peer.handle_flow_up(dialled(1), now);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    let sent = outputs(&mut peer);
    peer.handle_message(&dialled(1), answer(&sent, "503 Busy"), now);
    let out = outputs(&mut peer);
    let [PeerOutput::Ended { outcome: Ok(message), .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(message.status(), Some(503));
    assert!(peer.way().is_some(), "the flow stays");
}

#[test]
fn sip_t_09_a_request_by_datagrams_asks_for_rport_and_names_where_we_are_reached() {
    let now = start();
    for (transport, wanted) in [
        (Transport::Udp, "SIP/2.0/UDP 127.0.0.1:5060;branch="),
        (Transport::Tcp, "SIP/2.0/TCP 127.0.0.1:5060;branch="),
    ] {
        let mut peer = Peer::phone("p", now);
        peer.handle_flow_up(Arc::new(FlowFacts { transport, ..(*flow(1)).clone() }), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let out = outputs(&mut peer);
        let [PeerOutput::Way(Some(_)), PeerOutput::Bytes { bytes, .. }] = &out[..] else { panic!("{out:?}") };
        let request = read_datagram(bytes.clone(), &MessageLimits::default()).expect("legal");
        let via = request.vias().next().expect("a Via");
        assert!(via.starts_with(wanted), "{via}");
        assert_eq!(via.ends_with(";rport"), transport == Transport::Udp, "{via}");
    }
}

#[test]
fn sip_t_10_all_requests_go_by_one_connection_which_stays_and_is_dialled_again_when_it_ends() {
    let mut now = start();
    let mut peer = front_end(now);
    let mut dials = 0;
    for n in 0..500 {
        peer.handle_request(Requester::Shard(0, RequestId(n)), None, draft(), now);
        let out = outputs(&mut peer);
        if out.iter().any(|output| matches!(output, PeerOutput::Dial)) {
            dials += 1;
            peer.handle_flow_up(dialled(dials), now);
            outputs(&mut peer);
        }
        // The peer answers nothing for far longer than 64*T1, and then the next is sent.
        now += Duration::from_secs(60);
        peer.handle_timeout(now);
        outputs(&mut peer);
    }
    assert_eq!(dials, 1, "connections of 500 requests");
    peer.handle_flow_down(FlowId(1), now);
    let out = outputs(&mut peer);
    assert!(matches!(out[..], [PeerOutput::Way(None), PeerOutput::Dial]), "{out:?}");
}

/// A flow by which a front end that proved itself by TLS came to us.
fn proved(number: u64) -> Arc<FlowFacts> {
    let proved_domains = Arc::from([Box::from("corp.example")]);
    Arc::new(FlowFacts { transport: Transport::Tls, proved_domains, ..(*flow(number)).clone() })
}

#[test]
fn sip_tls_12_a_front_ends_own_connection_that_is_lost_is_replaced_by_one_of_ours() {
    let now = start();
    let mut peer = front_end(now);
    // It dialled us, and we answer and ask by the same connection.
    peer.handle_flow_up(proved(1), now);
    let asked = all_outputs(&mut peer);
    peer.handle_message(&proved(1), answer(&asked, "200 OK"), now);
    outputs(&mut peer);
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    let out = outputs(&mut peer);
    assert!(out.iter().any(|output| matches!(output, PeerOutput::Bytes { flow: FlowId(1), .. })), "{out:?}");
    peer.handle_flow_down(FlowId(1), now);
    let out = outputs(&mut peer);
    assert!(matches!(out[..], [PeerOutput::Way(None), PeerOutput::Dial]), "{out:?}");
    peer.handle_flow_up(dialled(2), now);
    let out = outputs(&mut peer);
    assert!(out.iter().any(|output| matches!(output, PeerOutput::Bytes { flow: FlowId(2), .. })), "{out:?}");
}

#[test]
fn what_came_from_a_trusted_address_is_answered_there_and_never_the_way_to_the_front_end() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let now = start();
        let mut peer = front_end(now);
        let inbound = Arc::new(FlowFacts { transport, ..(*flow(9)).clone() });
        peer.handle_flow_up(inbound.clone(), now);
        peer.handle_want(0, 300, now);
        let text = "OPTIONS sip:us SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:corp.example>;tag=f\r\n\
            To: <sip:us>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n";
        let message = read_datagram(text.into(), &MessageLimits::default()).expect("legal");
        peer.handle_message(&inbound, message, now);
        let out = all_outputs(&mut peer);
        let [PeerOutput::Dial, PeerOutput::Serve { reply, .. }] = &out[..] else { panic!("{out:?}") };
        peer.handle_response(*reply, b"SIP/2.0 200 OK\r\n\r\n".to_vec(), now);
        let out = all_outputs(&mut peer);
        assert!(
            matches!(out[..], [PeerOutput::Bytes { flow: FlowId(9), .. }]),
            "its answer goes back: {out:?}"
        );
        assert!(peer.way().is_none() && peer.flow().is_none());
        // The next hop is, also where the front end spoke to us from there before.
        peer.handle_flow_up(Arc::new(FlowFacts { dial: Some(DialId(1)), ..(*flow(1)).clone() }), now);
        peer.handle_flow_up(inbound, now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let out = outputs(&mut peer);
        let is_by =
            |number| move |o: &PeerOutput| matches!(o, PeerOutput::Bytes { flow, .. } if flow.0 == number);
        assert!(out.iter().any(is_by(1)) && !out.iter().any(is_by(9)), "{out:?}");
    }
}

#[test]
fn whoever_takes_each_connection_and_closes_it_while_a_notify_is_owed_is_dialled_ever_more_rarely() {
    for answers in [false, true] {
        let (mut now, end) = (start(), start() + Duration::from_secs(600));
        let mut peer = front_end(now);
        peer.handle_want(0, 300, now);
        let mut dials = 0;
        while now < end {
            let out = all_outputs(&mut peer);
            if out.iter().any(|output| matches!(output, PeerOutput::Dial)) {
                dials += 1;
                peer.handle_flow_up(dialled(dials), now);
                let asked = all_outputs(&mut peer);
                if answers {
                    peer.handle_message(&dialled(dials), answer(&asked, "200 OK"), now);
                }
                peer.handle_flow_down(FlowId(dials), now);
                peer.handle_want(0, 300, now);
            } else {
                now = peer.poll_timeout().expect("it is dialled again").max(now);
                peer.handle_timeout(now);
            }
        }
        assert!((15..90).contains(&dials), "{dials} dials in ten minutes");
    }
}

#[test]
fn sip_d_17_a_front_end_is_asked_at_once_and_when_it_is_silent_and_gets_no_credit_while_it_does_not_answer() {
    let mut now = start();
    let mut peer = front_end_up(1, now);
    let count =
        |out: &[PeerOutput], is: fn(&PeerOutput) -> bool| out.iter().filter(|output| is(output)).count();
    let is_grant: fn(&PeerOutput) -> bool = |output| matches!(output, PeerOutput::Grant { .. });
    now += Duration::from_secs(30);
    peer.handle_timeout(now);
    let asked = all_outputs(&mut peer);
    assert_eq!(count(&asked, is_question), 1);
    now += Duration::from_secs(10);
    peer.handle_timeout(now);
    let out = all_outputs(&mut peer);
    assert!(out.iter().any(|output| matches!(output, PeerOutput::Health(PeerHealth::Doubtful))), "{out:?}");
    peer.handle_want(0, 300, now);
    assert_eq!(count(&all_outputs(&mut peer), is_grant), 0);
    peer.handle_message(&dialled(1), answer(&asked, "200 OK"), now);
    let out = all_outputs(&mut peer);
    assert!(matches!(out[..], [PeerOutput::Health(PeerHealth::Up), PeerOutput::Grant { .. }]), "{out:?}");
}

#[test]
fn a_request_to_a_front_end_that_cannot_be_dialled_yet_fails_at_once() {
    let now = start();
    let mut peer = front_end(now);
    peer.handle_timeout(now);
    assert!(matches!(outputs(&mut peer)[..], [PeerOutput::Dial]));
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
    assert!(outputs(&mut peer).is_empty(), "it waits for the dial");
    peer.handle_dial_failed(now);
    peer.handle_request(Requester::Shard(0, RequestId(2)), None, draft(), now);
    let out = outputs(&mut peer);
    assert!(matches!(ended(&out)[..], [Err(NoResponse::Transport), Err(NoResponse::Transport)]), "{out:?}");
}

#[test]
fn a_phones_new_flow_replaces_the_old_one() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(flow(1), now);
    outputs(&mut peer);
    peer.handle_flow_up(flow(2), now);
    let out = outputs(&mut peer);
    assert!(matches!(&out[..], [PeerOutput::Way(None), PeerOutput::Way(Some(_))]), "{out:?}");
    peer.handle_flow_down(FlowId(1), now);
    assert!(peer.way().is_some(), "the old flow's end means nothing");
}

#[test]
fn grants_never_exceed_the_window() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(flow(1), now);
    for shard in 0..4 {
        peer.handle_want(shard, 1 << 20, now);
    }
    let granted: usize = outputs(&mut peer)
        .iter()
        .map(|output| if let PeerOutput::Grant { bytes, .. } = output { *bytes } else { 0 })
        .sum();
    assert!(granted <= FLOW_WINDOW_BYTES, "{granted}");
}

#[test]
fn a_shard_that_asks_again_is_granted_once() {
    let now = start();
    let mut peer = front_end(now);
    peer.handle_want(0, 300, now);
    peer.handle_want(0, 600, now);
    peer.handle_flow_up(dialled(1), now);
    let granted = outputs(&mut peer).iter().filter(|o| matches!(o, PeerOutput::Grant { .. })).count();
    assert_eq!(granted, 1);
}

#[test]
fn a_request_that_nobody_serves_is_refused_here() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    let text = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=f\r\n\
        To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n";
    let message =
        read_datagram(Bytes::from_static(text.as_bytes()), &MessageLimits::default()).expect("legal");
    peer.handle_message(&flow(1), message, now);
    let out = outputs(&mut peer);
    let [PeerOutput::Bytes { bytes, .. }] = &out[..] else { panic!("{out:?}") };
    assert!(bytes.starts_with(b"SIP/2.0 405 "));
}

#[test]
fn shards_are_told_of_forgotten_dialogs_once_in_a_while() {
    let mut now = start();
    let mut peer = front_end_up(1, now);
    for _ in 0..100 {
        peer.handle_forgotten(now);
    }
    assert!(matches!(all_outputs(&mut peer)[..], [PeerOutput::Forgot]));
    now += Duration::from_secs(30);
    peer.handle_forgotten(now);
    assert!(all_outputs(&mut peer).iter().any(|output| matches!(output, PeerOutput::Forgot)));
}

fn by_udp(number: u64) -> Arc<FlowFacts> {
    Arc::new(FlowFacts { transport: Transport::Udp, ..(*flow(number)).clone() })
}

fn large(method: &'static str, body: usize) -> Box<RequestDraft> {
    Box::new(RequestDraft { method, body: vec![b'x'; body].into(), ..*draft() })
}

/// By which flow a request leaves, or the status that stands for its failure.
fn leaves_by(peer: &mut Peer, draft: Box<RequestDraft>, now: Instant) -> Result<u64, u16> {
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft, now);
    let out = outputs(peer);
    let left = out.iter().find_map(|output| match output {
        PeerOutput::Bytes { flow, .. } => Some(Ok(flow.0)),
        PeerOutput::Ended { outcome: Err(failure), .. } => Some(Err(failure.status())),
        _ => None,
    });
    left.unwrap_or_else(|| panic!("neither sent nor ended: {out:?}"))
}

#[test]
fn a_request_too_large_for_a_datagram_goes_by_the_phones_stream() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(flow(1), now);
    peer.handle_flow_up(by_udp(2), now);
    let way = peer.way().expect("a way");
    assert!(!way.is_reliable && way.takes_large);
    for method in ["NOTIFY", "MESSAGE"] {
        outputs(&mut peer);
        assert_eq!(leaves_by(&mut peer, large(method, 100), now), Ok(2), "{method}");
        assert_eq!(leaves_by(&mut peer, large(method, 1300), now), Ok(1), "{method}");
    }
    peer.handle_flow_down(FlowId(1), now);
    let told = outputs(&mut peer).into_iter().rev().find_map(|output| match output {
        PeerOutput::Way(way) => way,
        _ => None,
    });
    assert!(!told.expect("the shards are told").takes_large);
}

#[test]
fn without_a_stream_large_state_goes_in_fragments_with_a_warning_and_a_large_message_fails() {
    let now = start();
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(by_udp(2), now);
    // It has no TCP, as is found out first.
    peer.handle_stream_wanted(now);
    peer.handle_dial_failed(now);
    assert_eq!(leaves_by(&mut peer, large("NOTIFY", 5000), now), Ok(2));
    assert_eq!(leaves_by(&mut peer, large("MESSAGE", 5000), now), Err(513));
    assert_eq!(leaves_by(&mut peer, large("NOTIFY", 66_000), now), Err(513), "no datagram holds it");
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, large("NOTIFY", 5000), now);
    let out = outputs(&mut peer);
    assert!(
        out.iter().any(|o| matches!(o, PeerOutput::TooLarge { method: "NOTIFY", len } if *len > 5000)),
        "{out:?}"
    );
}
