//! The gateway's actors as a whole: who is believed, what is asked of whom, and what survives.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod common;

use std::time::Duration;

use common::*;
use tombolo_edge::{FromEdge, FromFlow, StreamEnd, Transport};
use tombolo_policy::Approve;
use tombolo_runtime::Clock;

const ROMEO: &str = "romeo@sip.example";
const JULIET: &str = "juliet@xmpp.example";
const MERCUTIO: &str = "mercutio@sip.example";
const EVENT: &str = "Event: presence\r\nExpires: 600\r\n";

fn pidf(note: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'><tuple id='ID-desk'><status>\
         <basic>open</basic></status><note>{note}</note></tuple></presence>"
    )
}

#[test]
fn stox_a_23_nobody_speaks_for_another_than_the_connection_proved() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        // A front end speaks for its own domain only, whatever its connection is worth.
        let front_end = flow(1, Transport::Tcp, "127.0.0.31:5060");
        gateway.flow_reports(FromFlow::FlowUp(front_end.clone()));
        for (from, status) in [("juliet@xmpp.example", 403), (ROMEO, 403), ("benvolio@corp.example", 202)] {
            let text = gateway
                .request("MESSAGE", "x", JULIET, "Content-Type: text/plain\r\n", "hi")
                .replace("<sip:x@sip.example>", &format!("<sip:{from}>"));
            gateway.says(&front_end, &text);
            gateway.settle().await;
            let status_line: Vec<_> = gateway.heard(&front_end).iter().filter_map(|m| m.status()).collect();
            assert_eq!(status_line, [status], "{from}");
        }
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
        // So does a phone for its own user.
        let phone = flow(2, Transport::Tcp, "192.0.2.1:40000");
        gateway.register(&phone, "romeo").await;
        let forged = gateway.ask(&phone, "MESSAGE", "mercutio", JULIET, "Content-Type: text/plain\r\n", "hi");
        assert_eq!(forged.await.status(), Some(403), "proved, but of no phone of Mercutio's");
        let text = gateway.request("MESSAGE", "mercutio", JULIET, "Content-Type: text/plain\r\n", "hi");
        gateway.says(&phone, &text);
        gateway.settle().await;
        assert_eq!(gateway.heard(&phone).iter().filter_map(|m| m.status()).collect::<Vec<_>>(), [401]);
        // An address that is trusted for nothing is a stranger.
        let stranger = flow(3, Transport::Tcp, "127.0.0.32:5060");
        gateway.flow_reports(FromFlow::FlowUp(stranger.clone()));
        let text = gateway
            .request("MESSAGE", "x", JULIET, "Content-Type: text/plain\r\n", "hi")
            .replace("<sip:x@sip.example>", "<sip:benvolio@corp.example>");
        gateway.says(&stranger, &text);
        gateway.settle().await;
        assert_eq!(gateway.heard(&stranger).iter().filter_map(|m| m.status()).next(), Some(401));
        // What an edge lets through by mistake is looked at again.
        let stream = gateway.stream_from_partner(HOME);
        gateway.stanzas_come(
            stream,
            &[
                "<presence from='juliet@other.example' to='romeo@sip.example' type='subscribe'/>",
                "<presence from='juliet@xmpp.example' to='benvolio@corp.example' type='subscribe'/>",
            ],
        );
        gateway.settle().await;
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
        assert!(gateway.heard(&front_end).is_empty() && gateway.dials.is_empty());
    });
}

#[test]
fn stox_m_23_a_message_that_comes_five_times_becomes_one_stanza_and_is_answered_each_time() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.broker.set_policy(std::sync::Arc::new(table_by_datagrams()));
        let front_end = flow(1, Transport::Udp, "127.0.0.31:5060");
        gateway.flow_reports(FromFlow::FlowUp(front_end.clone()));
        let text = gateway
            .request("MESSAGE", "x", JULIET, "Content-Type: text/plain\r\n", "hi")
            .replace("<sip:x@sip.example>", "<sip:benvolio@corp.example>");
        for _ in 0..5 {
            gateway.says(&front_end, &text);
            gateway.settle().await;
        }
        let statuses: Vec<_> = gateway.heard(&front_end).iter().filter_map(|m| m.status()).collect();
        assert_eq!(statuses, [202; 5]);
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
    });
}

#[test]
fn sip_p_02_sip_e_24_who_proves_nothing_is_challenged_by_401_and_learns_nothing() {
    run(async {
        let mut gateway = Gateway::start(Approve::All);
        let (guest, phone) =
            (flow(1, Transport::Udp, "192.0.2.9:5060"), flow(2, Transport::Udp, "192.0.2.1:5060"));
        gateway.register(&phone, "romeo").await;
        assert_eq!(
            gateway
                .ask(
                    &phone,
                    "PUBLISH",
                    "romeo",
                    ROMEO,
                    &format!("{EVENT}Content-Type: application/pidf+xml\r\n"),
                    &pidf("here")
                )
                .await
                .status(),
            Some(200)
        );
        gateway.flow_reports(FromFlow::FlowUp(guest.clone()));
        for flow in [&guest, &phone] {
            for expires in [0, 600] {
                let event = format!("Event: presence\r\nExpires: {expires}\r\n");
                let text = gateway.request("SUBSCRIBE", "romeo", ROMEO, &event, "");
                gateway.says(flow, &text);
                gateway.settle().await;
                let said = gateway.heard(flow);
                let [response] = &said[..] else { panic!("{} messages", said.len()) };
                assert_eq!(response.status(), Some(401));
                assert!(response.www_authenticate().count() > 0 && response.body().is_empty());
            }
        }
        // With the proof it sees.
        let granted = gateway.ask(&phone, "SUBSCRIBE", "romeo", ROMEO, EVENT, "").await;
        assert_eq!(granted.status(), Some(200));
        let said = gateway.heard(&phone);
        assert!(said.iter().any(|m| String::from_utf8_lossy(m.body()).contains(">here<")), "{}", said.len());
    });
}

#[test]
fn sip_p_17_without_a_proved_register_nobody_is_there() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Udp, "192.0.2.1:5060");
        gateway.flow_reports(FromFlow::FlowUp(phone.clone()));
        let text = gateway.request("REGISTER", "romeo", HOME, "Expires: 600\r\n", "");
        gateway.says(&phone, &text);
        gateway.settle().await;
        assert_eq!(gateway.heard(&phone).iter().filter_map(|m| m.status()).collect::<Vec<_>>(), [401]);
        let stream = gateway.stream_from_partner(HOME);
        let message = format!("<message from='{JULIET}' to='{ROMEO}' id='1'><body>hi</body></message>");
        gateway.stanzas_come(stream, &[&message]);
        gateway.settle().await;
        assert!(gateway.stanzas.remove(0).contains("type='error'"));
        assert!(gateway.heard(&phone).is_empty());
        let status = gateway.ask(&phone, "PUBLISH", "romeo", ROMEO, EVENT, "").await.status();
        assert_eq!(status, Some(403), "nor may it publish");
        gateway.register(&phone, "romeo").await;
        gateway.stanzas_come(stream, &[&message]);
        gateway.settle().await;
        assert_eq!(gateway.heard(&phone).iter().filter(|m| m.is_request()).count(), 1);
        // Nor is a connection that proved it once believed the next time.
        let by_stream = flow(2, Transport::Tcp, "192.0.2.2:40000");
        gateway.register(&by_stream, "mercutio").await;
        let text = gateway.request("REGISTER", "mercutio", HOME, "Expires: 600\r\n", "");
        gateway.says(&by_stream, &text);
        gateway.settle().await;
        assert_eq!(gateway.heard(&by_stream).iter().filter_map(|m| m.status()).collect::<Vec<_>>(), [401]);
    });
}

#[test]
fn xs_adr_04_xs_str_12_queries_are_answered_for_the_domains_and_their_users() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let ask = |to: &str, kind: &str, payload: &str| {
            format!("<iq from='{JULIET}/b' to='{to}' type='{kind}' id='7'>{payload}</iq>")
        };
        for local in [HOME, CORP] {
            let stream = gateway.stream_from_partner(local);
            for to in [local.to_owned(), format!("x@{local}"), format!("x@{local}/desk")] {
                for (kind, payload, expected) in [
                    ("get", "<ping xmlns='urn:xmpp:ping'/>", "type='result'"),
                    ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "<identity "),
                    ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", "type='result'"),
                    ("get", "<query xmlns='jabber:iq:version'/>", "<name>Tombolo</name>"),
                    ("get", "<query xmlns='jabber:iq:last'/>", "<service-unavailable "),
                    ("set", "<query xmlns='jabber:iq:roster'/>", "<service-unavailable "),
                    ("set", "<ping xmlns='urn:xmpp:ping'/>", "<service-unavailable "),
                ] {
                    gateway.stanzas_come(stream, &[&ask(&to, kind, payload)]);
                    gateway.settle().await;
                    assert_eq!(gateway.stanzas.len(), 1, "{to} {payload}");
                    let answer = gateway.stanzas.remove(0);
                    assert!(answer.contains(expected), "{to} {payload}: {answer}");
                    let head = format!("from='{to}' to='{JULIET}/b'");
                    assert!(answer.contains(&head) && answer.contains("id='7'"), "{answer}");
                }
                let error = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
                gateway.stanzas_come(stream, &[&ask(&to, "result", ""), &ask(&to, "error", error)]);
                gateway.settle().await;
                assert!(gateway.stanzas.is_empty(), "answers are not answered: {:?}", gateway.stanzas);
                // RFC 6120 §8.2.3: a request of no known type, or without exactly one element.
                let ping = "<ping xmlns='urn:xmpp:ping'/>";
                for (kind, payload) in [("get", ""), ("set", &ping.repeat(2)[..]), ("ask", ping)] {
                    gateway.stanzas_come(stream, &[&ask(&to, kind, payload)]);
                    gateway.settle().await;
                    let answer = gateway.stanzas.remove(0);
                    assert!(answer.contains("<bad-request ") && answer.contains("id='7'"), "{answer}");
                }
                let without_id = ask(&to, "get", ping).replace(" id='7'", "");
                gateway.stanzas_come(stream, &[&without_id, &without_id.replace("'get'", "'result'")]);
                gateway.settle().await;
                assert!(gateway.stanzas.is_empty(), "nothing says what it answers: {:?}", gateway.stanzas);
            }
        }
    });
}

#[test]
fn a_stanza_for_no_address_is_refused_to_its_sender_in_the_name_of_our_domain() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let stream = gateway.stream_from_partner(HOME);
        let stanza = |kind: &str| format!("<message from='{JULIET}/b' to='@{HOME}' type='{kind}' id='7'/>");
        gateway.stanzas_come(stream, &[&stanza("chat")]);
        gateway.settle().await;
        let [answer] = &gateway.stanzas[..] else { panic!("{:?}", gateway.stanzas) };
        assert!(answer.contains("<jid-malformed ") && answer.contains("type='error'"), "{answer}");
        assert!(
            answer.contains(&format!("from='{HOME}' to='{JULIET}/b'")) && answer.contains("id='7'"),
            "{answer}"
        );
        gateway.stanzas.clear();
        let strange = stanza("chat").replace(JULIET, "mallory@elsewhere.example");
        gateway.stanzas_come(stream, &[&stanza("error"), &strange]);
        gateway.settle().await;
        assert!(
            gateway.stanzas.is_empty(),
            "no error for an error, nor for whom nobody proved: {:?}",
            gateway.stanzas
        );
    });
}

#[test]
fn xs_adr_01_a_malformed_address_costs_its_stanza_and_its_sender_is_told_where_that_can_be() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let stream = gateway.stream_from_partner(HOME);
        let before = gateway.metric("tombolo_malformed_addresses_total");
        for (from, to, told) in [
            (format!("{JULIET}/\u{7}"), format!("alice@{HOME}"), Some((HOME, JULIET))),
            (format!("a b@{PARTNER}/x"), format!("alice@{HOME}"), None),
            (format!("♚@{PARTNER}"), format!("alice@{HOME}"), None),
            (JULIET.to_owned(), "alice@".to_owned(), Some((HOME, JULIET))),
            (JULIET.to_owned(), format!("\"alice\"@{HOME}"), Some((HOME, JULIET))),
        ] {
            gateway
                .stanzas_come(stream, &[&format!("<message from='{from}' to='{to}' type='chat' id='7'/>")]);
            gateway.settle().await;
            let answers = std::mem::take(&mut gateway.stanzas);
            match told {
                None => assert!(answers.is_empty(), "{from} {to}: {answers:?}"),
                Some((local, sender)) => {
                    let [answer] = &answers[..] else { panic!("{from} {to}: {answers:?}") };
                    assert!(answer.contains("<jid-malformed "), "{answer}");
                    assert!(answer.contains(&format!("from='{local}' to='{sender}'")), "{answer}");
                }
            }
        }
        assert_eq!(gateway.metric("tombolo_malformed_addresses_total"), before + 5);
    });
}

#[test]
fn xs_str_11_a_ping_is_answered_by_the_partners_stream_to_us_or_our_stream_and_its_silent_ones_are_given_up()
{
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.answers_pings = false;
        let stream = gateway.stream_from_partner(HOME);
        let subscribe = format!("<presence from='{JULIET}' to='{ROMEO}' type='subscribe'/>");
        gateway.stanzas_come(stream, &[&subscribe]);
        gateway.settle().await;
        gateway.stanzas.clear();
        for is_answered in [true, true, false] {
            let ping = gateway.pings.remove(0);
            assert!(gateway.pings.is_empty(), "{:?}", gateway.pings);
            assert!(ping.contains("type='get' id='tombolo-ping-") && ping.contains("<ping "), "{ping}");
            let id = ping.split_once("id='").and_then(|(_, rest)| rest.split_once('\'')).expect("an id").0;
            if is_answered {
                // An error is an answer too.
                let answer = format!("<iq from='{PARTNER}' to='{HOME}' type='error' id='{id}'/>");
                gateway.stanzas_come(stream, &[&answer]);
                gateway.settle().await;
            }
            tokio::time::advance(Duration::from_secs(31)).await;
            gateway.settle().await;
            let own = gateway.opened[0].0;
            let expected = if is_answered { vec![] } else { vec![stream, own] };
            assert_eq!(gateway.given_up, expected);
        }
    });
}

#[test]
fn a_broken_stream_of_the_partners_has_the_watched_contacts_probed_though_ours_stays_up() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::All);
        let phone = flow(1, Transport::Tcp, "192.0.2.1:40000");
        gateway.register(&phone, "romeo").await;
        let event = "Event: presence\r\nExpires: 600\r\n";
        assert_eq!(gateway.ask(&phone, "SUBSCRIBE", "romeo", JULIET, event, "").await.status(), Some(200));
        let stream = gateway.stream_from_partner(HOME);
        gateway.stanzas_come(
            stream,
            &[
                &format!("<presence from='{JULIET}' to='{ROMEO}' type='subscribed'/>"),
                &format!("<presence from='{JULIET}/b' to='{ROMEO}'/>"),
            ],
        );
        for _ in 0..3 {
            gateway.settle().await;
            gateway.answer_all(&phone, 200);
        }
        for end in [StreamEnd::Closed, StreamEnd::Broken("reset".into())] {
            gateway.stanzas.clear();
            let stream = gateway.stream_from_partner(HOME);
            let is_clean = end.is_clean();
            gateway.edge_reports(FromEdge::StreamDown { stream, end, last_written: 0 });
            gateway.settle().await;
            let probes = gateway.stanzas.iter().filter(|stanza| stanza.contains("type='probe'"));
            assert_eq!(probes.count(), usize::from(!is_clean), "{:?}", gateway.stanzas);
        }
        // Nobody answers: the contact is unknown, and its watcher is told.
        tokio::time::advance(Duration::from_secs(31)).await;
        gateway.settle().await;
        let told = gateway.answer_all(&phone, 200);
        let body = String::from_utf8_lossy(told.last().expect("a NOTIFY").body()).into_owned();
        assert!(body.contains("<basic>closed</basic>"), "{body}");
    });
}

#[test]
fn xs_adr_06_stanzas_of_a_pair_take_effect_in_the_order_in_which_they_came() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        gateway.answers_pings = true;
        let stream = gateway.stream_from_partner(HOME);
        let stanza = |kind: &str| format!("<presence from='{JULIET}' to='{ROMEO}' type='{kind}'/>");
        let (subscribe, unsubscribe) = (stanza("subscribe"), stanza("unsubscribe"));
        for last in [&subscribe, &unsubscribe] {
            // One batch, and one batch each: with others' stanzas in between, while rows are being stored.
            gateway.stanzas_come(stream, &[&subscribe, &unsubscribe, &subscribe, &unsubscribe]);
            for n in 0..20 {
                let other = format!("<presence from='u{n}@xmpp.example' to='{ROMEO}' type='subscribe'/>");
                gateway.stanzas_come(stream, &[&other, if n % 2 == 0 { &subscribe } else { &unsubscribe }]);
            }
            gateway.stanzas_come(stream, &[last]);
            gateway.settle().await;
            let about = |stanza: &&String| stanza.contains(&format!("to='{JULIET}'"));
            let kinds: Vec<_> = gateway.stanzas.iter().filter(about).collect();
            let expected = if last == &subscribe { "subscribed" } else { "unsubscribed" };
            let last_said = kinds.iter().rev().find(|stanza| stanza.contains("subscribed'"));
            assert!(last_said.is_some_and(|said| said.contains(&format!("type='{expected}'"))), "{kinds:?}");
            let report = gateway.broker.report(address(ROMEO)).await;
            let is_seen = report
                .relations
                .iter()
                .any(|relation| relation.contact == address(JULIET) && relation.subscription.is_from());
            assert_eq!(is_seen, last == &subscribe);
            gateway.stanzas.clear();
        }
    });
}

#[test]
fn sip_tx_07_every_request_is_answered_at_once_though_nobody_decides() {
    run(async {
        // Users are asked and never answer; contacts never answer either.
        let mut gateway = Gateway::start(Approve::Ask);
        let phones = [flow(1, Transport::Tcp, "192.0.2.1:40000"), flow(2, Transport::Tcp, "192.0.2.2:40000")];
        gateway.register(&phones[0], "romeo").await;
        gateway.register(&phones[1], "mercutio").await;
        let (clock, mut spans) = (Clock::system(), Vec::new());
        for round in 0..40 {
            let begun = clock.now().instant;
            for (phone, user) in phones.iter().zip(["romeo", "mercutio"]) {
                for n in 0..10 {
                    let target = if (round, n) == (0, 0) {
                        ROMEO.to_owned()
                    } else {
                        format!("u{round}-{n}@xmpp.example")
                    };
                    let text = gateway.request("SUBSCRIBE", user, &target, EVENT, "");
                    gateway.says(phone, &text.replace("SUBSCRIBE-", &format!("{round}-{n}-")));
                }
            }
            gateway.settle().await;
            spans.push(clock.now().instant - begun);
            for phone in &phones {
                let answers: Vec<u16> =
                    gateway.answer_all(phone, 200).iter().filter_map(|m| m.status()).collect();
                assert_eq!(answers, [200; 10], "round {round}");
            }
        }
        spans.sort_unstable();
        // A span is that of a whole round, so no single answer took longer.
        println!("SIP-TX-07: 800 SUBSCRIBEs, 20 at a time: p99 at most {:?}", spans[spans.len() * 99 / 100]);
        let waits = gateway.broker.report(address(ROMEO)).await.relations;
        assert!(waits.iter().any(|relation| relation.is_waiting), "somebody still waits for romeo");
    });
}

#[test]
fn a_phone_that_lost_its_connection_is_sent_what_changed_when_it_is_back() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Tcp, "192.0.2.1:40000");
        gateway.register(&phone, "romeo").await;
        assert_eq!(gateway.ask(&phone, "SUBSCRIBE", "romeo", JULIET, EVENT, "").await.status(), Some(200));
        let stream = gateway.stream_from_partner(HOME);
        gateway
            .stanzas_come(stream, &[&format!("<presence from='{JULIET}' to='{ROMEO}' type='subscribed'/>")]);
        for _ in 0..3 {
            gateway.settle().await;
            gateway.answer_all(&phone, 200);
        }
        gateway.flow_reports(FromFlow::FlowDown { flow: phone.flow, cause: "gone".into() });
        gateway.settle().await;
        for show in ["away", "dnd"] {
            let stanza = format!("<presence from='{JULIET}/b' to='{ROMEO}'><show>{show}</show></presence>");
            gateway.stanzas_come(stream, &[&stanza]);
            gateway.settle().await;
        }
        let again = flow(2, Transport::Tcp, "192.0.2.1:40001");
        gateway.register(&again, "romeo").await;
        gateway.settle().await;
        let heard = gateway.answer_all(&again, 200);
        let bodies: Vec<_> = heard.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()).collect();
        assert!(bodies.iter().any(|body| body.contains(">dnd<")), "{bodies:?}");
        assert!(bodies.iter().all(|body| !body.contains(">away<")), "only the newest: {bodies:?}");
        // After a kill nobody stands for the phone before it is back.
        let mut gateway = gateway.killed_and_started_again(Approve::Partner);
        gateway.settle().await;
        let stream = gateway.stream_from_partner(HOME);
        let stanza = format!("<presence from='{JULIET}/b' to='{ROMEO}'><show>xa</show></presence>");
        gateway.stanzas_come(stream, &[&stanza]);
        gateway.settle().await;
        let later = flow(3, Transport::Tcp, "192.0.2.1:40002");
        gateway.register(&later, "romeo").await;
        gateway.settle().await;
        let heard = gateway.answer_all(&later, 200);
        assert!(heard.iter().any(|m| String::from_utf8_lossy(m.body()).contains(">xa<")), "{}", heard.len());
    });
}

#[test]
fn who_has_no_account_any_more_is_refused_on_the_connection_that_proved_it() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let (romeo, mercutio) =
            (flow(1, Transport::Tcp, "192.0.2.1:40000"), flow(2, Transport::Tcp, "192.0.2.2:40000"));
        gateway.register(&romeo, "romeo").await;
        gateway.register(&mercutio, "mercutio").await;
        gateway.broker.set_accounts(accounts_of(Approve::Partner, &["mercutio"]));
        gateway.settle().await;
        for method in ["SUBSCRIBE", "MESSAGE"] {
            let more = if method == "MESSAGE" { "Content-Type: text/plain\r\n" } else { EVENT };
            let refused = gateway.ask(&romeo, method, "romeo", JULIET, more, "").await;
            assert_eq!(refused.status(), Some(403), "{method}");
        }
        let served = gateway.ask(&mercutio, "SUBSCRIBE", "mercutio", JULIET, EVENT, "").await;
        assert_eq!(served.status(), Some(200), "the others are served as before");
    });
}

#[test]
fn phones_by_udp_stay_registered_over_a_kill() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Udp, "192.0.2.1:5066");
        let by_stream = flow(2, Transport::Tcp, "192.0.2.2:40000");
        gateway.register(&phone, "romeo").await;
        gateway.register(&by_stream, "mercutio").await;

        let mut gateway = gateway.killed_and_started_again(Approve::Partner);
        gateway.settle().await;
        let dials: Vec<_> =
            gateway.dials.iter().map(|(_, transport, host, port)| (*transport, &**host, *port)).collect();
        assert_eq!(dials, [(Transport::Udp, "192.0.2.1", Some(5066))], "the phone by UDP alone");
        let phone = gateway.dial_answered(11);
        let stream = gateway.stream_from_partner(HOME);
        gateway.stanzas_come(
            stream,
            &[&format!("<message from='{JULIET}' to='{ROMEO}'><body>hi</body></message>")],
        );
        gateway.settle().await;
        let heard = gateway.answer_all(&phone, 200);
        assert_eq!(heard.iter().map(|m| m.method_text().to_owned()).collect::<Vec<_>>(), ["MESSAGE"]);
        let body = pidf("here");
        let headers = format!("{EVENT}Content-Type: application/pidf+xml\r\n");
        assert_eq!(gateway.ask(&phone, "PUBLISH", "romeo", ROMEO, &headers, &body).await.status(), Some(200));
        // From elsewhere it is known by its Contact, and met there from now on; another one is not.
        let moved = flow(12, Transport::Udp, "192.0.2.7:5060");
        gateway.flow_reports(FromFlow::FlowUp(moved.clone()));
        assert_eq!(gateway.ask(&moved, "PUBLISH", "romeo", ROMEO, &headers, &body).await.status(), Some(200));
        gateway.stanzas_come(
            stream,
            &[&format!("<message from='{JULIET}' to='{ROMEO}'><body>there</body></message>")],
        );
        gateway.settle().await;
        assert_eq!(gateway.answer_all(&moved, 200).len(), 1);
        let other = flow(13, Transport::Udp, "192.0.2.8:5060");
        gateway.flow_reports(FromFlow::FlowUp(other.clone()));
        gateway.contact_host = "192.0.2.8";
        let published = gateway.ask(&other, "PUBLISH", "romeo", ROMEO, &headers, &body).await;
        assert_eq!(
            published.status(),
            Some(200),
            "a phone that never registered proved its user all the same"
        );
        gateway.stanzas_come(
            stream,
            &[&format!("<message from='{JULIET}' to='{ROMEO}'><body>still there</body></message>")],
        );
        gateway.settle().await;
        assert!(gateway.heard(&other).is_empty());
        assert_eq!(gateway.answer_all(&moved, 200).len(), 1, "messages go to registered phones only");
    });
}

#[test]
fn xp_26_a_phone_may_publish_by_a_further_connection_and_is_gone_when_its_last_one_ended() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::All);
        let (first, further) =
            (flow(1, Transport::Tcp, "192.0.2.1:40000"), flow(2, Transport::Tcp, "192.0.2.1:40001"));
        gateway.register(&first, "romeo").await;
        let stream = gateway.stream_from_partner(HOME);
        gateway
            .stanzas_come(stream, &[&format!("<presence from='{JULIET}' to='{ROMEO}' type='subscribe'/>")]);
        gateway.settle().await;
        let is_seen =
            |stanza: &&String| stanza.contains("from='romeo@sip.example/") && !stanza.contains("type=");
        let seen = gateway.stanzas.iter().filter(is_seen).count();
        assert_eq!(seen, 1, "available since it registered: {:?}", gateway.stanzas);
        gateway.stanzas.clear();

        gateway.flow_reports(FromFlow::FlowUp(further.clone()));
        // By another Contact too, as a phone writes it that has one socket for each connection.
        gateway.contact_host = "192.0.2.1:40001";
        let headers = format!("{EVENT}Content-Type: application/pidf+xml\r\n");
        let published = gateway.ask(&further, "PUBLISH", "romeo", ROMEO, &headers, &pidf("here")).await;
        assert_eq!(published.status(), Some(200));
        gateway.settle().await;
        let told: Vec<_> = gateway.stanzas.drain(..).collect();
        assert!(told.iter().any(|stanza| stanza.contains("/desk'") && stanza.contains("here")), "{told:?}");

        let down = |flow| FromFlow::FlowDown { flow, cause: "reset".into() };
        gateway.flow_reports(down(further.flow));
        tokio::time::sleep(Duration::from_secs(120)).await;
        gateway.settle().await;
        assert!(gateway.stanzas.is_empty(), "its first connection is up: {:?}", gateway.stanzas);
        gateway.flow_reports(down(first.flow));
        tokio::time::sleep(Duration::from_secs(25)).await;
        gateway.settle().await;
        assert!(gateway.stanzas.is_empty(), "it may come back: {:?}", gateway.stanzas);
        tokio::time::sleep(Duration::from_secs(6)).await;
        gateway.settle().await;
        assert!(
            matches!(&gateway.stanzas[..], [one] if one.contains(ROMEO) && one.contains("type='unavailable'")),
            "{:?}",
            gateway.stanzas
        );
    });
}

#[test]
fn a_newer_phone_is_never_refused_for_phones_that_lost_their_connections() {
    run(async {
        let mut gateway = Gateway::start(Approve::All);
        for number in 1..=13 {
            let phone = flow(number, Transport::Tcp, &format!("192.0.2.1:{}", 40_000 + number));
            gateway.contact_host = Box::leak(format!("192.0.2.1:{}", 40_000 + number).into_boxed_str());
            gateway.register(&phone, "romeo").await;
            gateway.flow_reports(FromFlow::FlowDown { flow: phone.flow, cause: "reset".into() });
            gateway.settle().await;
        }
        let bindings = gateway.broker.bindings(&address(ROMEO)).await;
        assert_eq!(bindings.len(), 10);
        assert!(bindings.iter().all(|binding| !binding.is_reachable));
        assert_eq!(gateway.broker.clear_bindings(&address(ROMEO)).await, 10);
        assert!(gateway.broker.bindings(&address(ROMEO)).await.is_empty());
    });
}

#[test]
fn sip_e_30_the_limit_of_a_partner_holds_over_all_shards() {
    run(async {
        let mut gateway = Gateway::on_threads(2, Approve::Partner);
        gateway.broker.set_policy(std::sync::Arc::new(table(2)));
        let user_of = |shard: u16| {
            let users = USERS.map(|user| format!("{user}@{HOME}"));
            users.into_iter().find(|user| address(user).partition() % 2 == shard).expect("one in each shard")
        };
        let stream = gateway.stream_from_partner(HOME);
        for (from, to, expected) in [
            ("a", user_of(0), "type='subscribed'"),
            ("b", user_of(1), "type='subscribed'"),
            ("c", user_of(0), "<resource-constraint "),
            ("d", user_of(1), "<resource-constraint "),
        ] {
            let subscribe = format!("<presence from='{from}@xmpp.example' to='{to}' type='subscribe'/>");
            gateway.stanzas_come(stream, &[&subscribe]);
            let to = format!("to='{from}@xmpp.example'");
            let answer = loop {
                gateway.settle().await;
                let at = gateway.stanzas.iter().position(|stanza| stanza.contains(&to));
                if let Some(at) = at {
                    break gateway.stanzas.remove(at);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            assert!(answer.contains(expected), "{from}: {answer}");
        }
    });
}

#[test]
fn two_users_on_one_address_or_connection_register_ask_and_are_reached_each_for_himself() {
    for (transport, remote) in [(Transport::Udp, "192.0.2.1:5060"), (Transport::Tcp, "192.0.2.1:40000")] {
        run(async move {
            let mut gateway = Gateway::start(Approve::All);
            let phone = flow(1, transport, remote);
            gateway.register(&phone, "romeo").await;
            let second = gateway.ask(&phone, "REGISTER", "mercutio", HOME, "Expires: 600\r\n", "").await;
            assert_eq!(second.status(), Some(200), "{transport:?}");
            for user in ["romeo", "mercutio"] {
                let answer = gateway.ask(&phone, "SUBSCRIBE", user, JULIET, EVENT, "").await;
                assert_eq!(answer.status(), Some(200), "{transport:?} {user}");
                gateway.answer_all(&phone, 200);
            }
            // From line to line: out by the flow, and the other line's answer comes back by it.
            if transport.is_reliable() {
                let text = ("MESSAGE", "romeo", "Content-Type: text/plain\r\n");
                // What comes by a connection of two users is by itself neither's.
                let forged = gateway.request(text.0, text.1, MERCUTIO, text.2, "hi");
                gateway.says(&phone, &forged);
                gateway.settle().await;
                let heard = gateway.heard(&phone);
                assert_eq!(heard.iter().filter_map(|m| m.status()).collect::<Vec<_>>(), [401]);
                let authorized = gateway.prove(&heard[0], text.0, text.1, MERCUTIO, text.2, "hi");
                gateway.says(&phone, &authorized);
                gateway.settle().await;
                let heard = gateway.answer_all(&phone, 200);
                let [delivery] = &heard[..] else { panic!("{heard:?}") };
                assert!(delivery.is_request() && delivery.request_uri_text().starts_with("sip:mercutio@"));
                gateway.settle().await;
                let statuses: Vec<_> = gateway.heard(&phone).iter().filter_map(|m| m.status()).collect();
                assert_eq!(statuses, [200], "Mercutio's line has it, and Romeo's hears so");
            }
        });
    }
}

#[test]
fn who_shares_a_connection_or_comes_by_a_proxy_proves_each_request() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Tls, "192.0.2.1:40000");
        gateway.register(&phone, "romeo").await;
        let kinds = [
            ("MESSAGE", JULIET, "Content-Type: text/plain\r\n", "hi"),
            ("SUBSCRIBE", JULIET, EVENT, ""),
            ("PUBLISH", ROMEO, "Event: presence\r\nContent-Type: application/pidf+xml\r\n", "<x/>"),
        ];
        for is_shared in [false, true] {
            if is_shared {
                let second = gateway.ask(&phone, "REGISTER", "tybalt", HOME, "Expires: 600\r\n", "").await;
                assert_eq!(second.status(), Some(200));
            }
            for by_proxy in [false, true] {
                for (method, target, headers, body) in kinds {
                    let mut text = gateway.request(method, "romeo", target, headers, body);
                    if by_proxy {
                        let via = "Via: SIP/2.0/TLS proxy:5061;branch=z9hG4bKp\r\nVia:";
                        text = text.replacen("Via:", via, 1);
                        text = text.replacen("Call-ID: ", "Call-ID: proxied-", 1);
                    }
                    gateway.says(&phone, &text);
                    gateway.settle().await;
                    let heard = gateway.answer_all(&phone, 200);
                    let is_challenged = heard.iter().any(|message| message.status() == Some(401));
                    assert_eq!(is_challenged, is_shared || by_proxy, "{method} {is_shared} {by_proxy}");
                }
            }
        }
    });
}

#[test]
fn a_phone_by_datagrams_that_returns_to_an_earlier_address_is_met_there() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let one = flow(1, Transport::Udp, "192.0.2.1:5060");
        let two = flow(2, Transport::Udp, "192.0.2.2:5060");
        let stream = gateway.stream_from_partner(HOME);
        for phone in [&one, &two, &one] {
            gateway.register(phone, "romeo").await;
            let message = format!("<message from='{JULIET}' to='{ROMEO}'><body>hi</body></message>");
            gateway.stanzas_come(stream, &[&message]);
            gateway.settle().await;
            let heard = gateway.answer_all(phone, 200);
            assert_eq!(heard.iter().filter(|m| m.is_request()).count(), 1, "{}", phone.remote);
            gateway.settle().await;
        }
    });
}

#[test]
fn forged_datagrams_leave_no_trace_and_are_challenged_each() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let phone = flow(1, Transport::Udp, "192.0.2.1:5060");
        gateway.register(&phone, "romeo").await;
        for n in 0..1000 {
            let text = gateway.request("MESSAGE", "romeo", JULIET, "Content-Type: text/plain\r\n", "hi");
            gateway.says(&phone, &text.replace("Call-ID: ", &format!("Call-ID: {n}-")));
            gateway.settle().await;
        }
        let heard = gateway.heard(&phone);
        assert_eq!(heard.iter().filter(|m| m.status() == Some(401)).count(), 1000);
        // The phone itself has all its room.
        let answer = gateway.ask(&phone, "SUBSCRIBE", "romeo", JULIET, EVENT, "").await;
        assert_eq!(answer.status(), Some(200));
    });
}

#[test]
fn a_front_end_that_a_new_policy_does_not_trust_loses_its_connection() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let front_end = flow(1, Transport::Tcp, "127.0.0.31:5060");
        gateway.flow_reports(FromFlow::FlowUp(front_end.clone()));
        gateway.settle().await;
        assert_eq!(gateway.bound, [front_end.flow]);
        assert_eq!(gateway.broker.peer_counts().1, 1);
        gateway.broker.set_policy(std::sync::Arc::new(table(7)));
        gateway.settle().await;
        assert_eq!(gateway.broker.peer_counts().1, 1, "it is trusted as before");
        gateway.broker.set_policy(std::sync::Arc::new(table_trusting([127, 0, 0, 99])));
        gateway.settle().await;
        assert_eq!(gateway.broker.peer_counts().1, 0);
        let text = gateway.request("MESSAGE", "x", JULIET, "Content-Type: text/plain\r\n", "hi");
        gateway.says(&front_end, &text.replace("<sip:x@sip.example>", "<sip:benvolio@corp.example>"));
        gateway.settle().await;
        let statuses: Vec<_> = gateway.heard(&front_end).iter().filter_map(|m| m.status()).collect();
        assert_eq!(statuses, [401]);
        assert!(gateway.stanzas.is_empty());
    });
}

#[test]
fn a_strangers_cancel_names_nothing_and_is_not_challenged() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        let stranger = flow(1, Transport::Udp, "192.0.2.9:5060");
        gateway.flow_reports(FromFlow::FlowUp(stranger.clone()));
        let text = gateway.request("CANCEL", "romeo", JULIET, "", "");
        gateway.says(&stranger, &text);
        gateway.settle().await;
        let statuses: Vec<_> = gateway.heard(&stranger).iter().filter_map(|m| m.status()).collect();
        assert_eq!(statuses, [481]);
    });
}
