//! Where streams are opened to: SRV and addresses of a name server of the test, direct TLS, and a partner's proxy.

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use common::{
    Plan, Site, World,
    names::{Zone, srv, v4, v6},
    nowhere, partner, run,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tombolo_edge::{Absence, ProofMethod, StreamDirection::*, StreamEnd};
use tombolo_net::{client_config, connect_tls};
use tombolo_policy::Method::SaslExternal;

const A: &str = "a.example";
const B: &str = "b.example";
const SRV: &str = "_xmpp-server._tcp.b.example";
const DIRECT_SRV: &str = "_xmpps-server._tcp.b.example";

/// A dials B by what this zone says.
async fn by_zone(
    world: &Arc<World>,
    b: &Site,
    records: &[(&str, hickory_resolver::proto::rr::RData)],
) -> (Site, Zone) {
    let zone = Zone::serve(world, records).await;
    let a = world.site(A, Plan { resolver: Some(zone.resolver.clone()), ..Plan::default() });
    a.knows(vec![partner(B, &[SaslExternal], None)]);
    b.knows(vec![partner(A, &[SaslExternal], None)]);
    (a, zone)
}

#[test]
fn xs_dns_04_all_addresses_of_a_target_then_the_next_target() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        // The first host is dead with both its addresses; the second with its first one, IPv6.
        let records = [
            (SRV, srv(0, nowhere(), "gone.b.example.")),
            (SRV, srv(1, b.starttls, "here.b.example.")),
            ("gone.b.example", v4("127.0.0.1")),
            ("gone.b.example", v6("::1")),
            ("here.b.example", v6("::1")),
            ("here.b.example", v4("127.0.0.1")),
        ];
        let (a, zone) = by_zone(&world, &b, &records).await;
        a.dial(B);
        assert_eq!(a.ear.up(Outgoing, 0).await.pair, a.pair_with(B));
        b.ear.up(Incoming, 0).await;
        let asked = zone.asked();
        for question in ["gone.b.example AAAA", "gone.b.example A", "here.b.example AAAA", "here.b.example A"]
        {
            assert!(asked.iter().any(|asked| asked == question), "{question} not in {asked:?}");
        }
    });
}

#[test]
fn xs_dns_04_a_proxy_of_the_entry_replaces_what_dns_says() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        let records = [(SRV, srv(0, nowhere(), "gone.b.example.")), ("gone.b.example", v4("127.0.0.1"))];
        let (a, zone) = by_zone(&world, &b, &records).await;
        a.knows(vec![partner(B, &[SaslExternal], Some(b.starttls))]);
        a.dial(B);
        a.ear.up(Outgoing, 0).await;
        assert_eq!(zone.asked(), Vec::<String>::new(), "no name is asked for");
    });
}

#[test]
fn xs_dns_05_a_certificate_for_the_srv_target_alone_proves_nothing_about_the_domain() {
    run(|world| async move {
        let b = world.site(B, Plan { shows: Some("here.b.example"), ..Plan::default() });
        let records = [(SRV, srv(0, b.starttls, "here.b.example.")), ("here.b.example", v4("127.0.0.1"))];
        let (a, _zone) = by_zone(&world, &b, &records).await;
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(
            matches!(&end, StreamEnd::Unauthenticated(why) if why.contains("does not prove b.example")),
            "{end:?}"
        );
    });
}

#[test]
fn where_every_address_is_dead_the_domain_is_unreachable() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        let records = [(SRV, srv(0, nowhere(), "gone.b.example.")), ("gone.b.example", v4("127.0.0.1"))];
        let (a, _zone) = by_zone(&world, &b, &records).await;
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert!(matches!(end, StreamEnd::Unreachable(_)), "{end:?}");
    });
}

#[test]
fn a_domain_that_does_not_exist_is_told_as_not_found() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        let (a, _zone) = by_zone(&world, &b, &[]).await;
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert_eq!(end, StreamEnd::NotFound(Absence::NoSuchName));
        assert_eq!(end.condition(), "remote-server-not-found");
    });
}

#[test]
fn an_srv_record_that_leads_to_no_address_is_named() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        let (a, _zone) = by_zone(&world, &b, &[(SRV, srv(0, nowhere(), "nohost.example."))]).await;
        let dial = a.dial(B);
        let end = a.ear.no_stream(dial).await;
        assert_eq!(end.to_string(), "the domain's SRV record points to nohost.example, which has no address");
    });
}

#[test]
fn a_host_whose_certificate_is_wrong_does_not_keep_us_from_the_next_one() {
    run(|world| async move {
        let wrong = world.site(B, Plan { shows: Some("other.example"), ..Plan::default() });
        let b = world.site(B, Plan::default());
        let records = [
            (SRV, srv(0, wrong.starttls, "here.b.example.")),
            (SRV, srv(1, b.starttls, "here.b.example.")),
            ("here.b.example", v4("127.0.0.1")),
        ];
        let (a, _zone) = by_zone(&world, &b, &records).await;
        a.dial(B);
        assert_eq!(a.ear.up(Outgoing, 0).await.method, ProofMethod::SaslExternal);
        b.ear.up(Incoming, 0).await;
    });
}

#[test]
fn an_address_whose_certificate_is_wrong_does_not_keep_us_from_the_next_address_of_the_same_host() {
    run(|world| async move {
        let wrong = world.site(B, Plan { shows: Some("other.example"), ..Plan::default() });
        let beside = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), wrong.starttls.port());
        let b = world.site(B, Plan { at: Some(beside), ..Plan::default() });
        let records = [
            (SRV, srv(0, wrong.starttls, "both.b.example.")),
            ("both.b.example", v4("127.0.0.1")),
            ("both.b.example", v4("127.0.0.2")),
        ];
        let (a, _zone) = by_zone(&world, &b, &records).await;
        for _ in 0..2 {
            // Whichever comes first.
            a.dial(B);
            assert_eq!(a.ear.up(Outgoing, 0).await.method, ProofMethod::SaslExternal);
        }
    });
}

#[test]
fn a_host_whose_tls_fails_does_not_keep_us_from_the_next_one() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        // Direct TLS is said to be where STARTTLS is spoken.
        let records = [
            (DIRECT_SRV, srv(0, b.starttls, "here.b.example.")),
            (SRV, srv(1, b.starttls, "here.b.example.")),
            ("here.b.example", v4("127.0.0.1")),
        ];
        let (a, _zone) = by_zone(&world, &b, &records).await;
        a.dial(B);
        assert_eq!(a.ear.up(Outgoing, 0).await.method, ProofMethod::SaslExternal);
    });
}

#[test]
fn a_domain_with_direct_tls_alone_is_reached_by_it() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        let records =
            [(DIRECT_SRV, srv(0, b.direct, "here.b.example.")), ("here.b.example", v4("127.0.0.1"))];
        let (a, _zone) = by_zone(&world, &b, &records).await;
        a.dial(B);
        let out = a.ear.up(Outgoing, 0).await;
        let into = b.ear.up(Incoming, 0).await;
        assert_eq!((out.method, into.method), (ProofMethod::SaslExternal, ProofMethod::SaslExternal));
        a.write(&out, 1..=5, 10);
        assert_eq!(common::numbers(&b.ear.stanzas_until(into.stream, 5).await), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn xs_tls_09_direct_tls_offers_no_starttls_and_an_other_protocol_is_closed() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        b.knows(vec![partner(A, &[SaslExternal], None)]);
        let own = world.certificates(A, A, false).certificate(A);
        let limit = Duration::from_secs(5);
        let socket = TcpStream::connect(b.direct).await.expect("a listener");
        let config = client_config(own.clone(), &["xmpp-server"]);
        let (mut stream, facts) = connect_tls(socket, config, B, limit).await.expect("a handshake");
        assert_eq!(facts.alpn.as_deref(), Some("xmpp-server"));
        assert_eq!(facts.certificates.names().dns, [B], "the certificate of the domain that SNI named");
        let header = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
                      from='a.example' to='b.example' version='1.0'>";
        stream.write_all(header.as_bytes()).await.expect("written");
        let mut text = String::new();
        while !text.contains("</stream:features>") {
            let mut some = [0; 1024];
            let len = timeout(limit, stream.read(&mut some)).await.expect("features").expect("no error");
            assert_ne!(len, 0, "closed after {text}");
            text.push_str(std::str::from_utf8(&some[..len]).expect("text"));
        }
        assert!(text.contains("EXTERNAL"), "{text}");
        assert!(!text.contains("starttls"), "{text}");

        let socket = TcpStream::connect(b.direct).await.expect("a listener");
        let other = connect_tls(socket, client_config(own, &["h2"]), B, limit).await;
        assert!(other.is_err(), "another protocol is closed in the handshake");
    });
}
