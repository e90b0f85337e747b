//! Sessions without actors: dials, grants, messages, lost streams and silent partners.

use super::*;

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    Instant::now()
}

fn session() -> Session {
    Session::new(SessionSettings::default(), 7)
}

fn outputs(session: &mut Session) -> Vec<SessionOutput> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

const STREAM: StreamId = StreamId(1);

#[test]
fn a_wish_dials_once_and_is_granted_when_the_stream_is_up() {
    let (mut session, now) = (session(), start());
    session.handle_want(0, 10_000, now);
    session.handle_want(1, 10_000, now);
    assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
    session.handle_stream_up(STREAM, 65_536, now);
    assert_eq!(
        outputs(&mut session),
        [SessionOutput::Grant { shard: 0, bytes: 10_000 }, SessionOutput::Grant { shard: 1, bytes: 10_000 }]
    );
}

#[test]
fn grants_together_never_exceed_the_window() {
    let (mut session, now) = (session(), start());
    session.handle_stream_up(STREAM, 65_536, now);
    for shard in 0..4 {
        session.handle_want(shard, 1 << 20, now);
    }
    let granted = |outputs: Vec<SessionOutput>| -> usize {
        outputs.iter().map(|o| if let SessionOutput::Grant { bytes, .. } = o { *bytes } else { 0 }).sum()
    };
    assert_eq!(granted(outputs(&mut session)), 65_536);
    session.handle_stanzas(0, 100, vec![b' '; 65_536], now);
    assert_eq!(granted(outputs(&mut session)), 0, "nothing was written yet");
    session.handle_written(STREAM, 100, 65_536, now);
    assert!(granted(outputs(&mut session)) <= 65_536);
}

#[test]
fn what_a_shard_did_not_use_is_granted_to_others() {
    let (mut session, now) = (session(), start());
    session.handle_stream_up(STREAM, 8192, now);
    session.handle_want(0, 8192, now);
    session.handle_want(1, 8192, now);
    outputs(&mut session);
    session.handle_stanzas(0, 0, Vec::new(), now);
    assert_eq!(outputs(&mut session), [SessionOutput::Grant { shard: 1, bytes: 8192 }]);
}

#[test]
fn xs_dns_06_a_failed_dial_bounces_each_waiting_message_once() {
    let (mut session, now) = (session(), start());
    for n in 0..100 {
        session.handle_message(0, Some(MessageId(n)), b"<message/>".to_vec(), now);
    }
    assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
    session.handle_dial_failed(&StreamEnd::NotFound, now);
    let fates = outputs(&mut session);
    let bounced = fates
        .iter()
        .filter(|output| matches!(output, SessionOutput::Fate { fate: Err("remote-server-not-found"), .. }));
    assert_eq!(bounced.count(), 100);
    session.handle_dial_failed(&StreamEnd::NotFound, now);
    assert!(outputs(&mut session).is_empty());
}

#[test]
fn unwritten_messages_go_by_the_next_stream_in_order() {
    let (mut session, now) = (session(), start());
    session.handle_stream_up(STREAM, 65_536, now);
    for n in 1..=3 {
        session.handle_message(0, Some(MessageId(n)), vec![b'0' + n as u8], now);
    }
    session.handle_written(STREAM, 1, 1, now);
    outputs(&mut session);
    session.handle_stream_down(STREAM, &StreamEnd::Broken("cable".into()), 2, now);
    let down = outputs(&mut session);
    assert!(down.contains(&SessionOutput::Fate { shard: 0, message: MessageId(2), fate: Ok(()) }));
    assert!(down.contains(&SessionOutput::LaneLost { is_clean: false }));
    session.handle_stream_up(StreamId(2), 65_536, now);
    let up = outputs(&mut session);
    assert!(up.contains(&SessionOutput::Stanzas { stream: StreamId(2), count: 1, bytes: vec![b'3'] }));
    assert!(up.contains(&SessionOutput::Reachable { is_reachable: true, condition: "" }));
}

#[test]
fn xs_str_10_messages_keep_their_order_over_forced_reconnects() {
    let (mut session, mut now) = (session(), start());
    let mut arrived: Vec<u8> = Vec::new();
    for round in 1..=20_u8 {
        let id = StreamId(u64::from(round));
        session.handle_stream_up(id, 65_536, now);
        for n in 0..10 {
            let number = (round - 1) * 10 + n;
            session.handle_message(0, Some(MessageId(u64::from(number))), vec![number], now);
        }
        let written: Vec<u8> = outputs(&mut session)
            .into_iter()
            .filter_map(|output| match output {
                SessionOutput::Stanzas { stream, bytes, .. } => Some((stream, bytes)),
                _ => None,
            })
            .inspect(|(stream, _)| assert_eq!(*stream, id, "one stream at a time"))
            .flat_map(|(_, bytes)| bytes)
            .collect();
        // The break comes behind any of them; what was not written goes by the next stream.
        let last = usize::from(round * 7) % (written.len() + 1);
        arrived.extend(&written[..last]);
        session.handle_stream_down(id, &StreamEnd::Broken("cable".into()), last as u64, now);
        now = session.poll_timeout().expect("it tries again");
        session.handle_timeout(now);
        outputs(&mut session);
    }
    session.handle_stream_up(StreamId(99), 65_536, now);
    for output in outputs(&mut session) {
        if let SessionOutput::Stanzas { bytes, .. } = output {
            arrived.extend(bytes);
        }
    }
    assert_eq!(arrived, (0..200).collect::<Vec<u8>>(), "each once, and none before another");
}

#[test]
fn a_stream_closed_in_order_loses_nobody() {
    let (mut session, now) = (session(), start());
    session.handle_stream_up(STREAM, 65_536, now);
    session.handle_stream_down(STREAM, &StreamEnd::Closed, 0, now);
    assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: true }]);
    assert!(session.is_idle());
}

#[test]
fn dials_come_ever_more_rarely_and_a_lost_partner_is_dialled_for_its_own_sake() {
    let mut sums = [Duration::ZERO; 10];
    for seed in 1..=200_u64 {
        let (mut session, mut now) = (Session::new(SessionSettings::default(), seed << 20), start());
        session.handle_want(0, 1, now);
        outputs(&mut session);
        for sum in &mut sums {
            session.handle_dial_failed(&StreamEnd::Unreachable("x".into()), now);
            let next = session.poll_timeout().expect("it tries again");
            assert!(next - now <= Duration::from_secs(60));
            *sum += next - now;
            now = next;
            session.handle_timeout(now);
            assert!(outputs(&mut session).contains(&SessionOutput::Dial));
        }
    }
    let means = sums.map(|sum| sum / 200);
    assert!(means[0] < Duration::from_secs(4) && means[9] > Duration::from_secs(20), "{means:?}");
    assert!(means[1] > means[0] && means[2] > means[1] && means[3] > means[2], "{means:?}");
}

#[test]
fn xs_dns_07_partners_that_are_lost_at_once_are_dialled_at_times_of_their_own() {
    let now = start();
    let mut dials: Vec<Duration> = (1..=50_u64)
        .map(|seed| {
            let mut session = Session::new(SessionSettings::default(), seed << 20);
            session.handle_want(0, 1, now);
            session.handle_stream_up(StreamId(seed), 1000, now);
            session.handle_stream_down(StreamId(seed), &StreamEnd::Broken("cut".into()), 0, now);
            // The second try, when the first one failed at once.
            let first = session.poll_timeout().expect("it tries again");
            session.handle_timeout(first);
            session.handle_dial_failed(&StreamEnd::Unreachable("x".into()), first);
            let second = session.poll_timeout().expect("and again");
            session.handle_timeout(second);
            session.handle_dial_failed(&StreamEnd::Unreachable("x".into()), second);
            session.poll_timeout().expect("and again") - now
        })
        .collect();
    dials.sort();
    let most = (0..50)
        .map(|at| dials[at..].iter().filter(|dial| **dial - dials[at] < Duration::from_secs(1)).count());
    assert!(most.max() < Some(15), "too many in one second: {dials:?}");
    assert!(dials[49] > Duration::from_secs(6) && dials[49] < Duration::from_secs(60), "{dials:?}");
}

/// Lets a session with a stream run until `limit`; what it said, in order.
fn run(session: &mut Session, from: Instant, limit: Duration) -> Vec<(Duration, SessionOutput)> {
    let mut said = Vec::new();
    while let Some(at) = session.poll_timeout().filter(|at| *at <= from + limit) {
        session.handle_timeout(at);
        said.extend(outputs(session).into_iter().map(|output| (at - from, output)));
    }
    said
}

#[test]
fn xs_str_11_a_frozen_partner_is_given_up_and_an_idle_one_is_kept() {
    let now = start();
    let settings = SessionSettings { idle_close: Duration::from_secs(86_400), ..SessionSettings::default() };
    let mut session = Session::new(settings, 7).with_ping("corp.example", "partner.example");
    session.handle_want(0, 10, now);
    session.handle_stream_up(StreamId(1), 65_536, now);
    session.handle_stanzas(0, 1, vec![b'x'; 10], now);
    outputs(&mut session);
    let ping = |said: &[(Duration, SessionOutput)]| match said {
        [(at, SessionOutput::Stanzas { stream: StreamId(1), count: 1, bytes })] => {
            let text = String::from_utf8(bytes.clone()).expect("text");
            assert!(text.contains("<ping xmlns='urn:xmpp:ping'/>") && text.contains("to='partner.example'"));
            let (_, rest) = text.split_once("id='").expect("an id");
            (*at, number_of_pong(rest.split_once('\'').expect("quoted").0).expect("ours"))
        }
        other => panic!("{other:?}"),
    };
    let (at, id) = ping(&run(&mut session, now, Duration::from_secs(330)));
    assert_eq!(at, Duration::from_secs(300), "not oftener than every five minutes");
    session.handle_pong(id, now + at);
    assert_eq!(run(&mut session, now, Duration::from_secs(36_000)), [], "hours of rest are no fault");

    let later = now + Duration::from_secs(36_000);
    session.handle_want(0, 10, later);
    session.handle_stanzas(0, 1, vec![b'x'; 10], later);
    outputs(&mut session);
    let said = run(&mut session, later, Duration::from_secs(3600));
    let (_, frozen) = said.split_last().expect("it asks and ends");
    ping(frozen);
    let (at, end) = &said[said.len() - 1];
    assert_eq!(*end, SessionOutput::GiveUp(StreamId(1)));
    assert!(*at <= Duration::from_secs(361), "{at:?}");
}

#[test]
fn too_many_waiting_messages_are_refused() {
    let settings = SessionSettings { waiting_messages: 2, ..SessionSettings::default() };
    let (mut session, now) = (Session::new(settings, 1), start());
    for n in 0..3 {
        session.handle_message(0, Some(MessageId(n)), vec![b'x'], now);
    }
    let refused = SessionOutput::Fate { shard: 0, message: MessageId(2), fate: Err("resource-constraint") };
    assert!(outputs(&mut session).contains(&refused));
}
