use super::*;
use crate::message::{MessageLimits, read_datagram};

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    Instant::now()
}

fn message(text: String) -> Message {
    read_datagram(Bytes::from(text), &MessageLimits::default()).expect("legal")
}

fn request(branch: &str, to_tag: &str) -> Message {
    message(format!(
        "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
         To: <sip:a@b>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\n\r\n"
    ))
}

fn response(branch: &str, status: u16) -> Message {
    message(format!(
        "SIP/2.0 {status} x\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
         To: <sip:a@b>;tag=t\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\n\r\n"
    ))
}

fn transactions() -> (Transactions<u32>, Instant) {
    let now = start();
    (Transactions::new("p1", Timers::default(), now), now)
}

/// Sends a MESSAGE and gives its branch.
fn begin(transactions: &mut Transactions<u32>, token: u32, is_reliable: bool, now: Instant) -> String {
    let mut used = String::new();
    transactions.send(token, Method::Message, None, is_reliable, now, |branch| {
        used = branch.to_owned();
        format!("MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch={branch};rport\r\n\r\n").into_bytes()
    });
    used
}

fn sent(transactions: &mut Transactions<u32>) -> usize {
    std::iter::from_fn(|| transactions.poll_transmit()).count()
}

#[test]
fn sip_tx_01_a_silent_udp_peer_is_sent_to_eleven_times() {
    let (mut transactions, begun) = transactions();
    transactions.send(7, Method::Message, None, false, begun, |branch| branch.as_bytes().to_vec());
    let mut at = Vec::new();
    let mut now = begun;
    at.extend(std::iter::repeat_n(0, sent(&mut transactions)));
    while let Some(next) = transactions.poll_timeout() {
        now = next.max(now);
        transactions.handle_timeout(now);
        at.extend(std::iter::repeat_n((now - begun).as_millis() as u64, sent(&mut transactions)));
        if let Some((token, outcome)) = transactions.poll_ended() {
            assert!(token == 7 && matches!(outcome, Outcome::Timeout));
            assert_eq!((now - begun).as_secs(), 32);
        }
    }
    assert_eq!(at, [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
}

#[test]
fn sip_tx_01_a_reliable_peer_is_sent_to_once() {
    let (mut transactions, now) = transactions();
    transactions.send(7, Method::Message, None, true, now, |branch| branch.as_bytes().to_vec());
    transactions.handle_timeout(now + Duration::from_secs(31));
    assert_eq!(sent(&mut transactions), 1);
    transactions.handle_timeout(now + Duration::from_secs(33));
    assert!(matches!(transactions.poll_ended(), Some((7, Outcome::Timeout))));
    assert!(transactions.is_idle());
}

#[test]
fn sip_tx_03_only_a_response_with_our_branch_and_method_ends_a_request() {
    let (mut transactions, now) = transactions();
    let mut branch = String::new();
    transactions.send(7, Method::Message, None, true, now, |b| {
        branch = b.to_owned();
        Vec::new()
    });
    assert!(branch.starts_with("z9hG4bKp1."));
    transactions.handle_response(response("z9hG4bKother", 200), now);
    transactions.handle_response(response(&branch, 100), now);
    // The same branch, as a response to a CANCEL has it.
    let text = "SIP/2.0 200 x\r\nVia: SIP/2.0/UDP h;branch=BRANCH\r\nFrom: <sip:x@y>;tag=f\r\n\
        To: <sip:a@b>;tag=t\r\nCall-ID: c\r\nCSeq: 1 CANCEL\r\n\r\n";
    transactions.handle_response(message(text.replace("BRANCH", &branch)), now);
    assert!(transactions.poll_ended().is_none());
    transactions.handle_response(response(&branch, 200), now);
    assert!(matches!(transactions.poll_ended(), Some((7, Outcome::Response(_)))));
    transactions.handle_response(response(&branch, 200), now);
    assert!(transactions.poll_ended().is_none(), "a copy ends nothing twice");
}

#[test]
fn sip_tx_02_a_copy_gets_the_same_response_for_64_t1_on_udp() {
    let (mut transactions, now) = transactions();
    let Incoming::New(id) = transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now) else {
        panic!("it is new");
    };
    transactions.respond(id, b"one".to_vec(), now);
    transactions.respond(id, b"two".to_vec(), now);
    assert_eq!(sent(&mut transactions), 1);
    let copy = transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
    assert!(matches!(copy, Incoming::Absorbed));
    assert_eq!(transactions.poll_transmit().map(|t| t.bytes), Some(Bytes::from_static(b"one")));
    transactions.handle_timeout(now + Duration::from_secs(33));
    assert!(transactions.is_idle());
}

#[test]
fn sip_tx_05_sip_tx_06_a_slow_answer_gets_one_100_when_e_reaches_t2_and_never_408() {
    let (mut transactions, now) = transactions();
    transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
    transactions.handle_timeout(now + Duration::from_millis(3400));
    assert_eq!(sent(&mut transactions), 0);
    transactions.handle_timeout(now + Duration::from_millis(3510));
    let trying = transactions.poll_transmit().expect("a 100");
    assert!(trying.bytes.starts_with(b"SIP/2.0 100 "));
    transactions.handle_timeout(now + Duration::from_secs(40));
    assert_eq!(sent(&mut transactions), 0);
    assert!(transactions.is_idle());
}

#[test]
fn sip_tx_10_the_same_request_by_another_way_is_merged() {
    let (mut transactions, now) = transactions();
    transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
    let merged = transactions.handle_request(&request("z9hG4bKb", ""), 1, false, now);
    assert!(matches!(merged, Incoming::Merged));
    let in_dialog = transactions.handle_request(&request("z9hG4bKc", ";tag=t"), 1, false, now);
    assert!(matches!(in_dialog, Incoming::New(_)));
}

#[test]
fn sip_tx_09_a_cancel_matches_or_not_and_changes_nothing() {
    let (mut transactions, now) = transactions();
    transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
    let cancel = |branch: &str| {
        message(format!(
            "CANCEL sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 CANCEL\r\n\r\n"
        ))
    };
    let matched = transactions.handle_request(&cancel("z9hG4bKa"), 1, false, now);
    assert!(matches!(matched, Incoming::Cancel { is_matched: true }));
    let unmatched = transactions.handle_request(&cancel("z9hG4bKz"), 1, false, now);
    assert!(matches!(unmatched, Incoming::Cancel { is_matched: false }));
    assert_eq!(transactions.servers(), 1);
}

#[test]
fn sip_x_07_requests_of_rfc_2543_are_matched_by_the_old_rules() {
    let (mut transactions, now) = transactions();
    let first = transactions.handle_request(&request("old", ";tag=t"), 1, false, now);
    assert!(matches!(first, Incoming::New(_)));
    let copy = transactions.handle_request(&request("old", ";tag=t"), 1, false, now);
    assert!(matches!(copy, Incoming::Absorbed));
}

#[test]
fn sip_tx_03_the_same_branch_of_two_hosts_is_two_transactions() {
    let (mut transactions, now) = transactions();
    let by_host = |host: &str, cseq: u32| {
        message(format!(
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bKa\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@b>\r\nCall-ID: c{host}\r\nCSeq: {cseq} MESSAGE\r\n\r\n"
        ))
    };
    let mut is_new = |host: &str| {
        matches!(transactions.handle_request(&by_host(host, 1), 1, false, now), Incoming::New(_))
    };
    assert!(is_new("one.example"));
    assert!(is_new("two.example"));
    assert!(is_new("one.example:5070"));
    assert!(!is_new("ONE.example"), "names are compared without case");
}

#[test]
fn sip_tx_03_the_same_branch_in_two_methods_is_two_transactions() {
    let (mut transactions, now) = transactions();
    let mut is_new = |method: &str| {
        let request = message(format!(
            "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@b>;tag=t\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
        ));
        matches!(transactions.handle_request(&request, 1, false, now), Incoming::New(_))
    };
    assert!(is_new("MESSAGE"));
    assert!(is_new("SUBSCRIBE"));
    assert!(!is_new("MESSAGE"));
}

#[test]
fn sip_tx_04_a_million_branches_of_ours_are_all_different() {
    let now = start();
    let mut seen = std::collections::HashSet::new();
    for owner in ["p1", "p11"] {
        let mut transactions: Transactions<u32> = Transactions::new(owner, Timers::default(), now);
        for token in 0..500_000 {
            transactions.send(token, Method::Message, None, true, now, |branch| {
                assert!(branch.starts_with(MAGIC_COOKIE));
                assert!(seen.insert(branch.to_owned()), "{branch}");
                Vec::new()
            });
            transactions.poll_transmit();
            transactions.fail_clients(|_| true);
        }
    }
    assert_eq!(seen.len(), 1_000_000);
}

#[test]
fn sip_t_08_a_response_with_another_sent_by_or_a_second_via_is_dropped() {
    let (mut transactions, now) = transactions();
    let branch = begin(&mut transactions, 7, true, now);
    let response = |vias: &str| {
        message(format!(
            "SIP/2.0 200 OK\r\n{vias}From: <sip:x@y>;tag=f\r\nTo: <sip:a@b>;tag=t\r\nCall-ID: c\r\n\
            CSeq: 1 MESSAGE\r\n\r\n"
        ))
    };
    for wrong in [
        format!("Via: SIP/2.0/UDP other;branch={branch}\r\n"),
        format!("Via: SIP/2.0/UDP h:5062;branch={branch}\r\n"),
        format!("Via: SIP/2.0/UDP h;branch={branch}\r\nVia: SIP/2.0/UDP h2;branch=z9hG4bKx\r\n"),
        format!("Via: SIP/2.0/UDP h;branch={branch}, SIP/2.0/UDP h2;branch=z9hG4bKx\r\n"),
    ] {
        transactions.handle_response(response(&wrong), now);
        assert!(transactions.poll_ended().is_none(), "{wrong}");
    }
    let right = format!("Via: SIP/2.0/UDP H;branch={branch};received=192.0.2.1;rport=5\r\n");
    transactions.handle_response(response(&right), now);
    assert!(matches!(transactions.poll_ended(), Some((7, Outcome::Response(_)))));
}

#[test]
fn sip_tx_05_a_copy_before_the_time_of_the_100_gets_nothing() {
    let (mut transactions, now) = transactions();
    for (at, expected) in [(0, 0), (500, 0), (1500, 0), (3600, 2), (7600, 1)] {
        let now = now + Duration::from_millis(at);
        transactions.handle_timeout(now);
        transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
        assert_eq!(sent(&mut transactions), expected, "at {at} ms");
    }
}

#[test]
fn sip_tx_05_a_stream_peer_gets_a_late_100_too_and_is_forgotten() {
    let (mut transactions, now) = transactions();
    let Incoming::New(id) = transactions.handle_request(&request("z9hG4bKa", ""), 1, true, now) else {
        panic!("it is new");
    };
    for wrong in [&b"SIP/2.0 183 x\r\n"[..], b"SIP/2.0 100 x\r\n", b"SIP/2.0 408 x\r\n"] {
        transactions.respond(id, wrong.to_vec(), now);
        assert_eq!(sent(&mut transactions), 0);
    }
    transactions.handle_timeout(now + Duration::from_millis(3510));
    assert_eq!(sent(&mut transactions), 1);
    transactions.handle_timeout(now + Duration::from_secs(33));
    assert!(transactions.is_idle());
}

fn invite(method: &str, branch: &str, to_tag: &str) -> Message {
    message(format!(
        "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
         To: <sip:a@b>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
    ))
}

#[test]
fn sip_tx_08_a_refused_invite_is_refused_again_until_its_ack_which_is_absorbed() {
    for branch in ["z9hG4bKa", "old"] {
        let (mut transactions, begun) = transactions();
        let Incoming::New(id) = transactions.handle_request(&invite("INVITE", branch, ""), 1, false, begun)
        else {
            panic!("it is new");
        };
        transactions.respond(id, b"SIP/2.0 405 x\r\n".to_vec(), begun);
        assert_eq!(sent(&mut transactions), 1);
        let mut now = begun;
        let mut at = Vec::new();
        while let Some(next) = transactions.poll_timeout()
            && at.len() < 5
        {
            now = next.max(now);
            transactions.handle_timeout(now);
            at.extend(std::iter::repeat_n((now - begun).as_millis(), sent(&mut transactions)));
        }
        assert_eq!(at, [500, 1500, 3500, 7500, 11500], "timer G");
        transactions.handle_request(&invite("INVITE", branch, ""), 1, false, now);
        assert_eq!(sent(&mut transactions), 1, "a copy gets the refusal");
        for _ in 0..2 {
            let ack = transactions.handle_request(&invite("ACK", branch, ";tag=t"), 1, false, now);
            assert!(matches!(ack, Incoming::Absorbed));
        }
        transactions.handle_request(&invite("INVITE", branch, ""), 1, false, now);
        transactions.handle_timeout(now + Duration::from_millis(4900));
        assert_eq!(sent(&mut transactions), 0, "confirmed: nothing more goes out");
        assert_eq!(transactions.servers(), 1);
        transactions.handle_timeout(now + Duration::from_millis(5010));
        assert!(transactions.is_idle(), "timer I");
    }
}

#[test]
fn sip_tx_08_a_refused_invite_without_ack_is_given_up_after_64_t1() {
    let (mut transactions, begun) = transactions();
    let Incoming::New(id) = transactions.handle_request(&invite("INVITE", "z9hG4bKa", ""), 1, false, begun)
    else {
        panic!("it is new");
    };
    transactions.handle_timeout(begun + Duration::from_millis(210));
    assert!(transactions.poll_transmit().is_some_and(|trying| trying.bytes.starts_with(b"SIP/2.0 100 ")));
    transactions.respond(id, b"SIP/2.0 486 x\r\n".to_vec(), begun);
    let mut now = begun;
    while let Some(next) = transactions.poll_timeout() {
        now = next.max(now);
        transactions.handle_timeout(now);
    }
    assert_eq!((now - begun).as_secs(), 32);
    assert_eq!(sent(&mut transactions), 11);
    assert!(transactions.is_idle());
}

#[test]
fn sip_tx_11_all_timers_of_thousands_of_transactions_run_on_a_clock_of_the_test() {
    const MANY: u32 = 5000;
    let (mut transactions, begun) = transactions();
    for token in 0..MANY {
        begin(&mut transactions, token, token % 2 == 0, begun);
        let text = format!("z9hG4bK{token}");
        let request = request(&text, ";tag=t");
        let Incoming::New(id) = transactions.handle_request(&request, 1, token % 3 == 0, begun) else {
            panic!("it is new");
        };
        if token % 5 != 0 {
            transactions.respond(id, b"SIP/2.0 200 OK\r\n".to_vec(), begun);
        }
    }
    let mut now = begun;
    let mut ended = std::collections::HashSet::new();
    while let Some(next) = transactions.poll_timeout() {
        now = next.max(now);
        transactions.handle_timeout(now);
        while let Some((token, outcome)) = transactions.poll_ended() {
            assert!(matches!(outcome, Outcome::Timeout) && ended.insert(token));
        }
        while transactions.poll_transmit().is_some() {}
    }
    assert_eq!(ended.len(), MANY as usize);
    assert_eq!((now - begun).as_secs(), 32);
    assert!(transactions.is_idle());
}

#[test]
fn what_requests_take_is_counted_until_they_are_answered_and_their_answers_until_they_are_forgotten() {
    let (mut transactions, now) = transactions();
    let text = |n: usize| {
        format!(
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch=z9hG4bK{n}\r\nFrom: <sip:x@y>;tag=f{n}\r\n\
             To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\n\r\n{}",
            "x".repeat(10_000)
        )
    };
    let mut ids = Vec::new();
    for n in 0..10 {
        let is_reliable = n % 2 == 0;
        match transactions.handle_request(&message(text(n)), 1, is_reliable, now) {
            Incoming::New(id) => ids.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert!(transactions.server_octets() > 100_000);
    for id in ids {
        transactions.respond(id, b"SIP/2.0 200 OK\r\n\r\n".to_vec(), now);
    }
    let left = transactions.server_octets();
    assert!((1000..10_000).contains(&left), "{left} octets of five answers that may be asked for again");
    transactions.handle_timeout(now + Duration::from_secs(33));
    assert_eq!((transactions.server_octets(), transactions.servers()), (0, 0));
}
