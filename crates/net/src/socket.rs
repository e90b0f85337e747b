//! Sockets as we want them: reusable addresses, no delay, little unsent data in the kernel, and an end when the other host
//! is gone.
//!
//! In: addresses. Out: listeners and connections. It resolves no name and does no TLS.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

use crate::bind::{bind_all, with_repair};

/// TCP listeners for an address, which is one of `all` that are listened on: see [`bind_all`].
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen_all(address: SocketAddr, all: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    bind_all(address, all, listen, TcpListener::local_addr).map_err(|error| with_repair(address, error))
}

/// UDP sockets for an address, in the same way.
///
/// # Errors
/// When the address cannot be bound.
pub fn udp_all(address: SocketAddr, all: &[SocketAddr]) -> io::Result<Vec<UdpSocket>> {
    bind_all(address, all, udp, UdpSocket::local_addr).map_err(|error| with_repair(address, error))
}

/// A TCP listener for this address and family, whose connections are tuned as those of [`connect`].
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    keep_to_family(&socket, address)?;
    // What is accepted takes these over.
    tune(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A UDP socket for this address and family.
pub fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    keep_to_family(&socket, address)?;
    // A storm of responses must fit while we are at something else; the system may give less.
    let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// IPv4 has a socket of its own.
fn keep_to_family(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_only_v6(true) } else { Ok(()) }
}

/// Connects to the first address that answers; the error of the last one when none does.
///
/// Addresses are tried in their order, at most [`MAX_ATTEMPTS`]. Each has `limit`; the next one begins when one has failed,
/// or after 250 ms beside those that still wait (RFC 8305 §5), so that a dead address costs little.
///
/// The connection ends by itself when the other host is gone: TCP asks after 30 s of silence, and ends it when nothing,
/// neither an answer nor the acknowledgement of what was sent, has come for 90 s.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().copied().take(MAX_ATTEMPTS);
    let mut attempts = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(attempt(address, limit));
        }
        let ended = if waiting.len() > 0 {
            timeout(HEAD_START, attempts.join_next()).await
        } else {
            Ok(attempts.join_next().await)
        };
        match ended {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(error))) => last = io::Error::other(error),
            Ok(None) => return Err(last),
            Err(_) => {}
        }
    }
}

async fn attempt(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(address)).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer")))
    })?;
    tune(&SockRef::from(&stream))?;
    Ok(stream)
}

/// No delay; little unsent data in the kernel, so that what waits can still be replaced by what is newer; and the end of a
/// connection whose other end does not answer any more.
fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY))?;
    // It also says how long keep-alive probes may stay unanswered, in place of their number (RFC 5482, tcp(7)).
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

const BACKLOG: i32 = 1024;
const DATAGRAM_BUFFER: usize = 4 << 20;
const UNSENT_BYTES: u32 = 16 * 1024;
/// TCP asks an end that was silent for so long.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// So long may sent octets stay unacknowledged, and probes unanswered (XS-STR-11).
const USER_TIMEOUT: Duration = Duration::from_secs(90);
/// Addresses that one call of [`connect`] tries at most.
pub const MAX_ATTEMPTS: usize = 16;
const HEAD_START: Duration = Duration::from_millis(250);
