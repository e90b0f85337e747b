use std::collections::BTreeSet;

use super::*;

/// The tests' clock: a start that nothing reads, and seconds after it.
fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    Instant::now()
}

fn settings() -> Settings {
    Settings::default()
}

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A notifier whose first NOTIFY, CSeq 1, was made at `now` and not yet answered.
fn notified(permission: Permission, now: Instant) -> Notifier {
    let mut notifier = Notifier::new();
    let verdict = notifier.handle_subscribe(1, Some(600), now, &settings());
    assert_eq!(verdict, SubscribeVerdict::Accepted { expires: 600 });
    notifier.handle_permission(permission);
    assert!(notifier.poll_notify(1, now, &settings()).is_some());
    notifier
}

/// An active notifier with nothing in flight and nothing owed.
fn active(now: Instant) -> Notifier {
    let mut notifier = notified(Permission::Granted, now);
    assert_eq!(notifier.handle_response(1, 200, None, now, &settings()), NotifyOutcome::Delivered);
    notifier
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Subscribe(u32),
    Granted,
    Undecided,
    Refused,
    Change,
    Terminate,
    Notify,
    Status(u16),
    Challenge,
    FlowLost,
    Time,
}

fn step(notifier: &mut Notifier, event: Event, cseq: u32, now: &mut Instant) {
    let settings = settings();
    match event {
        Event::Subscribe(expires) => {
            notifier.handle_subscribe(cseq, Some(expires), *now, &settings);
        }
        Event::Granted => notifier.handle_permission(Permission::Granted),
        Event::Undecided => notifier.handle_permission(Permission::Undecided),
        Event::Refused => notifier.handle_permission(Permission::Refused),
        Event::Change => notifier.handle_change(),
        Event::Terminate => notifier.terminate(Reason::Deactivated, None),
        Event::Notify => {
            notifier.poll_notify(cseq, *now, &settings);
        }
        Event::Status(status) => {
            let in_flight = notifier.in_flight().unwrap_or(0);
            notifier.handle_response(in_flight, status, None, *now, &settings);
        }
        Event::Challenge => {
            let in_flight = notifier.in_flight().unwrap_or(0);
            notifier.handle_challenge(in_flight);
        }
        Event::FlowLost => notifier.handle_flow_lost(),
        Event::Time => {
            *now = notifier.poll_timeout().unwrap_or(*now).max(*now);
            notifier.handle_timeout(*now);
        }
    }
}

/// The figure of RFC 6665 §4.2.2, with what its text adds.
fn is_arrow(from: State, event: Event, to: State) -> bool {
    use State::{Active, Init, Pending, RespWait, Terminated};
    if from == to {
        return true;
    }
    let ends = matches!(
        event,
        Event::Refused
            | Event::Terminate
            | Event::Time
            | Event::Subscribe(0)
            | Event::Status(404 | 408 | 481)
    );
    match (from, event, to) {
        (Init, Event::Subscribe(600), RespWait) => true,
        (Init, Event::Subscribe(0) | Event::Terminate, Terminated) => true,
        (RespWait | Pending, Event::Granted, Active) => true,
        (RespWait, Event::Undecided, Pending) => true,
        (RespWait | Pending | Active, _, Terminated) => ends,
        _ => false,
    }
}

#[test]
fn sip_e_14_the_notifier_machine_follows_the_figure_for_every_event_in_every_state() {
    let mut events = vec![
        Event::Granted,
        Event::Undecided,
        Event::Refused,
        Event::Change,
        Event::Terminate,
        Event::Notify,
        Event::Challenge,
        Event::FlowLost,
        Event::Time,
    ];
    events.extend([0, 10, 600].map(Event::Subscribe));
    events.extend([100, 200, 404, 408, 481, 500, 503].map(Event::Status));
    let mut seen = BTreeSet::new();
    let mut frontier = vec![(Notifier::new(), start())];
    for depth in 1..=4 {
        let mut next = Vec::new();
        for (notifier, now) in &frontier {
            for event in &events {
                let (mut notifier, mut now) = (notifier.clone(), *now);
                let from = notifier.state();
                step(&mut notifier, *event, depth, &mut now);
                let to = notifier.state();
                assert!(is_arrow(from, *event, to), "{from:?} -- {event:?} --> {to:?}");
                let is_live = !matches!(to, State::Init | State::Terminated);
                assert_eq!(notifier.ends_at().is_some(), is_live, "{from:?} -- {event:?} --> {to:?}");
                assert!(!notifier.owes_notify(now) || notifier.in_flight().is_none());
                seen.insert((from as u8, *event, to as u8));
                next.push((notifier, now));
            }
        }
        frontier = next;
    }
    let states = [State::Init, State::RespWait, State::Pending, State::Active, State::Terminated];
    for from in states {
        for to in states {
            let has_rule = from != to && events.iter().any(|event| is_arrow(from, *event, to));
            let was_seen = seen.iter().any(|(a, _, b)| (*a, *b) == (from as u8, to as u8));
            assert!(!has_rule || was_seen, "{from:?} --> {to:?} never happened");
        }
    }
}

#[test]
fn sip_e_16_grants_are_never_longer_than_asked_and_423_only_for_short_intervals() {
    let settings = Settings { min_expires: 60, max_expires: 7200, ..settings() };
    let brief = Err(TooBrief { min_expires: 60 });
    for (asked, granted) in [
        (Some(0), Ok(0)),
        (Some(1), brief),
        (Some(10), brief),
        (Some(59), brief),
        (Some(60), Ok(60)),
        (Some(4000), Ok(4000)),
        (Some(u32::MAX), Ok(7200)),
    ] {
        assert_eq!(grant(asked, &settings), granted, "{asked:?}");
    }
    // 10^12 seconds, as a header field has them.
    let text = "SUBSCRIBE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
                To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 SUBSCRIBE\r\nExpires: 1000000000000\r\n\
                Content-Length: 0\r\n\r\n";
    let limits = crate::message::MessageLimits::default();
    let message = crate::message::read_datagram(text.into(), &limits).expect("a message");
    assert_eq!(grant(message.expires(), &settings), Ok(7200));
    // A minimum over an hour does not make an hour too brief.
    let settings = Settings { min_expires: 5000, ..settings };
    assert_eq!(grant(Some(3600), &settings), Ok(3600));
    assert_eq!(grant(Some(3599), &settings), Err(TooBrief { min_expires: 5000 }));
    // 423 changes nothing.
    let now = start();
    let mut notifier = Notifier::new();
    let verdict = notifier.handle_subscribe(1, Some(10), now, &settings);
    assert_eq!(verdict, SubscribeVerdict::TooBrief(TooBrief { min_expires: 5000 }));
    assert_eq!((notifier.state(), notifier.owes_notify(now)), (State::Init, false));
}

#[test]
fn stox_p_29_no_expires_means_3600_capped_by_policy() {
    assert_eq!(grant(None, &settings()), Ok(3600));
    assert_eq!(grant(None, &Settings { max_expires: 1800, ..settings() }), Ok(1800));
}

#[test]
fn sip_e_17_each_accepted_subscribe_owes_a_notify_at_once_with_expires_or_reason() {
    for number in 0..100 {
        let now = start();
        let mut notifier = Notifier::new();
        notifier.handle_subscribe(number, Some(600), now, &settings());
        // Even before policy was asked.
        let state = notifier.clone().poll_notify(1, now, &settings()).expect("a NOTIFY is owed");
        assert_eq!(state.to_string(), "pending;expires=600");
        notifier.handle_permission(Permission::Granted);
        let state = notifier.poll_notify(1, now, &settings()).expect("a NOTIFY is owed");
        assert_eq!(state.to_string(), "active;expires=600");
        notifier.handle_response(1, 200, None, now, &settings());
        assert!(!notifier.owes_notify(now));
        notifier.handle_subscribe(number + 1, Some(900), now + secs(300), &settings());
        let state = notifier.poll_notify(2, now + secs(300), &settings()).expect("a NOTIFY is owed");
        assert_eq!(state.to_string(), "active;expires=900");
        notifier.handle_response(2, 200, None, now, &settings());
        notifier.handle_subscribe(number + 2, Some(0), now + secs(300), &settings());
        let state = notifier.poll_notify(3, now + secs(300), &settings()).expect("a NOTIFY is owed");
        assert_eq!(state.to_string(), "terminated;reason=timeout");
        assert!(!notifier.is_done());
        notifier.handle_response(3, 200, None, now, &settings());
        assert!(notifier.is_done());
    }
}

#[test]
fn what_remains_is_rounded_down() {
    let now = start();
    let notifier = active(now);
    let later = now + Duration::from_millis(100_001);
    assert_eq!(notifier.subscription_state(later).expires, Some(499));
    assert_eq!(notifier.subscription_state(now + secs(900)).expires, Some(0));
}

#[test]
fn a_poll_gets_one_notify_that_says_terminated_timeout() {
    let now = start();
    let mut notifier = Notifier::new();
    let verdict = notifier.handle_subscribe(1, Some(0), now, &settings());
    assert_eq!(verdict, SubscribeVerdict::Accepted { expires: 0 });
    notifier.handle_permission(Permission::Granted);
    let state = notifier.poll_notify(1, now, &settings()).expect("a NOTIFY is owed");
    assert_eq!(state.to_string(), "terminated;reason=timeout");
    assert_eq!(notifier.handle_response(1, 200, None, now, &settings()), NotifyOutcome::Done);
    assert!(notifier.is_done());
    assert_eq!(notifier.handle_subscribe(2, Some(60), now, &settings()), SubscribeVerdict::Unknown);
}

#[test]
fn sip_e_19_some_failures_of_a_notify_remove_the_subscription_and_all_others_keep_it() {
    let now = start();
    let deadly = [404, 405, 408, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604];
    for status in 300..700 {
        let mut notifier = notified(Permission::Granted, now);
        let outcome = notifier.handle_response(1, status, None, now, &settings());
        if deadly.contains(&status) {
            assert_eq!(outcome, NotifyOutcome::Removed, "{status}");
            assert!(notifier.is_done() && notifier.poll_timeout().is_none(), "{status}");
        } else {
            assert_eq!(outcome, NotifyOutcome::Kept, "{status}");
            assert_eq!(notifier.state(), State::Active, "{status}");
        }
    }
    // Timer F.
    let mut notifier = notified(Permission::Granted, now);
    assert_eq!(notifier.poll_timeout(), Some(now + secs(32)));
    assert_eq!(notifier.handle_timeout(now + secs(31)), Due::Nothing);
    assert_eq!(notifier.handle_timeout(now + secs(32)), Due::Removed);
    assert!(notifier.is_done());
}

#[test]
fn sip_e_20_a_challenge_is_answered_with_a_new_cseq_and_503_delays_with_the_state_kept() {
    let now = start();
    let mut notifier = notified(Permission::Granted, now);
    assert!(!notifier.handle_challenge(7));
    assert!(notifier.handle_challenge(1));
    assert!(notifier.poll_notify(2, now, &settings()).is_some());
    let outcome = notifier.handle_response(2, 503, Some(90), now, &settings());
    assert_eq!(outcome, NotifyOutcome::Kept);
    notifier.handle_change();
    assert!(!notifier.owes_notify(now + secs(89)));
    assert_eq!(notifier.poll_notify(3, now + secs(89), &settings()), None);
    assert_eq!(notifier.poll_timeout(), Some(now + secs(90)));
    assert_eq!(notifier.handle_timeout(now + secs(90)), Due::Notify);
    assert!(notifier.poll_notify(3, now + secs(90), &settings()).is_some());
}

#[test]
fn a_peer_that_fails_every_notify_gets_ever_fewer_and_then_none() {
    let mut now = start();
    let mut notifier = notified(Permission::Granted, now);
    let mut sent = 1;
    let mut waits = Vec::new();
    while !notifier.is_done() {
        if let Some(cseq) = notifier.in_flight() {
            notifier.handle_response(cseq, 503, None, now, &settings());
        }
        let Some(at) = notifier.poll_timeout() else { continue };
        waits.push(at.duration_since(now).as_secs());
        now = at;
        notifier.handle_timeout(now);
        if notifier.poll_notify(sent + 1, now, &settings()).is_some() {
            sent += 1;
        }
    }
    assert_eq!(waits[..6], [5, 10, 20, 40, 80, 160]);
    assert_eq!(sent, 8, "ten minutes, then one `terminated`");
}

#[test]
fn sip_e_21_one_notify_is_in_flight_and_a_storm_leaves_one_more() {
    let now = start();
    let mut notifier = notified(Permission::Granted, now);
    for cseq in 2..1000 {
        notifier.handle_change();
        assert_eq!(notifier.poll_notify(cseq, now, &settings()), None, "one is in flight");
    }
    // Answers to others than the one in flight free nothing.
    assert_eq!(notifier.handle_response(2, 481, None, now, &settings()), NotifyOutcome::Ignored);
    assert_eq!(notifier.handle_response(1, 180, None, now, &settings()), NotifyOutcome::Ignored);
    assert_eq!(notifier.handle_response(1, 200, None, now, &settings()), NotifyOutcome::Delivered);
    assert!(notifier.poll_notify(2, now, &settings()).is_some());
    notifier.handle_response(2, 200, None, now, &settings());
    assert_eq!(notifier.poll_notify(3, now, &settings()), None, "nothing has changed since");
}

#[test]
fn sip_e_22_each_cause_of_an_end_has_its_reason() {
    let now = start();
    let last = |end: fn(&mut Notifier, Instant)| {
        let mut notifier = active(now);
        end(&mut notifier, now);
        let state = notifier.poll_notify(2, now + secs(700), &settings()).expect("a NOTIFY is owed");
        assert_eq!(notifier.poll_notify(3, now + secs(700), &settings()), None, "it is the last");
        state.to_string()
    };
    let expiry = last(|notifier, now| assert_eq!(notifier.handle_timeout(now + secs(600)), Due::Expired));
    assert_eq!(expiry, "terminated;reason=timeout");
    let shutdown = last(|notifier, _| notifier.terminate(Reason::Deactivated, None));
    assert_eq!(shutdown, "terminated;reason=deactivated");
    let policy = last(|notifier, _| notifier.handle_permission(Permission::Refused));
    assert_eq!(policy, "terminated;reason=rejected");
    let unknown = last(|notifier, _| notifier.terminate(Reason::NoResource, None));
    assert_eq!(unknown, "terminated;reason=noresource");
    let overload = last(|notifier, _| notifier.terminate(Reason::Probation, Some(30)));
    assert_eq!(overload, "terminated;reason=probation;retry-after=30");
}

#[test]
fn an_end_waits_for_the_notify_in_flight_and_is_then_said() {
    let now = start();
    let mut notifier = notified(Permission::Undecided, now);
    notifier.handle_permission(Permission::Refused);
    assert_eq!(notifier.poll_notify(2, now, &settings()), None);
    assert!(!notifier.is_done());
    assert_eq!(notifier.handle_response(1, 200, None, now, &settings()), NotifyOutcome::Delivered);
    assert!(notifier.poll_notify(2, now, &settings()).is_some());
    // However it is answered, it was the last.
    assert_eq!(notifier.handle_response(2, 500, None, now, &settings()), NotifyOutcome::Done);
    assert!(notifier.is_done());
}

#[test]
fn approval_is_told_at_once_and_a_copy_of_it_is_not() {
    let now = start();
    let mut notifier = notified(Permission::Undecided, now);
    notifier.handle_response(1, 200, None, now, &settings());
    notifier.handle_permission(Permission::Undecided);
    assert!(!notifier.owes_notify(now));
    notifier.handle_permission(Permission::Granted);
    let state = notifier.poll_notify(2, now + secs(100), &settings()).expect("a NOTIFY is owed");
    assert_eq!(state.to_string(), "active;expires=500");
    notifier.handle_response(2, 200, None, now, &settings());
    notifier.handle_permission(Permission::Granted);
    notifier.handle_permission(Permission::Undecided);
    assert!(!notifier.owes_notify(now));
}

#[test]
fn a_lost_flow_uses_the_cseq_up_and_owes_the_state_again_without_timer_f() {
    let now = start();
    let mut notifier = notified(Permission::Granted, now);
    notifier.handle_flow_lost();
    assert_eq!(notifier.poll_timeout(), notifier.ends_at());
    assert_eq!(notifier.handle_response(1, 481, None, now, &settings()), NotifyOutcome::Ignored);
    assert!(notifier.poll_notify(2, now, &settings()).is_some());
    // Nothing was in flight: nothing is owed.
    let mut idle = active(now);
    idle.handle_flow_lost();
    assert!(!idle.owes_notify(now));
}

#[test]
fn a_subscribe_with_an_old_cseq_changes_nothing() {
    let now = start();
    let mut notifier = active(now);
    for cseq in [0, 1] {
        let verdict = notifier.handle_subscribe(cseq, Some(0), now, &settings());
        assert_eq!(verdict, SubscribeVerdict::OutOfOrder, "{cseq}");
    }
    assert_eq!((notifier.state(), notifier.last_cseq()), (State::Active, Some(1)));
}

#[test]
fn a_restored_subscription_owes_the_newest_state() {
    let now = start();
    let mut notifier = Notifier::restored(true, now + secs(50), Some(9));
    let state = notifier.poll_notify(70_000, now, &settings()).expect("a NOTIFY is owed");
    assert_eq!(state.to_string(), "active;expires=50");
    assert_eq!(notifier.in_flight(), Some(70_000));
}

#[test]
fn a_refresh_does_not_stop_timer_f_of_the_notify_in_flight() {
    let now = start();
    let mut notifier = notified(Permission::Granted, now);
    notifier.handle_subscribe(2, Some(600), now + secs(1), &settings());
    assert_eq!(notifier.poll_timeout(), Some(now + secs(32)));
    // But it ends a wait after a failure.
    notifier.handle_response(1, 503, Some(90), now + secs(2), &settings());
    assert!(!notifier.owes_notify(now + secs(3)));
    notifier.handle_subscribe(3, Some(600), now + secs(3), &settings());
    assert!(notifier.owes_notify(now + secs(3)));
}

#[test]
fn the_wait_starts_again_at_its_floor_after_a_notify_that_arrived() {
    let mut now = start();
    let mut notifier = notified(Permission::Granted, now);
    let statuses = [500, 500, 200, 500];
    let mut waits = Vec::new();
    for (cseq, status) in (1..).zip(statuses) {
        notifier.handle_response(cseq, status, None, now, &settings());
        let until = notifier.timer.unwrap_or(now);
        waits.push(until.duration_since(now).as_secs());
        now = until;
        notifier.handle_timeout(now);
        notifier.handle_change();
        assert!(notifier.poll_notify(cseq + 1, now, &settings()).is_some());
    }
    assert_eq!(waits, [5, 10, 0, 5]);
}
