//! What befalls streams that are up: certificates run out, the policy changes, peers are too fast or silent.

mod common;

use std::{io::Read as _, time::Duration};

use common::{
    Plan, acquaint,
    clear::{ClearServer, ClearStream},
    numbers, partner, run, run_at,
};
use tombolo_edge::{EdgePort, FromEdge, ProofMethod, StreamDirection::*, StreamEnd, StreamPace, ToEdge};
use tombolo_policy::{
    Method::{PlainDialback, SaslExternal, TlsDialback},
    Partner,
};
use tombolo_runtime::{Clock, MemoryGate};

const A: &str = "a.example";
const B: &str = "b.example";

/// The certificates of tests hold until the year 4096.
const CERTIFICATE_END: u64 = 67_090_118_400;

/// A partner that may come without TLS.
fn insecure(name: &str, server: &ClearServer) -> Partner {
    Partner { insecure: true, ..partner(name, &[PlainDialback], Some(server.address)) }
}

#[test]
fn xs_tls_07_a_stream_whose_certificate_runs_out_ends_with_reset() {
    const END: u64 = CERTIFICATE_END;
    run_at(
        || Clock::starting_at(Duration::from_secs(END - 3)),
        |world| async move {
            let (a, b) = (world.site(A, Plan::default()), world.site(B, Plan::default()));
            acquaint(&a, &b, &[SaslExternal]);
            a.dial(B);
            let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
            a.write(&out, 1..=3, 10);
            assert_eq!(
                numbers(&b.ear.stanzas_until(into.stream, 3).await),
                [1, 2, 3],
                "it is good until then"
            );
            assert!(world.clock.now().wall < Duration::from_secs(END));
            for end in [a.ear.down(out.stream).await.0, b.ear.down(into.stream).await.0] {
                assert!(matches!(&end, StreamEnd::StreamError(what) if what.starts_with("reset")), "{end:?}");
            }
            assert!(world.clock.now().wall >= Duration::from_secs(END));
        },
    );
}

#[test]
fn a_stream_that_a_key_proved_over_tls_outlives_certificates_that_have_run_out_before_or_do_meanwhile() {
    for second in [CERTIFICATE_END - 2, CERTIFICATE_END + 86_400] {
        run_at(
            move || Clock::starting_at(Duration::from_secs(second)),
            |world| async move {
                // Else a certificate that is still good would be the proof.
                let plan = || Plan { trusts: false, ..Plan::default() };
                let (a, b) = (world.site(A, plan()), world.site(B, plan()));
                acquaint(&a, &b, &[TlsDialback]);
                a.dial(B);
                let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
                a.write(&out, [1], 10);
                while world.clock.now().wall
                    < Duration::from_secs(CERTIFICATE_END) + Duration::from_millis(500)
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                for site in [&a, &b] {
                    let is_end = |value: &FromEdge| matches!(value, FromEdge::StreamDown { .. });
                    site.ear.hears_no("the end of a stream", is_end).await;
                }
                a.write(&out, [2], 10);
                assert_eq!(numbers(&b.ear.stanzas_until(into.stream, 2).await), [1, 2]);
            },
        );
    }
}

#[test]
fn a_partner_that_is_removed_loses_its_streams_of_both_directions_and_gets_no_new_one() {
    run(|world| async move {
        let (a, b) = (world.site(A, Plan::default()), world.site(B, Plan::default()));
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        b.dial(A);
        let (into, out) = (b.ear.up(Incoming, 0).await, b.ear.up(Outgoing, 0).await);
        b.knows(Vec::new());
        b.edge.policy_changed();
        for stream in [into.stream, out.stream] {
            let (end, _) = b.ear.down(stream).await;
            assert_eq!(end, StreamEnd::StreamError("policy-violation".to_owned()));
        }
        let end = a.ear.no_stream(a.dial(B)).await;
        assert!(matches!(end, StreamEnd::Unauthenticated(_) | StreamEnd::StreamError(_)), "{end:?}");
        b.ear.no_stream(b.dial(A)).await;
    });
}

#[test]
fn a_partner_that_may_not_come_any_more_as_it_came_loses_its_streams_of_both_directions() {
    run(|world| async move {
        let (a, b) =
            (world.site(A, Plan::default()), world.site(B, Plan { trusts: false, ..Plan::default() }));
        acquaint(&a, &b, &[TlsDialback]);
        a.dial(B);
        b.dial(A);
        let (into, out) = (b.ear.up(Incoming, 0).await, b.ear.up(Outgoing, 0).await);
        assert_eq!(into.method, ProofMethod::TlsDialback);
        b.knows(vec![partner(A, &[SaslExternal], Some(a.starttls))]);
        b.edge.policy_changed();
        for stream in [into.stream, out.stream] {
            let (end, _) = b.ear.down(stream).await;
            assert_eq!(end, StreamEnd::StreamError("policy-violation".to_owned()));
        }

        let server = ClearServer::start().await;
        b.knows(vec![insecure("one.example", &server)]);
        let (mut stream, _) = ClearStream::dial(b.starttls, "one.example", B).await;
        stream.show_key("one.example", B).await;
        let up = b.ear.up(Incoming, 1).await;
        b.edge.policy_changed();
        stream.say("<message from='a@one.example' to='b@b.example' id='m1'/>").await;
        b.ear.stanzas_until(up.stream, 1).await;
        b.knows(vec![Partner { insecure: false, ..insecure("one.example", &server) }]);
        b.edge.policy_changed();
        assert_eq!(b.ear.down(up.stream).await.0, StreamEnd::StreamError("policy-violation".to_owned()));
        assert!(stream.rest().await.contains("<policy-violation"));
    });
}

#[test]
fn in_the_clear_a_key_proves_a_domain_whose_entry_says_insecure_and_no_other() {
    run(|world| async move {
        let (b, server) = (world.site(B, Plan::default()), ClearServer::start().await);
        let secure = Partner { insecure: false, ..insecure("two.example", &server) };
        b.knows(vec![insecure("one.example", &server), secure]);
        let (mut stream, features) = ClearStream::dial(b.starttls, "one.example", B).await;
        assert!(features.contains("<dialback") && !features.contains("<required"), "{features}");
        let said = stream.show_key("one.example", B).await;
        assert!(said.contains("type='valid'"), "{said}");
        let up = b.ear.up(Incoming, 0).await;
        assert_eq!((up.pair.remote.as_str(), up.method), ("one.example", ProofMethod::PlainDialback));
        stream.say("<message from='a@one.example' to='b@b.example' id='m7'><body>x</body></message>").await;
        assert_eq!(numbers(&b.ear.stanzas_until(up.stream, 1).await), [7]);

        let nowhere = "<message from='a@one.example' to='@b.example' id='m8'/>";
        stream.say(nowhere).await;
        let came = b.ear.stanzas_until(up.stream, 2).await;
        assert_eq!(came[1], nowhere, "who knows what to answer is told of it");

        let said = stream.show_key("two.example", B).await;
        assert!(!said.contains("type='valid'"), "{said}");
    });
}

#[test]
fn on_a_stream_of_two_partners_the_one_that_is_removed_is_told_as_lost_and_the_other_goes_on() {
    run(|world| async move {
        let (b, server) = (world.site(B, Plan::default()), ClearServer::start().await);
        b.knows(vec![insecure("one.example", &server), insecure("two.example", &server)]);
        let (mut stream, _) = ClearStream::dial(b.starttls, "one.example", B).await;
        stream.show_key("one.example", B).await;
        let up = b.ear.up(Incoming, 0).await;
        stream.show_key("two.example", B).await;
        b.knows(vec![insecure("two.example", &server)]);
        b.edge.policy_changed();
        let lost = |values: &[FromEdge]| {
            values.iter().find_map(|value| match value {
                FromEdge::PairLost { stream, pair } => Some((*stream, pair.remote.to_string())),
                _ => None,
            })
        };
        let lost = b.ear.heard("a lost pair", lost).await;
        assert_eq!(lost, (up.stream, "one.example".to_owned()));
        stream.say("<message from='a@two.example' to='b@b.example' id='m1'/>").await;
        b.ear.stanzas_until(up.stream, 1).await;
        stream.say("<message from='a@one.example' to='b@b.example' id='m2'/>").await;
        let said = stream.rest().await;
        assert!(said.contains("<invalid-from"), "as a domain that was never proved: {said}");
    });
}

#[test]
fn a_stream_that_is_silent_is_kept_alive_by_a_space() {
    run(|world| async move {
        let pace = StreamPace { keepalive: Duration::from_millis(300), ..StreamPace::default() };
        let b = world.site(B, Plan { pace, ..Plan::default() });
        let server = ClearServer::start().await;
        b.knows(vec![insecure("one.example", &server)]);
        let (mut stream, _) = ClearStream::dial(b.starttls, "one.example", B).await;
        stream.show_key("one.example", B).await;
        b.ear.up(Incoming, 0).await;
        for _ in 0..2 {
            assert_eq!(stream.until(" ", " ").await, " ");
        }
    });
}

#[test]
fn xs_lim_03_a_peer_that_floods_is_read_no_faster_than_it_may_send_and_loses_nothing() {
    run(|world| async move {
        let pace = StreamPace { stanzas_per_second: 200, ..StreamPace::default() };
        let (a, b) = (world.site(A, Plan::default()), world.site(B, Plan { pace, ..Plan::default() }));
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        let begun = tokio::time::Instant::now();
        for first in 0..100 {
            a.write(&out, first * 10..first * 10 + 10, 10);
        }
        let came = b.ear.stanzas_until(into.stream, 1000).await;
        assert_eq!(numbers(&came), (0..1000).collect::<Vec<_>>());
        // 400 in hand, then 200 a second; what one read brought is taken as a whole.
        assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert!(
            b.metrics
                .render()
                .lines()
                .any(|line| line.starts_with("tombolo_throttled_streams_total ") && !line.ends_with(" 0"))
        );
    });
}

#[test]
fn a_stream_whose_peer_does_not_answer_any_more_ends_with_connection_timeout() {
    run(|world| async move {
        let (a, b) = (world.site(A, Plan::default()), world.site(B, Plan::default()));
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        a.edge.send(ToEdge::GiveUp { stream: out.stream });
        assert_eq!(a.ear.down(out.stream).await.0, StreamEnd::StreamError("connection-timeout".to_owned()));
        let (end, _) = b.ear.down(into.stream).await;
        assert!(
            matches!(&end, StreamEnd::StreamError(what) if what.starts_with("connection-timeout")),
            "{end:?}"
        );
    });
}

#[test]
fn while_the_process_has_no_memory_nobody_else_is_let_in_and_is_told_so() {
    run(|world| async move {
        let gate = MemoryGate::new(1000);
        let b = world.site(B, Plan { memory: gate.clone(), ..Plan::default() });
        let a = world.site(A, Plan::default());
        acquaint(&a, &b, &[SaslExternal]);
        gate.note(1000);
        let starttls = b.starttls;
        let said = tokio::task::spawn_blocking(move || {
            let mut socket = std::net::TcpStream::connect(starttls).expect("the listener is there");
            let mut said = String::new();
            socket.read_to_string(&mut said).expect("closed in order");
            said
        });
        let said = said.await.expect("no panic");
        assert!(
            said.contains("<stream:error><resource-constraint ") && said.ends_with("</stream:stream>"),
            "{said}"
        );
        gate.note(0);
        a.dial(B);
        let out = a.ear.up(Outgoing, 0).await;
        a.write(&out, 1..=1, 10);
        let into = b.ear.up(Incoming, 0).await;
        assert_eq!(numbers(&b.ear.stanzas_until(into.stream, 1).await), [1]);
        // Whoever is in stays in.
        gate.note(2000);
        a.write(&out, 2..=2, 10);
        assert_eq!(numbers(&b.ear.stanzas_until(into.stream, 2).await), [1, 2]);
    });
}
