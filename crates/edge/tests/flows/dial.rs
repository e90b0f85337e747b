//! Where dials lead without TLS: ports, SRV records, and nowhere.

use std::time::Duration;

use tokio::net::TcpListener;
use tombolo_edge::{
    DialId, FlowPort, ToFlow,
    Transport::{self, Tcp, Tls, Udp},
};

use crate::{
    common::{
        names::{Zone, naptr, srv, v4, v6},
        nowhere, run,
    },
    stage::{Plan, call_ids, request, request_by, start},
};

const B: &str = "b.example";

#[test]
fn a_port_is_dialled_as_it_is() {
    run(|world| async move {
        let (a, b) = (start(&world, Plan::default()), start(&world, Plan::default()));
        let dial = a.dial(7, Tcp, "127.0.0.1", Some(b.at(Tcp).port()), B);
        let flow = a.ear.up(0).await;
        assert_eq!((flow.dial, flow.transport, flow.remote), (Some(dial), Tcp, b.at(Tcp)));
        assert_eq!(&*flow.sent_by, a.at(Tcp).to_string());
        assert!(flow.proved_domains.is_empty());
        a.send(flow.flow, request("OPTIONS", "x", ""));
        let inward = b.ear.up(0).await;
        assert_eq!(call_ids(&b.ear.messages(inward.flow, 1).await), ["x"]);
    });
}

#[test]
fn without_a_port_the_records_of_the_transport_lead() {
    run(|world| async move {
        let b = start(&world, Plan { names: vec![B], ..Plan::default() });
        let services =
            [(Tcp, "_sip._tcp.b.example"), (Udp, "_sip._udp.b.example"), (Tls, "_sips._tcp.b.example")];
        let mut records = vec![
            ("here.b.example", v6("::1")),
            ("here.b.example", v4("127.0.0.1")),
            ("gone.b.example", v4("127.0.0.1")),
        ];
        for (transport, service) in services {
            records.push((service, srv(1, b.at(transport), "here.b.example.")));
            if transport != Udp {
                records.push((service, srv(0, nowhere(), "gone.b.example.")));
            }
        }
        let zone = Zone::serve(&world, &records).await;
        let a = start(&world, Plan { resolver: Some(zone.resolver.clone()), ..Plan::default() });
        for (n, (transport, _)) in services.into_iter().enumerate() {
            let dial = a.dial(n as u64, transport, B, None, B);
            let flow = a.ear.up(n).await;
            assert_eq!((flow.dial, flow.transport, flow.remote), (Some(dial), transport, b.at(transport)));
            a.send(
                flow.flow,
                request_by(&format!("SIP/2.0/{} us", transport.via_name()), "OPTIONS", "x", ""),
            );
            let inward = b.ear.up(n).await;
            assert_eq!(inward.transport, transport);
            assert_eq!(call_ids(&b.ear.messages(inward.flow, 1).await), ["x"]);
        }
    });
}

#[test]
fn a_dial_that_leads_nowhere_says_why() {
    run(|world| async move {
        let zone = Zone::serve(&world, &[("_sip._tcp.none.example", srv(0, nowhere(), "."))]).await;
        let a = start(&world, Plan { resolver: Some(zone.resolver.clone()), ..Plan::default() });
        let table: [(Transport, &str, Option<u16>, &str); 5] = [
            (Tcp, "127.0.0.1", Some(nowhere().port()), "refused"),
            (Tls, "127.0.0.1", Some(nowhere().port()), "refused"),
            (Tcp, "unknown.example", Some(5060), "no such name"),
            (Tcp, "none.example", None, "no such service"),
            (Udp, "::1", Some(5060), "no UDP listener can send there"),
        ];
        for (n, (transport, host, port, why)) in table.into_iter().enumerate() {
            let cause = a.ear.no_flow(a.dial(n as u64, transport, host, port, B)).await;
            assert!(cause.contains(why) && cause.contains(host), "{cause}");
        }
    });
}

#[test]
fn sip_d_14_of_three_records_two_dead_the_third_is_dialled_and_then_first() {
    run(|world| async move {
        let (b, c) = (start(&world, Plan::default()), start(&world, Plan::default()));
        let (service, gone) = ("_sip._tcp.b.example", nowhere());
        let records = [
            (service, srv(0, gone, "gone.b.example.")),
            (service, srv(1, b.at(Tcp), "here.b.example.")),
            (service, srv(2, c.at(Tcp), "here.b.example.")),
            ("gone.b.example", v4("127.0.0.1")),
            ("here.b.example", v4("127.0.0.1")),
        ];
        let zone = Zone::serve(&world, &records).await;
        let a = start(&world, Plan { resolver: Some(zone.resolver.clone()), ..Plan::default() });
        a.dial(1, Tcp, B, None, B);
        let flow = a.ear.up(0).await;
        assert_eq!((flow.remote, flow.has_alternatives), (b.at(Tcp), true));
        // The first one is back, which nobody knows yet.
        let _back = TcpListener::bind(gone).await.expect("the port is free");
        // It answers with 503, say: for some time the one behind it is taken.
        a.edge.send(ToFlow::Avoid { flow: flow.flow, span: Duration::from_secs(60) });
        a.ear.down(flow.flow).await;
        a.dial(2, Tcp, B, None, B);
        let flow = a.ear.up(1).await;
        assert_eq!(flow.remote, c.at(Tcp));
        // The time is over at once.
        a.edge.send(ToFlow::Avoid { flow: flow.flow, span: Duration::ZERO });
        a.ear.down(flow.flow).await;
        a.dial(3, Tcp, B, None, B);
        assert_eq!(a.ear.up(2).await.remote, c.at(Tcp), "both others failed of late");
    });
}

#[test]
fn sip_d_13_a_next_hop_that_names_no_transport_is_found_by_naptr_within_what_we_allow() {
    run(|world| async move {
        let b = start(&world, Plan { names: vec![B], ..Plan::default() });
        let records = [
            (B, naptr(1, "SIP+D2U", "_sip._udp.b.example.")),
            (B, naptr(2, "SIPS+D2T", "_sips._tcp.elsewhere.example.")),
            ("_sips._tcp.elsewhere.example", srv(0, b.at(Tls), "here.b.example.")),
            ("here.b.example", v4("127.0.0.1")),
        ];
        let zone = Zone::serve(&world, &records).await;
        let a = start(&world, Plan { resolver: Some(zone.resolver.clone()), ..Plan::default() });
        let (host, domain) = (B.into(), B.into());
        a.edge.send(ToFlow::Dial {
            dial: DialId(1),
            transport: Tls,
            is_transport_named: false,
            host,
            port: None,
            domain,
        });
        let flow = a.ear.up(0).await;
        assert_eq!((flow.transport, flow.remote, flow.has_alternatives), (Tls, b.at(Tls), false));
        assert!(zone.asked().contains(&"b.example NAPTR".to_owned()), "{:?}", zone.asked());
    });
}
