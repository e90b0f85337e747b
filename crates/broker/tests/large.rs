//! What is large for UDP toward a phone that registered by it (RFC 3261 §18.1.1).

#[allow(dead_code, reason = "other tests use the rest of it")]
mod common;

use common::*;
use tombolo_edge::{FromFlow, Transport};
use tombolo_policy::Approve;

const JULIET: &str = "juliet@xmpp.example";
const ROMEO: &str = "romeo@sip.example";

fn large_message() -> String {
    format!("<message from='{JULIET}' to='{ROMEO}' id='m1'><body>{}</body></message>", "x".repeat(3000))
}

#[test]
fn sip_t_05_a_phone_by_udp_is_dialled_at_its_contact_and_takes_a_large_message_by_tcp() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Udp, "192.0.2.1:5060");
        gateway.contact_host = "192.0.2.1";
        gateway.register(&phone, "romeo").await;
        let stream = gateway.stream_from_partner(HOME);
        gateway.stanzas_come(stream, &[&large_message()]);
        gateway.settle().await;
        let dials: Vec<_> =
            gateway.dials.iter().map(|(_, transport, host, port)| (*transport, &**host, *port)).collect();
        assert_eq!(dials, [(Transport::Tcp, "192.0.2.1", Some(5060))]);
        let by_tcp = gateway.dial_answered(2);
        gateway.settle().await;
        let heard = gateway.answer_all(&by_tcp, 200);
        assert_eq!(heard.iter().map(|m| m.body().len()).collect::<Vec<_>>(), [3000]);
        assert!(heard[0].vias().next().is_some_and(|via| via.starts_with("SIP/2.0/TCP ")));
        // Who answers there has proved nothing by that.
        let publish = gateway.request("PUBLISH", "romeo", ROMEO, "Event: presence\r\n", "");
        gateway.says(&by_tcp, &publish);
        gateway.settle().await;
        assert_eq!(gateway.heard(&by_tcp).last().and_then(|m| m.status()), Some(401));
    });
}

#[test]
fn a_phone_behind_a_nat_is_not_dialled_and_one_that_refuses_has_its_sender_told() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Udp, "192.0.2.1:5060");
        gateway.contact_host = "192.168.0.7";
        gateway.register(&phone, "romeo").await;
        let stream = gateway.stream_from_partner(HOME);
        gateway.stanzas_come(stream, &[&large_message()]);
        gateway.settle().await;
        assert!(gateway.dials.is_empty());
        assert!(gateway.heard(&phone).is_empty());

        let other = flow(2, Transport::Udp, "192.0.2.2:5060");
        gateway.contact_host = "192.0.2.2";
        gateway.register(&other, "mercutio").await;
        gateway.stanzas_come(stream, &[&large_message().replace(ROMEO, "mercutio@sip.example")]);
        gateway.settle().await;
        let (dial, ..) = gateway.dials.remove(0);
        let before = gateway.stanzas.len();
        gateway.flow_reports(FromFlow::DialFailed { dial, cause: "refused".into() });
        gateway.settle().await;
        assert!(gateway.dials.is_empty() && gateway.heard(&other).is_empty());
        assert!(gateway.stanzas.len() > before, "the sender is told");
    });
}
