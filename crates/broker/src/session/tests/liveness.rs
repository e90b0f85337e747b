//! Silent partners, what is confirmed and what is lost with a stream, and the partner's streams to us.

use tombolo_edge::Absence;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A session that pings, with a stream.
fn pinging(now: Instant) -> Session {
    let mut session =
        Session::new(SessionSettings::default(), 7).with_ping("corp.example", "partner.example");
    session.handle_stream_up(STREAM, 65_536, now);
    session
}

/// A shard is granted something and hands it over, and the edge writes it.
fn say(session: &mut Session, written: &mut u64, now: Instant) {
    session.handle_want(0, 10, now);
    session.handle_stanzas(0, 1, vec![b'x'; 10], now);
    write(session, written, now);
}

fn write(session: &mut Session, written: &mut u64, now: Instant) {
    *written = session.stream.as_ref().expect("up").last();
    session.handle_written(STREAM, *written, 10, now);
}

/// Lets a session run until `limit`; what it said, in order.
fn run(session: &mut Session, from: Instant, limit: Duration) -> Vec<(Duration, SessionOutput)> {
    let mut said: Vec<_> = outputs(session).into_iter().map(|output| (Duration::ZERO, output)).collect();
    while let Some(at) = session.poll_timeout().filter(|at| *at <= from + limit) {
        session.handle_timeout(at);
        said.extend(outputs(session).into_iter().map(|output| (at - from, output)));
    }
    said
}

fn number_of(output: &SessionOutput) -> Option<u64> {
    let SessionOutput::Stanzas { bytes, .. } = output else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("id='")?;
    assert!(text.contains("<ping xmlns='urn:xmpp:ping'/>") && text.contains("to='partner.example'"));
    number_of_pong(rest.split_once('\'').expect("quoted").0)
}

/// The pings among what was said, and when.
fn pings(said: &[(Duration, SessionOutput)]) -> Vec<(Duration, u64)> {
    said.iter().filter_map(|(at, output)| Some((*at, number_of(output)?))).collect()
}

/// Answers the ping that was said last.
fn answer(session: &mut Session, now: Instant) {
    let ids: Vec<u64> = outputs(session).iter().filter_map(number_of).collect();
    session.handle_pong(*ids.last().expect("a ping"), now);
}

fn is_down(outputs: &[SessionOutput]) -> bool {
    outputs.iter().any(|output| matches!(output, SessionOutput::Reachable { is_reachable: false, .. }))
}

#[test]
fn xs_str_11_a_frozen_partner_is_given_up_after_60_s_and_a_healthy_one_is_kept_while_it_answers() {
    let (now, mut written) = (start(), 0);
    let settings = SessionSettings { idle_close: Duration::from_secs(86_400), ..SessionSettings::default() };
    let mut session = Session { settings, ..pinging(now) };
    say(&mut session, &mut written, now);
    answer(&mut session, now);
    let mut last = now;
    for _ in 0..100 {
        let said = run(&mut session, last, 30 * SECOND);
        let [(at, id)] = pings(&said)[..] else { panic!("{said:?}") };
        assert_eq!((at, said.len()), (30 * SECOND, 1), "no oftener, and nothing else");
        last += at;
        session.handle_pong(id, last);
    }
    let said = run(&mut session, last, 3600 * SECOND);
    assert_eq!(said[said.len() - 1], (60 * SECOND, SessionOutput::GiveUp(STREAM)), "{said:?}");
    session.handle_want(0, 10, last + MINUTE);
    assert_eq!(outputs(&mut session), [], "it is handed nothing more");
    session.handle_stream_down(
        STREAM,
        &StreamEnd::StreamError("connection-timeout".into()),
        written,
        last + MINUTE,
    );
    assert!(is_down(&outputs(&mut session)), "the watchers' grace begins");
    let said = run(&mut session, last + MINUTE, 4 * SECOND);
    assert!(said.iter().any(|(_, output)| *output == SessionOutput::Dial), "{said:?}");
}

#[test]
fn a_partner_that_never_answers_is_kept() {
    let (now, mut written) = (start(), 0);
    let mut session = pinging(now);
    say(&mut session, &mut written, now);
    let said = run(&mut session, now, 590 * SECOND);
    assert!((10..40).contains(&pings(&said).len()), "{said:?}");
    assert!(!said.iter().any(|(_, output)| *output == SessionOutput::GiveUp(STREAM)), "{said:?}");
}

#[test]
fn a_stream_that_carries_nothing_is_not_asked_about_and_its_end_is_as_before() {
    let now = start();
    let mut session = pinging(now);
    assert_eq!(run(&mut session, now, 590 * SECOND), []);
    // An answer for which nobody waits is nothing either.
    session.handle_message(0, None, b"<iq/>".to_vec(), now);
    assert_eq!(run(&mut session, now, 590 * SECOND).len(), 1);
    assert_eq!(run(&mut session, now, 600 * SECOND), [(600 * SECOND, SessionOutput::Close(STREAM))]);
}

#[test]
fn a_message_is_confirmed_by_a_later_pong_and_by_no_time() {
    for (is_answered, wait) in [(true, SECOND), (false, 29 * SECOND)] {
        let (now, mut written) = (start(), 0);
        let mut session = pinging(now);
        say(&mut session, &mut written, now);
        answer(&mut session, now);
        let later = now + 100 * SECOND;
        session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), later);
        write(&mut session, &mut written, later);
        let said = outputs(&mut session);
        let id = said.iter().find_map(number_of).expect("asked at once");
        assert!(said.contains(&fate(1, Ok(()))), "written: {said:?}");
        if is_answered {
            session.handle_pong(id, later);
        }
        session.handle_stream_down(STREAM, &broken(), written, later + wait);
        let down = outputs(&mut session);
        assert_eq!(down.contains(&fate(1, Err(Undelivered::Uncertain))), !is_answered, "{down:?}");
        assert_eq!(is_down(&down), !is_answered);
    }
}

#[test]
fn a_message_into_a_dead_path_is_told_back_within_a_minute_however_young_the_stream_is() {
    for age in [0, 5, 31, 320] {
        let (now, mut written) = (start(), 0);
        let mut session = pinging(now);
        say(&mut session, &mut written, now);
        answer(&mut session, now);
        let dropped = now + age * SECOND;
        while let Some(at) = session.poll_timeout().filter(|at| *at < dropped) {
            session.handle_timeout(at);
            answer(&mut session, at);
        }
        session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), dropped);
        write(&mut session, &mut written, dropped);
        let said = run(&mut session, dropped, MINUTE);
        let (at, _) =
            said.iter().find(|(_, output)| *output == SessionOutput::GiveUp(STREAM)).expect("given up");
        session.handle_stream_down(
            STREAM,
            &StreamEnd::StreamError("connection-timeout".into()),
            written,
            dropped + *at,
        );
        assert!(outputs(&mut session).contains(&fate(1, Err(Undelivered::Uncertain))));
    }
}

#[test]
fn a_pong_confirms_what_was_handed_over_before_its_ping_and_nothing_later() {
    let (now, mut written) = (start(), 0);
    let mut session = pinging(now);
    for n in 1..=4 {
        session.handle_message(0, Some(MessageId(n)), b"<message/>".to_vec(), now);
    }
    // The ping for the first of them is written already, the next keeps the pace.
    let id = outputs(&mut session).iter().find_map(number_of).expect("asked at once");
    session.handle_pong(id, now);
    write(&mut session, &mut written, now);
    session.handle_stream_down(STREAM, &broken(), written, now);
    let fates: Vec<_> = outputs(&mut session)
        .into_iter()
        .filter(|output| matches!(output, SessionOutput::Fate { fate: Err(_), .. }))
        .collect();
    let lost = Err(Undelivered::Uncertain);
    assert_eq!(fates, [fate(2, lost), fate(3, lost), fate(4, lost)]);
}

#[test]
fn what_is_written_to_a_partner_that_never_answers_is_taken_as_received_after_two_minutes() {
    let (now, mut written) = (start(), 0);
    let mut session = pinging(now);
    for n in 1..=4 {
        session.handle_message(0, Some(MessageId(n)), b"<message/>".to_vec(), now);
    }
    session.handle_written(STREAM, 2, 10, now);
    outputs(&mut session);
    session.handle_written(STREAM, 3, 10, now + 20 * SECOND);
    assert!(outputs(&mut session).contains(&fate(2, Ok(()))), "the second number is a ping");
    written += 4;
    session.handle_stream_down(STREAM, &broken(), written, now + 120 * SECOND);
    let fates: Vec<_> = outputs(&mut session)
        .into_iter()
        .filter(|output| matches!(output, SessionOutput::Fate { .. }))
        .collect();
    let uncertain = Err(Undelivered::Uncertain);
    assert_eq!(fates, [fate(2, uncertain), fate(3, uncertain)], "the fourth goes by the next stream");
    // After an end in order all of them are there.
    let mut session = pinging(now);
    session.handle_message(0, Some(MessageId(5)), b"<message/>".to_vec(), now);
    session.handle_written(STREAM, 1, 10, now);
    outputs(&mut session);
    session.handle_stream_down(STREAM, &StreamEnd::Closed, 2, now);
    assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: true }]);
}

#[test]
fn messages_to_a_partner_that_stopped_answering_wait_when_too_many_are_unconfirmed() {
    let (now, mut written) = (start(), 0);
    let mut session = pinging(now);
    say(&mut session, &mut written, now);
    answer(&mut session, now);
    for n in 0..5000 {
        session.handle_message(0, Some(MessageId(n)), b"<m/>".to_vec(), now);
        write(&mut session, &mut written, now);
    }
    let said = outputs(&mut session);
    let count = |fate: Result<(), Undelivered>| {
        said.iter()
            .filter(|output| matches!(output, SessionOutput::Fate { fate: f, .. } if *f == fate))
            .count()
    };
    assert_eq!((count(Ok(())), session.waiting()), (4096, 904));
    session.handle_stream_down(STREAM, &broken(), written, now + SECOND);
    let told = outputs(&mut session)
        .iter()
        .filter(|output| matches!(output, SessionOutput::Fate { fate: Err(Undelivered::Uncertain), .. }))
        .count();
    assert_eq!(told, 4096, "not one is forgotten");
}

#[test]
fn a_break_after_everything_was_confirmed_loses_nothing_but_makes_us_look_for_the_partner() {
    let (now, mut written) = (start(), 0);
    let mut session = pinging(now);
    say(&mut session, &mut written, now);
    answer(&mut session, now);
    session.handle_stream_down(STREAM, &broken(), written, now + 5 * SECOND);
    assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: true }, SessionOutput::Dial]);
    assert!(!session.is_lost() && !session.is_idle());
    session.handle_stream_up(StreamId(2), 65_536, now + 6 * SECOND);
    let said = outputs(&mut session);
    assert!(said.len() == 1 && number_of(&said[0]).is_some(), "it pings at once: {said:?}");
    // Nobody has a pair with it: nobody looks for it.
    let mut session = pinging(now);
    session.handle_standing(Standing { is_configured: true, has_pairs: false });
    session.handle_stream_down(STREAM, &broken(), 0, now + MINUTE);
    assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: true }]);
    assert!(session.is_idle());
}

#[test]
fn a_broken_stream_of_the_partners_has_its_contacts_probed_and_the_partner_asked() {
    let now = start();
    let mut session = pinging(now);
    session.handle_incoming_broken(now);
    let said = outputs(&mut session);
    assert!(said[0] == SessionOutput::Probe && number_of(&said[1]).is_some(), "{said:?}");
    // Without a stream of ours it is dialled.
    let mut session = session_without_stream();
    session.handle_incoming_broken(now);
    assert_eq!(outputs(&mut session), [SessionOutput::Probe, SessionOutput::Dial]);
    session.handle_stream_up(STREAM, 65_536, now);
    assert!(number_of(&outputs(&mut session)[0]).is_some());
    // One that is lost already is asked when it is back.
    let mut session = session_without_stream();
    session.handle_want(0, 10, now);
    session.handle_dial_failed(&StreamEnd::NotFound(Absence::NoSuchName), now);
    outputs(&mut session);
    session.handle_incoming_broken(now);
    assert_eq!(outputs(&mut session), []);
}

fn session_without_stream() -> Session {
    Session::new(SessionSettings::default(), 7).with_ping("corp.example", "partner.example")
}

#[test]
fn a_partner_whose_streams_break_all_the_time_makes_one_round_of_probes_in_ten_seconds() {
    let now = start();
    let mut session = pinging(now);
    let mut rounds = Vec::new();
    for step in 0..300_u32 {
        let at = now + step * SECOND / 10;
        if session.poll_timeout().is_some_and(|due| due <= at) {
            session.handle_timeout(at);
        }
        session.handle_incoming_broken(at);
        let said = outputs(&mut session);
        rounds.extend(said.iter().filter(|output| **output == SessionOutput::Probe).map(|_| at - now));
    }
    assert_eq!(rounds, [Duration::ZERO, 10 * SECOND, 20 * SECOND]);
    // The last break is not forgotten.
    let said = run(&mut session, now, 30 * SECOND);
    assert!(said.contains(&(30 * SECOND, SessionOutput::Probe)), "{said:?}");
}

#[test]
fn a_partner_that_comes_while_a_dial_hangs_is_dialled_beside_it() {
    let now = start();
    let mut session = session_without_stream();
    session.handle_want(0, 10, now);
    assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
    // Both dial each other in one moment: mostly ours is about to succeed.
    session.handle_retry(now + SECOND);
    assert_eq!(outputs(&mut session), []);
    let said = run(&mut session, now, 2 * SECOND);
    assert_eq!(said, [(2 * SECOND, SessionOutput::DialBeside)]);
    for _ in 0..10 {
        session.handle_retry(now + 20 * SECOND);
    }
    assert_eq!(outputs(&mut session), [], "two at a time");
    // The first one fails at last: the second is still under way.
    session.handle_message(0, Some(MessageId(1)), b"<message/>".to_vec(), now + 30 * SECOND);
    session.handle_dial_failed(&StreamEnd::Unreachable("x".into()), now + 30 * SECOND);
    assert_eq!(outputs(&mut session), []);
    assert!(!session.is_lost());
    session.handle_dial_failed(&StreamEnd::Unreachable("x".into()), now + 31 * SECOND);
    assert!(is_down(&outputs(&mut session)));
}

#[test]
fn of_two_dials_the_second_stream_is_closed() {
    let now = start();
    let mut session = session_without_stream();
    session.handle_want(0, 10, now);
    session.handle_retry(now + 10 * SECOND);
    assert_eq!(outputs(&mut session), [SessionOutput::Dial, SessionOutput::DialBeside]);
    session.handle_stream_up(StreamId(2), 65_536, now + 11 * SECOND);
    outputs(&mut session);
    session.handle_stream_up(StreamId(1), 65_536, now + 12 * SECOND);
    assert_eq!(outputs(&mut session), [SessionOutput::Close(StreamId(1))]);
}

#[test]
fn a_partner_that_comes_while_our_stream_seems_up_is_asked_whether_it_is() {
    let now = start();
    let mut session = pinging(now);
    session.handle_retry(now + SECOND);
    assert!(number_of(&outputs(&mut session)[0]).is_some());
}

/// Each pings the other, and answers.
#[test]
fn two_servers_that_have_nothing_to_say_come_to_rest() {
    let now = start();
    let mut written = 0;
    let mut sessions = [pinging(now), pinging(now + 7 * SECOND)];
    say(&mut sessions[0], &mut written, now);
    say(&mut sessions[1], &mut written, now + 7 * SECOND);
    let mut at = now + 8 * SECOND;
    let mut said_last = at;
    while at < now + 3600 * SECOND {
        for own in 0..2 {
            if sessions[own].poll_timeout().is_some_and(|due| due <= at) {
                sessions[own].handle_timeout(at);
            }
            for output in outputs(&mut sessions[own]) {
                said_last = at;
                match output {
                    SessionOutput::Stanzas { .. } => {
                        let Some(id) = number_of(&output) else { continue };
                        // The other answers, by a stream of its own.
                        sessions[1 - own].handle_message(0, None, b"<iq/>".to_vec(), at);
                        if sessions[1 - own].stream.is_some() {
                            sessions[own].handle_pong(id, at);
                        }
                    }
                    SessionOutput::Close(id) => {
                        sessions[own].handle_stream_down(id, &StreamEnd::Closed, u64::MAX, at);
                    }
                    SessionOutput::Dial => {
                        sessions[own].handle_stream_up(
                            StreamId(at.duration_since(now).as_secs()),
                            65_536,
                            at,
                        );
                    }
                    _ => {}
                }
            }
        }
        at += SECOND;
    }
    assert!(said_last < now + 1800 * SECOND, "{:?}", said_last - now);
    assert!(sessions.iter().all(|session| session.stream.is_none()));
}

#[test]
fn a_lost_partner_whose_streams_come_up_and_carry_nothing_is_not_back_until_it_answers() {
    let (begun, mut written) = (start(), 0);
    let mut session = pinging(begun);
    say(&mut session, &mut written, begun);
    answer(&mut session, begun);
    let mut now = begun + MINUTE;
    session.handle_stream_down(STREAM, &broken(), 0, now);
    session.handle_dial_failed(&broken(), now);
    assert!(is_down(&outputs(&mut session)));
    for round in 2..10 {
        let dialled = run(&mut session, now, MINUTE);
        now += dialled.last().expect("it dials").0;
        session.handle_stream_up(StreamId(round), 65_536, now);
        let said = run(&mut session, now, 40 * SECOND);
        assert!(
            !said.iter().any(|(_, output)| matches!(output, SessionOutput::Reachable { .. })),
            "said to be back, or lost anew: {said:?}"
        );
        assert_eq!(said.last(), Some(&(30 * SECOND, SessionOutput::GiveUp(StreamId(round)))), "{said:?}");
        now += 30 * SECOND;
        session.handle_stream_down(StreamId(round), &broken(), 0, now);
        outputs(&mut session);
    }
    let dialled = run(&mut session, now, MINUTE);
    now += dialled.last().expect("it dials").0;
    session.handle_stream_up(StreamId(10), 65_536, now);
    answer(&mut session, now);
    assert_eq!(outputs(&mut session), [SessionOutput::Reachable { is_reachable: true, condition: "" }]);
}

#[test]
fn a_lost_partner_that_comes_by_itself_is_back_with_the_next_stream_though_it_answers_no_pings_any_more() {
    let (begun, mut written) = (start(), 0);
    let mut session = pinging(begun);
    say(&mut session, &mut written, begun);
    answer(&mut session, begun);
    let now = begun + MINUTE;
    session.handle_stream_down(STREAM, &broken(), 0, now);
    session.handle_dial_failed(&broken(), now);
    assert!(is_down(&outputs(&mut session)));
    session.handle_retry(now);
    session.handle_stream_up(StreamId(2), 65_536, now);
    let back = SessionOutput::Reachable { is_reachable: true, condition: "" };
    assert!(outputs(&mut session).contains(&back));
    let said = run(&mut session, now, 600 * SECOND);
    assert!(!said.iter().any(|(_, output)| matches!(output, SessionOutput::GiveUp(_))), "{said:?}");
}
