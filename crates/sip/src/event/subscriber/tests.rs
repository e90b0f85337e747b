mod model;

use super::*;

/// The tests' clock: a start that nothing reads, and seconds after it.
fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    Instant::now()
}

const S: Settings = Settings {
    t1: Duration::from_millis(500),
    retry_floor: Duration::from_secs(5),
    retry_cap: Duration::from_secs(1800),
    retry_after_cap: Duration::from_secs(86_400),
    expires_cap: 86_400,
};

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn status(status: u16) -> Response {
    Response { status, ..Response::default() }
}

fn ok(expires: u32) -> Response {
    Response { status: 200, expires: Some(expires), ..Response::default() }
}

fn said(state: Substate) -> SubscriptionState {
    SubscriptionState { state, reason: None, expires: None, retry_after: None }
}

fn notify(cseq: u32, state: Substate, expires: Option<u32>) -> Notify {
    Notify { cseq, subscription_state: SubscriptionState { expires, ..said(state) } }
}

fn terminated(cseq: u32, reason: Option<Reason>, retry_after: Option<u32>) -> Notify {
    Notify {
        cseq,
        subscription_state: SubscriptionState { reason, retry_after, ..said(Substate::Terminated) },
    }
}

/// A subscription for `life` seconds that became active at `now`, with CSeq 1.
fn active(life: u32, now: Instant) -> Subscriber {
    let mut subscriber = Subscriber::new(life);
    subscriber.handle_sent(now, &S);
    assert_eq!(subscriber.handle_response(&ok(life), 0, now, &S), ResponseVerdict::Wait);
    let verdict = subscriber.handle_notify(&notify(1, Substate::Active, Some(life)), 0, now, &S);
    assert_eq!(verdict, NotifyVerdict::Accepted { activated: true });
    subscriber
}

/// An active subscription whose refresh was sent at its refresh point, which is given too.
fn refreshing(life: u32, now: Instant) -> (Subscriber, Instant) {
    let mut subscriber = active(life, now);
    let at = subscriber.poll_timeout().expect("a refresh is due");
    assert_eq!(subscriber.handle_timeout(0, at, &S), Due::Refresh);
    subscriber.handle_sent(at, &S);
    (subscriber, at)
}

#[test]
fn sip_e_02_a_200_without_notify_is_gone_after_32_seconds_and_tried_again_later() {
    let now = start();
    let mut subscriber = Subscriber::new(3600);
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&ok(3600), 0, now + secs(1), &S);
    let at = subscriber.poll_timeout().expect("Timer N runs");
    assert_eq!(at, now + secs(32));
    assert_eq!(subscriber.handle_timeout(0, at - secs(1), &S), Due::Nothing);
    assert_eq!(subscriber.handle_timeout(0, at, &S), Due::Lost { report: true });
    assert_eq!(subscriber.state(), State::Terminated);
    // A late NOTIFY finds nothing.
    let late = notify(1, Substate::Active, Some(3600));
    assert_eq!(subscriber.handle_notify(&late, 0, at, &S), NotifyVerdict::Unknown);
    let again = subscriber.poll_timeout().expect("it is tried again");
    assert!(again >= at + secs(5));
    assert_eq!(subscriber.handle_timeout(0, again, &S), Due::Subscribe);
    assert_eq!(subscriber.state(), State::Init);
}

#[test]
fn timer_n_runs_again_for_each_refresh_that_is_answered_and_204_cancels_it() {
    let (mut subscriber, at) = refreshing(600, start());
    let mut answered = subscriber.clone();
    assert_eq!(answered.handle_response(&ok(600), 0, at, &S), ResponseVerdict::Wait);
    assert_eq!(answered.handle_timeout(0, at + secs(32), &S), Due::Lost { report: false });
    subscriber.handle_response(&Response { status: 204, expires: Some(600), ..status(204) }, 0, at, &S);
    assert_eq!(subscriber.poll_timeout(), Some(at + secs(300)), "the next refresh, no Timer N");
    assert_eq!(subscriber.handle_timeout(0, at + secs(32), &S), Due::Nothing);
}

#[test]
fn sip_e_03_a_notify_before_the_2xx_is_accepted() {
    let now = start();
    let mut subscriber = Subscriber::new(3600);
    assert!(!subscriber.may_form_dialog());
    subscriber.handle_sent(now, &S);
    assert!(subscriber.may_form_dialog());
    let verdict = subscriber.handle_notify(&notify(5, Substate::Active, Some(600)), 0, now, &S);
    assert_eq!(verdict, NotifyVerdict::Accepted { activated: true });
    assert_eq!(subscriber.ends_at(), Some(now + secs(600)));
    assert!(!subscriber.may_form_dialog(), "a second notifier gets 481");
    subscriber.handle_response(&ok(600), 0, now + secs(1), &S);
    assert_eq!(subscriber.state(), State::Active);
    assert_eq!(subscriber.ends_at(), Some(now + secs(601)));
    assert_eq!(subscriber.poll_timeout(), Some(now + secs(301)));
}

#[test]
fn sip_e_07_expires_of_the_notify_is_the_true_duration_and_may_be_missing() {
    let now = start();
    // Shorter than the 2xx said.
    let mut subscriber = active(3600, now);
    subscriber.handle_notify(&notify(2, Substate::Active, Some(60)), 0, now, &S);
    assert_eq!(subscriber.ends_at(), Some(now + secs(60)));
    assert_eq!(subscriber.poll_timeout(), Some(now + secs(30)), "the refresh moves with the end");
    // Missing: what was known stays.
    subscriber.handle_notify(&notify(3, Substate::Pending, None), 0, now + secs(1), &S);
    assert_eq!(subscriber.ends_at(), Some(now + secs(60)));
    // Never longer than asked.
    subscriber.handle_notify(&notify(4, Substate::Active, Some(1_000_000)), 0, now, &S);
    assert_eq!(subscriber.ends_at(), Some(now + secs(3600)));
    // Beside `terminated` it means nothing.
    let mut end = terminated(5, Some(Reason::Deactivated), None);
    end.subscription_state.expires = Some(3600);
    assert_eq!(subscriber.handle_notify(&end, 0, now, &S), NotifyVerdict::Ended(End::Retry));
    assert_eq!(subscriber.ends_at(), None);
}

#[test]
fn a_notify_without_expires_before_the_2xx_lasts_as_long_as_was_asked() {
    let now = start();
    let mut subscriber = Subscriber::new(900);
    subscriber.handle_sent(now, &S);
    subscriber.handle_notify(&notify(1, Substate::Active, None), 0, now, &S);
    assert_eq!(subscriber.ends_at(), Some(now + secs(900)));
}

#[test]
fn many_notifies_do_not_push_the_refresh_towards_the_end() {
    let now = start();
    let mut subscriber = active(600, now);
    let refresh = subscriber.poll_timeout();
    for second in 1..290 {
        let left = u32::try_from(600 - second).expect("small");
        let tick = notify(u32::try_from(second).expect("small") + 1, Substate::Active, Some(left));
        subscriber.handle_notify(&tick, u32::MAX, now + secs(second), &S);
    }
    assert_eq!(subscriber.poll_timeout(), refresh);
}

#[test]
fn sip_e_08_duration_is_the_expires_of_the_2xx_but_never_more_than_was_asked() {
    let now = start();
    for (granted, life) in [(Some(600), 600), (Some(7200), 3600), (None, 3600)] {
        let mut subscriber = Subscriber::new(3600);
        subscriber.handle_sent(now, &S);
        subscriber.handle_response(&Response { expires: granted, ..status(200) }, 0, now, &S);
        assert_eq!(subscriber.ends_at(), Some(now + secs(life)), "granted {granted:?}");
    }
}

#[test]
fn sip_e_09_ten_thousand_refreshes_are_spread_over_50_to_90_percent_of_their_life() {
    let mut bins = [0_u32; 8];
    let mut random = 1_u32;
    for _ in 0..10_000 {
        // A xorshift: any spread-out numbers will do.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let point = refresh_point(600, random).as_secs();
        assert!((300..540).contains(&point), "{point} s");
        bins[usize::try_from((point - 300) / 30).expect("small")] += 1;
    }
    assert!(bins.iter().all(|count| (1000..1500).contains(count)), "{bins:?}");
}

#[test]
fn a_refresh_leaves_five_seconds_where_there_is_room() {
    for (life, latest) in [(60, 53), (20, 15), (12, 7), (10, 5), (6, 3), (2, 1), (1, 1), (0, 1)] {
        assert_eq!(refresh_point(life, u32::MAX).as_secs(), latest, "life {life}");
        assert!(refresh_point(life, 0) <= refresh_point(life, u32::MAX), "life {life}");
    }
}

#[test]
fn sip_e_10_after_termination_a_new_dialog_is_asked_for_that_knows_nothing_of_the_old_one() {
    let (mut subscriber, at) = refreshing(600, start());
    let gone = subscriber.handle_response(&status(481), 0, at, &S);
    assert_eq!(gone, ResponseVerdict::Forgotten);
    let again = subscriber.poll_timeout().expect("it is tried again");
    assert_eq!(again, at, "the first time at once");
    assert_eq!(subscriber.handle_timeout(0, again, &S), Due::Subscribe);
    subscriber.handle_sent(again, &S);
    // The new dialog counts CSeq from its own start.
    let first = notify(0, Substate::Active, Some(600));
    assert_eq!(subscriber.handle_notify(&first, 0, again, &S), NotifyVerdict::Accepted { activated: true });
}

#[test]
fn sip_e_11_a_notifier_that_always_says_deactivated_gets_ever_fewer_subscribes() {
    let mut now = start();
    let mut subscriber = Subscriber::new(600);
    let mut waits = Vec::new();
    for _ in 0..12 {
        subscriber.handle_sent(now, &S);
        subscriber.handle_response(&ok(600), 0, now, &S);
        subscriber.handle_notify(&notify(1, Substate::Active, Some(600)), 0, now, &S);
        let end = terminated(2, Some(Reason::Deactivated), None);
        assert_eq!(subscriber.handle_notify(&end, 0, now, &S), NotifyVerdict::Ended(End::Retry));
        let at = subscriber.poll_timeout().expect("it is tried again");
        waits.push(at.duration_since(now).as_secs());
        now = at;
        assert_eq!(subscriber.handle_timeout(0, now, &S), Due::Subscribe);
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]);
}

#[test]
fn stox_p_14_each_reason_of_termination_leads_to_its_own_next_step() {
    let now = start();
    let after = |reason, retry_after| {
        let mut subscriber = active(600, now);
        let verdict = subscriber.handle_notify(&terminated(2, reason, retry_after), 0, now, &S);
        let wait = subscriber.poll_timeout().map(|at| at.duration_since(now).as_secs());
        (verdict, wait)
    };
    let retry = NotifyVerdict::Ended(End::Retry);
    let cancelled = NotifyVerdict::Ended(End::Cancelled);
    assert_eq!(after(Some(Reason::Rejected), Some(9)), (cancelled, None));
    assert_eq!(after(Some(Reason::NoResource), None), (cancelled, None));
    assert_eq!(after(Some(Reason::Deactivated), Some(99)), (retry, Some(0)));
    assert_eq!(after(Some(Reason::Timeout), Some(99)), (retry, Some(0)));
    assert_eq!(after(Some(Reason::Probation), Some(99)), (retry, Some(99)));
    assert_eq!(after(Some(Reason::GiveUp), Some(99)), (retry, Some(99)));
    assert_eq!(after(Some(Reason::Probation), None), (retry, Some(5)));
    assert_eq!(after(Some(Reason::Invariant), Some(99)), (NotifyVerdict::Ended(End::Invariant), None));
    assert_eq!(after(None, None), (retry, Some(5)));
    assert_eq!(after(None, Some(99)), (retry, Some(99)));
    assert_eq!(after(None, Some(u32::MAX)), (retry, Some(86_400)));
}

#[test]
fn sip_e_12_202_is_read_as_200() {
    let now = start();
    let mut subscriber = Subscriber::new(3600);
    subscriber.handle_sent(now, &S);
    let verdict = subscriber.handle_response(&Response { expires: Some(60), ..status(202) }, 0, now, &S);
    assert_eq!(verdict, ResponseVerdict::Wait);
    assert_eq!(subscriber.ends_at(), Some(now + secs(60)));
}

#[test]
fn sip_e_13_406_stops_and_489_says_that_the_peer_has_no_such_package() {
    let now = start();
    for (code, expected) in
        [(406, ResponseVerdict::Stopped), (489, ResponseVerdict::Cancelled { bad_event: true })]
    {
        let mut subscriber = Subscriber::new(3600);
        subscriber.handle_sent(now, &S);
        assert_eq!(subscriber.handle_response(&status(code), 0, now, &S), expected);
        assert_eq!(subscriber.poll_timeout(), None, "no attempt follows {code}");
    }
}

#[test]
fn stox_p_10_403_489_and_603_cancel_for_good_at_first_and_at_a_refresh() {
    let now = start();
    for code in [403, 489, 603] {
        let cancelled = ResponseVerdict::Cancelled { bad_event: code == 489 };
        let mut first = Subscriber::new(3600);
        first.handle_sent(now, &S);
        let (mut refresh, at) = refreshing(600, now);
        for (subscriber, at) in [(&mut first, now), (&mut refresh, at)] {
            assert_eq!(subscriber.handle_response(&status(code), 0, at, &S), cancelled, "{code}");
            assert_eq!((subscriber.state(), subscriber.poll_timeout()), (State::Terminated, None), "{code}");
        }
    }
}

#[test]
fn stox_p_11_423_is_retried_with_min_expires_and_481_with_a_new_dialog() {
    let now = start();
    let mut subscriber = Subscriber::new(60);
    subscriber.handle_sent(now, &S);
    let brief = Response { min_expires: Some(1800), ..status(423) };
    assert_eq!(subscriber.handle_response(&brief, 0, now, &S), ResponseVerdict::Again);
    assert_eq!((subscriber.expires(), subscriber.state()), (1800, State::NotifyWait));
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&ok(1800), 0, now, &S);
    assert_eq!(subscriber.ends_at(), Some(now + secs(1800)));

    let mut subscriber = Subscriber::new(60);
    subscriber.handle_sent(now, &S);
    let gone = subscriber.handle_response(&status(481), 0, now, &S);
    assert_eq!(gone, ResponseVerdict::Failed { report: false });
    assert!(subscriber.poll_timeout().is_some());
}

#[test]
fn a_peer_that_keeps_raising_min_expires_is_not_followed_for_ever() {
    let now = start();
    let mut subscriber = Subscriber::new(60);
    let mut rounds = 0;
    loop {
        subscriber.handle_sent(now, &S);
        let brief = Response { min_expires: Some(subscriber.expires() + 1), ..status(423) };
        if subscriber.handle_response(&brief, 0, now, &S) != ResponseVerdict::Again {
            break;
        }
        rounds += 1;
        assert!(rounds < 10);
    }
    assert_eq!(subscriber.state(), State::Terminated);
    // Nor is one whose minimum makes no sense.
    for min_expires in [None, Some(0), Some(60), Some(86_401)] {
        let mut subscriber = Subscriber::new(60);
        subscriber.handle_sent(now, &S);
        let verdict = subscriber.handle_response(&Response { min_expires, ..status(423) }, 0, now, &S);
        assert_eq!(verdict, ResponseVerdict::Failed { report: false }, "{min_expires:?}");
    }
}

#[test]
fn stox_p_12_other_failures_are_reported_once_and_retried_ever_later() {
    for code in [480, 500, 503, 408] {
        let mut now = start();
        let mut subscriber = Subscriber::new(3600);
        let mut reports = 0;
        let mut waits = Vec::new();
        for _ in 0..4 {
            subscriber.handle_sent(now, &S);
            match subscriber.handle_response(&status(code), 0, now, &S) {
                ResponseVerdict::Failed { report } => reports += u32::from(report),
                other => panic!("{code}: {other:?}"),
            }
            let at = subscriber.poll_timeout().expect("it is tried again");
            waits.push(at.duration_since(now).as_secs());
            now = at;
            assert_eq!(subscriber.handle_timeout(0, now, &S), Due::Subscribe);
        }
        assert_eq!((reports, waits), (1, vec![5, 10, 20, 40]), "{code}");
    }
    // Retry-After is obeyed where it is longer.
    let now = start();
    let mut subscriber = Subscriber::new(3600);
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&Response { retry_after: Some(120), ..status(503) }, 0, now, &S);
    assert_eq!(subscriber.poll_timeout(), Some(now + secs(120)));
}

#[test]
fn a_423_or_481_before_it_does_not_swallow_the_report() {
    let now = start();
    let mut subscriber = Subscriber::new(60);
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&Response { min_expires: Some(90), ..status(423) }, 0, now, &S);
    subscriber.handle_sent(now, &S);
    let verdict = subscriber.handle_response(&status(404), 0, now, &S);
    assert_eq!(verdict, ResponseVerdict::Failed { report: true });
}

#[test]
fn stox_p_13_some_failures_of_a_refresh_kill_the_dialog_and_all_others_leave_it() {
    let deadly = [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604];
    let cancelling = [403, 603];
    for code in (300..700).filter(|code| ![406, 423].contains(code)) {
        let (mut subscriber, at) = refreshing(600, start());
        let ends_at = subscriber.ends_at();
        let verdict = subscriber.handle_response(&status(code), 0, at, &S);
        let notify = subscriber.handle_notify(&notify(2, Substate::Active, Some(60)), 0, at, &S);
        if deadly.contains(&code) || cancelling.contains(&code) {
            assert_eq!(notify, NotifyVerdict::Unknown, "{code}");
            assert_eq!(
                subscriber.poll_timeout().is_some(),
                !cancelling.contains(&code) && code != 489,
                "{code}"
            );
        } else {
            assert_eq!(verdict, ResponseVerdict::Kept, "{code}");
            assert_eq!(notify, NotifyVerdict::Accepted { activated: false }, "{code}");
            assert!(ends_at.is_some(), "{code}");
        }
    }
}

#[test]
fn a_kept_subscription_is_refreshed_again_and_ends_at_its_known_expiry() {
    let (mut subscriber, at) = refreshing(600, start());
    let verdict = subscriber.handle_response(&status(500), 0, at, &S);
    assert_eq!(verdict, ResponseVerdict::Kept);
    assert_eq!(subscriber.poll_timeout(), Some(at + secs(5)));
    assert_eq!(subscriber.handle_timeout(0, at + secs(5), &S), Due::Refresh);
    subscriber.handle_sent(at + secs(5), &S);
    // Told to stay away for longer than it lives: it runs out, and the new one waits as told.
    let away = Response { retry_after: Some(1000), ..status(503) };
    assert_eq!(subscriber.handle_response(&away, 0, at + secs(6), &S), ResponseVerdict::Kept);
    let end = subscriber.ends_at().expect("known");
    assert_eq!(subscriber.poll_timeout(), Some(end));
    assert_eq!(subscriber.handle_timeout(0, end, &S), Due::Lost { report: false });
    assert_eq!(subscriber.poll_timeout(), Some(at + secs(1006)));
}

#[test]
fn a_refresh_without_any_response_leaves_the_dialog_for_its_known_time_and_is_tried_again() {
    let (mut subscriber, at) = refreshing(600, start());
    let ends_at = subscriber.ends_at().expect("known");
    assert_eq!(subscriber.handle_timeout(0, at + secs(32), &S), Due::Nothing, "the transaction says so");
    assert_eq!(subscriber.handle_response(&status(408), 0, at + secs(33), &S), ResponseVerdict::Kept);
    assert_eq!(subscriber.poll_timeout(), Some(at + secs(38)));
    assert_eq!(subscriber.handle_timeout(0, at + secs(38), &S), Due::Refresh);
    assert_eq!(subscriber.handle_timeout(0, ends_at, &S), Due::Lost { report: false });
}

#[test]
fn a_notifier_that_is_there_again_is_asked_at_once_in_the_dialog_that_lives_or_in_a_new_one() {
    // It lives: refreshed in its dialog, though its turn has not come.
    let (mut subscriber, at) = refreshing(600, start());
    subscriber.handle_response(&status(408), 0, at, &S);
    assert_eq!(subscriber.resume(), Due::Refresh);
    subscriber.handle_sent(at, &S);
    assert_eq!(subscriber.resume(), Due::Nothing, "it is being asked");
    // It is forgotten: the wait for the new dialog is over, however many attempts had failed.
    subscriber.handle_response(&status(481), 0, at, &S);
    assert_eq!(subscriber.resume(), Due::Subscribe);
    let mut now = at;
    for _ in 0..5 {
        subscriber.handle_sent(now, &S);
        subscriber.handle_response(&status(503), 0, now, &S);
        now = subscriber.poll_timeout().expect("it is tried again");
        subscriber.handle_timeout(0, now, &S);
    }
    assert_eq!(subscriber.resume(), Due::Subscribe);
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&status(503), 0, now, &S);
    assert_eq!(subscriber.poll_timeout(), Some(now + secs(5)), "failures before do not count");
    // It was refused, or its end was asked for.
    subscriber.resume();
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&status(403), 0, now, &S);
    assert_eq!(subscriber.resume(), Due::Nothing);
    let (mut subscriber, at) = refreshing(600, start());
    subscriber.handle_response(&ok(600), 0, at, &S);
    subscriber.unsubscribe();
    assert_eq!(subscriber.resume(), Due::Nothing);
}

#[test]
fn the_wait_starts_again_at_its_floor_after_a_refresh_that_worked() {
    let (mut subscriber, at) = refreshing(600, start());
    subscriber.handle_response(&status(500), 0, at, &S);
    subscriber.handle_timeout(0, at + secs(5), &S);
    subscriber.handle_sent(at + secs(5), &S);
    subscriber.handle_response(&ok(600), 0, at + secs(5), &S);
    subscriber.handle_notify(&notify(2, Substate::Active, Some(600)), 0, at + secs(5), &S);
    let end = terminated(3, Some(Reason::Probation), None);
    subscriber.handle_notify(&end, 0, at + secs(6), &S);
    assert_eq!(subscriber.poll_timeout(), Some(at + secs(11)));
}

#[test]
fn stox_p_16_after_expires_0_the_final_notify_is_awaited_until_timer_n() {
    let now = start();
    let mut subscriber = active(600, now);
    assert_eq!(subscriber.unsubscribe(), Unsubscription::Send);
    assert_eq!(subscriber.expires(), 0);
    subscriber.handle_sent(now, &S);
    assert_eq!(subscriber.handle_response(&ok(0), 0, now, &S), ResponseVerdict::Wait);
    let mut silent = subscriber.clone();
    // A state that crosses is answered 200 and changes nothing.
    let crossing = notify(2, Substate::Active, Some(600));
    assert_eq!(subscriber.handle_notify(&crossing, 0, now, &S), NotifyVerdict::Accepted { activated: false });
    let last = terminated(3, Some(Reason::Timeout), None);
    assert_eq!(
        subscriber.handle_notify(&last, 0, now + secs(31), &S),
        NotifyVerdict::Ended(End::Unsubscribed)
    );
    assert_eq!(subscriber.poll_timeout(), None, "no attempt follows");
    assert_eq!(silent.handle_timeout(0, now + secs(32), &S), Due::Ended);
    assert_eq!(silent.poll_timeout(), None);
}

#[test]
fn unsubscribing_waits_for_what_is_on_its_way() {
    let now = start();
    // No NOTIFY yet: there is no dialog to say it in.
    let mut subscriber = Subscriber::new(600);
    subscriber.handle_sent(now, &S);
    assert_eq!(subscriber.unsubscribe(), Unsubscription::Later);
    subscriber.handle_response(&ok(600), 0, now, &S);
    assert_eq!(subscriber.handle_timeout(0, now, &S), Due::Nothing);
    subscriber.handle_notify(&notify(1, Substate::Pending, Some(600)), 0, now, &S);
    assert_eq!(subscriber.poll_timeout(), Some(now));
    assert_eq!(subscriber.handle_timeout(0, now, &S), Due::Refresh);
    assert_eq!(subscriber.expires(), 0);
    // A NOTIFY before the 2xx does not make two SUBSCRIBEs overlap.
    let mut subscriber = Subscriber::new(600);
    subscriber.handle_sent(now, &S);
    subscriber.unsubscribe();
    subscriber.handle_notify(&notify(1, Substate::Active, Some(600)), 0, now, &S);
    assert_eq!(subscriber.handle_timeout(0, now, &S), Due::Nothing);
    subscriber.handle_response(&ok(600), 0, now, &S);
    assert_eq!(subscriber.handle_timeout(0, now, &S), Due::Refresh);
    // The refresh has no answer yet.
    let (mut subscriber, at) = refreshing(600, now);
    assert_eq!(subscriber.unsubscribe(), Unsubscription::Later);
    subscriber.handle_response(&ok(600), 0, at, &S);
    assert_eq!(subscriber.handle_timeout(0, at, &S), Due::Refresh);
    // Nothing was sent, or all is over.
    assert_eq!(Subscriber::new(600).unsubscribe(), Unsubscription::Done);
    let mut retrying = active(600, now);
    retrying.handle_notify(&terminated(2, None, None), 0, now, &S);
    assert_eq!(retrying.unsubscribe(), Unsubscription::Done);
    assert_eq!(retrying.poll_timeout(), None);
}

#[test]
fn a_failed_unsubscription_is_the_end_too() {
    for code in [403, 481, 500, 408] {
        let now = start();
        let mut subscriber = active(600, now);
        subscriber.unsubscribe();
        subscriber.handle_sent(now, &S);
        assert_eq!(subscriber.handle_response(&status(code), 0, now, &S), ResponseVerdict::Ended, "{code}");
        assert_eq!(subscriber.poll_timeout(), None, "{code}");
    }
}

#[test]
fn an_unsubscription_that_is_answered_with_rejected_cancels_nothing() {
    let now = start();
    let mut subscriber = active(600, now);
    subscriber.unsubscribe();
    subscriber.handle_sent(now, &S);
    let last = terminated(2, Some(Reason::Rejected), None);
    assert_eq!(subscriber.handle_notify(&last, 0, now, &S), NotifyVerdict::Ended(End::Unsubscribed));
}

#[test]
fn stox_p_21_a_poll_ends_with_terminated_timeout_and_no_further_attempt() {
    let now = start();
    let mut subscriber = Subscriber::new(0);
    subscriber.handle_sent(now, &S);
    subscriber.handle_response(&ok(0), 0, now, &S);
    let mut silent = subscriber.clone();
    let mut refused = subscriber.clone();
    let last = terminated(1, Some(Reason::Timeout), None);
    assert_eq!(subscriber.handle_notify(&last, 0, now, &S), NotifyVerdict::Ended(End::Fetched));
    assert_eq!(subscriber.poll_timeout(), None);
    let last = terminated(1, Some(Reason::Rejected), None);
    assert_eq!(refused.handle_notify(&last, 0, now, &S), NotifyVerdict::Ended(End::Cancelled));
    assert_eq!(silent.handle_timeout(0, now + secs(32), &S), Due::Lost { report: true });
    assert_eq!(silent.poll_timeout(), None);
}

#[test]
fn notifies_out_of_order_are_refused_and_copies_do_nothing() {
    let now = start();
    let mut subscriber = active(600, now);
    subscriber.handle_notify(&notify(9, Substate::Active, Some(600)), 0, now, &S);
    let old = terminated(8, Some(Reason::Rejected), None);
    assert_eq!(subscriber.handle_notify(&old, 0, now, &S), NotifyVerdict::OutOfOrder);
    let copy = terminated(9, Some(Reason::Rejected), None);
    assert_eq!(subscriber.handle_notify(&copy, 0, now, &S), NotifyVerdict::Repeated);
    assert_eq!((subscriber.state(), subscriber.last_cseq()), (State::Active, Some(9)));
}

#[test]
fn a_restored_subscription_is_refreshed_when_told_and_takes_notifies_before() {
    let now = start();
    let mut subscriber = Subscriber::restored(3600, true, now + secs(1000), now + secs(7), Some(40));
    assert_eq!(subscriber.state(), State::Active);
    let news = notify(41, Substate::Active, Some(1000));
    assert_eq!(subscriber.handle_notify(&news, 0, now, &S), NotifyVerdict::Accepted { activated: false });
    assert_eq!(subscriber.poll_timeout(), Some(now + secs(7)));
    assert_eq!(subscriber.handle_timeout(0, now + secs(7), &S), Due::Refresh);
}

#[test]
fn chance_makes_waits_longer_by_at_most_half() {
    assert_eq!(S.backoff(0, 0), secs(5));
    assert!(S.backoff(0, u32::MAX) < Duration::from_millis(7_500));
    assert!(S.backoff(0, u32::MAX) > Duration::from_millis(7_400));
    assert_eq!(S.backoff(255, 0), secs(1800));
}

fn message(text: &str) -> Message {
    let limits = crate::message::MessageLimits::default();
    let text = format!(
        "{text}Via: SIP/2.0/UDP c;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\n\
         Call-ID: 1\r\nContent-Length: 0\r\n\r\n"
    );
    crate::message::read_datagram(text.into_bytes().into(), &limits).expect("a message")
}

#[test]
fn responses_and_notifies_are_read_from_messages() {
    let response = Response::from(&message(
        "SIP/2.0 423 Interval Too Brief\r\nCSeq: 9 SUBSCRIBE\r\nMin-Expires: 1800\r\nRetry-After: 5 (soon);duration=1\r\n",
    ));
    assert_eq!((response.status, response.expires), (423, None));
    assert_eq!((response.min_expires, response.retry_after), (Some(1800), Some(5)));
    let head = "NOTIFY sip:a@b SIP/2.0\r\nCSeq: 9 NOTIFY\r\nEvent: presence\r\n";
    let read = |row: &str| Notify::read(&message(&format!("{head}{row}")));
    let notify = read("Subscription-State: Terminated ; reason=giveup;retry-after=30\r\n").expect("a NOTIFY");
    assert_eq!(notify.cseq, 9);
    let said = notify.subscription_state;
    assert_eq!(
        (said.state, said.reason, said.retry_after),
        (Substate::Terminated, Some(Reason::GiveUp), Some(30))
    );
    // Each of these is answered with 400 (SIP-E-06).
    assert_eq!(read("").map(drop), Err(ValueFault::Missing("Subscription-State")));
    assert!(read("Subscription-State: waiting\r\n").is_err());
}
