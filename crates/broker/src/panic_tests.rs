//! Panics of actors, ordered by [`trap`]: what they cost, and that everything is right again afterwards.

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::*;
use tombolo_edge::{FlowFacts, FromFlow, Transport};
use tombolo_policy::Approve;
use tombolo_sip::message::Message;
use tombolo_telemetry::PartState;

use crate::guarded::trap;

const ROMEO: &str = "romeo@sip.example";
const JULIET: &str = "juliet@xmpp.example";
const EVENT: &str = "Event: presence\r\nExpires: 600\r\n";
const PUBLISH: &str = "Event: presence\r\nExpires: 600\r\nContent-Type: application/pidf+xml\r\n";

fn pidf(note: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'><tuple id='ID-desk'><status>\
         <basic>open</basic></status><note>{note}</note></tuple></presence>"
    )
}

fn message_to(user: &str, id: &str) -> String {
    format!("<message from='{JULIET}/b' to='{user}@{HOME}' type='chat' id='{id}'><body>{id}</body></message>")
}

fn state(gateway: &Gateway) -> PartState {
    gateway.broker.metrics().health().worst()
}

fn panics(gateway: &Gateway) -> String {
    let text = gateway.broker.metrics().render();
    text.lines().find_map(|line| line.strip_prefix("tombolo_panics_total ")).expect("counted").to_owned()
}

/// Lets actors be rebuilt: some of that is done on other threads.
async fn recover(gateway: &mut Gateway) {
    for _ in 0..100 {
        gateway.settle().await;
        if state(gateway) == PartState::Up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What rebuilt actors owe is due within this time.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        gateway.settle().await;
    }
    assert_eq!(state(gateway), PartState::Up, "{:?}", gateway.broker.metrics().health().parts());
}

/// The phone answers whatever it is asked until nothing more comes; all that came.
async fn converse(gateway: &mut Gateway, phone: &Arc<FlowFacts>) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        gateway.settle().await;
        let heard = gateway.answer_all(phone, 200);
        if heard.is_empty() {
            return all;
        }
        all.extend(heard);
    }
}

/// A phone sends a message to Juliet; how it was answered, in time.
async fn write_to_juliet(gateway: &mut Gateway, phone: &Arc<FlowFacts>, user: &str, body: &str) -> u16 {
    let text = gateway.request("MESSAGE", user, JULIET, "Content-Type: text/plain\r\n", body);
    gateway.says(phone, &text);
    for _ in 0..100 {
        let heard = converse(gateway, phone).await;
        if let Some(status) = heard.iter().find_map(Message::status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the message was not answered")
}

/// The same, without time passing.
async fn write_to_juliet_at_once(gateway: &mut Gateway, phone: &Arc<FlowFacts>, body: &str) -> u16 {
    let text = gateway.request("MESSAGE", "romeo", JULIET, "Content-Type: text/plain\r\n", body);
    gateway.says(phone, &text);
    let heard = converse(gateway, phone).await;
    heard.iter().find_map(Message::status).expect("answered at once")
}

fn bodies<'a>(messages: &'a [Message], method: &str) -> Vec<&'a str> {
    let of_method = messages.iter().filter(|message| message.is_request() && message.method_text() == method);
    of_method.map(|message| std::str::from_utf8(message.body()).expect("UTF-8")).collect()
}

/// Romeo's phone, and Juliet watches him and he her.
async fn friends(gateway: &mut Gateway) -> (Arc<FlowFacts>, tombolo_edge::StreamId) {
    let phone = flow(1, Transport::Tcp, "192.0.2.1:40000");
    gateway.register(&phone, "romeo").await;
    let published = gateway.ask(&phone, "PUBLISH", "romeo", ROMEO, PUBLISH, &pidf("here")).await;
    assert_eq!(published.status(), Some(200));
    let stream = gateway.stream_from_partner(HOME);
    gateway.stanzas_come(stream, &[&format!("<presence from='{JULIET}' to='{ROMEO}' type='subscribe'/>")]);
    gateway.settle().await;
    let granted = gateway.ask(&phone, "SUBSCRIBE", "romeo", JULIET, EVENT, "").await;
    assert!(matches!(granted.status(), Some(200 | 202)));
    let subscribed = format!("<presence from='{JULIET}' to='{ROMEO}' type='subscribed'/>");
    gateway.stanzas_come(stream, &[&subscribed, &format!("<presence from='{JULIET}/b' to='{ROMEO}'/>")]);
    converse(gateway, &phone).await;
    gateway.stanzas.clear();
    (phone, stream)
}

static NEWS: AtomicUsize = AtomicUsize::new(0);

/// Each side sees what the other shows from now on, and messages arrive both ways.
async fn all_is_right(gateway: &mut Gateway, phone: &Arc<FlowFacts>, stream: tombolo_edge::StreamId) {
    converse(gateway, phone).await;
    gateway.stanzas.clear();
    // A state that was shown before is no news.
    let note = format!("still there {}", NEWS.fetch_add(1, Ordering::Relaxed));
    let published = gateway.ask(phone, "PUBLISH", "romeo", ROMEO, PUBLISH, &pidf(&note)).await;
    assert_eq!(published.status(), Some(200));
    let shown = format!("<show>dnd</show><status>{note}</status>");
    let presence = format!("<presence from='{JULIET}/b' to='{ROMEO}'>{shown}</presence>");
    gateway.stanzas_come(stream, &[&presence, &message_to("romeo", "afterwards")]);
    let heard = converse(gateway, phone).await;
    assert!(gateway.stanzas.iter().any(|said| said.contains(&note)), "{:?}", gateway.stanzas);
    assert!(
        bodies(&heard, "NOTIFY").iter().any(|body| body.contains(&note)),
        "{heard:?} {:?}",
        gateway.stanzas
    );
    assert_eq!(bodies(&heard, "MESSAGE"), ["afterwards"]);
    let status = write_to_juliet(gateway, phone, "romeo", "reply").await;
    assert!(status < 300, "{status}");
    assert!(gateway.stanzas.iter().any(|said| said.contains("reply")), "{:?}", gateway.stanzas);
}

#[test]
fn a_shard_that_panicked_is_loaded_again_handles_the_input_and_meets_everybody_again() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("id='once-a'", 1);
        gateway.stanzas_come(stream, &[&message_to("romeo", "once-a"), &message_to("romeo", "behind-a")]);
        gateway.settle().await;
        assert_eq!((state(&gateway), panics(&gateway).as_str()), (PartState::Degraded, "1"));
        assert!(bodies(&converse(&mut gateway, &phone).await, "MESSAGE").is_empty());
        recover(&mut gateway).await;
        let heard = converse(&mut gateway, &phone).await;
        assert_eq!(bodies(&heard, "MESSAGE"), ["once-a", "behind-a"], "each once and in order");
        all_is_right(&mut gateway, &phone, stream).await;
        assert_eq!(panics(&gateway), "1");
    });
}

#[test]
fn a_stanza_over_which_a_shard_panics_twice_is_refused_to_its_sender_and_what_is_behind_it_arrives() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("id='poison-b'", 2);
        gateway.stanzas_come(stream, &[&message_to("romeo", "poison-b"), &message_to("romeo", "behind-b")]);
        recover(&mut gateway).await;
        assert_eq!(panics(&gateway), "2");
        assert_eq!(bodies(&converse(&mut gateway, &phone).await, "MESSAGE"), ["behind-b"]);
        let refusal = gateway.stanzas.iter().find(|said| said.contains("type='error'")).expect("told");
        assert!(refusal.contains("poison-b") && refusal.contains("internal-server-error"), "{refusal}");
        gateway.settle().await;
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_request_over_which_a_shard_panics_twice_gets_500_and_its_phone_goes_on() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("shard: Ok(\"MESSAGE-romeo\")", 2);
        let text = gateway.request("MESSAGE", "romeo", JULIET, "Content-Type: text/plain\r\n", "poison");
        gateway.says(&phone, &text);
        recover(&mut gateway).await;
        let heard = converse(&mut gateway, &phone).await;
        let statuses: Vec<_> = heard.iter().filter_map(Message::status).collect();
        assert_eq!(statuses, [500], "{heard:?}");
        gateway.settle().await;
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_shard_that_is_rebuilt_stops_no_reader_and_refuses_with_a_cause_what_it_has_no_room_for() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        gateway.answers_pings = true;
        trap::set("id='once-c'", 1);
        gateway.stanzas_come(stream, &[&message_to("romeo", "once-c")]);
        gateway.settle().await;
        assert_eq!(state(&gateway), PartState::Degraded);
        // More than its inbox holds.
        for n in 0..5000 {
            assert!(gateway.offer_stanza(stream, &message_to("peter", &format!("m{n}"))), "{n}");
        }
        gateway.settle().await;
        let refused = gateway.stanzas.iter().filter(|said| said.contains("resource-constraint")).count();
        assert_eq!(refused, 5000 - 4096, "the rest waits");
        recover(&mut gateway).await;
        // Peter has no phone: the shard answers what waited, as far as the session has room for answers.
        let answered = gateway.stanzas.iter().filter(|said| said.contains("type='error'")).count();
        assert!(answered > refused + 1000, "{answered}");
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_session_that_panicked_asks_its_shards_again_and_carries_their_newest_states() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("session: want", 1);
        let published = gateway.ask(&phone, "PUBLISH", "romeo", ROMEO, PUBLISH, &pidf("lost")).await;
        assert_eq!(published.status(), Some(200));
        assert_eq!((state(&gateway), panics(&gateway).as_str()), (PartState::Degraded, "1"));
        let published = gateway.ask(&phone, "PUBLISH", "romeo", ROMEO, PUBLISH, &pidf("newest")).await;
        assert_eq!(published.status(), Some(200), "its neighbours go on");
        // Nobody waits for a session that is away.
        let status = write_to_juliet_at_once(&mut gateway, &phone, "now").await;
        assert!(status >= 400, "{status}");
        recover(&mut gateway).await;
        assert!(gateway.stanzas.iter().any(|said| said.contains("newest")), "{:?}", gateway.stanzas);
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_message_in_the_hands_of_a_session_that_panics_is_refused_to_its_sender() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("in-hand-d", 1);
        let text = gateway.request("MESSAGE", "romeo", JULIET, "Content-Type: text/plain\r\n", "in-hand-d");
        gateway.says(&phone, &text);
        recover(&mut gateway).await;
        let statuses: Vec<_> =
            converse(&mut gateway, &phone).await.iter().filter_map(Message::status).collect();
        assert!(matches!(statuses[..], [400..=699]), "{statuses:?}");
        gateway.settle().await;
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_phones_peer_that_panicked_answers_the_request_and_is_notified_again() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("peer: Ok(\"PUBLISH-romeo\")", 1);
        let text = gateway.request("PUBLISH", "romeo", ROMEO, PUBLISH, &pidf("again"));
        gateway.says(&phone, &text);
        gateway.settle().await;
        assert_eq!((state(&gateway), panics(&gateway).as_str()), (PartState::Degraded, "1"));
        // What Juliet shows meanwhile is said when the peer is back.
        let meanwhile =
            format!("<presence from='{JULIET}/b' to='{ROMEO}'><status>meanwhile</status></presence>");
        gateway.stanzas_come(stream, &[&meanwhile]);
        recover(&mut gateway).await;
        let heard = converse(&mut gateway, &phone).await;
        assert_eq!(heard.iter().filter_map(Message::status).collect::<Vec<_>>(), [200], "{heard:?}");
        assert!(bodies(&heard, "NOTIFY").iter().any(|body| body.contains("meanwhile")), "{heard:?}");
        gateway.settle().await;
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_request_over_which_a_peer_panics_twice_gets_500_and_its_other_requests_are_served() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        trap::set("peer: Ok(\"PUBLISH-romeo\")", 2);
        let text = gateway.request("PUBLISH", "romeo", ROMEO, PUBLISH, &pidf("poison"));
        gateway.says(&phone, &text);
        recover(&mut gateway).await;
        let statuses: Vec<_> =
            converse(&mut gateway, &phone).await.iter().filter_map(Message::status).collect();
        assert_eq!(statuses, [500]);
        gateway.settle().await;
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_panic_of_one_phones_peer_costs_the_front_end_and_other_phones_nothing() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        let other = flow(2, Transport::Tcp, "192.0.2.2:40000");
        gateway.register(&other, "mercutio").await;
        let front_end = flow(3, Transport::Tcp, "127.0.0.31:5060");
        gateway.flow_reports(FromFlow::FlowUp(front_end.clone()));
        trap::set("peer: Ok(\"OPTIONS-romeo\")", 1);
        let text = gateway.request("OPTIONS", "romeo", ROMEO, "", "");
        gateway.says(&phone, &text);
        gateway.settle().await;
        assert_eq!(state(&gateway), PartState::Degraded);
        let status = write_to_juliet(&mut gateway, &other, "mercutio", "one").await;
        assert!(status < 300, "{status}");
        let text = gateway
            .request("MESSAGE", "x", JULIET, "Content-Type: text/plain\r\n", "two")
            .replace("<sip:x@sip.example>", "<sip:benvolio@corp.example>");
        gateway.says(&front_end, &text);
        gateway.settle().await;
        assert_eq!(gateway.heard(&front_end).iter().filter_map(Message::status).collect::<Vec<_>>(), [202]);
        recover(&mut gateway).await;
        all_is_right(&mut gateway, &phone, stream).await;
    });
}

#[test]
fn a_front_ends_peer_that_panicked_ends_its_requests_and_is_reached_by_its_connection_again() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.settle().await;
        let front_end = gateway.front_end_answered(3);
        let stream = gateway.stream_from_partner(CORP);
        let to_corp = |id: &str| message_to("benvolio", id).replace(HOME, CORP);
        gateway.stanzas_come(stream, &[&to_corp("waits")]);
        gateway.settle().await;
        assert_eq!(bodies(&gateway.heard(&front_end), "MESSAGE"), ["waits"]);
        // It is not answered; then the peer panics over something else.
        trap::set("peer: Ok(\"OPTIONS-front\")", 1);
        let text =
            gateway.request("OPTIONS", "front", CORP, "", "").replace("front@sip.example", "x@corp.example");
        gateway.says(&front_end, &text);
        recover(&mut gateway).await;
        let told =
            gateway.stanzas.iter().filter(|said| said.contains("type='error'") && said.contains("waits"));
        assert_eq!(told.count(), 1, "{:?}", gateway.stanzas);
        gateway.heard(&front_end);
        gateway.stanzas_come(stream, &[&to_corp("next")]);
        gateway.settle().await;
        assert_eq!(bodies(&gateway.answer_all(&front_end, 200), "MESSAGE"), ["next"]);
    });
}

#[test]
fn a_user_that_panicked_has_its_phones_again_and_the_register_is_answered() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        for (times, status) in [(1, 200), (2, 500)] {
            trap::set("user: Ok(\"REGISTER-romeo\")", times);
            let first = gateway.request("REGISTER", "romeo", HOME, "Expires: 600\r\n", "");
            gateway.says(&phone, &first);
            gateway.settle().await;
            let challenge = converse(&mut gateway, &phone)
                .await
                .into_iter()
                .find(|said| said.status() == Some(401))
                .expect("401");
            let again = gateway.prove(&challenge, "REGISTER", "romeo", HOME, "Expires: 600\r\n", "");
            gateway.says(&phone, &again);
            gateway.settle().await;
            assert_eq!(state(&gateway), PartState::Degraded);
            // Nobody is left to wait.
            gateway.stanzas_come(stream, &[&message_to("romeo", "meanwhile")]);
            gateway.settle().await;
            let told =
                gateway.stanzas.iter().any(|said| said.contains("meanwhile") && said.contains("error"));
            assert!(told, "{:?}", gateway.stanzas);
            // Reading its rows may panic too; that is tried again.
            trap::set("bindings of romeo", 1);
            recover(&mut gateway).await;
            let heard = converse(&mut gateway, &phone).await;
            let statuses: Vec<_> = heard.iter().filter_map(Message::status).collect();
            assert_eq!(statuses, [status]);
            all_is_right(&mut gateway, &phone, stream).await;
        }
        assert_eq!(panics(&gateway), "5");
    });
}

#[test]
fn strangers_make_the_guests_panic_as_often_as_they_like_and_everybody_else_goes_on() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (phone, stream) = friends(&mut gateway).await;
        let ended = gateway.broker.ended();
        let stranger = flow(9, Transport::Udp, "192.0.2.9:5060");
        gateway.flow_reports(FromFlow::FlowUp(stranger.clone()));
        trap::set("guest: Ok(\"OPTIONS-mallory\")", 20);
        for _ in 0..20 {
            let text = gateway.request("OPTIONS", "mallory", HOME, "", "");
            gateway.says(&stranger, &text);
        }
        gateway.settle().await;
        let statuses: Vec<_> = gateway.heard(&stranger).iter().filter_map(Message::status).collect();
        assert_eq!(statuses, [500; 20]);
        assert_eq!((state(&gateway), panics(&gateway).as_str()), (PartState::Up, "20"));
        let text = gateway.request("OPTIONS", "mallory", HOME, "", "");
        gateway.says(&stranger, &text);
        gateway.settle().await;
        assert_eq!(gateway.heard(&stranger).iter().filter_map(Message::status).collect::<Vec<_>>(), [200]);
        all_is_right(&mut gateway, &phone, stream).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), ended).await.is_err());
    });
}

#[test]
fn more_than_five_panics_of_actors_in_a_minute_end_the_process_with_a_cause() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        let (_, stream) = friends(&mut gateway).await;
        let ended = gateway.broker.ended();
        trap::set("<body>poison-e", 6);
        for n in 0..3 {
            gateway.stanzas_come(stream, &[&message_to("romeo", &format!("poison-e{n}"))]);
        }
        for _ in 0..200 {
            gateway.settle().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let cause = tokio::time::timeout(Duration::from_secs(1), ended).await.expect("it ends");
        assert!(cause.contains("6 times") && cause.contains("shard"), "{cause}");
    });
}

#[test]
fn a_panic_of_one_shard_of_four_costs_the_users_of_the_others_nothing() {
    run(async {
        let mut gateway = Gateway::on_threads(4, Approve::Partner);
        let stream = gateway.stream_from_partner(HOME);
        let mut phones = Vec::new();
        for (number, user) in USERS.into_iter().enumerate() {
            let phone = flow(10 + number as u64, Transport::Tcp, &format!("192.0.2.{}:5060", number + 10));
            gateway.flow_reports(FromFlow::FlowUp(phone.clone()));
            let challenge = wait_for(&mut gateway, &phone, "REGISTER", user).await;
            let proved = gateway.prove(&challenge, "REGISTER", user, HOME, "Expires: 600\r\n", "");
            gateway.says(&phone, &proved);
            let is_registered = |said: &Message| said.status() == Some(200);
            wait_until_said(&mut gateway, &phone, is_registered).await;
            phones.push((user, phone));
        }
        let shard = |user: &str| usize::from(address(&format!("{user}@{HOME}")).partition()) % 4;
        let broken = shard("romeo");
        trap::set("id='four'", 1);
        gateway.stanzas_come(stream, &[&message_to("romeo", "four")]);
        for (user, _) in &phones {
            gateway.stanzas_come(stream, &[&message_to(user, "after")]);
        }
        for (user, phone) in &phones {
            let mut heard = wait_until_said(&mut gateway, phone, Message::is_request).await;
            heard.extend(gateway.answer_all(phone, 200));
            let expected: &[&str] = if *user == "romeo" { &["four"] } else { &["after"] };
            assert_eq!(
                bodies(&heard, "MESSAGE"),
                expected,
                "{user}, shard {} of 4, {broken} broke",
                shard(user)
            );
        }
        assert_eq!(panics(&gateway), "1");
    });
}

/// What a phone is said by real threads, up to the first message that passes the test.
async fn wait_until_said(
    gateway: &mut Gateway,
    phone: &Arc<FlowFacts>,
    test: impl Fn(&Message) -> bool,
) -> Vec<Message> {
    let mut said = Vec::new();
    for _ in 0..1000 {
        gateway.settle().await;
        said.extend(gateway.heard(phone));
        if said.iter().any(&test) {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not said in 10 s: {said:?}")
}

/// The challenge to a REGISTER.
async fn wait_for(gateway: &mut Gateway, phone: &Arc<FlowFacts>, method: &str, user: &str) -> Message {
    let text = gateway.request(method, user, HOME, "Expires: 600\r\n", "");
    gateway.says(phone, &text);
    let said = wait_until_said(gateway, phone, |said| said.status() == Some(401)).await;
    said.into_iter().find(|said| said.status() == Some(401)).expect("it was waited for")
}
