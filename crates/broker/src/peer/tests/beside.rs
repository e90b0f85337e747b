//! Requests that are large for UDP, toward phones that may listen for TCP (RFC 3261 §18.1.1).

use super::*;

fn phone_by_udp(now: Instant) -> Peer {
    let mut peer = Peer::phone("p", now);
    peer.handle_flow_up(by_udp(1), now);
    outputs(&mut peer);
    peer
}

fn dials(out: &[PeerOutput]) -> usize {
    out.iter().filter(|output| matches!(output, PeerOutput::OpenStream { flow: FlowId(1), .. })).count()
}

/// By which flows requests left, and the statuses that stand for failures.
fn ends(out: &[PeerOutput]) -> Vec<Result<u64, u16>> {
    let end = |output: &PeerOutput| match output {
        PeerOutput::Bytes { flow, .. } => Some(Ok(flow.0)),
        PeerOutput::Ended { outcome: Err(failure), .. } => Some(Err(failure.status())),
        _ => None,
    };
    out.iter().filter_map(end).collect()
}

fn send(peer: &mut Peer, method: &'static str, len: usize, now: Instant) -> Vec<PeerOutput> {
    peer.handle_request(Requester::Shard(0, RequestId(1)), None, large(method, len), now);
    outputs(peer)
}

#[test]
fn sip_t_05_what_is_too_large_for_udp_dials_the_phone_and_leaves_by_tcp() {
    let now = start();
    let mut peer = phone_by_udp(now);
    let out = send(&mut peer, "MESSAGE", 5000, now);
    assert_eq!((dials(&out), ends(&out)), (1, vec![]), "{out:?}");
    let out = send(&mut peer, "NOTIFY", 5000, now);
    assert_eq!((dials(&out), ends(&out)), (0, vec![]), "one dial for both: {out:?}");
    assert_eq!(ends(&send(&mut peer, "MESSAGE", 10, now)), [Ok(1)], "what is small does not wait");
    peer.handle_flow_up(dialled(2), now);
    let out = outputs(&mut peer);
    assert_eq!(ends(&out), [Ok(2), Ok(2)], "{out:?}");
    let told = out.iter().find_map(|output| match output {
        PeerOutput::Way(Some(way)) => Some((way.is_reliable, way.takes_large)),
        _ => None,
    });
    assert_eq!(told, Some((false, true)), "the phone stays where it was met");
    assert_eq!(ends(&send(&mut peer, "MESSAGE", 10, now)), [Ok(1)]);
}

#[test]
fn sip_t_05_a_phone_that_refuses_tcp_is_spoken_to_by_udp_and_not_dialled_again_for_a_while() {
    let mut now = start();
    let mut peer = phone_by_udp(now);
    send(&mut peer, "MESSAGE", 5000, now);
    send(&mut peer, "NOTIFY", 5000, now);
    peer.handle_dial_failed(now);
    let out = outputs(&mut peer);
    assert_eq!(ends(&out), [Err(513), Ok(1)], "as without TCP: {out:?}");
    for _ in 0..20 {
        let out = send(&mut peer, "NOTIFY", 5000, now);
        assert_eq!((dials(&out), ends(&out)), (0, vec![Ok(1)]));
        peer.handle_stream_wanted(now);
        assert_eq!(dials(&outputs(&mut peer)), 0);
        now += Duration::from_secs(1);
    }
    let mut all = 0;
    for _ in 0..3600 {
        peer.handle_stream_wanted(now);
        if dials(&outputs(&mut peer)) > 0 {
            all += 1;
            peer.handle_dial_failed(now);
        }
        now += Duration::from_secs(10);
    }
    assert!((1..200).contains(&all), "{all} dials in ten hours");
}

#[test]
fn a_dial_that_nothing_is_heard_of_ends_the_waiting() {
    let now = start();
    let mut peer = phone_by_udp(now);
    send(&mut peer, "MESSAGE", 5000, now);
    let due = peer.poll_timeout().expect("the dial");
    assert!(due <= now + Duration::from_secs(30));
    peer.handle_timeout(due);
    assert_eq!(ends(&outputs(&mut peer)), [Err(513)]);
}

#[test]
fn a_stream_by_which_nothing_is_answered_is_closed_and_not_opened_again_at_once() {
    let now = start();
    let mut peer = phone_by_udp(now);
    send(&mut peer, "MESSAGE", 5000, now);
    peer.handle_flow_up(dialled(2), now);
    outputs(&mut peer);
    // Timer F.
    let later = now + Duration::from_secs(32);
    peer.handle_timeout(later);
    let out = outputs(&mut peer);
    assert!(out.iter().any(|o| matches!(o, PeerOutput::Close { flow: FlowId(2) })), "{out:?}");
    assert_eq!(ends(&out), [Err(408)]);
    assert!(!peer.has_stream_beside());
    let out = send(&mut peer, "MESSAGE", 5000, later);
    assert_eq!((dials(&out), ends(&out)), (0, vec![Err(513)]));
}

#[test]
fn a_stream_that_is_not_used_is_closed() {
    let now = start();
    let mut peer = phone_by_udp(now);
    peer.handle_stream_wanted(now);
    assert_eq!(dials(&outputs(&mut peer)), 1);
    peer.handle_flow_up(dialled(2), now);
    outputs(&mut peer);
    peer.handle_heard(FlowId(2), now);
    peer.handle_timeout(now + Duration::from_secs(59));
    assert!(outputs(&mut peer).is_empty());
    peer.handle_timeout(now + Duration::from_secs(60));
    let out = outputs(&mut peer);
    assert!(out.iter().any(|o| matches!(o, PeerOutput::Close { flow: FlowId(2) })), "{out:?}");
    assert!(peer.way().is_some_and(|way| !way.takes_large));
}

#[test]
fn a_phone_that_is_gone_leaves_nothing_waiting_for_its_stream() {
    let now = start();
    let mut peer = phone_by_udp(now);
    send(&mut peer, "MESSAGE", 5000, now);
    peer.handle_flow_down(FlowId(1), now);
    assert_eq!(ends(&outputs(&mut peer)), [Err(503)]);
}

#[test]
fn a_front_end_is_dialled_by_its_next_hop_only() {
    let now = start();
    let mut peer = front_end(now);
    peer.handle_flow_up(Arc::new(FlowFacts { dial: Some(DialId(1)), ..(*by_udp(1)).clone() }), now);
    outputs(&mut peer);
    peer.handle_stream_wanted(now);
    let out = send(&mut peer, "MESSAGE", 5000, now);
    assert_eq!((dials(&out), ends(&out)), (0, vec![Err(513)]));
}
