//! What the outside brings, with the real actors and a scripted edge: which session and dialog it reaches, and what not.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod common;

use std::time::Duration;

use common::*;
use tombolo_broker::SessionState;
use tombolo_edge::{Absence, FromEdge, FromFlow, StreamEnd, Transport};
use tombolo_policy::Approve;
use tombolo_telemetry::PartState;

const JULIET: &str = "juliet@xmpp.example";

/// Makes the gateway say something to the partner, in the name of a local domain.
async fn provoke(gateway: &mut Gateway) {
    let stream = gateway.stream_from_partner(HOME);
    let ask =
        format!("<iq from='{JULIET}/b' to='{HOME}' type='get' id='7'><ping xmlns='urn:xmpp:ping'/></iq>");
    gateway.stanzas_come(stream, &[&ask]);
    gateway.settle().await;
}

#[test]
fn a_session_hears_the_end_of_its_stream_though_the_stream_had_lost_its_pair() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        provoke(&mut gateway).await;
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
        let (stream, pair) = gateway.opened.remove(0);
        assert_eq!(gateway.broker.sessions().await[0].stream, Some(stream));
        // A partner that was removed and put back.
        gateway.edge_reports(FromEdge::PairLost { stream, pair });
        gateway.stream_ends(stream, StreamEnd::StreamError("policy-violation".into()));
        gateway.settle().await;
        assert_eq!(gateway.broker.sessions().await[0].stream, None, "it is on a stream that is dead");
        tokio::time::advance(Duration::from_secs(61)).await;
        gateway.settle().await;
        gateway.stanzas.clear();
        provoke(&mut gateway).await;
        assert_eq!(gateway.opened.len(), 1, "it dials again");
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
    });
}

#[test]
fn what_is_written_frees_the_window_though_the_stream_had_lost_its_pair() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.answers_pings = true;
        provoke(&mut gateway).await;
        let (stream, pair) = gateway.opened.remove(0);
        gateway.edge_reports(FromEdge::PairLost { stream, pair });
        // More than a window in all.
        for _ in 0..1000 {
            provoke(&mut gateway).await;
        }
        assert_eq!(gateway.stanzas.len(), 1001);
    });
}

/// Lets time pass in small steps, in which everybody may do something.
async fn pass(gateway: &mut Gateway, span: Duration) {
    for _ in 0..span.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        gateway.settle().await;
    }
}

#[test]
fn a_session_of_a_mistyped_domain_ends_and_one_with_a_pair_is_tried_on() {
    for has_pair in [false, true] {
        run(async {
            tokio::time::pause();
            let mut gateway = Gateway::start(Approve::Partner);
            gateway.no_stream = Some(StreamEnd::NotFound(Absence::NoSuchName));
            if has_pair {
                let stream = gateway.stream_from_partner(HOME);
                let subscribe = format!("<presence from='{JULIET}' to='romeo@{HOME}' type='subscribe'/>");
                gateway.stanzas_come(stream, &[&subscribe]);
                gateway.settle().await;
            } else {
                provoke(&mut gateway).await;
            }
            assert_eq!(gateway.stream_dials, 1);
            assert!(gateway.broker.sessions().await[0].is_lost);
            pass(&mut gateway, Duration::from_secs(600)).await;
            assert_eq!(gateway.broker.sessions().await.len(), usize::from(has_pair));
            let dials = gateway.stream_dials;
            assert!(if has_pair { dials > 10 } else { dials == 1 }, "{dials}");
            // It comes back whenever there is something to say.
            gateway.no_stream = None;
            pass(&mut gateway, Duration::from_secs(60)).await;
            provoke(&mut gateway).await;
            let answered = gateway.stanzas.iter().filter(|stanza| stanza.contains("type='result'"));
            assert_eq!(answered.count(), 1, "{:?}", gateway.stanzas);
        });
    }
}

#[test]
fn a_session_that_rests_ends_after_a_while_and_is_started_again() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        for seconds in [29, 31, 29, 31] {
            gateway.stanzas.clear();
            provoke(&mut gateway).await;
            assert!(gateway.stanzas[0].contains("type='result'"), "{:?}", gateway.stanzas);
            let (stream, _) = gateway.opened.remove(0);
            tokio::time::advance(Duration::from_secs(100)).await;
            gateway.stream_ends(stream, StreamEnd::Closed);
            gateway.settle().await;
            tokio::time::advance(Duration::from_secs(seconds)).await;
            gateway.settle().await;
            assert_eq!(gateway.broker.sessions().await.len(), usize::from(seconds < 30), "after {seconds} s");
        }
    });
}

#[test]
fn a_lost_partner_is_reported_with_its_cause_and_next_dial_until_it_is_back_or_removed() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.no_stream = Some(StreamEnd::Unreachable("192.0.2.1:5269: down".into()));
        let stream = gateway.stream_from_partner(HOME);
        let subscribe = format!("<presence from='{JULIET}' to='romeo@{HOME}' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        gateway.settle().await;
        let part = |gateway: &Gateway| {
            let parts = gateway.broker.metrics().health().parts();
            let part = parts.into_iter().find(|part| part.name == "partners").expect("the part");
            (part.state, part.note)
        };
        let is_shown = |gateway: &Gateway, value: u8| {
            let line = format!("tombolo_partner_up{{partner=\"xmpp.example\"}} {value}\n");
            gateway.broker.metrics().render().contains(&line)
        };
        pass(&mut gateway, Duration::from_secs(3)).await;
        let session = gateway.broker.sessions().await.remove(0);
        assert_eq!(session.state, SessionState::Lost);
        assert_eq!(session.in_state_for, Duration::from_secs(3));
        assert!(session.next_dial.is_some_and(|wait| wait <= Duration::from_secs(60)), "{session:?}");
        assert!(session.last_failure.is_some_and(|cause| cause.contains("192.0.2.1:5269: down")));
        let (state, note) = part(&gateway);
        assert!(state == PartState::Noted && note.contains("xmpp.example: "), "{note}");
        assert!(is_shown(&gateway, 0));

        let before = gateway.broker.policy();
        let nobody = tombolo_policy::Table::new(2, before.local_domains().to_vec(), vec![]);
        gateway.broker.set_policy(std::sync::Arc::new(nobody.expect("no conflict")));
        gateway.settle().await;
        assert!(gateway.broker.sessions().await.is_empty());
        assert_eq!(part(&gateway), (PartState::Up, String::new()));
        assert!(!gateway.broker.metrics().render().contains("xmpp.example"));
        pass(&mut gateway, Duration::from_secs(61)).await;
        assert_eq!(part(&gateway).0, PartState::Up, "its session still looks for it");

        let (locals, partners) = (before.local_domains().to_vec(), before.partners().to_vec());
        let again = tombolo_policy::Table::new(3, locals, partners).expect("no conflict");
        gateway.broker.set_policy(std::sync::Arc::new(again));
        pass(&mut gateway, Duration::from_secs(62)).await;
        assert!(is_shown(&gateway, 0), "{:?}", gateway.broker.sessions().await);
        gateway.no_stream = None;
        pass(&mut gateway, Duration::from_secs(62)).await;
        assert_eq!(gateway.broker.sessions().await[0].state, SessionState::Connected);
        assert_eq!(part(&gateway).0, PartState::Up);
        assert!(is_shown(&gateway, 1));
    });
}

#[test]
fn a_dial_that_hangs_is_reported_as_such_and_not_with_the_cause_of_the_one_before() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.no_stream = Some(StreamEnd::Unreachable("connection refused".into()));
        let stream = gateway.stream_from_partner(HOME);
        let subscribe = format!("<presence from='{JULIET}' to='romeo@{HOME}' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        gateway.settle().await;
        gateway.dials_hang = true;
        let cause = async |gateway: &Gateway| gateway.broker.sessions().await.remove(0).last_failure;
        assert!(cause(&gateway).await.is_some_and(|cause| cause.contains("connection refused")));
        pass(&mut gateway, Duration::from_secs(80)).await;
        let told = cause(&gateway).await.unwrap_or_default();
        assert!(told.contains("no answer in time"), "{told}");
    });
}

#[test]
fn partners_that_are_waited_for_are_tried_at_once_when_our_certificate_is_a_new_one() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.no_stream = Some(StreamEnd::Unauthenticated("certificate expired".into()));
        let stream = gateway.stream_from_partner(HOME);
        let subscribe = format!("<presence from='{JULIET}' to='romeo@{HOME}' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        gateway.settle().await;
        pass(&mut gateway, Duration::from_secs(600)).await;
        gateway.no_stream = None;
        let dials = gateway.stream_dials;
        assert_eq!(gateway.broker.retry_all_of("other.example"), 0);
        assert_eq!(gateway.broker.retry_all_of(HOME), 1);
        gateway.settle().await;
        assert_eq!(gateway.stream_dials, dials + 1);
        assert!(!gateway.broker.sessions().await[0].is_lost);
    });
}

#[test]
fn a_partner_that_is_removed_while_it_is_lost_is_not_dialled_any_more() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.no_stream = Some(StreamEnd::Unreachable("down".into()));
        let stream = gateway.stream_from_partner(HOME);
        let subscribe = format!("<presence from='{JULIET}' to='romeo@{HOME}' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        gateway.settle().await;
        assert!(gateway.stream_dials > 0);
        let nobody = tombolo_policy::Table::new(2, gateway.broker.policy().local_domains().to_vec(), vec![]);
        gateway.broker.set_policy(std::sync::Arc::new(nobody.expect("no conflict")));
        gateway.settle().await;
        let dials = gateway.stream_dials;
        pass(&mut gateway, Duration::from_secs(600)).await;
        assert!(gateway.stream_dials <= dials + 1, "{} more", gateway.stream_dials - dials);
        // Put back, it is tried within a minute or so.
        gateway.no_stream = None;
        gateway.broker.set_policy(std::sync::Arc::new(table(u32::MAX)));
        pass(&mut gateway, Duration::from_secs(62)).await;
        assert_eq!(gateway.opened.len(), 1);
    });
}

#[test]
fn a_lost_partner_that_comes_to_us_is_dialled_at_once() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.no_stream = Some(StreamEnd::Unreachable("down".into()));
        let stream = gateway.stream_from_partner(HOME);
        let subscribe = format!("<presence from='{JULIET}' to='romeo@{HOME}' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        pass(&mut gateway, Duration::from_secs(300)).await;
        let dials = gateway.stream_dials;
        gateway.no_stream = None;
        gateway.stream_from_partner(HOME);
        gateway.settle().await;
        assert_eq!((gateway.stream_dials, gateway.opened.len()), (dials + 1, 1));
    });
}

#[test]
fn a_message_to_the_domain_itself_is_refused_to_its_sender() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let stream = gateway.stream_from_partner(HOME);
        for kind in ["chat", "normal"] {
            let message = format!(
                "<message from='{JULIET}/b' to='{HOME}' type='{kind}' id='7'><body>hi</body></message>"
            );
            gateway.stanzas_come(stream, &[&message]);
            gateway.settle().await;
            let answer = gateway.stanzas.remove(0);
            assert!(answer.contains("<service-unavailable ") && answer.contains("type='error'"), "{answer}");
            assert!(answer.contains(&format!("from='{HOME}' to='{JULIET}/b'")), "{answer}");
        }
        gateway.stanzas_come(
            stream,
            &[
                &format!("<message from='{JULIET}/b' to='{HOME}' type='error' id='7'/>"),
                &format!("<presence from='{JULIET}/b' to='{HOME}'/>"),
            ],
        );
        gateway.settle().await;
        assert!(gateway.stanzas.is_empty(), "no error for an error or a presence: {:?}", gateway.stanzas);
    });
}

#[test]
fn what_is_for_no_address_is_refused_in_the_name_of_the_domain_that_it_was_for() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let stream = gateway.stream_from_partner(HOME);
        let pair = tombolo_edge::DomainPair { local: domain(CORP), remote: domain(PARTNER) };
        gateway.edge_reports(FromEdge::PairProved { stream, pair });
        for local in [HOME, CORP] {
            let message = format!("<message from='{JULIET}/b' to='@{local}' type='chat' id='7'/>");
            gateway.stanzas_come(stream, &[&message]);
            gateway.settle().await;
            let answer = gateway.stanzas.remove(0);
            assert!(
                answer.contains("<jid-malformed ") && answer.contains(&format!("from='{local}'")),
                "{answer}"
            );
            assert_eq!(gateway.opened.remove(0).1.local, domain(local), "by the session of that domain");
        }
        gateway.stanzas_come(
            stream,
            &[&format!("<message from='{JULIET}/b' to='@elsewhere.example' type='chat' id='7'/>")],
        );
        gateway.settle().await;
        assert!(gateway.stanzas.is_empty(), "{:?}", gateway.stanzas);
    });
}

#[test]
fn stanzas_that_nobody_has_taken_yet_are_bounded_in_octets() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let stream = gateway.stream_from_partner(HOME);
        let status = "x".repeat(64 << 10);
        let stanza =
            format!("<presence from='{JULIET}/b' to='romeo@{HOME}'><status>{status}</status></presence>");
        // No shard runs meanwhile.
        let taken = (0..4096).take_while(|_| gateway.offer_stanza(stream, &stanza)).count();
        assert!((200..=256).contains(&taken), "{taken} of 64 KiB");
        gateway.settle().await;
        assert!(gateway.offer_stanza(stream, &stanza), "what was taken makes room");
    });
}

#[test]
fn whoever_saw_a_notify_does_not_end_its_dialog_by_another_flow() {
    run(async {
        let mut gateway = Gateway::start(Approve::All);
        let phone = flow(1, Transport::Tcp, "192.0.2.1:40000");
        let mallory = flow(2, Transport::Tcp, "192.0.2.9:40000");
        gateway.register(&phone, "romeo").await;
        gateway.register(&mallory, "tybalt").await;
        // Both are notified, so that both flows may bring answers.
        let event = "Event: presence\r\nExpires: 600\r\n";
        for (flow, user) in [(&mallory, "tybalt"), (&phone, "romeo")] {
            assert_eq!(gateway.ask(flow, "SUBSCRIBE", user, JULIET, event, "").await.status(), Some(200));
        }
        let notify = gateway.heard(&phone).remove(0);
        let gone = answer_to(&notify, 481);
        let stranger = flow(3, Transport::Tcp, "192.0.2.10:40000");
        gateway.flow_reports(FromFlow::FlowUp(stranger.clone()));
        for _ in 0..3 {
            gateway.says(&mallory, &gone);
            gateway.says(&stranger, &gone);
        }
        gateway.settle().await;
        let dialogs = async |gateway: &Gateway| gateway.broker.shards().await[0].report.notifier_dialogs;
        assert_eq!(dialogs(&gateway).await, 2);
        gateway.says(&phone, &gone);
        gateway.settle().await;
        assert_eq!(dialogs(&gateway).await, 1);
    });
}

fn answer_to(request: &tombolo_sip::message::Message, status: u16) -> String {
    let row = |name: &str| {
        let rows = request.all_rows().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        rows.map(|(_, value)| format!("{name}: {value}\r\n")).collect::<String>()
    };
    let copied = ["Via", "From", "To", "Call-ID", "CSeq"].map(row).concat();
    format!("SIP/2.0 {status} x\r\n{copied}Content-Length: 0\r\n\r\n")
}

#[test]
fn a_message_that_was_accepted_and_may_not_have_arrived_comes_back_to_its_sender() {
    for answers_pings in [false, true] {
        run(async move {
            tokio::time::pause();
            let mut gateway = Gateway::start(Approve::Partner);
            gateway.answers_pings = answers_pings;
            let phone = flow(1, Transport::Tcp, "192.0.2.1:40000");
            gateway.register(&phone, "romeo").await;
            let text = gateway.request("MESSAGE", "romeo", JULIET, "Content-Type: text/plain\r\n", "hi");
            gateway.says(&phone, &text);
            pass(&mut gateway, Duration::from_secs(40)).await;
            let statuses: Vec<_> = gateway.heard(&phone).iter().filter_map(|m| m.status()).collect();
            assert_eq!(statuses, [202]);
            let (stream, _) = gateway.opened.remove(0);
            gateway.stream_ends(stream, StreamEnd::Broken("cable".into()));
            gateway.settle().await;
            let methods: Vec<_> =
                gateway.answer_all(&phone, 200).iter().map(|m| m.method_text().to_owned()).collect();
            assert_eq!(methods.contains(&"MESSAGE".to_owned()), !answers_pings, "{methods:?}");
        });
    }
}
