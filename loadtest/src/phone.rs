//! A simulated SIP phone on TCP: registers with digest, publishes, subscribes, writes, and answers what it is sent.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::{mpsc, oneshot},
};
use tombolo_sip::{
    build::ResponseBuilder,
    digest::{Answer, Client, Login, Request},
    framer::{Frame, StreamFramer},
    message::{Message, MessageLimits},
};

/// What waits to be written, or to be looked at; over it the phone reads no more.
const WAITING_MESSAGES: usize = 65_536;

/// A phone of one user.
pub struct Phone {
    user: String,
    domain: String,
    local: SocketAddr,
    tag: String,
    cseq: AtomicU32,
    writer: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Message>>>>,
    requests: mpsc::Receiver<Message>,
    digest: Mutex<Client>,
}

impl Phone {
    /// A phone that is connected to the registrar at `server`.
    pub async fn connect(server: SocketAddr, user: &str, domain: &str, password: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let local = socket.local_addr()?;
        let (reader, mut writing) = socket.into_split();
        let (writer, mut to_write) = mpsc::channel::<Vec<u8>>(WAITING_MESSAGES);
        tokio::spawn(async move {
            while let Some(bytes) = to_write.recv().await {
                if writing.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let waiting = Arc::default();
        let (sender, requests) = mpsc::channel(WAITING_MESSAGES);
        tokio::spawn(read(reader, writer.clone(), Arc::clone(&waiting), sender));
        let login = Login {
            peer: server.to_string(),
            realm: domain.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            allows_md5: false,
        };
        Ok(Self {
            user: user.to_owned(),
            domain: domain.to_owned(),
            local,
            tag: format!("{:x}", rand::random::<u64>()),
            cseq: AtomicU32::new(1),
            writer,
            waiting,
            requests,
            digest: Mutex::new(Client::new(login)),
        })
    }

    /// The next request that came; it was answered with 200 already.
    pub async fn request(&mut self) -> Option<Message> {
        self.requests.recv().await
    }

    /// `sip:user@domain`.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    fn contact(&self) -> String {
        format!("<sip:{}@{};transport=tcp>", self.user, self.local)
    }

    /// Sends a request and waits for its final response.
    pub async fn ask(
        &self,
        method: &str,
        uri: &str,
        to: &str,
        call_id: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> io::Result<Message> {
        let branch = format!("z9hG4bK{:x}", rand::random::<u64>());
        let cseq = self.cseq.fetch_add(1, Ordering::Relaxed);
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP {};branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <{}>;tag={}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n",
            self.local,
            self.uri(),
            self.tag
        );
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        let (answer, waiting) = oneshot::channel();
        self.waiting.lock().expect("no panic under the lock").insert(branch, answer);
        let ended = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection ended");
        self.writer.send(bytes).await.map_err(|_| ended(()))?;
        waiting.await.map_err(|_| ended(()))
    }

    /// REGISTER with digest. The error says what the registrar said.
    pub async fn register(&self) -> io::Result<()> {
        let registrar = format!("sip:{}", self.domain);
        let call_id = format!("{:x}", rand::random::<u64>());
        let to = format!("<{}>", self.uri());
        let mut headers = vec![("Contact", self.contact()), ("Expires", "3600".to_owned())];
        let first = self.ask("REGISTER", &registrar, &to, &call_id, &headers, b"").await?;
        if first.status() == Some(401) {
            let values: Vec<&str> = first.www_authenticate().collect();
            let request = Request { method: "REGISTER", uri: &registrar, body: b"" };
            let authorization = {
                let mut digest = self.digest.lock().expect("no panic under the lock");
                let peer = digest.login().peer.clone();
                digest
                    .handle_challenge(&peer, values, Answer::None)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                digest.authorize(&request, rand::random())
            };
            let authorization =
                authorization.ok_or_else(|| io::Error::other("no answer to the challenge"))?;
            headers.push(("Authorization", authorization));
            let second = self.ask("REGISTER", &registrar, &to, &call_id, &headers, b"").await?;
            return expect(&second, "REGISTER");
        }
        expect(&first, "REGISTER")
    }

    /// PUBLISH of a document; `tag` is the entity tag of the one before. Gives the new tag.
    pub async fn publish(&self, document: &str, tag: Option<&str>) -> io::Result<String> {
        let uri = self.uri();
        let mut headers = vec![
            ("Event", "presence".to_owned()),
            ("Expires", "3600".to_owned()),
            ("Content-Type", "application/pidf+xml".to_owned()),
        ];
        headers.extend(tag.map(|tag| ("SIP-If-Match", tag.to_owned())));
        let call_id = format!("{:x}", rand::random::<u64>());
        let answer =
            self.ask("PUBLISH", &uri, &format!("<{uri}>"), &call_id, &headers, document.as_bytes()).await?;
        expect(&answer, "PUBLISH")?;
        Ok(answer.sip_etag().unwrap_or_default().to_owned())
    }

    /// SUBSCRIBE to the presence of `uri` in a new dialog; gives its Call-ID.
    pub async fn subscribe(&self, uri: &str) -> io::Result<String> {
        let call_id = format!("{:x}", rand::random::<u64>());
        let headers = [
            ("Event", "presence".to_owned()),
            ("Accept", "application/pidf+xml".to_owned()),
            ("Expires", "3600".to_owned()),
            ("Contact", self.contact()),
        ];
        let answer = self.ask("SUBSCRIBE", uri, &format!("<{uri}>"), &call_id, &headers, b"").await?;
        expect(&answer, "SUBSCRIBE")?;
        Ok(call_id)
    }

    /// MESSAGE to `uri`; gives the status.
    pub async fn message(&self, uri: &str, text: &str) -> io::Result<u16> {
        let call_id = format!("{:x}", rand::random::<u64>());
        let headers = [("Content-Type", "text/plain;charset=UTF-8".to_owned())];
        let answer =
            self.ask("MESSAGE", uri, &format!("<{uri}>"), &call_id, &headers, text.as_bytes()).await?;
        Ok(answer.status().unwrap_or(0))
    }
}

fn expect(answer: &Message, what: &str) -> io::Result<()> {
    match answer.status() {
        Some(200..300) => Ok(()),
        status => {
            Err(io::Error::other(format!("{what} was answered {} {}", status.unwrap_or(0), answer.reason())))
        }
    }
}

/// Reads until the connection ends: responses wake who waits, requests are answered and handed over.
async fn read(
    mut reader: OwnedReadHalf,
    writer: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Message>>>>,
    requests: mpsc::Sender<Message>,
) {
    let mut framer = StreamFramer::new(MessageLimits::default());
    loop {
        match reader.read_buf(framer.buffer_mut()).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        while let Ok(Some(frame)) = framer.next_frame() {
            let Frame::Message(message) = frame else { continue };
            if message.is_request() {
                if let Ok(response) = ResponseBuilder::to(&message, 200, None) {
                    let _ = writer.send(response.render()).await;
                }
                let _ = requests.send(*message).await;
                continue;
            }
            let branch = message.top_via().ok().and_then(|via| via.branch().map(ToOwned::to_owned));
            let waiter = branch.and_then(|branch| waiting.lock().ok()?.remove(&branch));
            if let Some(waiter) = waiter {
                let _ = waiter.send(*message);
            }
        }
    }
    // Whoever still waits learns that nothing comes.
    if let Ok(mut waiting) = waiting.lock() {
        waiting.clear();
    }
}

/// A document of one device.
pub fn document(entity: &str, basic: &str, show: &str, note: &str) -> String {
    let show = match show {
        "" => String::new(),
        show => format!("<show xmlns='jabber:client'>{show}</show>"),
    };
    let note = if note.is_empty() { String::new() } else { format!("<note>{note}</note>") };
    format!(
        "<?xml version='1.0' encoding='UTF-8'?>\n<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='{entity}'>\
         <tuple id='ID-phone'><status><basic>{basic}</basic>{show}</status>{note}</tuple></presence>"
    )
}
