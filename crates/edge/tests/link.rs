//! An edge and a gateway over the inside link, with a partner on the other side of the edge.

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use common::{
    Ear, Plan, Site, World,
    log::{keep_log, logged},
    message, numbers, partner,
    relay::Relay,
    run, table, trap, write_to,
};
use tokio::{net::TcpStream, time::sleep};
use tombolo_edge::{
    DialId, DomainPair, EdgePort, FromEdge, LinkIdentity, LinkListener, LinkPort, LinkPortSettings,
    LinkReports, LinkSettings, LinkState, ProofMethod, StreamDirection::*, StreamEnd, ToEdge,
};
use tombolo_policy::{Method::SaslExternal, Table};
use tombolo_telemetry::{Health, Metrics, PartState};

const OURS: &str = "corp.example";
const PARTNER: &str = "partner.example";
const GATEWAY: &str = "gateway.corp.example";

/// Under the host names that each end is known by: an edge is dialled by its address.
fn identity(world: &World, name: &str, is_rogue: bool) -> LinkIdentity {
    let host = if name == "gateway" { GATEWAY } else { "127.0.0.1" };
    identity_of(world, name, host, is_rogue)
}

fn identity_of(world: &World, name: &str, host: &str, is_rogue: bool) -> LinkIdentity {
    // A rogue one trusts whom it should, so that only the other end can refuse it.
    let (certificate, key) = world.authority(is_rogue).issue(name, &[host]).expect("issued");
    let trust = world.authority(false).certificate();
    LinkIdentity::read(&LinkSettings { certificate, key, trust }).expect("it fits")
}

/// An edge that waits for a gateway.
fn edge(world: &Arc<World>, name: &str) -> (Site, SocketAddr) {
    edge_with(world, identity(world, name, false))
}

fn edge_with(world: &Arc<World>, identity: LinkIdentity) -> (Site, SocketAddr) {
    let (site, at, ..) = edge_watched(world, identity);
    (site, at)
}

/// And what it tells operators of its link.
fn edge_watched(world: &Arc<World>, identity: LinkIdentity) -> (Site, SocketAddr, Health, LinkReports) {
    let health = Health::default();
    let (sink, listener) = LinkListener::bind(
        identity,
        "127.0.0.1:0".parse().expect("an address"),
        vec![GATEWAY.to_owned()],
        world.placement.clone(),
        world.clock.clone(),
        &health,
    )
    .expect("bound");
    let at = listener.local_addr();
    // Its own table is of no account: the gateway's is.
    let site = world.site_with(OURS, Plan::default(), Arc::new(sink), Arc::default());
    let reports = listener.reports();
    listener.start(site.edge.clone(), site.policy.clone());
    (site, at, health, reports)
}

struct Gateway {
    ear: Arc<Ear>,
    policy: Arc<ArcSwap<Table>>,
    port: LinkPort,
    metrics: Arc<Metrics>,
}

fn gateway(world: &Arc<World>, edges: &[SocketAddr], partners: Table, is_rogue: bool) -> Gateway {
    gateway_with(world, edges, partners, identity(world, "gateway", is_rogue))
}

fn gateway_with(
    world: &Arc<World>,
    edges: &[SocketAddr],
    partners: Table,
    identity: LinkIdentity,
) -> Gateway {
    let ear = Arc::new(Ear::default());
    let metrics = Arc::new(Metrics::new(1));
    let policy = Arc::new(ArcSwap::from_pointee(partners));
    let port = LinkPort::start(
        LinkPortSettings {
            identity,
            edges: edges.iter().map(|at| (at.ip().to_string(), at.port())).collect(),
            resolver: world.silent_resolver(),
            metrics: metrics.clone(),
        },
        policy.clone(),
        ear.clone(),
        world.placement.clone(),
        world.clock.clone(),
    );
    Gateway { ear, policy, port, metrics }
}

fn partners(generation: u64, at: SocketAddr) -> Table {
    table(generation, OURS, vec![partner(PARTNER, &[SaslExternal], Some(at))])
}

/// The partner's site, which reaches ours at `edge`.
fn foreign(world: &Arc<World>, edge: &Site) -> Site {
    let site = world.site(PARTNER, Plan::default());
    site.knows(vec![partner(OURS, &[SaslExternal], Some(edge.starttls))]);
    site
}

impl Gateway {
    fn dial(&self, world: &World) -> DialId {
        let dial = world.new_dial();
        let pair = DomainPair { local: common::domain(OURS), remote: common::domain(PARTNER) };
        self.port.send(ToEdge::Dial { dial, pair });
        dial
    }

    /// Dials until there is a link to dial by.
    async fn dial_when_linked(&self, world: &World) -> DialId {
        for _ in 0..200 {
            let dial = self.dial(world);
            let outcome = self
                .ear
                .heard("an answer to a dial", |values| {
                    values.iter().find_map(|value| match value {
                        FromEdge::DialFailed { dial: of, end } if *of == dial => Some(Err(end.clone())),
                        FromEdge::StreamUp { dial: Some(of), .. } if *of == dial => Some(Ok(())),
                        _ => None,
                    })
                })
                .await;
            match outcome {
                Ok(()) => return dial,
                Err(StreamEnd::LinkLost) => sleep(Duration::from_millis(50)).await,
                Err(end) => panic!("{end:?}"),
            }
        }
        panic!("no link")
    }
}

/// The partner dials until the edge lets it in.
async fn dial_when_let_in(site: &Site) -> DialId {
    for _ in 0..200 {
        let dial = site.dial(OURS);
        let is_up = site
            .ear
            .heard("an answer to a dial", |values| {
                values.iter().find_map(|value| match value {
                    FromEdge::DialFailed { dial: of, .. } if *of == dial => Some(false),
                    FromEdge::StreamUp { dial: Some(of), .. } if *of == dial => Some(true),
                    _ => None,
                })
            })
            .await;
        if is_up {
            return dial;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("never let in")
}

#[test]
fn streams_stanzas_and_credit_pass_the_link_both_ways() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);

        let dial = gateway.dial_when_linked(&world).await;
        let out = gateway.ear.up(Outgoing, 0).await;
        assert_eq!((out.dial, out.method), (Some(dial), ProofMethod::SaslExternal));
        let into = foreign.ear.up(Incoming, 0).await;
        let bytes = write_to(&gateway.port, &out, 1..=40, 500);
        assert_eq!(numbers(&foreign.ear.stanzas_until(into.stream, 40).await), (1..=40).collect::<Vec<_>>());
        assert_eq!(gateway.ear.written_until(out.stream, 40).await, bytes);

        foreign.dial(OURS);
        let back = foreign.ear.up(Outgoing, 0).await;
        let in_back = gateway.ear.up(Incoming, 0).await;
        assert_eq!(in_back.pair, out.pair);
        foreign.write(&back, 1..=40, 500);
        let came = gateway.ear.stanzas_until(in_back.stream, 40).await;
        assert_eq!(came[39], message(PARTNER, OURS, 40, 500));

        gateway.port.send(ToEdge::Close { stream: out.stream });
        assert_eq!(gateway.ear.down(out.stream).await, (StreamEnd::Closed, 40));
        assert_eq!(edge.policy.load().generation(), 7, "the edge's table is the gateway's");
    });
}

#[test]
fn an_edge_without_a_gateway_lets_nobody_in_and_says_nothing_about_its_domains() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        // Its own settings would allow the partner.
        edge.knows(vec![partner(PARTNER, &[SaslExternal], None)]);
        let foreign = foreign(&world, &edge);
        let dial = foreign.dial(OURS);
        let end = foreign.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Broken(_)), "a passing state, not {end:?}");
        let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);
        dial_when_let_in(&foreign).await;
        gateway.ear.up(Incoming, 0).await;
    });
}

#[test]
fn an_edge_is_not_ready_before_its_first_gateway_and_again_once_the_gateway_stays_away() {
    run(|world| async move {
        let (edge, at, health, reports) = edge_watched(&world, identity(&world, "edge1", false));
        assert_eq!(health.worst(), PartState::Unready);
        let relay = Relay::to(at).await;
        let gateway = gateway(&world, &[relay.address], table(7, OURS, Vec::new()), false);
        let is = |state: PartState| {
            let health = health.clone();
            async move {
                let reached = async {
                    while health.worst() != state {
                        sleep(Duration::from_millis(20)).await;
                    }
                };
                let waited = tokio::time::timeout(Duration::from_secs(20), reached).await;
                waited.unwrap_or_else(|_| panic!("never {state:?}: {:?}", health.parts()));
            }
        };
        is(PartState::Up).await;
        let [edge_end, gateway_end] = [reports.links().remove(0), gateway.port.links().remove(0)];
        assert_eq!((edge_end.state, gateway_end.state), (LinkState::Up, LinkState::Up));
        assert!(edge_end.remote.is_some() && gateway_end.remote == Some(relay.address));
        relay.hold(true);
        relay.cut();
        is(PartState::Degraded).await;
        is(PartState::Unready).await;
        let report = gateway.port.links().remove(0);
        assert!(report.state != LinkState::Up && report.cause.is_some(), "{report:?}");
        relay.hold(false);
        is(PartState::Up).await;
        assert_eq!(edge.policy.load().generation(), 7);
    });
}

#[test]
fn whom_the_gateways_table_does_not_name_the_edge_refuses_and_a_changed_table_reaches_it() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[at], table(7, OURS, Vec::new()), false);
        let refused = async {
            loop {
                let dial = foreign.dial(OURS);
                // Until there is a link it is hung up on.
                if let end @ StreamEnd::Unauthenticated(_) = foreign.ear.no_stream(dial).await {
                    return end;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), refused).await.expect("refused by name");
        gateway.policy.store(Arc::new(partners(8, foreign.starttls)));
        dial_when_let_in(&foreign).await;
        gateway.ear.up(Incoming, 0).await;
        assert_eq!(edge.policy.load().generation(), 8);
    });
}

#[test]
fn a_link_whose_connection_breaks_goes_on_with_its_streams_and_every_stanza_arrives_once() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[relay.address], partners(7, foreign.starttls), false);
        gateway.dial_when_linked(&world).await;
        let out = gateway.ear.up(Outgoing, 0).await;
        let into = foreign.ear.up(Incoming, 0).await;
        foreign.dial(OURS);
        let back = foreign.ear.up(Outgoing, 0).await;
        let in_back = gateway.ear.up(Incoming, 0).await;

        for round in 0..4 {
            let numbers = 40 * round + 1..=40 * round + 40;
            write_to(&gateway.port, &out, numbers.clone(), 500);
            foreign.write(&back, numbers, 500);
            sleep(Duration::from_millis(3 * round)).await;
            relay.cut();
            sleep(Duration::from_millis(200)).await;
        }
        let all: Vec<u64> = (1..=160).collect();
        assert_eq!(numbers(&foreign.ear.stanzas_until(into.stream, 160).await), all);
        assert_eq!(numbers(&gateway.ear.stanzas_until(in_back.stream, 160).await), all);
        gateway.ear.written_until(out.stream, 160).await;
        let is_end = |value: &FromEdge| matches!(value, FromEdge::StreamDown { .. });
        gateway.ear.hears_no("end of a stream", is_end).await;
        // And as a gateway that was full meanwhile.
        gateway.ear.set_full(true);
        foreign.write(&back, 161..=170, 500);
        gateway.ear.heard_back().await;
        relay.cut();
        sleep(Duration::from_millis(700)).await;
        gateway.ear.set_full(false);
        assert_eq!(
            numbers(&gateway.ear.stanzas_until(in_back.stream, 170).await),
            (1..=170).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_link_that_stays_broken_ends_its_streams_on_both_sides_and_a_new_link_brings_new_ones() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[relay.address], partners(7, foreign.starttls), false);
        gateway.dial_when_linked(&world).await;
        let out = gateway.ear.up(Outgoing, 0).await;
        let into = foreign.ear.up(Incoming, 0).await;
        foreign.dial(OURS);
        let back = foreign.ear.up(Outgoing, 0).await;
        let in_back = gateway.ear.up(Incoming, 0).await;

        relay.hold(true);
        relay.cut();
        assert_eq!(gateway.ear.down(out.stream).await.0, StreamEnd::LinkLost);
        assert_eq!(gateway.ear.down(in_back.stream).await.0, StreamEnd::LinkLost);
        assert_eq!(foreign.ear.down(into.stream).await.0, StreamEnd::Closed, "the edge closes in order");
        assert_eq!(foreign.ear.down(back.stream).await.0, StreamEnd::Closed);

        relay.hold(false);
        gateway.dial_when_linked(&world).await;
        let again = gateway.ear.up(Outgoing, 1).await;
        assert_ne!(again.stream, out.stream);
        // What was still meant for the old stream reaches nobody.
        write_to(&gateway.port, &out, 100..=101, 10);
        write_to(&gateway.port, &again, 1..=2, 10);
        let into = foreign.ear.up(Incoming, 1).await;
        assert_eq!(numbers(&foreign.ear.stanzas_until(into.stream, 2).await), [1, 2]);
    });
}

#[test]
fn what_a_partner_writes_while_its_gateway_is_replaced_reaches_the_new_one_by_the_same_stream() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        let foreign = foreign(&world, &edge);
        let first = gateway(&world, &[relay.address], partners(7, foreign.starttls), false);
        first.dial_when_linked(&world).await;
        let into = foreign.ear.up(Incoming, 0).await;
        foreign.dial(OURS);
        let back = foreign.ear.up(Outgoing, 0).await;
        let in_back = first.ear.up(Incoming, 0).await;
        foreign.write(&back, 1..=5, 500);
        first.ear.stanzas_until(in_back.stream, 5).await;
        // Until the edge knows that they were taken.
        sleep(Duration::from_millis(300)).await;
        // As if it had been killed; another comes before the edge gives it up.
        relay.hold(true);
        relay.cut();
        foreign.write(&back, 6..=20, 500);
        sleep(Duration::from_millis(300)).await;
        let second = gateway(&world, &[at], partners(8, foreign.starttls), false);
        let again = second.ear.up(Incoming, 0).await;
        assert_eq!((again.pair, again.method), (in_back.pair, in_back.method));
        foreign.write(&back, 21..=30, 500);
        second.ear.wait_for_stanzas(again.stream, 25).await;
        let (before, came) = second.ear.stanzas_of_a_stream_taken_over(again.stream);
        assert_eq!((before, numbers(&came)), (5, (6..=30).collect()));
        assert_eq!(foreign.ear.down(into.stream).await.0, StreamEnd::Closed, "ours was the first gateway's");
        assert!(!foreign.ear.has_ended(back.stream));
        assert_eq!(edge.policy.load().generation(), 8);
    });
}

#[test]
fn another_gateway_whose_table_does_not_name_a_partner_ends_the_streams_that_it_takes_over() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        let foreign = foreign(&world, &edge);
        let first = gateway(&world, &[relay.address], partners(7, foreign.starttls), false);
        dial_when_let_in(&foreign).await;
        let back = foreign.ear.up(Outgoing, 0).await;
        first.ear.up(Incoming, 0).await;
        relay.hold(true);
        relay.cut();
        let _second = gateway(&world, &[at], table(8, OURS, Vec::new()), false);
        let end = foreign.ear.down(back.stream).await.0;
        assert!(end.to_string().contains("policy-violation"), "{end}");
    });
}

#[test]
fn a_stream_that_comes_up_when_no_gateway_hears_of_it_is_closed() {
    run(|world| async move {
        let (edge, _) = edge(&world, "edge1");
        let foreign = foreign(&world, &edge);
        edge.knows(vec![partner(PARTNER, &[SaslExternal], Some(foreign.starttls))]);
        // As a dial whose gateway is gone by the time of the answer.
        edge.dial(PARTNER);
        let into = foreign.ear.up(Incoming, 0).await;
        assert_eq!(foreign.ear.down(into.stream).await.0, StreamEnd::Closed);
    });
}

#[test]
fn a_link_that_breaks_while_its_gateway_is_full_loses_and_repeats_nothing() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[relay.address], partners(7, foreign.starttls), false);
        dial_when_let_in(&foreign).await;
        let back = foreign.ear.up(Outgoing, 0).await;
        let into = gateway.ear.up(Incoming, 0).await;
        gateway.ear.set_full(true);
        // Far over the credit, so that the edge holds stanzas that it may not send.
        for first in 0..60 {
            write_to(&*foreign.edge, &back, first * 5..first * 5 + 5, 10_000);
        }
        gateway.ear.heard_back().await;
        sleep(Duration::from_millis(300)).await;
        relay.cut();
        sleep(Duration::from_millis(700)).await;
        gateway.ear.set_full(false);
        let came = gateway.ear.stanzas_until(into.stream, 300).await;
        assert_eq!(numbers(&came), (0..300).collect::<Vec<_>>());
    });
}

#[test]
fn what_an_edge_has_not_written_when_its_link_ends_it_does_not_write_any_more() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[relay.address], partners(7, foreign.starttls), false);
        gateway.dial_when_linked(&world).await;
        let out = gateway.ear.up(Outgoing, 0).await;
        let into = foreign.ear.up(Incoming, 0).await;
        foreign.ear.set_full(true);
        // Until the partner's sockets are full and a message is stuck in its writing.
        let mut stuck = 0;
        loop {
            stuck += 1;
            write_to(&gateway.port, &out, [stuck], 100_000);
            let written = gateway.ear.written_until(out.stream, stuck);
            if tokio::time::timeout(Duration::from_millis(600), written).await.is_err() {
                break;
            }
        }
        // These wait behind it; by the gateway's books they are its to send again.
        write_to(&gateway.port, &out, stuck + 1..=stuck + 5, 10);
        sleep(Duration::from_millis(200)).await;
        relay.hold(true);
        relay.cut();
        assert_eq!(gateway.ear.down(out.stream).await.0, StreamEnd::LinkLost);
        sleep(Duration::from_millis(300)).await;
        foreign.ear.set_full(false);
        assert_eq!(foreign.ear.down(into.stream).await.0, StreamEnd::Closed);
        assert_eq!(numbers(&foreign.ear.stanzas(into.stream)), (1..=stuck).collect::<Vec<_>>());
    });
}

#[test]
fn a_dial_that_its_link_did_not_survive_is_answered() {
    run(|world| async move {
        let (_edge, at) = edge(&world, "edge1");
        let relay = Relay::to(at).await;
        // The partner takes connections and never says a word.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gateway =
            gateway(&world, &[relay.address], partners(7, silent.local_addr().expect("bound")), false);
        let dial = loop {
            let dial = gateway.dial(&world);
            tokio::select! {
                came = silent.accept() => { std::mem::forget(came); break dial }
                end = gateway.ear.no_stream(dial) => assert_eq!(end, StreamEnd::LinkLost),
            }
            sleep(Duration::from_millis(50)).await;
        };
        relay.hold(true);
        relay.cut();
        assert_eq!(gateway.ear.no_stream(dial).await, StreamEnd::LinkLost);
    });
}

#[test]
fn without_any_link_a_dial_fails_after_the_grace() {
    run(|world| async move {
        let gateway = gateway(&world, &[common::nowhere()], table(1, OURS, Vec::new()), false);
        let dial = gateway.dial(&world);
        assert_eq!(gateway.ear.no_stream(dial).await, StreamEnd::LinkLost);
    });
}

#[test]
fn a_gateway_that_is_full_holds_the_partner_up_and_then_gets_every_stanza_once() {
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let foreign = foreign(&world, &edge);
        let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);
        dial_when_let_in(&foreign).await;
        let back = foreign.ear.up(Outgoing, 0).await;
        let into = gateway.ear.up(Incoming, 0).await;
        gateway.ear.set_full(true);
        const COUNT: u64 = 3000;
        let sender = tokio::spawn({
            let (port, ear, back) = (foreign.edge.clone(), foreign.ear.clone(), back.clone());
            async move {
                for number in 1..=COUNT {
                    write_to(&*port, &back, [number], 10_000);
                    if number > 5 {
                        ear.written_until(back.stream, number - 5).await;
                    }
                }
            }
        });
        gateway.ear.heard_back().await;
        let mut stands_at = 0;
        loop {
            sleep(Duration::from_millis(400)).await;
            let (last, _) = foreign.ear.written(back.stream);
            if last == stands_at {
                break;
            }
            stands_at = last;
        }
        assert!(stands_at < COUNT, "a gateway that takes nothing must hold the partner up");
        gateway.ear.set_full(false);
        let came = gateway.ear.stanzas_until(into.stream, COUNT as usize).await;
        assert_eq!(numbers(&came), (1..=COUNT).collect::<Vec<_>>());
        sender.await.expect("all was sent");
    });
}

#[test]
fn a_gateway_of_another_authority_is_no_gateway_and_one_that_says_nothing_keeps_no_other_waiting() {
    keep_log();
    run(|world| async move {
        let (edge, at) = edge(&world, "edge1");
        let foreign = foreign(&world, &edge);
        // Whoever can reach the port may hold connections open.
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(TcpStream::connect(at).await.expect("a listener"));
        }
        let rogue = gateway(&world, &[at], partners(9, foreign.starttls), true);
        sleep(Duration::from_millis(1200)).await;
        let why = "the other end refused the link: a signature in the chain of the certificate of gateway.corp.example";
        assert!(logged(&["no link", why]), "the rogue's operator learns what is wrong with its certificate");
        assert_eq!(rogue.ear.no_stream(rogue.dial(&world)).await, StreamEnd::LinkLost);
        let end = foreign.ear.no_stream(foreign.dial(OURS)).await;
        assert!(matches!(end, StreamEnd::Broken(_)), "{end:?}");

        let begun = tokio::time::Instant::now();
        let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);
        gateway.dial_when_linked(&world).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(edge.policy.load().generation(), 7);
    });
}

#[test]
fn an_edge_of_another_authority_is_given_no_table_and_no_dial() {
    run(|world| async move {
        let (impostor, at) = edge_with(&world, identity(&world, "edge1", true));
        let foreign = foreign(&world, &impostor);
        let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);
        for _ in 0..10 {
            assert_eq!(gateway.ear.no_stream(gateway.dial(&world)).await, StreamEnd::LinkLost);
            sleep(Duration::from_millis(100)).await;
        }
        assert_ne!(impostor.policy.load().generation(), 7);
        assert!(foreign.ear.ups(Incoming).is_empty());
    });
}

#[test]
fn a_stolen_edge_key_opens_no_link_for_it_names_no_gateway() {
    keep_log();
    run(|world| async move {
        let (edge, at, health, _) = edge_watched(&world, identity(&world, "edge1", false));
        let foreign = foreign(&world, &edge);
        // Of the right authority, for both purposes, and the very key of the edge.
        let thief = identity(&world, "edge1", false);
        let impostor = gateway_with(&world, &[at], partners(9, foreign.starttls), thief);
        for _ in 0..10 {
            assert_eq!(impostor.ear.no_stream(impostor.dial(&world)).await, StreamEnd::LinkLost);
            sleep(Duration::from_millis(100)).await;
        }
        let end = foreign.ear.no_stream(foreign.dial(OURS)).await;
        assert!(matches!(end, StreamEnd::Broken(_)), "the edge has still no gateway: {end:?}");
        assert_ne!(edge.policy.load().generation(), 9, "its table is not taken");
        let said = "link refused";
        let why = "the certificate is for 127.0.0.1, accepted: gateway.corp.example";
        assert!(logged(&[said, why]), "an operator can see who knocked and who is awaited");
        // At the other end too, without whom the edge awaits.
        let told = "the other end refused the link: its certificate is for 127.0.0.1, which is not in the edge's link.gateways";
        assert!(logged(&["no link", told]));
        let cause = impostor.port.links().remove(0).cause.expect("it is not linked");
        assert!(cause.contains(told), "and in its status: {cause}");
        let note = health.parts().remove(0).note;
        assert!(note.contains("127.0.0.1 was refused: ") && note.contains(why), "{note}");
    });
}

#[test]
fn an_edge_whose_certificate_is_not_for_the_host_that_was_dialled_gets_no_table_and_no_dial() {
    keep_log();
    run(|world| async move {
        // Of the right authority, such as another gateway or an edge that stands elsewhere.
        let (elsewhere, at) = edge_with(&world, identity_of(&world, "edge2", "edge2.corp.example", false));
        let foreign = foreign(&world, &elsewhere);
        let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);
        for _ in 0..10 {
            assert_eq!(gateway.ear.no_stream(gateway.dial(&world)).await, StreamEnd::LinkLost);
            sleep(Duration::from_millis(100)).await;
        }
        assert_ne!(elsewhere.policy.load().generation(), 7);
        let why = "the certificate is for edge2.corp.example, accepted: 127.0.0.1";
        assert!(logged(&["no link", why]), "an operator can see whom the edge's certificate names");
        assert!(logged(&["link refused", "the other end refused the link", why]), "at the edge too");
    });
}

#[test]
fn a_panic_of_either_end_of_a_link_costs_its_connection_and_the_next_one_is_made() {
    for line in ["gateway linked", "edge linked"] {
        trap::set(line);
        run(|world| async move {
            let (edge, at) = edge(&world, "edge1");
            let foreign = foreign(&world, &edge);
            let gateway = gateway(&world, &[at], partners(7, foreign.starttls), false);
            gateway.dial_when_linked(&world).await;
            gateway.ear.up(Outgoing, 0).await;
            assert!(trap::is_sprung(), "{line}");
            let panics = [&edge.metrics, &gateway.metrics]
                .map(|metrics| metrics.render().matches("tombolo_panics_total 1\n").count());
            assert_eq!(panics.iter().sum::<usize>(), 1, "{line}");
        });
    }
}

#[test]
fn streams_of_two_edges_have_different_numbers_and_dials_go_to_each_in_turn() {
    run(|world| async move {
        let (one, at_one) = edge(&world, "edge1");
        let (two, at_two) = edge(&world, "edge2");
        let foreign = foreign(&world, &one);
        let gateway = gateway(&world, &[at_one, at_two], partners(7, foreign.starttls), false);
        // Both are linked once both have the table.
        while [&one, &two].iter().any(|edge| edge.policy.load().generation() != 7) {
            sleep(Duration::from_millis(20)).await;
        }
        for n in 0..4 {
            gateway.dial_when_linked(&world).await;
            gateway.ear.up(Outgoing, n).await;
        }
        let mut streams: Vec<_> = gateway.ear.ups(Outgoing).iter().map(|up| up.stream).collect();
        streams.sort();
        streams.dedup();
        assert_eq!(streams.len(), 4);
        let edges: std::collections::HashSet<_> = streams.iter().map(|stream| stream.0 >> 48).collect();
        assert_eq!(edges.len(), 2, "both edges have some of {streams:?}");
        for (n, up) in gateway.ear.ups(Outgoing).iter().enumerate() {
            write_to(&gateway.port, up, [n as u64], 10);
            gateway.ear.written_until(up.stream, 1).await;
        }
    });
}
