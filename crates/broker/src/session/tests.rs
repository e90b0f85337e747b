//! Sessions without actors: dials, grants, messages and lost streams.

use tombolo_edge::Absence;

use super::*;

mod liveness;
mod slow_partner;

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
const MINUTE: Duration = Duration::from_secs(60);

fn broken() -> StreamEnd {
    StreamEnd::Broken("cable".into())
}

fn fate(message: u64, fate: Result<(), Undelivered>) -> SessionOutput {
    SessionOutput::Fate { shard: 0, message: MessageId(message), fate }
}

/// A session whose stream was handed ten stanzas of a shard at this time.
fn written_to(now: Instant) -> Session {
    let mut session = session();
    session.handle_stream_up(STREAM, 65_536, now);
    session.handle_want(0, 10_000, now);
    session.handle_stanzas(0, 10, vec![b' '; 10_000], now);
    outputs(&mut session);
    session
}

fn is_clean(session: &mut Session) -> bool {
    let ends: Vec<_> = outputs(session)
        .into_iter()
        .filter_map(|output| match output {
            SessionOutput::LaneLost { is_clean } => Some(is_clean),
            _ => None,
        })
        .collect();
    assert_eq!(ends.len(), 1, "said once");
    ends[0]
}

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
    session.handle_dial_failed(&StreamEnd::NotFound(Absence::NoSuchName), now);
    let fates = outputs(&mut session);
    let bounced = fates.iter().filter(|output| {
        matches!(
            output,
            SessionOutput::Fate { fate: Err(Undelivered::NotSent("remote-server-not-found")), .. }
        )
    });
    assert_eq!(bounced.count(), 100);
    session.handle_dial_failed(&StreamEnd::NotFound(Absence::NoSuchName), now);
    assert!(outputs(&mut session).is_empty());
}

#[test]
fn d_24_what_a_lost_edge_was_handed_is_uncertain_and_is_never_sent_twice() {
    let (mut session, now) = (session(), start());
    session.handle_stream_up(STREAM, 10, now);
    for n in 1..=4 {
        session.handle_message(0, Some(MessageId(n)), vec![b'0' + n as u8; 5], now);
    }
    // An answer for which nobody waits is among them.
    session.handle_message(0, None, vec![b'a'; 5], now);
    session.handle_written(STREAM, 1, 5, now);
    outputs(&mut session);
    // The edge was killed: it wrote the second and third, or not, and the fourth waits here for the window.
    session.handle_stream_down(STREAM, &StreamEnd::LinkLost, 0, now);
    let down = outputs(&mut session);
    for n in 1..=3 {
        assert!(down.contains(&fate(n, Err(Undelivered::Uncertain))), "{n}: {down:?}");
    }
    assert!(!down.contains(&fate(4, Err(Undelivered::Uncertain))), "it never left: {down:?}");
    session.handle_stream_up(StreamId(2), 65_536, now);
    let sent = outputs(&mut session).into_iter().filter_map(|output| match output {
        SessionOutput::Stanzas { bytes, .. } => Some(bytes),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), [&b"44444"[..], b"aaaaa"], "each once, in order");
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
    assert!(
        down.contains(&fate(2, Err(Undelivered::Uncertain))),
        "written, and perhaps never read: {down:?}"
    );
    assert!(!down.iter().any(|output| matches!(output, SessionOutput::Fate { message: MessageId(3), .. })));
    assert!(down.contains(&SessionOutput::LaneLost { is_clean: true }), "no state was on its way");
    session.handle_stream_up(StreamId(2), 65_536, now);
    let up = outputs(&mut session);
    assert!(up.contains(&SessionOutput::Stanzas { stream: StreamId(2), count: 1, bytes: vec![b'3'].into() }));
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
    session.handle_stream_down(STREAM, &StreamEnd::Closed, 0, now + MINUTE);
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

#[test]
fn too_many_waiting_messages_are_refused() {
    let settings = SessionSettings { waiting_messages: 2, ..SessionSettings::default() };
    let (mut session, now) = (Session::new(settings, 1), start());
    for n in 0..3 {
        session.handle_message(0, Some(MessageId(n)), vec![b'x'], now);
    }
    let refused = SessionOutput::Fate {
        shard: 0,
        message: MessageId(2),
        fate: Err(Undelivered::NotSent("resource-constraint")),
    };
    assert!(outputs(&mut session).contains(&refused));
}

#[test]
fn what_was_never_written_is_lost_however_long_ago_it_was_handed_over() {
    let now = start();
    // The peer reads nothing, and after a minute its connection is given up.
    let mut session = written_to(now);
    session.handle_stream_down(STREAM, &StreamEnd::Broken("the peer takes nothing".into()), 4, now + MINUTE);
    assert!(!is_clean(&mut session));
    // It closes in order while stanzas wait: they are lost, and the partner is not.
    let mut session = written_to(now);
    session.handle_stream_down(STREAM, &StreamEnd::Closed, 9, now + MINUTE);
    assert!(!session.is_lost());
    assert!(!is_clean(&mut session));
    // What an edge wrote before its link broke stays written.
    let mut session = written_to(now);
    session.handle_written(STREAM, 10, 10_000, now);
    session.handle_stream_down(STREAM, &StreamEnd::LinkLost, 0, now + 3 * MINUTE);
    assert!(!session.is_lost());
    assert!(is_clean(&mut session));
    let mut session = written_to(now);
    session.handle_written(STREAM, 9, 9_000, now);
    session.handle_stream_down(STREAM, &StreamEnd::LinkLost, 0, now + 3 * MINUTE);
    assert!(!session.is_lost(), "nothing is known of the partner");
    assert!(!is_clean(&mut session));
}

#[test]
fn a_slow_write_counts_from_its_end() {
    let now = start();
    let mut session = written_to(now);
    session.handle_written(STREAM, 10, 10_000, now + MINUTE);
    session.handle_stream_down(STREAM, &broken(), 10, now + 3 * MINUTE - Duration::from_secs(1));
    assert!(!is_clean(&mut session));
    let mut session = written_to(now);
    session.handle_written(STREAM, 10, 10_000, now + MINUTE);
    session.handle_stream_down(STREAM, &broken(), 10, now + 3 * MINUTE);
    assert!(is_clean(&mut session));
}

#[test]
fn stanzas_that_a_grant_brings_after_the_end_of_the_stream_are_lost() {
    let now = start();
    let mut session = session();
    session.handle_stream_up(STREAM, 65_536, now);
    session.handle_want(0, 10_000, now);
    outputs(&mut session);
    session.handle_stream_down(STREAM, &StreamEnd::Closed, 0, now + MINUTE);
    assert!(!is_clean(&mut session));
    session.handle_stanzas(0, 3, b"<presence/>".to_vec(), now + MINUTE);
    assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: false }]);
    session.handle_stanzas(0, 0, Vec::new(), now + MINUTE);
    assert_eq!(outputs(&mut session), [], "nothing is lost of nothing");
}

#[test]
fn a_stream_that_we_close_is_handed_nothing_more_and_its_end_loses_nobody() {
    let now = start();
    let mut session = written_to(now);
    session.handle_written(STREAM, 10, 10_000, now);
    let idle = now + Duration::from_secs(600);
    // A shard that may be about to use its grant keeps the stream open.
    session.handle_want(1, 10, now);
    session.handle_timeout(idle);
    assert!(matches!(outputs(&mut session)[..], [SessionOutput::Grant { shard: 1, .. }]));
    session.handle_stanzas(1, 0, Vec::new(), idle);
    assert_eq!(session.poll_timeout(), Some(idle));
    session.handle_timeout(idle);
    assert_eq!(outputs(&mut session), [SessionOutput::Close(STREAM)]);
    session.handle_timeout(idle + MINUTE);
    session.handle_want(0, 10, idle);
    session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), idle);
    assert_eq!(outputs(&mut session), [], "neither a grant nor a message, nor another close");
    // The peer does not answer the close.
    let end = StreamEnd::Broken("the peer did not end its side in time".into());
    session.handle_stream_down(STREAM, &end, 10, idle + Duration::from_secs(5));
    assert_eq!(
        outputs(&mut session),
        [SessionOutput::LaneLost { is_clean: true }, SessionOutput::Dial],
        "what waits goes by a new stream"
    );
    session.handle_stream_up(StreamId(2), 65_536, idle + MINUTE);
    let up = outputs(&mut session);
    assert!(matches!(
        up[..],
        [SessionOutput::Stanzas { stream: StreamId(2), .. }, SessionOutput::Grant { shard: 0, .. }]
    ));
}

#[test]
fn xs_dns_07_a_partner_that_ends_each_stream_at_once_is_dialled_ever_more_rarely() {
    for end in [StreamEnd::Closed, broken()] {
        let (mut session, begun) = (session(), start());
        let mut dials = Vec::new();
        let mut now = begun;
        session.handle_want(0, 10, now);
        for round in 1..=200 {
            if !outputs(&mut session).contains(&SessionOutput::Dial) {
                now = session.poll_timeout().expect("it tries again");
                session.handle_timeout(now);
                assert!(outputs(&mut session).contains(&SessionOutput::Dial), "{end:?}");
            }
            dials.push(now - begun);
            session.handle_stream_up(StreamId(round), 65_536, now);
            session.handle_stream_down(StreamId(round), &end, 0, now);
            session.handle_want(0, 10, now);
        }
        let in_an_hour = dials.iter().filter(|at| **at < 60 * MINUTE).count();
        assert!((60..200).contains(&in_an_hour), "{end:?}: {in_an_hour} in an hour");
        // One that works again is dialled soon after its next break.
        session.handle_stream_up(StreamId(999), 65_536, now);
        session.handle_stream_down(StreamId(999), &broken(), 0, now + MINUTE);
        let next = session.poll_timeout().expect("it tries again");
        assert!(next <= now + MINUTE + Duration::from_secs(4), "{:?}", next - now);
    }
}

#[test]
fn messages_wait_out_the_pause_after_a_stream_that_ended_in_order_at_once() {
    let (mut session, now) = (session(), start());
    session.handle_stream_up(STREAM, 65_536, now);
    session.handle_stream_down(STREAM, &StreamEnd::Closed, 0, now);
    session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), now);
    assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: true }]);
    let next = session.poll_timeout().expect("it dials for the message");
    session.handle_timeout(next);
    assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
}

#[test]
fn a_lost_partner_that_nobody_has_a_pair_with_is_forgotten_and_the_session_ends() {
    let (mut session, mut now) = (session(), start());
    session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), now);
    session.handle_want(3, 10, now);
    session.handle_dial_failed(&StreamEnd::NotFound(Absence::NoSuchName), now);
    outputs(&mut session);
    session.handle_standing(Standing { is_configured: true, has_pairs: true });
    for _ in 0..10 {
        assert!(!session.is_idle());
        now = session.poll_timeout().expect("it tries again");
        session.handle_timeout(now);
        assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
        session.handle_dial_failed(&StreamEnd::NotFound(Absence::NoSuchName), now);
    }
    session.handle_standing(Standing { is_configured: true, has_pairs: false });
    now = session.poll_timeout().expect("it looks again");
    session.handle_timeout(now);
    let said = outputs(&mut session);
    assert!(
        matches!(said[..], [SessionOutput::Forgotten, SessionOutput::Grant { shard: 3, .. }]),
        "and the shard that waits is let go: {said:?}"
    );
    session.handle_stanzas(3, 0, Vec::new(), now);
    assert!(session.is_idle() && session.poll_timeout().is_none());
}

#[test]
fn a_partner_that_is_none_any_more_is_not_dialled_until_it_is_one_again() {
    let (mut session, mut now) = (session(), start());
    session.handle_want(0, 10, now);
    session.handle_dial_failed(&StreamEnd::Refused("no partner".into()), now);
    session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), now);
    assert!(outputs(&mut session).contains(&fate(1, Err(Undelivered::NotSent("not-allowed")))));
    session.handle_standing(Standing { is_configured: false, has_pairs: true });
    for _ in 0..10 {
        let next = session.poll_timeout().expect("it looks again");
        assert_eq!(next, now + MINUTE);
        now = next;
        session.handle_timeout(now);
        assert_eq!(outputs(&mut session), []);
    }
    session.handle_standing(Standing { is_configured: true, has_pairs: true });
    session.handle_timeout(now + MINUTE);
    assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
}

#[test]
fn a_message_that_is_withdrawn_while_it_waits_for_a_stream_does_not_leave() {
    let (mut session, now) = (session(), start());
    for message in [1, 2] {
        session.handle_message(0, Some(MessageId(message)), format!("<message id='{message}'/>"), now);
    }
    session.handle_withdraw(1, MessageId(1));
    assert_eq!(session.waiting(), 2, "that is a message of another shard");
    session.handle_withdraw(0, MessageId(1));
    outputs(&mut session);
    session.handle_stream_up(STREAM, 65_536, now);
    let written: Vec<_> = outputs(&mut session)
        .into_iter()
        .filter_map(|output| match output {
            SessionOutput::Stanzas { bytes, .. } => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(written, ["<message id='2'/>"]);
}
