//! Front ends: by which way they are reached, how they are seen to stand, and that nobody else takes their place.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod common;

use std::time::Duration;

use common::*;
use tombolo_edge::{FromFlow, Transport};
use tombolo_interwork::owner::PeerHealth;
use tombolo_policy::Approve;

const JULIET: &str = "juliet@xmpp.example";
const EVENT: &str = "Event: presence\r\nExpires: 600\r\n";

#[test]
fn one_datagram_from_a_trusted_address_takes_no_request_away_from_the_next_hop() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.broker.set_policy(std::sync::Arc::new(table_by_datagrams()));
        gateway.settle().await;
        let forged = flow(9, Transport::Udp, "127.0.0.31:9");
        gateway.flow_reports(FromFlow::FlowUp(forged.clone()));
        let text = gateway.request("OPTIONS", "x", HOME, "", "");
        gateway.says(&forged, &text.replace("<sip:x@sip.example>", "<sip:x@corp.example>"));
        gateway.settle().await;
        assert_eq!(gateway.heard(&forged).iter().filter_map(|m| m.status()).collect::<Vec<_>>(), [200]);
        assert!(gateway.bound.is_empty(), "nor does it take the place of those who proved themselves");
        let stream = gateway.stream_from_partner(CORP);
        let subscribe =
            |from: &str| format!("<presence from='{from}' to='benvolio@corp.example' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe(JULIET)]);
        gateway.settle().await;
        assert!(gateway.heard(&forged).is_empty());
        let next_hop = gateway.front_end_answered(1);
        gateway.settle().await;
        let asked: Vec<_> = gateway.heard(&next_hop).iter().map(|m| m.method_text().to_owned()).collect();
        assert_eq!(asked, ["SUBSCRIBE", "OPTIONS"]);
        // Nor does another one later.
        gateway.says(
            &forged,
            &text.replace("<sip:x@sip.example>", "<sip:x@corp.example>").replace("CSeq: ", "CSeq: 1"),
        );
        gateway.stanzas_come(stream, &[&subscribe("nurse@xmpp.example")]);
        gateway.settle().await;
        assert!(gateway.heard(&forged).iter().all(|message| !message.is_request()));
        assert!(gateway.heard(&next_hop).iter().any(|message| message.method_text() == "SUBSCRIBE"));
    });
}

#[test]
fn sip_d_17_how_a_front_end_stands_is_seen_by_operators() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.settle().await;
        let part = |gateway: &Gateway| {
            let parts = gateway.broker.metrics().health().parts();
            parts.into_iter().find(|part| part.name == "front_ends").map(|part| part.note)
        };
        let next_hop = gateway.front_end_answered(1);
        gateway.settle().await;
        gateway.answer_all(&next_hop, 200);
        gateway.settle().await;
        let [report] = &gateway.broker.front_ends().await[..] else { panic!("one front end") };
        assert_eq!((report.domain.as_str(), report.health), (CORP, PeerHealth::Up));
        assert_eq!((report.remote, report.cause), (Some(next_hop.remote), None));
        assert!(
            gateway.broker.metrics().render().contains("tombolo_front_end_up{domain=\"corp.example\"} 1")
        );
        tokio::time::advance(Duration::from_secs(31)).await;
        gateway.settle().await;
        assert!(gateway.heard(&next_hop).iter().any(|message| message.method_text() == "OPTIONS"));
        tokio::time::advance(Duration::from_secs(11)).await;
        gateway.settle().await;
        let [report] = &gateway.broker.front_ends().await[..] else { panic!("one front end") };
        assert_eq!((report.health, report.cause), (PeerHealth::Doubtful, Some("no answer to OPTIONS")));
        assert!(
            gateway.broker.metrics().render().contains("tombolo_front_end_up{domain=\"corp.example\"} 0")
        );
        assert_eq!(part(&gateway).as_deref(), Some("corp.example: no answer to OPTIONS"));
        gateway.broker.set_policy(std::sync::Arc::new(table_without_front_end()));
        tokio::time::advance(Duration::from_secs(120)).await;
        gateway.settle().await;
        assert!(gateway.broker.front_ends().await.is_empty(), "it is none any more");
        assert_eq!(part(&gateway).as_deref(), Some(""));
        assert!(!gateway.broker.metrics().render().contains("tombolo_front_end_up{"));
    });
}

#[test]
fn the_connection_that_one_domain_dialled_is_no_way_to_another_domains_next_hop() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.settle().await;
        gateway.broker.set_policy(std::sync::Arc::new(table_of_two_front_ends()));
        gateway.settle().await;
        let corp = gateway.front_end_answered(1);
        gateway.settle().await;
        assert_eq!(corp.remote.port(), 5060);
        let stream = gateway.stream_from_partner("other.example");
        let subscribe = format!("<presence from='{JULIET}' to='abram@other.example' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        gateway.settle().await;
        assert!(gateway.heard(&corp).iter().all(|message| message.method_text() == "OPTIONS"));
        let other = gateway.front_end_answered(2);
        gateway.settle().await;
        assert_eq!(other.remote.port(), 5080);
        assert!(gateway.heard(&other).iter().any(|message| message.method_text() == "SUBSCRIBE"));
    });
}

#[test]
fn sip_d_17_answers_to_notifys_count_as_heard_from_when_they_came() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.settle().await;
        let next_hop = gateway.front_end_answered(1);
        gateway.settle().await;
        gateway.answer_all(&next_hop, 200);
        let text = gateway.request("SUBSCRIBE", "x", JULIET, EVENT, "");
        gateway.says(&next_hop, &text.replace("<sip:x@sip.example>", "<sip:benvolio@corp.example>"));
        gateway.settle().await;
        gateway.answer_all(&next_hop, 200);
        tokio::time::advance(Duration::from_secs(20)).await;
        let stream = gateway.stream_from_partner(CORP);
        gateway.stanzas_come(
            stream,
            &[&format!("<presence from='{JULIET}' to='benvolio@corp.example' type='subscribed'/>")],
        );
        gateway.settle().await;
        let methods = |heard: Vec<tombolo_sip::message::Message>| -> Vec<String> {
            heard.iter().map(|message| message.method_text().to_owned()).collect()
        };
        assert!(methods(gateway.answer_all(&next_hop, 200)).contains(&"NOTIFY".to_owned()));
        for (seconds, is_asked) in [(29, false), (2, true)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            gateway.settle().await;
            assert_eq!(
                methods(gateway.heard(&next_hop)).contains(&"OPTIONS".to_owned()),
                is_asked,
                "{seconds}"
            );
        }
    });
}
