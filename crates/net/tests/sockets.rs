//! Connections over loopback, some to addresses that do not answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tombolo_net::{connect, listen, listen_all, udp, udp_all};

const LIMIT: Duration = Duration::from_secs(20);

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// A port that nobody listens at.
fn closed() -> SocketAddr {
    let socket = std::net::TcpListener::bind(any_port()).expect("a port");
    socket.local_addr().expect("bound")
}

/// A listener whose queue is full, so that further attempts get no answer. The sockets keep it so.
fn silent() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&any_port().into()).expect("a port");
    listener.listen(0).expect("listens");
    let address = listener.local_addr().expect("bound").as_socket().expect("IPv4");
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("set");
        // In progress, or already refused to go on: both fill the queue.
        let _ = filler.connect(&address.into());
        sockets.push(filler);
    }
    (address, sockets)
}

#[tokio::test]
async fn both_ends_send_at_once_and_keep_little_unsent() {
    let listener = listen(any_port()).expect("listens");
    let addresses = [listener.local_addr().expect("bound")];
    let (accepted, connected) = tokio::join!(listener.accept(), connect(&addresses, LIMIT));
    for stream in [accepted.expect("accepted").0, connected.expect("connected")] {
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("read"));
        assert_eq!(socket.tcp_notsent_lowat().expect("read"), 16 * 1024);
    }
}

#[tokio::test]
async fn xs_str_11_both_ends_notice_within_90_s_that_the_other_host_is_gone() {
    let listener = listen(any_port()).expect("listens");
    let addresses = [listener.local_addr().expect("bound")];
    let (accepted, connected) = tokio::join!(listener.accept(), connect(&addresses, LIMIT));
    for stream in [accepted.expect("accepted").0, connected.expect("connected")] {
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("read"));
        assert_eq!(socket.tcp_keepalive_time().expect("read"), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().expect("read"), Duration::from_secs(15));
        assert_eq!(socket.tcp_user_timeout().expect("read"), Some(Duration::from_secs(90)));
    }
}

#[tokio::test]
async fn a_port_is_free_again_right_after_its_listener_is_gone() {
    let listener = listen(any_port()).expect("listens");
    let address = listener.local_addr().expect("bound");
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    drop((accepted.expect("accepted"), listener));
    listen(address).expect("free again");
    drop(connected);
}

#[tokio::test]
async fn dead_addresses_are_passed_over_and_a_silent_one_holds_nobody_up() {
    let listener = listen(any_port()).expect("listens");
    let alive = listener.local_addr().expect("bound");
    let (silent, _sockets) = silent();
    let began = Instant::from(tokio::time::Instant::now());
    let stream = connect(&[closed(), silent, alive], LIMIT).await.expect("connected");
    assert_eq!(stream.peer_addr().expect("connected"), alive);
    let took = tokio::time::Instant::now().into_std() - began;
    assert!(took < Duration::from_secs(5), "{took:?}, a quarter of a second is due");
}

#[tokio::test]
async fn when_no_address_answers_the_last_error_is_told() {
    let error = connect(&[closed(), closed()], LIMIT).await.expect_err("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let (silent, _sockets) = silent();
    let error = connect(&[silent], Duration::from_millis(50)).await.expect_err("nobody answers");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let error = connect(&[], LIMIT).await.expect_err("no address");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn datagrams_arrive() {
    let (one, other) = (udp(any_port()).expect("a socket"), udp(any_port()).expect("a socket"));
    one.send_to(b"x", other.local_addr().expect("bound")).await.expect("sent");
    let mut buffer = [0; 8];
    let (len, from) = other.recv_from(&mut buffer).await.expect("received");
    assert_eq!((&buffer[..len], from), (&b"x"[..], one.local_addr().expect("bound")));
}

#[tokio::test]
async fn all_addresses_are_reached_by_both_families_and_beside_a_listener_for_ipv4_alone() {
    let all = "[::]:0".parse().expect("an address");
    let listeners = listen_all(all, &[all]).expect("listens");
    let port = listeners[0].local_addr().expect("bound").port();
    // Where the machine has no IPv6 there is one of them.
    for listener in &listeners {
        let at = listener.local_addr().expect("bound");
        assert_eq!(at.port(), port);
        let host: std::net::IpAddr =
            if at.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().expect("one") };
        let (accepted, connected) =
            tokio::join!(listener.accept(), TcpStream::connect(SocketAddr::new(host, port)));
        let (_, remote) = accepted.expect("accepted");
        assert!(connected.is_ok() && remote.ip() == host, "{remote}: no mapped address");
    }
    assert!(listeners.iter().any(|listener| listener.local_addr().is_ok_and(|at| at.is_ipv4())));
    drop(listeners);
    let v4 = listen("0.0.0.0:0".parse().expect("an address")).expect("listens").local_addr().expect("bound");
    let both = [SocketAddr::new("::".parse().expect("all"), v4.port()), v4];
    for order in [[0, 1], [1, 0]] {
        let bound: Vec<_> =
            order.iter().map(|at| listen_all(both[*at], &both).expect("side by side")).collect();
        let sockets: Vec<_> =
            order.iter().map(|at| udp_all(both[*at], &both).expect("so does UDP")).collect();
        drop((bound, sockets));
    }
}
