//! A foreign server written by hand: it dials in the clear, shows keys, and says of every key that it made it; or it takes
//! streams by STARTTLS and sends them elsewhere.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tombolo_net::{
    AnyStream, CertificateStore, TlsFacts, accept_tls, client_config, connect_tls, server_config,
};

/// Where the authoritative server of some domains listens.
pub struct ClearServer {
    pub address: SocketAddr,
}

/// A stream in the clear, and what came by it.
pub struct ClearStream {
    pub socket: AnyStream,
    pub heard: String,
}

pub fn header(attributes: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
         xmlns:stream='http://etherx.jabber.org/streams' version='1.0' {attributes}>"
    )
}

/// The header of a stream from a domain to another.
pub fn stream_header(from: &str, to: &str) -> String {
    header(&format!("from='{from}' to='{to}'"))
}

pub fn attribute<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!(" {name}='")).expect("the attribute is there");
    rest.split_once('\'').expect("quoted").0
}

impl ClearServer {
    /// Answers questions about keys for whatever domain is asked.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut stream = ClearStream { socket: AnyStream::Plain(socket), heard: String::new() };
                    let asked = stream.until("<stream:stream", ">").await;
                    let (ours, theirs) = (attribute(&asked, "to"), attribute(&asked, "from"));
                    stream.say(&header(&format!("id='x1' from='{ours}' to='{theirs}'"))).await;
                    let features =
                        "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>";
                    stream.say(features).await;
                    let asked = stream.until("<db:verify", ">").await;
                    let [from, to, id] = ["to", "from", "id"].map(|name| attribute(&asked, name));
                    stream.say(&format!("<db:verify from='{from}' to='{to}' id='{id}' type='valid'/>")).await;
                    // Held open until the asker leaves.
                    let _ = stream.socket.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        Self { address }
    }
}

/// Awaits streams for a domain, begins TLS with its certificate, and sends every one of them to another host. Where it
/// listens.
pub async fn send_elsewhere(domain: &str, shown: Arc<CertificateStore>, other_host: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let hello = header(&format!("id='x2' from='{domain}'"));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut stream = ClearStream { socket: AnyStream::Plain(socket), heard: String::new() };
            stream.until("<stream:stream", ">").await;
            let required = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
            stream.say(&format!("{hello}<stream:features>{required}</stream:features>")).await;
            stream.until("<starttls", ">").await;
            stream.say("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
            let AnyStream::Plain(socket) = stream.socket else { return };
            let limit = Duration::from_secs(5);
            let Ok((socket, _)) = accept_tls(socket, server_config(&shown, &[]), limit).await else {
                continue;
            };
            let mut stream = ClearStream { socket, heard: String::new() };
            stream.until("<stream:stream", ">").await;
            let error = format!(
                "{hello}<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{other_host}\
                 </see-other-host></stream:error></stream:stream>"
            );
            stream.say(&error).await;
            stream.rest().await;
        }
    });
    address
}

impl ClearStream {
    /// A stream from a domain to another, with the features that were offered.
    pub async fn dial(at: SocketAddr, from: &str, to: &str) -> (Self, String) {
        let socket = TcpStream::connect(at).await.expect("a listener");
        // What is said has left, also when the connection is reset at once.
        socket.set_nodelay(true).expect("a socket");
        let mut stream = Self { socket: AnyStream::Plain(socket), heard: String::new() };
        stream.say(&header(&format!("from='{from}' to='{to}'"))).await;
        let features = stream.until("<stream:features", "</stream:features>").await;
        (stream, features)
    }

    /// A stream from a domain to another by STARTTLS, up to the features inside TLS, with what the other side showed there.
    /// `sni` is what TLS names; an IP address is not named. The certificate is of `from`, when `own` has one.
    pub async fn dial_tls(
        at: SocketAddr,
        from: &str,
        to: &str,
        sni: &str,
        own: &CertificateStore,
    ) -> (Self, TlsFacts) {
        let (mut stream, _) = Self::dial(at, from, to).await;
        stream.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        stream.until("<proceed", "/>").await;
        let AnyStream::Plain(socket) = stream.socket else { panic!("in the clear until here") };
        let (config, limit) = (client_config(own.certificate(from), &[]), Duration::from_secs(5));
        let (socket, facts) = connect_tls(socket, config, sni, limit).await.expect("TLS");
        let mut stream = Self { socket, heard: String::new() };
        stream.say(&stream_header(from, to)).await;
        stream.until("<stream:features", "</stream:features>").await;
        (stream, facts)
    }

    /// Ends the connection at once (RST), as a process that is killed with octets unread.
    pub fn reset(self) {
        let AnyStream::Plain(socket) = self.socket else { panic!("in the clear") };
        socket.set_zero_linger().expect("a socket");
    }

    /// Shows a key for a domain; what is said of it.
    pub async fn show_key(&mut self, from: &str, to: &str) -> String {
        self.say(&format!("<db:result from='{from}' to='{to}'>0123456789abcdef</db:result>")).await;
        self.until("<db:result", ">").await
    }

    pub async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("written");
    }

    /// What was said from `begin` to `end`; all of it is taken.
    pub async fn until(&mut self, begin: &str, end: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(begin)
                && let Some(len) = self.heard[at..].find(end)
            {
                let found = self.heard[at..at + len + end.len()].to_owned();
                self.heard.drain(..at + len + end.len());
                return found;
            }
            assert!(self.read().await, "the stream ended before {begin}: {}", self.heard);
        }
    }

    /// What is said until the end.
    pub async fn rest(&mut self) -> String {
        while self.read().await {}
        std::mem::take(&mut self.heard)
    }

    /// Waits for more; false at the end of the connection.
    pub async fn read(&mut self) -> bool {
        let mut octets = [0; 4096];
        let read = timeout(Duration::from_secs(15), self.socket.read(&mut octets)).await;
        let len = read.expect("it speaks or ends").unwrap_or(0);
        self.heard.push_str(std::str::from_utf8(&octets[..len]).expect("ASCII"));
        len > 0
    }
}
