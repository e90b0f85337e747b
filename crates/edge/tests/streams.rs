//! Two XMPP edges that talk over loopback: proofs, refusals, stanzas, what was written, and the end.

mod common;

use std::{sync::Arc, time::Duration};

use common::{Plan, Site, World, acquaint, domain, message, nowhere, numbers, partner, run, trap};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tombolo_edge::{
    DoorLimits, EdgePort, FromEdge, ProofMethod, STREAM_WINDOW_BYTES, StreamDirection::*, StreamEnd, ToEdge,
};
use tombolo_policy::{
    DomainPattern,
    Method::{PlainDialback, SaslExternal, TlsDialback},
};
use tombolo_xmpp::stream::StreamLimits;

const A: &str = "a.example";
const B: &str = "b.example";

fn two(world: &Arc<World>) -> (Site, Site) {
    (world.site(A, Plan::default()), world.site(B, Plan::default()))
}

fn is_up(value: &FromEdge) -> bool {
    matches!(value, FromEdge::StreamUp { .. })
}

#[test]
fn with_certificates_stanzas_flow_in_order_both_ways_and_both_sides_close_in_order() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        for (from, to) in [(&a, &b), (&b, &a)] {
            let dial = from.dial(to.domain.as_str());
            let out = from.ear.up(Outgoing, 0).await;
            let into = to.ear.up(Incoming, 0).await;
            assert_eq!((out.dial, out.method), (Some(dial), ProofMethod::SaslExternal));
            assert_eq!((into.dial, into.method), (None, ProofMethod::SaslExternal));
            assert_eq!(out.pair, from.pair_with(to.domain.as_str()));
            assert_eq!(into.pair, to.pair_with(from.domain.as_str()));
            assert_eq!(out.window_bytes, STREAM_WINDOW_BYTES);

            let mut bytes = from.write(&out, 1..=3, 10);
            bytes += from.write(&out, 4..=50, 100);
            let came = to.ear.stanzas_until(into.stream, 50).await;
            assert_eq!(numbers(&came), (1..=50).collect::<Vec<_>>());
            assert_eq!(came[0], message(from.domain.as_str(), to.domain.as_str(), 1, 10));
            let credited = from.ear.written_until(out.stream, 50).await;
            assert_eq!(credited, bytes, "every octet that was handed over is credited once");

            from.edge.send(ToEdge::Close { stream: out.stream });
            assert_eq!(from.ear.down(out.stream).await, (StreamEnd::Closed, 50));
            assert_eq!(to.ear.down(into.stream).await.0, StreamEnd::Closed);
        }
    });
}

#[test]
fn however_many_domains_a_partner_takes_below_its_wildcard_it_has_no_more_streams_than_one_partner() {
    run(|world| async move {
        let doors = DoorLimits { per_partner: 2, ..DoorLimits::default() };
        let b = world.site(B, Plan { doors, ..Plan::default() });
        let mut wild = partner("wild.example", &[SaslExternal], Some(nowhere()));
        wild.further_domains = vec![DomainPattern::Below(domain("wild.example"))];
        b.knows(vec![wild, partner(A, &[SaslExternal], Some(nowhere()))]);
        let mut sites = Vec::new();
        for name in ["s1.wild.example", "s2.wild.example", "s3.wild.example", A] {
            let site = world.site(name, Plan::default());
            site.knows(vec![partner(B, &[SaslExternal], Some(b.starttls))]);
            let dial = site.dial(B);
            let out = site.ear.up(Outgoing, 0).await;
            assert_eq!(out.dial, Some(dial));
            if name.starts_with("s3") {
                let (end, _) = site.ear.down(out.stream).await;
                assert!(end.to_string().contains("resource-constraint too many streams"), "{end}");
            } else {
                b.ear.up(Incoming, sites.len()).await;
                sites.push(site);
            }
        }
        assert_eq!(b.ear.ups(Incoming).len(), 3, "another partner has room of its own");
    });
}

#[test]
fn what_was_handed_over_before_the_close_is_written_before_it() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        for number in 1..=200 {
            a.write(&out, [number], 1000);
        }
        a.edge.send(ToEdge::Close { stream: out.stream });
        assert_eq!(a.ear.down(out.stream).await, (StreamEnd::Closed, 200));
        assert_eq!(b.ear.down(into.stream).await.0, StreamEnd::Closed);
        assert_eq!(numbers(&b.ear.stanzas(into.stream)), (1..=200).collect::<Vec<_>>());
    });
}

#[test]
fn where_no_certificate_is_trusted_a_key_is_asked_about_and_proves_the_domain() {
    run(|world| async move {
        let plan = || Plan { trusts: false, ..Plan::default() };
        let (a, b) = (world.site(A, plan()), world.site(B, plan()));
        acquaint(&a, &b, &[TlsDialback]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        assert_eq!((out.method, into.method), (ProofMethod::TlsDialback, ProofMethod::TlsDialback));
        a.write(&out, 1..=2, 10);
        assert_eq!(numbers(&b.ear.stanzas_until(into.stream, 2).await), [1, 2]);
        assert!(a.ear.ups(Incoming).is_empty(), "the question needs no stream for stanzas");
    });
}

#[test]
fn xs_db_03_a_key_that_the_authoritative_server_did_not_make_proves_nothing_and_senders_are_told_of_our_fault()
 {
    run(|world| async move {
        let plan = |secret| Plan { trusts: false, secret, ..Plan::default() };
        let impostor = world.site(A, plan("the secret of an impostor, whatever it is"));
        let real = world.site(A, plan("the secret of the real one, at its place"));
        let b = world.site(B, plan("another"));
        impostor.knows(vec![partner(B, &[TlsDialback], Some(b.starttls))]);
        real.knows(vec![partner(B, &[TlsDialback], Some(b.starttls))]);
        b.knows(vec![partner(A, &[TlsDialback], Some(real.starttls))]);
        let dial = impostor.dial(B);
        let end = impostor.ear.no_stream(dial).await;
        assert_eq!(end.condition(), "internal-server-error");
        let StreamEnd::KeyRefused(why) = &end else { panic!("{end:?}") };
        assert!(why.ends_with("the partner says that our key is bad"), "{why}");
        b.ear.hears_no("a stream", is_up).await;
        // The same for the real one works, so nothing but the key was wrong.
        real.dial(B);
        assert_eq!(b.ear.up(Incoming, 0).await.method, ProofMethod::TlsDialback);
    });
}

#[test]
fn xs_db_03_a_key_that_nobody_can_be_asked_about_proves_nothing_and_senders_are_told_of_a_timeout() {
    run(|world| async move {
        let plan = || Plan { trusts: false, ..Plan::default() };
        let (a, b) = (world.site(A, plan()), world.site(B, plan()));
        a.knows(vec![partner(B, &[TlsDialback], Some(b.starttls))]);
        b.knows(vec![partner(A, &[TlsDialback], Some(nowhere()))]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(
            matches!(&end, StreamEnd::Unauthenticated(why) if why.contains("remote-connection-failed")),
            "{end:?}"
        );
        assert_eq!(end.condition(), "remote-server-timeout");
        b.ear.hears_no("a stream", is_up).await;
    });
}

#[test]
fn a_domain_that_is_no_partner_is_neither_dialled_nor_let_in() {
    run(|world| async move {
        let (a, b) = two(&world);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Refused(_)), "{end:?}");
        // Now only one of them knows the other.
        a.knows(vec![partner(B, &[SaslExternal], Some(b.starttls))]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Unauthenticated(_)), "{end:?}");
        b.ear.hears_no("a stream", is_up).await;
    });
}

#[test]
fn a_server_whose_certificate_nobody_vouches_for_is_left_though_its_domain_is_right() {
    run(|world| async move {
        let a = world.site(A, Plan::default());
        let b = world.site(B, Plan { is_rogue: true, ..Plan::default() });
        acquaint(&a, &b, &[SaslExternal]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(
            matches!(&end, StreamEnd::Unauthenticated(why) if why.contains("does not prove b.example")),
            "{end:?}"
        );
        b.ear.hears_no("a stream", is_up).await;
    });
}

#[test]
fn a_client_whose_certificate_nobody_vouches_for_is_not_let_in() {
    run(|world| async move {
        let a = world.site(A, Plan { is_rogue: true, ..Plan::default() });
        let b = world.site(B, Plan::default());
        acquaint(&a, &b, &[SaslExternal]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Unauthenticated(_)), "{end:?}");
        b.ear.hears_no("a stream", is_up).await;
    });
}

#[test]
fn a_client_with_a_good_certificate_for_another_domain_is_not_let_in() {
    run(|world| async move {
        let a = world.site(A, Plan { shows: Some("c.example"), ..Plan::default() });
        let b = world.site(B, Plan::default());
        acquaint(&a, &b, &[SaslExternal]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Unauthenticated(_)), "{end:?}");
        b.ear.hears_no("a stream", is_up).await;
    });
}

#[test]
fn a_dead_address_is_told_as_unreachable_and_a_dial_is_answered_once() {
    run(|world| async move {
        let a = world.site(A, Plan::default());
        a.knows(vec![partner(B, &[SaslExternal], Some(nowhere()))]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Unreachable(_)), "{end:?}");
        assert_eq!(end.condition(), "remote-server-timeout");
    });
}

#[test]
fn while_the_receiver_is_full_nothing_more_is_read_and_then_every_stanza_comes_once_in_order() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        b.ear.set_full(true);
        const COUNT: u64 = 4000;
        const PADDING: usize = 10_000;
        let sender = tokio::spawn({
            let (edge, ear, out) = (a.edge.clone(), a.ear.clone(), out.clone());
            async move {
                for number in 1..=COUNT {
                    let bytes = message(A, B, number, PADDING);
                    edge.send(ToEdge::Stanzas { stream: out.stream, count: 1, bytes });
                    // No more than a window ahead, as a broker would.
                    if number > 5 {
                        ear.written_until(out.stream, number - 5).await;
                    }
                }
            }
        });
        b.ear.heard_back().await;
        // What the sockets of this machine hold, it goes on; then it stands still.
        let mut stands_at = 0;
        loop {
            sleep(Duration::from_millis(400)).await;
            let (last, _) = a.ear.written(out.stream);
            if last == stands_at {
                break;
            }
            stands_at = last;
        }
        assert!(stands_at < COUNT, "a receiver that takes nothing must hold the sender up");
        assert!(b.ear.stanzas(into.stream).is_empty());
        b.ear.set_full(false);
        let came = b.ear.stanzas_until(into.stream, COUNT as usize).await;
        assert_eq!(numbers(&came), (1..=COUNT).collect::<Vec<_>>());
        sender.await.expect("all was sent");
    });
}

#[test]
fn a_stream_ends_though_nobody_takes_what_it_brought() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        b.ear.set_full(true);
        a.write(&out, 1..=3, 10);
        b.ear.heard_back().await;
        b.edge.close_all();
        b.ear.down(into.stream).await;
        a.ear.down(out.stream).await;
    });
}

#[test]
fn a_peer_that_breaks_off_is_told_with_the_last_stanza_that_was_written() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        let relay = common::relay::Relay::to(b.starttls).await;
        a.knows(vec![partner(B, &[SaslExternal], Some(relay.address))]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        a.write(&out, 1..=7, 10);
        b.ear.stanzas_until(into.stream, 7).await;
        a.ear.written_until(out.stream, 7).await;
        relay.cut();
        let (end, last) = a.ear.down(out.stream).await;
        assert!(matches!(end, StreamEnd::Broken(_)) && !end.is_clean(), "{end:?}");
        assert_eq!(last, 7);
        let (end, _) = b.ear.down(into.stream).await;
        assert!(matches!(end, StreamEnd::Broken(_)), "{end:?}");
    });
}

#[test]
fn of_a_batch_that_the_end_of_its_connection_cut_the_stanzas_that_have_left_are_told_as_written() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        let relay = common::relay::Relay::to(b.starttls).await;
        a.knows(vec![partner(B, &[SaslExternal], Some(relay.address))]);
        a.dial(B);
        let (out, _) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        b.ear.set_full(true);
        // Until the sockets are full in the middle of a batch.
        const BATCH: u64 = 500;
        let mut whole = 0;
        loop {
            a.write(&out, whole + 1..=whole + BATCH, 10_000);
            let written = a.ear.written_until(out.stream, whole + BATCH);
            if timeout(Duration::from_millis(800), written).await.is_err() {
                break;
            }
            whole += BATCH;
        }
        relay.cut();
        let (end, last) = a.ear.down(out.stream).await;
        assert!(matches!(end, StreamEnd::Broken(_)), "{end:?}");
        assert!((whole + 1..whole + BATCH).contains(&last), "{last} of a batch from {whole}");
    });
}

#[test]
fn xs_lim_03_one_address_has_only_so_many_unproved_connections_and_gets_the_place_of_one_that_left() {
    run(|world| async move {
        let doors = DoorLimits { unproved_per_address: 3, ..DoorLimits::default() };
        let b = world.site(B, Plan { doors, ..Plan::default() });
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(greeted(&b).await.expect("within the budget"));
        }
        assert!(greeted(&b).await.is_none(), "over the budget: hung up on without a word");
        drop(held.pop());
        let again = async {
            while greeted(&b).await.is_none() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(5), again).await.expect("the place is free again");
    });
}

#[test]
fn a_panic_of_the_listener_costs_the_connection_in_hand_and_the_next_ones_are_let_in() {
    trap::set("connections of an address are shut out");
    run(|world| async move {
        let doors = DoorLimits { unproved_per_address: 1, ..DoorLimits::default() };
        let b = world.site(B, Plan { doors, ..Plan::default() });
        let held = greeted(&b).await.expect("within the budget");
        assert!(greeted(&b).await.is_none(), "over the budget");
        assert!(trap::is_sprung());
        drop(held);
        let again = async {
            while greeted(&b).await.is_none() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), again).await.expect("the listener goes on");
        assert!(b.metrics.render().contains("tombolo_panics_total 1\n"));
    });
}

/// A connection on which the header was answered; `None` when it was closed instead.
async fn greeted(site: &Site) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(site.starttls).await.expect("a listener");
    let header = format!(
        "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' to='{}' version='1.0'>",
        site.domain
    );
    // A connection that is closed already may take this or not.
    let _ = socket.write_all(header.as_bytes()).await;
    let mut first = [0; 1];
    let read = timeout(Duration::from_secs(5), socket.read(&mut first)).await.expect("an answer or the end");
    (read.ok()? == 1).then_some(socket)
}

#[test]
fn a_connection_that_proves_nothing_in_its_time_is_ended() {
    run(|world| async move {
        let limits =
            StreamLimits { time_to_authenticate: Duration::from_millis(500), ..StreamLimits::default() };
        let b = world.site(B, Plan { limits, ..Plan::default() });
        let mut silent = TcpStream::connect(b.starttls).await.expect("a listener");
        let mut inside_tls = TcpStream::connect(b.direct).await.expect("a listener");
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(5), silent.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the silent one is ended");
        assert!(String::from_utf8_lossy(&rest).contains("connection-timeout"), "and told why");
        // Who never begins the handshake has no more time than the others.
        let ended = timeout(Duration::from_secs(5), inside_tls.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the one without a handshake is ended");
    });
}

#[test]
fn dialback_in_the_clear_is_not_used_where_the_entry_does_not_say_insecure() {
    run(|world| async move {
        let plan = || Plan { trusts: false, ..Plan::default() };
        let (a, b) = (world.site(A, plan()), world.site(B, plan()));
        acquaint(&a, &b, &[PlainDialback]);
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Unauthenticated(_)), "{end:?}");
        b.ear.hears_no("a stream", is_up).await;
    });
}

#[test]
fn a_stanza_over_which_its_handling_panics_ends_its_stream_and_is_counted() {
    run(|world| async move {
        let (a, b) = two(&world);
        acquaint(&a, &b, &[SaslExternal]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        let stanza = format!("<message from='x@{A}' to='y@{B}' id='panic'/>");
        let bytes = stanza.into_bytes().into();
        a.edge.send(ToEdge::Stanzas { stream: out.stream, count: 1, bytes });
        let (end, _) = b.ear.down(into.stream).await;
        assert!(matches!(&end, StreamEnd::Broken(cause) if cause.contains("panicked")), "{end:?}");
        a.ear.down(out.stream).await;
        // The next one is taken.
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 1).await, b.ear.up(Incoming, 1).await);
        a.write(&out, [1], 10);
        b.ear.stanzas_until(into.stream, 1).await;
        assert!(b.metrics.render().contains("tombolo_panics_total 1\n"));
    });
}
