//! Connections with TLS: who a peer proves to be (RFC 5922), on either side.

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tombolo_edge::{FlowFacts, Transport::Tls};
use tombolo_net::{CertificateStore, client_config_classic, connect_tls};

use crate::{
    common::{
        World,
        names::{Zone, srv, v4},
        run,
    },
    stage::{PATIENCE, Plan, Site, call_ids, certificates, read_text, request, start},
};

const A: &str = "a.example";
const B: &str = "b.example";

fn site(world: &World, names: &[&'static str]) -> Site {
    start(world, Plan { names: names.to_vec(), ..Plan::default() })
}

/// A client that shows the certificate of a name, if it has one.
async fn client(
    at: SocketAddr,
    own: &CertificateStore,
    name: &str,
    asks: &str,
) -> (tombolo_net::AnyStream, Vec<String>) {
    let stream = TcpStream::connect(at).await.expect("connected");
    let config = client_config_classic(own.certificate(name), &[]);
    let (stream, facts) = connect_tls(stream, config, asks, PATIENCE).await.expect("shaken hands");
    (stream, facts.certificates.names().sip_domains())
}

fn proved(flow: &FlowFacts) -> Vec<&str> {
    flow.proved_domains.iter().map(|name| &**name).collect()
}

#[test]
fn two_edges_prove_each_other_by_one_connection() {
    run(|world| async move {
        let (a, b) = (site(&world, &[A]), site(&world, &[B]));
        // A speaks for its own domain with a front end that has a certificate of its own.
        let dial = a.dial(7, Tls, "127.0.0.1", Some(b.at(Tls).port()), B);
        let out = a.ear.up(0).await;
        assert_eq!((out.dial, out.transport, out.remote), (Some(dial), Tls, b.at(Tls)));
        assert_eq!(proved(&out), [B]);
        assert_eq!(
            &*out.sent_by,
            a.at(Tls).to_string(),
            "peers reach the listener, not this connection's port"
        );
        let inward = b.ear.up(0).await;
        assert_eq!((inward.dial, inward.remote), (None, out.local));
        assert!(proved(&inward).is_empty(), "A has no certificate for {B}");
        a.send(out.flow, request("OPTIONS", "x", ""));
        assert_eq!(call_ids(&b.ear.messages(inward.flow, 1).await), ["x"]);
        b.send(inward.flow, "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(a.ear.messages(out.flow, 1).await[0].status(), Some(200));
        a.close(out.flow);
        a.ear.down(out.flow).await;
        b.ear.down(inward.flow).await;
    });
}

#[test]
fn a_dial_shows_our_certificate_of_the_domain_that_the_next_hop_speaks_for() {
    run(|world| async move {
        let (gateway, front_end) = (site(&world, &[B]), site(&world, &[B]));
        gateway.dial(7, Tls, "127.0.0.1", Some(front_end.at(Tls).port()), B);
        assert_eq!(proved(&*gateway.ear.up(0).await), [B]);
        assert_eq!(proved(&*front_end.ear.up(0).await), [B]);
    });
}

#[test]
fn sip_tls_04_three_clients_are_let_in_for_what_they_prove() {
    run(|world| async move {
        let b = site(&world, &[B]);
        let none = CertificateStore::default();
        let clients: [(&str, Arc<CertificateStore>, &[&str]); 3] = [
            ("trusted", certificates(&world, &[A], false), &[A]),
            ("of an unknown authority", certificates(&world, &[A], true), &[]),
            ("without a certificate", Arc::new(none), &[]),
        ];
        for (n, (what, own, names)) in clients.into_iter().enumerate() {
            let (mut stream, _) = client(b.at(Tls), &own, A, B).await;
            stream.write_all(request("OPTIONS", "x", "").as_bytes()).await.expect("written");
            let flow = b.ear.up(n).await;
            assert_eq!(proved(&flow), names, "{what}");
            assert_eq!(b.ear.messages(flow.flow, 1).await.len(), 1, "{what}");
            b.send(flow.flow, "SIP/2.0 200 OK\r\n\r\n");
            assert_eq!(read_text(&mut stream, 18).await, "SIP/2.0 200 OK\r\n\r\n", "{what}");
        }
    });
}

#[test]
fn sip_tls_07_two_domains_are_asked_for_and_served_by_sni() {
    run(|world| async move {
        let b = site(&world, &["pool.example", B, "c.example"]);
        let none = CertificateStore::default();
        for (asks, shown) in [(B, B), ("c.example", "c.example"), ("127.0.0.1", "pool.example")] {
            let (_stream, names) = client(b.at(Tls), &none, "", asks).await;
            assert_eq!(names, [shown], "{asks}");
        }
        // By the address alone the pool's certificate would be shown, which proves neither domain.
        let a = site(&world, &[A]);
        for (n, domain) in [B, "c.example"].into_iter().enumerate() {
            a.dial(n as u64, Tls, "127.0.0.1", Some(b.at(Tls).port()), domain);
            assert_eq!(proved(&*a.ear.up(n).await), [domain]);
        }
    });
}

#[test]
fn a_certificate_that_proves_neither_name_gives_no_flow() {
    run(|world| async move {
        let b = site(&world, &[B]);
        let rogue = start(&world, Plan { names: vec![B], is_rogue: true, ..Plan::default() });
        let wildcard = site(&world, &["*.example"]);
        let a = site(&world, &[A]);
        let dial = a.dial(1, Tls, "127.0.0.1", Some(b.at(Tls).port()), "c.example");
        let cause = a.ear.no_flow(dial).await;
        assert!(
            cause.ends_with("the certificate is for b.example, neither for 127.0.0.1 nor for c.example"),
            "{cause}"
        );
        let dial = a.dial(2, Tls, "127.0.0.1", Some(rogue.at(Tls).port()), B);
        let cause = a.ear.no_flow(dial).await;
        // The rogue's authority has the same name and another key.
        assert!(
            cause.contains("a signature in the chain of the certificate of b.example is wrong"),
            "{cause}"
        );
        let dial = a.dial(3, Tls, "127.0.0.1", Some(wildcard.at(Tls).port()), B);
        let cause = a.ear.no_flow(dial).await;
        assert!(cause.contains("is for *.example, neither for 127.0.0.1 nor for b.example"), "{cause}");
    });
}

#[test]
fn a_next_hop_that_is_an_address_is_proved_by_exactly_this_address() {
    run(|world| async move {
        let a = site(&world, &[A]);
        let b = site(&world, &["127.0.0.1"]);
        a.dial(1, Tls, "127.0.0.1", Some(b.at(Tls).port()), "c.example");
        assert_eq!(proved(&*a.ear.up(0).await), ["127.0.0.1"]);
        let other = site(&world, &["127.0.0.2"]);
        let dial = a.dial(2, Tls, "127.0.0.1", Some(other.at(Tls).port()), "c.example");
        let cause = a.ear.no_flow(dial).await;
        let expected = "the certificate is for 127.0.0.2, neither for 127.0.0.1 nor for c.example";
        assert!(cause.ends_with(expected), "{cause}");
        // DNS leads to the address, but nobody wrote it.
        let zone = Zone::serve(&world, &[("pool.example", v4("127.0.0.1"))]).await;
        let plan = Plan { names: vec![A], resolver: Some(zone.resolver.clone()), ..Plan::default() };
        let a = start(&world, plan);
        let dial = a.dial(3, Tls, "pool.example", Some(b.at(Tls).port()), "c.example");
        let cause = a.ear.no_flow(dial).await;
        let expected = "the certificate is for 127.0.0.1, neither for pool.example nor for c.example";
        assert!(cause.ends_with(expected), "{cause}");
    });
}

#[test]
fn the_next_hops_own_name_suffices() {
    run(|world| async move {
        let b = site(&world, &["pool.example"]);
        let zone = Zone::serve(&world, &[("pool.example", v4("127.0.0.1"))]).await;
        let plan = Plan { names: vec![A], resolver: Some(zone.resolver.clone()), ..Plan::default() };
        let a = start(&world, plan);
        a.dial(7, Tls, "Pool.Example", Some(b.at(Tls).port()), B);
        assert_eq!(proved(&*a.ear.up(0).await), ["pool.example"]);
    });
}

#[test]
fn sip_tls_03_the_name_of_an_srv_target_proves_nothing_and_the_next_target_is_tried() {
    run(|world| async move {
        let (target, right) = (site(&world, &["sip1.b.example"]), site(&world, &[B]));
        let first = ("_sips._tcp.b.example", srv(0, target.at(Tls), "sip1.b.example."));
        let hosts = [("sip1.b.example", v4("127.0.0.1")), ("sip2.b.example", v4("127.0.0.1"))];
        let zone = Zone::serve(&world, &[first.clone(), hosts[0].clone()]).await;
        let plan =
            |zone: &Zone| Plan { names: vec![A], resolver: Some(zone.resolver.clone()), ..Plan::default() };
        let a = start(&world, plan(&zone));
        let cause = a.ear.no_flow(a.dial(1, Tls, B, None, B)).await;
        assert!(cause.contains("the certificate is for sip1.b.example, not for b.example"), "{cause}");
        let flow = target.ear.up(0).await;
        assert_eq!(target.ear.down(flow.flow).await, "closed by the peer", "closed at once");
        assert_eq!(target.ear.order(flow.flow), ["up", "down"]);

        let second = ("_sips._tcp.b.example", srv(1, right.at(Tls), "sip2.b.example."));
        let zone = Zone::serve(&world, &[first, second, hosts[0].clone(), hosts[1].clone()]).await;
        let a = start(&world, plan(&zone));
        let dial = a.dial(2, Tls, B, None, B);
        let flow = a.ear.up(0).await;
        assert_eq!((flow.dial, flow.remote, proved(&flow)), (Some(dial), right.at(Tls), vec![B]));
    });
}

#[test]
fn handshakes_that_do_not_end_keep_nobody_out() {
    run(|world| async move {
        let b = site(&world, &[B]);
        let mut silent = Vec::new();
        for _ in 0..64 {
            silent.push(TcpStream::connect(b.at(Tls)).await.expect("connected"));
        }
        let (mut stream, _) = client(b.at(Tls), &CertificateStore::default(), "", B).await;
        stream.write_all(request("OPTIONS", "x", "").as_bytes()).await.expect("written");
        let flow = b.ear.up(0).await;
        assert_eq!(call_ids(&b.ear.messages(flow.flow, 1).await), ["x"]);
    });
}

#[test]
fn sip_tls_13_a_close_under_load_loses_nothing_that_was_said_and_nothing_new_goes_by_it() {
    run(|world| async move {
        let (a, b) = (site(&world, &[A]), site(&world, &[B]));
        a.dial(1, Tls, "127.0.0.1", Some(b.at(Tls).port()), B);
        let (out, into) = (a.ear.up(0).await, b.ear.up(0).await);
        b.bind(into.flow);
        for n in 0..500 {
            b.send(into.flow, request("NOTIFY", &n.to_string(), ""));
        }
        b.close(into.flow);
        let heard = call_ids(&a.ear.messages(out.flow, 500).await);
        assert_eq!(heard, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
        a.ear.down(out.flow).await;
        b.ear.down(into.flow).await;
        // By a new one, and by that alone.
        a.send(out.flow, request("OPTIONS", "late", ""));
        a.dial(2, Tls, "127.0.0.1", Some(b.at(Tls).port()), B);
        let (out, into) = (a.ear.up(1).await, b.ear.up(1).await);
        a.send(out.flow, request("OPTIONS", "next", ""));
        assert_eq!(call_ids(&b.ear.messages(into.flow, 1).await), ["next"]);
    });
}
