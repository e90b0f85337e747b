//! Datagrams.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::UdpSocket, time::timeout};
use tombolo_edge::{FlowFacts, Transport::Udp};

use crate::{
    common::run,
    stage::{PATIENCE, Plan, Site, call_ids, request_by, start},
};

struct Peer {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Peer {
    async fn of(site: &Site) -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").await.expect("a port"), to: site.at(Udp) }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    async fn send(&self, datagram: impl AsRef<[u8]>) {
        self.socket.send_to(datagram.as_ref(), self.to).await.expect("sent");
    }

    async fn receive(&self) -> String {
        let mut buffer = vec![0; 65_535];
        let (len, from) =
            timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await.expect("in time").expect("received");
        assert_eq!(from, self.to, "it comes from where we sent to");
        String::from_utf8(buffer[..len].to_vec()).expect("text")
    }

    fn request(&self, call_id: &str) -> String {
        let via = format!("SIP/2.0/UDP {};branch=z9hG4bK{call_id};rport", self.address());
        request_by(&via, "MESSAGE", call_id, "hello")
    }
}

/// Sends until the flow after `n` flows is there; all before it were then looked at, since one actor takes them in turn.
async fn next_flow(site: &Site, n: usize) -> std::sync::Arc<FlowFacts> {
    let marker = Peer::of(site).await;
    marker.send(marker.request("marker")).await;
    let flow = site.ear.up(n).await;
    assert_eq!(flow.remote, marker.address(), "a flow came up that must not");
    flow
}

#[test]
fn each_remote_address_is_a_flow_from_its_first_datagram_on() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let (one, two) = (Peer::of(&site).await, Peer::of(&site).await);
        one.send(one.request("1")).await;
        let first = site.ear.up(0).await;
        two.send(two.request("2")).await;
        let second = site.ear.up(1).await;
        one.send(one.request("3")).await;
        assert_eq!(call_ids(&site.ear.messages(first.flow, 2).await), ["1", "3"]);
        assert_eq!(call_ids(&site.ear.messages(second.flow, 1).await), ["2"]);
        assert_eq!((first.transport, first.remote, first.local), (Udp, one.address(), site.at(Udp)));
        assert_eq!(&*first.sent_by, site.at(Udp).to_string());
        site.send(second.flow, "SIP/2.0 200 OK\r\n\r\n");
        assert_eq!(two.receive().await, "SIP/2.0 200 OK\r\n\r\n");
        site.ear.written(second.flow, 18).await;
        assert_eq!(site.ear.order(first.flow), ["up", "messages", "messages"]);
    });
}

#[test]
fn a_closed_flow_ends_and_its_address_is_met_anew() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let peer = Peer::of(&site).await;
        peer.send(peer.request("1")).await;
        let first = site.ear.up(0).await;
        site.close(first.flow);
        assert_eq!(site.ear.down(first.flow).await, "closed");
        peer.send(peer.request("2")).await;
        let second = site.ear.up(1).await;
        assert_eq!(second.remote, first.remote);
        assert_ne!(second.flow, first.flow);
        assert_eq!(call_ids(&site.ear.messages(second.flow, 1).await), ["2"]);
    });
}

#[test]
fn a_full_receiver_loses_datagrams_and_they_are_counted() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let peer = Peer::of(&site).await;
        peer.send(peer.request("1")).await;
        let flow = site.ear.up(0).await;
        site.ear.messages(flow.flow, 1).await;
        site.ear.set_full(true);
        peer.send(peer.request("2")).await;
        site.ear.gave_back().await;
        site.ear.set_full(false);
        peer.send(peer.request("3")).await;
        assert_eq!(call_ids(&site.ear.messages(flow.flow, 2).await), ["1", "3"]);
        assert_eq!(site.counted("refused_requests_total"), 1);
    });
}

#[test]
fn sip_t_04_a_short_body_is_answered_with_400_or_dropped_and_what_is_behind_a_body_is_ignored() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let peer = Peer::of(&site).await;
        let short = peer.request("short").replace("Content-Length: 5", "Content-Length: 9999");
        peer.send(&short).await;
        let answer = peer.receive().await;
        assert!(answer.starts_with("SIP/2.0 400 ") && answer.contains("Call-ID: short\r\n"), "{answer}");
        assert!(answer.contains(&format!("rport={}", peer.address().port())), "{answer}");
        // A response cannot be answered, nor an ACK.
        let request_line = "MESSAGE sip:a@b.example SIP/2.0";
        peer.send(short.replace(request_line, "SIP/2.0 200 OK")).await;
        peer.send(short.replace("MESSAGE", "ACK")).await;
        let two = peer.request("first") + &peer.request("second");
        peer.send(&two).await;
        let flow = site.ear.up(0).await;
        let messages = site.ear.messages(flow.flow, 1).await;
        assert_eq!(call_ids(&messages), ["first"]);
        assert_eq!(&messages[0].body()[..], b"hello");
        assert_eq!(messages[0].source(), Some(peer.address()));
        site.send(flow.flow, "SIP/2.0 100 Trying\r\n\r\n");
        assert_eq!(peer.receive().await, "SIP/2.0 100 Trying\r\n\r\n", "nothing was said in between");
        assert_eq!(site.counted("malformed_total"), 3);
    });
}

#[test]
fn garbage_and_keep_alives_are_no_flow() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let peer = Peer::of(&site).await;
        for nothing in
            [&b"\r\n\r\n"[..], b"\0\0\0\0", b"", b"\xff\xfe\xfd", b"GET / HTTP/1.1\r\n\r\n", b"SIP/2.0"]
        {
            peer.send(nothing).await;
        }
        next_flow(&site, 0).await;
        assert_eq!(site.counted("malformed_total"), 3);
        let heard = timeout(Duration::from_millis(50), peer.socket.recv_from(&mut [0; 64])).await;
        assert!(heard.is_err(), "garbage was answered");
    });
}

#[test]
fn a_response_goes_to_the_port_of_the_via_where_rport_was_not_asked_for() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let (sender, named) = (Peer::of(&site).await, Peer::of(&site).await);
        let via = format!("SIP/2.0/UDP phone.example:{};branch=z9hG4bKa", named.address().port());
        sender.send(request_by(&via, "OPTIONS", "x", "")).await;
        let flow = site.ear.up(0).await;
        let response =
            format!("SIP/2.0 200 OK\r\nVia: {via};received=127.0.0.1\r\nContent-Length: 0\r\n\r\n");
        site.send(flow.flow, response.clone());
        assert_eq!(named.receive().await, response);
        // A request of ours goes to where the peer sends from.
        site.send(flow.flow, request_by("SIP/2.0/UDP us", "OPTIONS", "y", ""));
        assert!(sender.receive().await.starts_with("OPTIONS "));
    });
}

#[test]
fn a_listener_for_all_addresses_names_the_one_that_the_peer_sees() {
    run(|world| async move {
        let all = SocketAddr::from(([0, 0, 0, 0], 0));
        let site = start(&world, Plan { listen: vec![(Udp, all)], ..Plan::default() });
        let port = site.at(Udp).port();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let peer = Peer { to: at, ..Peer::of(&site).await };
        peer.send(peer.request("x")).await;
        let flow = site.ear.up(0).await;
        assert_eq!((flow.local, &*flow.sent_by), (at, &*at.to_string()));
    });
}

#[test]
fn a_dial_of_an_address_that_has_a_flow_is_answered_with_that_flow() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let peer = Peer::of(&site).await;
        peer.send(peer.request("1")).await;
        let met = site.ear.up(0).await;
        let port = Some(peer.address().port());
        // Two lines of one telephone, say, each dialled.
        for (n, dial) in [(1, 70), (2, 71)] {
            let dial = site.dial(dial, Udp, "127.0.0.1", port, "b.example");
            let dialled = site.ear.up(n).await;
            assert_eq!((dialled.flow, dialled.dial, dialled.remote), (met.flow, Some(dial), peer.address()));
        }
        site.send(met.flow, request_by("SIP/2.0/UDP us", "OPTIONS", "x", ""));
        assert!(peer.receive().await.starts_with("OPTIONS "));
        peer.send(peer.request("2")).await;
        assert_eq!(call_ids(&site.ear.messages(met.flow, 2).await), ["1", "2"]);
        assert!(!site.ear.order(met.flow).contains(&"down"));
    });
}

#[test]
fn a_datagram_over_which_its_handling_panics_costs_nobody_else_the_socket() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let (bad, good) = (Peer::of(&site).await, Peer::of(&site).await);
        for _ in 0..10 {
            bad.send(bad.request("bad").replace("Max-Forwards: 70", "Subject: panic")).await;
        }
        good.send(good.request("good")).await;
        let flow = site.ear.up(1).await;
        assert_eq!(flow.remote, good.address());
        assert_eq!(call_ids(&site.ear.messages(flow.flow, 1).await), ["good"]);
        assert_eq!(site.counted("panics_total"), 10);
        bad.send(bad.request("better")).await;
        let flow = site.ear.up(0).await;
        assert_eq!(call_ids(&site.ear.messages(flow.flow, 1).await), ["better"], "nor its sender");
    });
}
