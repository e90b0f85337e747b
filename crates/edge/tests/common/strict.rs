//! A foreign server that takes keys and refuses one step of the negotiation, closing the connection each time.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tombolo_net::AnyStream;

use super::clear::{ClearStream, attribute, header};

/// What a server does where it refuses.
#[derive(Clone)]
pub struct Strict {
    /// What it says to `<auth/>` before it closes.
    pub to_auth: &'static str,
    /// What it says to `<starttls/>` before it closes; nothing: it proceeds.
    pub to_starttls: Option<&'static str>,
    /// What it says to a key: `type='valid'` or else; nothing: it ends the stream.
    pub to_key: Option<&'static str>,
    pub tls: Arc<ServerConfig>,
}

/// What was asked of a server, in order, each connection begun by `connection`.
pub type Asked = Arc<Mutex<Vec<&'static str>>>;

impl Strict {
    /// Begins to take streams; where, and what was asked.
    pub async fn start(self) -> (SocketAddr, Asked) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Asked::default();
        let of_server = asked.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                of_server.lock().push("connection");
                tokio::spawn(self.clone().serve(socket, of_server.clone()));
            }
        });
        (address, asked)
    }

    async fn serve(self, socket: TcpStream, asked: Asked) {
        let mut stream = ClearStream { socket: AnyStream::Plain(socket), heard: String::new() };
        loop {
            let Some(element) = next(&mut stream).await else { return };
            match element.split([' ', '>', '/']).next().unwrap_or_default() {
                "<stream:stream" => {
                    let (ours, theirs) = (attribute(&element, "to"), attribute(&element, "from"));
                    let features = match stream.socket.is_tls() {
                        false => "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
                        true => {
                            "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism>\
                             </mechanisms><dialback xmlns='urn:xmpp:features:dialback'/>"
                        }
                    };
                    let hello = header(&format!("id='s1' from='{ours}' to='{theirs}'"));
                    stream.say(&format!("{hello}<stream:features>{features}</stream:features>")).await;
                }
                "<starttls" => {
                    asked.lock().push("starttls");
                    if let Some(answer) = self.to_starttls {
                        // What is behind a `<proceed/>` comes in the place of TLS, once we have begun with that.
                        let (first, rest) = answer.split_once("|").unwrap_or((answer, ""));
                        stream.say(first).await;
                        if first.starts_with("<proceed") {
                            let _ = stream.socket.read_u8().await;
                            stream.say(rest).await;
                        }
                        return;
                    }
                    stream.say("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
                    let AnyStream::Plain(socket) = stream.socket else { return };
                    let Ok(socket) = TlsAcceptor::from(self.tls.clone()).accept(socket).await else { return };
                    let has_certificate = socket.get_ref().1.peer_certificates().is_some();
                    asked.lock().push(if has_certificate { "certificate" } else { "no certificate" });
                    stream =
                        ClearStream { socket: AnyStream::Server(Box::new(socket)), heard: String::new() };
                }
                "<auth" => {
                    asked.lock().push("auth");
                    return stream.say(self.to_auth).await;
                }
                "<db:result" => {
                    asked.lock().push("key");
                    let Some(answer) = self.to_key else { return stream.say("</stream:stream>").await };
                    let (ours, theirs) = (attribute(&element, "to"), attribute(&element, "from"));
                    stream.say(&format!("<db:result from='{ours}' to='{theirs}' {answer}/>")).await;
                }
                _ => {}
            }
        }
    }
}

/// The next tag that begins an element.
async fn next(stream: &mut ClearStream) -> Option<String> {
    loop {
        let begin = stream.heard.match_indices('<').map(|(at, _)| at).find(|at| {
            let rest = &stream.heard[at + 1..];
            !rest.is_empty() && !rest.starts_with(['?', '/'])
        });
        if let Some(at) = begin
            && let Some(len) = stream.heard[at..].find('>')
        {
            let tag = stream.heard[at..=at + len].to_owned();
            stream.heard.drain(..=at + len);
            return Some(tag);
        }
        if !stream.read().await {
            return None;
        }
    }
}
