//! A front end that is in doubt, lost, and there again (STOX-P-62, SIP-D-17): nobody sees a false state for long, nobody is
//! asked again, and where a dialog is alive no other is made.

use std::time::Duration;

use super::stage::*;
use crate::owner::{Input, PeerHealth};

impl Stage {
    fn front_end_is(&mut self, health: PeerHealth) {
        self.input(Input::PeerHealth { peer: front_end(), health });
    }

    /// The connection to the front end ends, and another is there.
    fn front_end_reconnects(&mut self) {
        self.front_end_is(PeerHealth::Doubtful);
        self.front_end_is(PeerHealth::Up);
    }

    /// The numbers of dialogs in which we notify and in which we are the subscriber.
    fn dialogs(&mut self) -> (usize, usize) {
        self.input(Input::Ask { user: None, asker: 1 });
        let report = self.reports.pop().expect("an answer");
        (report.notifier_dialogs, report.subscriber_dialogs)
    }

    /// Answers everything that the front end was asked, in dialogs that it knows by `is_known`, and notifies of `body`; how
    /// many SUBSCRIBEs were in a dialog, and how many made one.
    fn front_end_answers(&mut self, is_known: bool, body: &str) -> (usize, usize) {
        let (mut in_dialog, mut new) = (0, 0);
        while let Some((_, _, draft)) = self.requests.front() {
            // A window of them, and one whose own time had come.
            assert!(self.requests.len() <= 65, "{} are not answered", self.requests.len());
            let is_in_dialog = draft.to.contains(";tag=");
            if is_in_dialog {
                in_dialog += 1;
            } else {
                new += 1;
            }
            if is_in_dialog && !is_known {
                self.answer(481, "");
                self.wait(Duration::ZERO);
                continue;
            }
            let cseq = draft.cseq + 100;
            let draft = self.answer(200, "Expires: 3600\r\n");
            assert_eq!(self.front_end_notifies(&draft, cseq, "active;expires=3600", body), 200);
        }
        (in_dialog, new)
    }

    /// Nothing but states went to contacts.
    fn only_states_were_said(&self) -> bool {
        self.stanzas.iter().all(|stanza| !stanza.contains("subscribe"))
    }
}

/// A shard in which so many contacts watch benvolio, who is open.
pub fn watched_by(count: usize) -> Stage {
    let mut stage = Stage::new();
    for n in 0..count {
        stage.presence(&format!("u{n}@xmpp.example"), BENVOLIO, "subscribe", "");
        let draft = stage.answer(200, "Expires: 3600\r\n");
        assert_eq!(stage.front_end_notifies(&draft, 1, "active;expires=3600", &pidf("open", "")), 200);
    }
    stage.stanzas.clear();
    stage
}

#[test]
fn stox_p_62_a_doubtful_front_end_changes_nothing_and_a_lost_one_makes_its_users_unknown_once() {
    let mut stage = watched_by(3);
    stage.front_end_is(PeerHealth::Doubtful);
    stage.wait(Duration::from_secs(59));
    assert!(stage.is_silent(), "{:?}", stage.stanzas);
    stage.front_end_is(PeerHealth::Lost);
    assert_eq!(stage.stanzas.len(), 3);
    for stanza in std::mem::take(&mut stage.stanzas) {
        assert!(stanza.contains("type='unavailable'") && stanza.contains("cannot be reached"), "{stanza}");
    }
    stage.wait(Duration::from_secs(600));
    assert!(stage.is_silent(), "once: {:?}", stage.stanzas);
    stage.front_end_is(PeerHealth::Up);
    assert_eq!(stage.front_end_answers(true, &pidf("open", "")), (3, 0), "the dialogs live");
    let seen =
        stage.stanzas.iter().filter(|stanza| stanza.contains("from='benvolio@corp.example/desk'")).count();
    assert!(seen == 3 && stage.only_states_were_said(), "{:?}", stage.stanzas);
}

#[test]
fn stox_p_62_a_dialog_that_runs_out_during_the_doubt_leaves_its_user_as_seen_until_the_front_end_is_lost() {
    let ran_out_in_doubt = || {
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        let draft = stage.answer(200, "Expires: 60\r\n");
        assert_eq!(stage.front_end_notifies(&draft, 1, "active;expires=60", &pidf("open", "")), 200);
        stage.stanzas.clear();
        stage.wait(Duration::from_secs(20));
        stage.requests.clear();
        stage.front_end_is(PeerHealth::Doubtful);
        stage.wait(Duration::from_secs(55));
        assert!(stage.is_silent(), "it may be back in a moment: {:?}", stage.stanzas);
        stage
    };
    let mut stage = ran_out_in_doubt();
    stage.front_end_is(PeerHealth::Lost);
    let told = stage.stanza();
    assert!(told.contains("type='unavailable'") && told.contains("cannot be reached"), "{told}");
    let mut stage = ran_out_in_doubt();
    stage.front_end_is(PeerHealth::Up);
    stage.front_end_answers(true, &pidf("open", ""));
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("unavailable")), "{:?}", stage.stanzas);
}

#[test]
fn stox_p_62_a_front_end_that_forgot_its_dialogs_is_asked_anew_for_each_at_once_and_nobody_else_is() {
    let mut stage = watched_by(300);
    stage.front_end_reconnects();
    assert_eq!(stage.requests.len(), 64, "a window of them");
    assert_eq!(stage.front_end_answers(false, &pidf("closed", "")), (300, 300));
    let told = stage.stanzas.iter().filter(|stanza| stanza.contains("type='unavailable'")).count();
    assert_eq!(told, 300, "each contact learns what is");
    assert!(stage.only_states_were_said(), "nobody is asked again");
    assert_eq!(stage.dialogs(), (0, 300));
    stage.wait(Duration::from_secs(60));
    assert!(stage.requests.is_empty());
}

#[test]
fn a_silent_front_end_keeps_its_dialogs_and_no_other_is_made() {
    let mut stage = watched_by(20);
    // Some dialogs are just being refreshed when it falls silent.
    stage.wait_for_request(Duration::from_secs(3600));
    stage.wait(Duration::from_secs(33));
    while !stage.requests.is_empty() {
        assert!(stage.time_out().to.contains(";tag="), "no dialog is made by time alone");
    }
    stage.front_end_is(PeerHealth::Doubtful);
    stage.wait(Duration::from_secs(50));
    assert!(stage.is_silent(), "whoever does not answer is not asked on and on");
    stage.front_end_is(PeerHealth::Up);
    assert_eq!(stage.front_end_answers(true, &pidf("open", "")), (20, 0));
    assert_eq!(stage.dialogs(), (0, 20));
}

/// Benvolio, behind the front end, watches juliet, and has seen her.
fn juliet_watched() -> Stage {
    let mut stage = Stage::new();
    stage.subscribe(&front_end(), BENVOLIO, JULIET, "w", "Expires: 3600\r\n");
    assert_eq!(stage.status(), 200);
    stage.presence(JULIET, BENVOLIO, "subscribed", "");
    stage.presence("juliet@xmpp.example/b", BENVOLIO, "", "");
    stage.notifies.clear();
    stage.stanzas.clear();
    stage
}

#[test]
fn a_notify_that_a_silent_front_end_did_not_answer_costs_no_dialog_and_its_state_follows() {
    let mut stage = juliet_watched();
    stage.answers_notify = None;
    stage.presence("juliet@xmpp.example/b", BENVOLIO, "", "<show>dnd</show>");
    let call_id = stage.notify().call_id().expect("Call-ID").to_owned();
    stage.wait(Duration::from_secs(35));
    stage.front_end_is(PeerHealth::Doubtful);
    stage.away.push(front_end());
    stage.wait(Duration::from_secs(60));
    assert!(stage.notifies.is_empty());
    stage.answers_notify = Some(200);
    stage.away.clear();
    stage.front_end_is(PeerHealth::Up);
    stage.comes_back(&front_end());
    let notify = stage.notify();
    assert_eq!(notify.call_id().expect("Call-ID"), call_id);
    assert!(body_of(&notify).contains(">dnd<"), "the newest state");
    assert_eq!(stage.dialogs(), (1, 0));
}

#[test]
fn a_dialog_whose_notifys_alone_are_not_answered_ends_after_the_second() {
    let mut stage = juliet_watched();
    stage.front_end_is(PeerHealth::Up);
    stage.notifies.clear();
    stage.answers_notify = None;
    stage.presence("juliet@xmpp.example/b", BENVOLIO, "", "<show>dnd</show>");
    stage.wait(Duration::from_secs(33));
    assert_eq!((stage.notifies.len(), stage.dialogs().0), (1, 1), "the first");
    stage.wait(Duration::from_secs(16));
    assert_eq!(stage.notifies.len(), 2, "it is said again");
    stage.wait(Duration::from_secs(33));
    assert_eq!((stage.notifies.len(), stage.dialogs().0), (2, 0));
}

#[test]
fn a_front_end_that_is_there_again_is_told_every_state_and_ends_the_dialogs_that_it_forgot() {
    for (status, left) in [(200, 1), (481, 0)] {
        let mut stage = juliet_watched();
        stage.front_end_is(PeerHealth::Up);
        stage.notifies.clear();
        stage.answers_notify = Some(status);
        stage.front_end_reconnects();
        assert!(body_of(&stage.notify()).contains("<basic>open"), "though nothing has changed");
        assert_eq!((stage.notifies.len(), stage.dialogs().0), (0, left));
    }
}

#[test]
fn one_forgotten_dialog_makes_every_shard_look_at_some_others() {
    let mut stage = watched_by(100);
    // The front end lost one of them only.
    stage.wait_for_request(Duration::from_secs(3600));
    stage.answer(481, "");
    assert_eq!(stage.forgotten, [front_end()], "the other shards are told");
    stage.wait(Duration::ZERO);
    let (in_dialog, new) = stage.front_end_answers(true, &pidf("open", ""));
    assert!(new == 1 && (16..=17).contains(&in_dialog), "{in_dialog} {new}");
    // It lost all of them.
    let mut stage = watched_by(100);
    stage.wait_for_request(Duration::from_secs(3600));
    stage.answer(481, "");
    stage.wait(Duration::ZERO);
    assert_eq!(stage.front_end_answers(false, &pidf("closed", "")), (99, 100));
    // Another shard found out.
    let mut stage = watched_by(100);
    stage.input(Input::PeerForgot { peer: front_end() });
    assert_eq!(stage.front_end_answers(false, &pidf("closed", "")), (100, 100));
}

#[test]
fn a_front_end_that_forgot_everything_behind_a_connection_that_stands_is_found_out_by_one_notify() {
    let mut stage = watched_by(100);
    stage.subscribe(&front_end(), BENVOLIO, JULIET, "w", "Expires: 3600\r\n");
    stage.presence(JULIET, BENVOLIO, "subscribed", "");
    stage.presence("juliet@xmpp.example/b", BENVOLIO, "", "");
    stage.front_end_is(PeerHealth::Up);
    stage.requests.clear();
    stage.notifies.clear();
    stage.answers_notify = Some(481);
    stage.wait(Duration::from_secs(10));
    stage.presence("juliet@xmpp.example/b", BENVOLIO, "", "<show>dnd</show>");
    assert_eq!((stage.notifies.len(), stage.forgotten.as_slice()), (1, &[front_end()][..]));
    stage.wait(Duration::ZERO);
    assert_eq!(stage.front_end_answers(false, &pidf("closed", "")), (100, 100), "all are there anew");
}

#[test]
fn watchers_that_leave_have_some_of_our_dialogs_looked_at_once_in_ten_seconds() {
    let mut stage = watched_by(100);
    for n in 0..50 {
        let (user, call) = (format!("u{n}@corp.example"), format!("w{n}"));
        stage.subscribe(&front_end(), &user, JULIET, &call, "Expires: 3600\r\n");
        stage.presence(JULIET, &user, "subscribed", "");
        stage.presence("juliet@xmpp.example/b", &user, "", "");
    }
    stage.front_end_is(PeerHealth::Up);
    stage.wait(Duration::from_secs(10));
    stage.requests.clear();
    stage.answers_notify = Some(481);
    for n in 0..50 {
        stage.presence("juliet@xmpp.example/b", &format!("u{n}@corp.example"), "", "<show>dnd</show>");
    }
    assert_eq!(stage.forgotten.len(), 1);
    let (in_dialog, new) = stage.front_end_answers(true, &pidf("open", ""));
    assert!(new == 0 && (16..=17).contains(&in_dialog), "{in_dialog} {new}");
    stage.wait(Duration::from_secs(11));
    assert_eq!(stage.forgotten.len(), 2, "those that came too early count then");
    let (in_dialog, new) = stage.front_end_answers(true, &pidf("open", ""));
    assert!(new == 0 && (16..=17).contains(&in_dialog), "{in_dialog} {new}");
    stage.wait(Duration::from_secs(60));
    assert_eq!(stage.forgotten.len(), 2);
}

#[test]
fn a_503_to_a_notify_makes_its_front_end_suspect() {
    let mut stage = juliet_watched();
    stage.front_end_is(PeerHealth::Up);
    stage.answers_notify = Some(503);
    stage.wait(Duration::from_secs(10));
    stage.presence("juliet@xmpp.example/b", BENVOLIO, "", "<show>dnd</show>");
    assert_eq!((stage.dialogs().0, stage.suspected.as_slice()), (1, &[front_end()][..]));
}

#[test]
fn a_front_end_that_cannot_be_reached_after_a_restart_leaves_nobody_with_a_false_state() {
    let stage = watched_by(100);
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.stanzas.clear();
    while !again.requests.is_empty() {
        again.break_off();
    }
    again.front_end_is(PeerHealth::Lost);
    assert_eq!(again.stanzas.len(), 100, "what contacts were told before holds no more");
    assert!(again.stanzas.iter().all(|stanza| stanza.contains("type='unavailable'")));
    again.stanzas.clear();
    again.front_end_is(PeerHealth::Up);
    assert_eq!(again.front_end_answers(true, &pidf("open", "")), (100, 0));
    assert_eq!(again.stanzas.len(), 100);
    assert!(again.only_states_were_said());
}

#[test]
fn a_sweep_that_finds_no_connection_rests_and_begins_anew_when_the_front_end_is_there() {
    let stage = watched_by(200);
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    for _ in 0..64 {
        again.break_off();
    }
    assert!(again.requests.is_empty(), "the others are not tried in vain");
    again.front_end_is(PeerHealth::Up);
    assert_eq!(again.front_end_answers(true, &pidf("open", "")), (200, 0));
}

#[test]
fn a_new_dialog_that_breaks_off_with_the_connection_is_no_reason_to_call_its_user_unknown() {
    let mut stage = watched_by(1);
    stage.front_end_reconnects();
    stage.answer(481, "");
    stage.break_off();
    stage.front_end_is(PeerHealth::Doubtful);
    stage.wait(Duration::from_secs(50));
    assert!(stage.is_silent(), "the grace is not over: {:?}", stage.stanzas);
    stage.front_end_is(PeerHealth::Up);
    assert_eq!(stage.front_end_answers(true, &pidf("open", "")), (0, 1));
    assert!(stage.is_silent(), "what juliet sees is right still");
}
