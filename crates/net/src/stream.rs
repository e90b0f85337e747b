//! One connection, with or without TLS, from either side.
//!
//! In: a TCP connection, and a configuration for TLS on it. Out: octets, and what the handshake made known. A handshake
//! here has a time limit and no task of its own: who calls it gives it one.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{AlertDescription, ClientConfig, CommonState, ProtocolVersion, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{PeerCertificates, names::ascii};

/// A TCP connection, perhaps with TLS on it.
#[derive(Debug)]
pub enum AnyStream {
    /// Without TLS.
    Plain(TcpStream),
    /// We are the TLS server.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// We are the TLS client.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// What a finished handshake made known.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// What the peer showed.
    pub certificates: PeerCertificates,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite by its registered name.
    pub cipher: String,
    /// The key exchange group.
    pub key_exchange: String,
    /// The protocol that was agreed on (ALPN).
    pub alpn: Option<String>,
}

impl TlsFacts {
    fn of(session: &CommonState) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        };
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let group = session.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        Self {
            certificates: PeerCertificates::new(session.peer_certificates()),
            version: version.to_owned(),
            cipher: suite.unwrap_or("unknown").to_owned(),
            key_exchange: group.unwrap_or_else(|| "unknown".to_owned()),
            alpn: session.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        }
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[from] io::Error),
    /// It took too long.
    #[error("TLS handshake took over {0:?}")]
    Timeout(Duration),
    /// The name cannot be one.
    #[error("{0} cannot be asked for by TLS")]
    Name(String),
}

impl TlsError {
    /// True when the peer ended the handshake because of the certificate that we showed.
    pub fn is_about_certificate(&self) -> bool {
        matches!(self, Self::Handshake(error) if is_about_certificate(error))
    }

    /// True when the peer spoke, and what it said was no TLS, or TLS that cannot be: not when it was silent or went away.
    pub fn is_about_protocol(&self) -> bool {
        let Self::Handshake(error) = self else { return false };
        error.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
    }
}

/// True when an error of a connection is the peer's refusal of the certificate that we showed (RFC 8446 §6.2). A client
/// learns of it by its first read: its side of a TLS 1.3 handshake is complete by then.
pub fn is_about_certificate(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return false };
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            // A wrong signature in its chain.
            | Alert::DecryptError
    )
}

/// Accepts TLS on a connection, within `limit`.
pub async fn accept_tls(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> Result<(AnyStream, TlsFacts), TlsError> {
    let mut stream = timeout(limit, TlsAcceptor::from(config).accept(socket))
        .await
        .map_err(|_| TlsError::Timeout(limit))?
        .map_err(for_operators)?;
    let (_, session) = stream.get_mut();
    session.set_buffer_limit(Some(BUFFER_LIMIT));
    let facts = TlsFacts::of(session);
    Ok((AnyStream::Server(Box::new(stream)), facts))
}

/// Begins TLS on a connection and asks for `domain` (in any script, or an address), within `limit`.
pub async fn connect_tls(
    socket: TcpStream,
    config: Arc<ClientConfig>,
    domain: &str,
    limit: Duration,
) -> Result<(AnyStream, TlsFacts), TlsError> {
    let name = domain.trim_matches(['[', ']']);
    let name = ServerName::try_from(ascii(name)).map_err(|_| TlsError::Name(domain.to_owned()))?;
    let mut stream = timeout(limit, TlsConnector::from(config).connect(name, socket))
        .await
        .map_err(|_| TlsError::Timeout(limit))?
        .map_err(for_operators)?;
    let (_, session) = stream.get_mut();
    session.set_buffer_limit(Some(BUFFER_LIMIT));
    let facts = TlsFacts::of(session);
    Ok((AnyStream::Client(Box::new(stream)), facts))
}

/// What TLS may hold of one connection before the socket takes it.
const BUFFER_LIMIT: usize = 128 * 1024;

impl AnyStream {
    /// The TCP connection beneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Server(stream) => stream.get_ref().0,
            Self::Client(stream) => stream.get_ref().0,
        }
    }

    /// True with TLS.
    pub fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

impl AsyncRead for AnyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Server(stream) => Pin::new(stream).poll_read(cx, buf).map_err(for_operators),
            Self::Client(stream) => Pin::new(stream).poll_read(cx, buf).map_err(for_operators),
        }
    }
}

/// The library's text for a peer that hangs up without ending TLS sends operators to its documentation for programmers.
fn for_operators(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(io::ErrorKind::UnexpectedEof, "the peer hung up without ending TLS");
    }
    error
}

impl AsyncWrite for AnyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Server(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Client(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Server(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Client(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Server(stream) => stream.is_write_vectored(),
            Self::Client(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Server(stream) => Pin::new(stream).poll_flush(cx),
            Self::Client(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
