//! Every event in every state, against the figure of RFC 6665 §4.1.2.

use std::collections::BTreeSet;

use super::*;

/// All that can happen to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Sent,
    Status(u16),
    Active,
    Pending,
    Ended(Option<u8>),
    Unsubscribe,
    Time,
}

const REASONS: [Reason; 7] = [
    Reason::Deactivated,
    Reason::Probation,
    Reason::Rejected,
    Reason::Timeout,
    Reason::GiveUp,
    Reason::NoResource,
    Reason::Invariant,
];

fn step(subscriber: &mut Subscriber, event: Event, cseq: u32, now: &mut Instant) {
    match event {
        Event::Sent => subscriber.handle_sent(*now, &S),
        Event::Status(423) => {
            let response = Response { min_expires: Some(700), ..status(423) };
            subscriber.handle_response(&response, 0, *now, &S);
        }
        Event::Status(code) => {
            subscriber.handle_response(&Response { expires: Some(600), ..status(code) }, 0, *now, &S);
        }
        Event::Active => {
            subscriber.handle_notify(&notify(cseq, Substate::Active, Some(600)), 0, *now, &S);
        }
        Event::Pending => {
            subscriber.handle_notify(&notify(cseq, Substate::Pending, None), 0, *now, &S);
        }
        Event::Ended(reason) => {
            let reason = reason.map(|at| REASONS[usize::from(at)]);
            subscriber.handle_notify(&terminated(cseq, reason, None), 0, *now, &S);
        }
        Event::Unsubscribe => {
            subscriber.unsubscribe();
        }
        Event::Time => {
            *now = subscriber.poll_timeout().unwrap_or(*now).max(*now);
            subscriber.handle_timeout(0, *now, &S);
        }
    }
}

/// The figure of RFC 6665 §4.1.2, with what its text adds.
fn is_arrow(from: State, event: Event, is_ending: bool, to: State) -> bool {
    use State::{Active, Init, NotifyWait, Pending, Terminated};
    if from == to {
        return true;
    }
    match (from, event, to) {
        (Init, Event::Sent, NotifyWait) => true,
        (NotifyWait | Pending, Event::Active, Active) => true,
        (NotifyWait | Active, Event::Pending, Pending) => true,
        (NotifyWait | Pending | Active, Event::Ended(_) | Event::Time, Terminated) => true,
        (NotifyWait, Event::Status(code), Terminated) => code >= 300 || (code == 204 && is_ending),
        // A refresh: only those that §4.1.2.2 and RFC 8048 §5.2.2 name, and 406. An unsubscription: any failure.
        (Pending | Active, Event::Status(code), Terminated) => {
            [403, 404, 406, 481, 489, 603].contains(&code) || (is_ending && (code == 204 || code >= 300))
        }
        (Init, Event::Unsubscribe, Terminated) => true,
        (Terminated, Event::Time, Init) => true,
        _ => false,
    }
}

#[test]
fn sip_e_01_the_subscriber_machine_follows_the_figure_for_every_event_in_every_state() {
    let mut events = vec![Event::Sent, Event::Active, Event::Pending, Event::Unsubscribe, Event::Time];
    events.extend([200, 204, 403, 404, 406, 408, 423, 481, 489, 500, 503, 603].map(Event::Status));
    events.push(Event::Ended(None));
    events.extend((0..7).map(|reason| Event::Ended(Some(reason))));
    let mut seen = BTreeSet::new();
    let mut frontier = vec![(Subscriber::new(600), start())];
    for depth in 1..=4 {
        let mut next = Vec::new();
        for (subscriber, now) in &frontier {
            for event in &events {
                let (mut subscriber, mut now) = (subscriber.clone(), *now);
                let (from, is_ending) = (subscriber.state(), subscriber.is_ending());
                step(&mut subscriber, *event, depth, &mut now);
                let to = subscriber.state();
                assert!(is_arrow(from, *event, is_ending, to), "{from:?} -- {event:?} --> {to:?}");
                let has_clock = subscriber.poll_timeout().is_some();
                assert!(to != State::Active || has_clock, "an active subscription has an end");
                seen.insert((from as u8, *event, to as u8));
                next.push((subscriber, now));
            }
        }
        frontier = next;
    }
    // Every arrow was walked, so none of the rules above is idle.
    for from in [State::Init, State::NotifyWait, State::Pending, State::Active, State::Terminated] {
        for to in [State::Init, State::NotifyWait, State::Pending, State::Active, State::Terminated] {
            let has_rule = from != to && events.iter().any(|event| is_arrow(from, *event, false, to));
            let was_seen = seen.iter().any(|(a, _, b)| (*a, *b) == (from as u8, to as u8));
            assert!(!has_rule || was_seen, "{from:?} --> {to:?} never happened");
        }
    }
}
