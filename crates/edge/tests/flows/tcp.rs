//! Connections without TLS.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tombolo_edge::Transport::{Tcp, Tls, Udp};

use crate::{
    common::{nowhere, run, trap},
    stage::{PATIENCE, Plan, call_ids, read_rest, read_text, request, start},
};

#[test]
fn sip_t_01_tcp_tls_and_udp_listen_and_udp_on_the_port_of_tcp() {
    run(|world| async move {
        let shared = nowhere();
        let plan = Plan { listen: vec![(Tcp, shared), (Udp, shared)], ..Plan::default() };
        let site = start(&world, Plan { names: vec!["b.example"], ..plan });
        assert_eq!((site.at(Tcp), site.at(Udp)), (shared, shared));
        let mut tcp = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        tcp.write_all(request("OPTIONS", "tcp", "").as_bytes()).await.expect("written");
        let over_tcp = site.ear.up(0).await;
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        udp.send_to(request("OPTIONS", "udp", "").as_bytes(), site.at(Udp)).await.expect("sent");
        let over_udp = site.ear.up(1).await;
        let tls = TcpStream::connect(site.at(Tls)).await.expect("connected");
        let config = tombolo_net::client_config(None, &[]);
        let (mut tls, _) =
            tombolo_net::connect_tls(tls, config, "b.example", PATIENCE).await.expect("shaken hands");
        tls.write_all(request("OPTIONS", "tls", "").as_bytes()).await.expect("written");
        let over_tls = site.ear.up(2).await;
        for (flow, transport, call_id) in
            [(over_tcp, Tcp, "tcp"), (over_udp, Udp, "udp"), (over_tls, Tls, "tls")]
        {
            assert_eq!(flow.transport, transport);
            assert_eq!(call_ids(&site.ear.messages(flow.flow, 1).await), [call_id]);
        }
    });
}

#[test]
fn a_request_comes_in_and_its_response_goes_back_on_the_same_connection() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        peer.write_all(request("SUBSCRIBE", "x", "").as_bytes()).await.expect("written");
        let flow = site.ear.up(0).await;
        assert_eq!((flow.transport, flow.dial), (Tcp, None));
        assert_eq!(flow.remote, peer.local_addr().expect("connected"));
        assert_eq!(flow.local, site.at(Tcp));
        assert_eq!(&*flow.sent_by, site.at(Tcp).to_string());
        assert!(flow.proved_domains.is_empty());
        let messages = site.ear.messages(flow.flow, 1).await;
        assert_eq!(messages[0].source(), Some(flow.remote));
        let response = "SIP/2.0 202 Accepted\r\nContent-Length: 0\r\n\r\n";
        site.send(flow.flow, response);
        assert_eq!(read_text(&mut peer, response.len()).await, response);
        site.ear.written(flow.flow, response.len()).await;
        drop(peer);
        assert_eq!(site.ear.down(flow.flow).await, "closed by the peer");
        assert_eq!(site.ear.order(flow.flow), ["up", "messages", "written", "down"]);
        // What is said to an ended flow is dropped.
        site.send(flow.flow, response);
    });
}

#[test]
fn pipelined_messages_are_the_same_in_one_segment_and_in_many() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let all = ["one", "two", "three"].map(|id| request("MESSAGE", id, "a\r\n\r\nSIP/2.0 b")).concat();
        for (n, step) in [all.len(), 7, 1].into_iter().enumerate() {
            let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
            peer.set_nodelay(true).expect("set");
            for part in all.as_bytes().chunks(step) {
                peer.write_all(part).await.expect("written");
                tokio::task::yield_now().await;
            }
            let flow = site.ear.up(n).await;
            let messages = site.ear.messages(flow.flow, 3).await;
            assert_eq!(call_ids(&messages), ["one", "two", "three"], "by {step} octets");
            assert!(messages.iter().all(|message| &message.body()[..] == b"a\r\n\r\nSIP/2.0 b"));
        }
    });
}

#[test]
fn a_full_receiver_fills_the_connection_and_nothing_is_lost() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        site.ear.set_full(true);
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let flow = site.ear.up(0).await;
        let (mut reading, mut writing) = peer.split();
        let all: Vec<String> =
            (0..2000).map(|n| request("MESSAGE", &n.to_string(), &"x".repeat(4000))).collect();
        let written = async {
            for message in &all {
                writing.write_all(message.as_bytes()).await.expect("written");
            }
        };
        tokio::pin!(written);
        // 8 MB are more than sockets hold: with nobody to take them, the peer cannot write on.
        let stuck = timeout(Duration::from_millis(500), &mut written);
        let (stuck, ()) = tokio::join!(stuck, site.ear.gave_back());
        assert!(stuck.is_err(), "somebody keeps what the receiver did not take");
        // The other way is open.
        site.send(flow.flow, "SIP/2.0 200 OK\r\n\r\n");
        assert_eq!(read_text(&mut reading, 18).await, "SIP/2.0 200 OK\r\n\r\n");
        site.ear.set_full(false);
        written.await;
        let came = call_ids(&site.ear.messages(flow.flow, 2000).await);
        assert_eq!(came, (0..2000).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn sip_t_19_who_does_not_read_is_kept_a_bounded_part_for_and_is_then_closed() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let flow = site.ear.up(0).await;
        site.bind(flow.flow);
        // Far over what sockets hold and the queue may.
        for _ in 0..64 {
            site.send(flow.flow, vec![b'x'; 1 << 20]);
        }
        let kept = read_rest(&mut peer).await.len();
        assert!((8 << 20..32 << 20).contains(&kept), "{kept}");
        assert_eq!(kept % (1 << 20), 0, "no message is cut");
        drop(peer);
        assert_eq!(site.ear.down(flow.flow).await, "closed");
        site.ear.written(flow.flow, kept).await;
    });
}

#[test]
fn sip_t_19_a_stranger_that_reads_nothing_is_kept_little_for() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let flow = site.ear.up(0).await;
        // At once, so that the connection writes none of it meanwhile.
        for _ in 0..1000 {
            site.send(flow.flow, vec![b'x'; 1 << 10]);
        }
        let kept = read_rest(&mut peer).await.len();
        assert!(kept < 256 << 10, "{kept}");
        drop(peer);
        site.ear.down(flow.flow).await;
    });
}

#[test]
fn a_flow_that_ended_before_it_was_somebodys_is_told_of_again() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let flow = site.ear.up(0).await;
        drop(peer);
        site.ear.down(flow.flow).await;
        site.bind(flow.flow);
        assert_eq!(site.ear.order(flow.flow), ["up", "down", "down"]);
    });
}

#[test]
fn what_is_queued_is_written_before_a_close() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let flow = site.ear.up(0).await;
        site.bind(flow.flow);
        let parts: Vec<String> = (0..500).map(|n| request("NOTIFY", &n.to_string(), "state")).collect();
        for part in &parts {
            site.send(flow.flow, part.clone());
        }
        site.close(flow.flow);
        assert_eq!(read_rest(&mut peer).await, parts.concat());
        drop(peer);
        assert_eq!(site.ear.down(flow.flow).await, "closed");
        site.ear.written(flow.flow, parts.concat().len()).await;
    });
}

#[test]
fn garbage_ends_its_own_connection_only() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut good = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let good_flow = site.ear.up(0).await;
        let garbage: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
            &[0xff; 70_000],
            &[0; 70_000],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ];
        for (n, garbage) in garbage.into_iter().enumerate() {
            let mut bad = TcpStream::connect(site.at(Tcp)).await.expect("connected");
            let flow = site.ear.up(n + 1).await;
            bad.write_all(garbage).await.expect("written");
            assert_eq!(read_rest(&mut bad).await, "", "garbage {n}");
            drop(bad);
            site.ear.down(flow.flow).await;
            assert_eq!(site.ear.order(flow.flow), ["up", "down"], "garbage {n}");
        }
        assert_eq!(site.counted("malformed_total"), 4);
        good.write_all(request("MESSAGE", "here", "").as_bytes()).await.expect("written");
        assert_eq!(call_ids(&site.ear.messages(good_flow.flow, 1).await), ["here"]);
    });
}

#[test]
fn a_malformed_request_is_answered_before_the_connection_ends() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let bad = request("OPTIONS", "bad", "").replace("Content-Length: 0", "Content-Length: many");
        // Many octets behind it: they must not take the answer back.
        let whole = request("MESSAGE", "good", "") + &bad + &"x".repeat(500_000);
        peer.write_all(whole.as_bytes()).await.expect("written");
        let answer = read_rest(&mut peer).await;
        assert!(answer.starts_with("SIP/2.0 400 ") && answer.contains("Call-ID: bad\r\n"), "{answer}");
        let port = peer.local_addr().expect("connected").port();
        assert!(answer.contains(&format!("rport={port}")), "{answer}");
        drop(peer);
        let flow = site.ear.up(0).await;
        site.ear.down(flow.flow).await;
        assert_eq!(call_ids(&site.ear.messages(flow.flow, 1).await), ["good"]);
        assert_eq!(site.ear.order(flow.flow), ["up", "messages", "down"], "the answer is no credit");
    });
}

#[test]
fn a_ping_is_answered_and_is_no_message() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peer = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        peer.write_all(b"\r\n\r\n").await.expect("written");
        assert_eq!(read_text(&mut peer, 2).await, "\r\n");
        let flow = site.ear.up(0).await;
        drop(peer);
        site.ear.down(flow.flow).await;
        assert_eq!(site.ear.order(flow.flow), ["up", "down"]);
    });
}

#[test]
fn a_panic_ends_one_connection_and_is_reported_as_its_end() {
    run(|world| async move {
        let site = start(&world, Plan::default());
        let mut peers = Vec::new();
        for n in 0..8 {
            peers.push(TcpStream::connect(site.at(Tcp)).await.expect("connected"));
            site.ear.up(n).await;
        }
        let first = site.ear.up(0).await;
        let bad = request("MESSAGE", "bad", "").replace("Max-Forwards: 70", "Subject: panic");
        let local = first.remote;
        let place = peers.iter().position(|peer| peer.local_addr().expect("connected") == local);
        let mut peer = peers.swap_remove(place.expect("one of them"));
        peer.write_all(bad.as_bytes()).await.expect("written");
        let cause = site.ear.down(first.flow).await;
        assert!(cause.contains("panicked"), "{cause}");
        assert_eq!(site.counted("panics_total"), 1);
        // Both arbiters work on, for old and new connections.
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.write_all(request("MESSAGE", &n.to_string(), "").as_bytes()).await.expect("written");
        }
        for n in 1..8 {
            let flow = site.ear.up(n).await;
            site.ear.messages(flow.flow, 1).await;
        }
    });
}

#[test]
fn a_panic_of_the_listener_costs_the_connection_in_hand_and_the_next_ones_are_taken() {
    trap::set("sip connections refused: over sip.limits");
    run(|world| async move {
        let site = start(&world, Plan { connections: Some(1), ..Plan::default() });
        let first = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        let flow = site.ear.up(0).await;
        let mut second = TcpStream::connect(site.at(Tcp)).await.expect("connected");
        assert_eq!(read_rest(&mut second).await, "", "over the limit");
        assert!(trap::is_sprung());
        drop(first);
        site.ear.down(flow.flow).await;
        let taken = async {
            loop {
                let mut next = TcpStream::connect(site.at(Tcp)).await.expect("connected");
                // One that is over the limit is closed.
                if timeout(Duration::from_millis(500), next.read_u8()).await.is_err() {
                    break;
                }
            }
        };
        timeout(PATIENCE, taken).await.expect("the listener goes on");
        site.ear.up(1).await;
        assert_eq!(site.counted("panics_total"), 1);
    });
}

#[test]
fn a_connection_over_the_limit_is_closed_unread_and_counted_and_one_that_ends_makes_room() {
    run(|world| async move {
        let site = start(&world, Plan { connections: Some(2), ..Plan::default() });
        let connect = || async { TcpStream::connect(site.at(Tcp)).await.expect("connected") };
        let first = connect().await;
        let flow = site.ear.up(0).await;
        let _second = connect().await;
        site.ear.up(1).await;
        assert_eq!(read_rest(&mut connect().await).await, "", "closed");
        assert_eq!(site.counted("refused_connections_total"), 1);
        drop(first);
        site.ear.down(flow.flow).await;
        // The place is given back a moment after the end is told.
        for _ in 0..50 {
            let mut third = connect().await;
            // One that was let in stays open and silent.
            if timeout(Duration::from_millis(200), third.read(&mut [0; 1])).await.is_err() {
                return;
            }
        }
        panic!("no room again");
    });
}
