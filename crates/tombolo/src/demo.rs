//! `tombolo demo`: plays the partner and two phones of the embedded defaults against the running process, and tells each
//! presence change and message as it crosses, with the time that it took.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;
use tombolo_admin::client::{order, segment};
use tombolo_edge::StreamId;
use tombolo_load::{
    partner::{Partner, PartnerEvent, PartnerSettings},
    phone::{Phone, document},
};
use tombolo_policy::Method;
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, Placement};
use tombolo_sip::{event::Substate, message::Message, pidf};
use tombolo_xmpp::stanza::{MessageStanza, PresenceKind, PresenceStanza, StanzaHead, StanzaKind};

/// Runs the play once. The error says what did not happen, and what to look at.
pub async fn demo(data_dir: &Path, json: bool) -> Result<(), String> {
    // New names each time, so that nothing is left over from the play before.
    let mark = format!("{:04x}", rand::random::<u16>());
    let played = play(data_dir, &mark, json).await;
    for name in PLAYERS {
        let path = format!("/api/v1/users/{}/remove", segment(&format!("{name}-{mark}@{SIP}")));
        // Where the play broke off before a user was added, there is none to remove.
        let removed: Result<Value, _> = order(data_dir, &path, &json!({})).await;
        if played.is_ok() {
            removed.map_err(|error| error.to_string())?;
        }
    }
    played
}

async fn play(data_dir: &Path, mark: &str, json: bool) -> Result<(), String> {
    let mut stage = Stage::set(data_dir, mark, json).await?;
    stage.xmpp_watches_sip().await?;
    stage.sip_watches_xmpp().await?;
    stage.messages().await?;
    stage.curtain().await;
    Ok(())
}

struct Stage {
    clock: Clock,
    json: bool,
    partner: Partner,
    stream: StreamId,
    /// Stanzas that came and were not looked at.
    came: VecDeque<Bytes>,
    alice: Phone,
    bob: Phone,
    tag: String,
    told: u32,
    begun: Instant,
}

const PLAYERS: [&str; 2] = ["alice", "bob"];
const SIP: &str = "sip.localhost";
const XMPP: &str = "xmpp.localhost";
const JULIET: &str = "juliet@xmpp.localhost";
/// How long anything may take before the play is broken off.
const PATIENCE: Duration = Duration::from_secs(10);

impl Stage {
    async fn set(data_dir: &Path, mark: &str, json: bool) -> Result<Self, String> {
        for name in PLAYERS {
            let path = format!("/api/v1/users/{}/add", segment(&format!("{name}-{mark}@{SIP}")));
            let body = json!({ "password": "demo", "approve": "partner" });
            let _: Value = order(data_dir, &path, &body).await.map_err(|error| error.to_string())?;
        }
        let domain = |name| Domain::from_prepared(name).expect("a prepared name");
        let placement = Placement::single();
        let settings = PartnerSettings {
            domains: vec![domain(XMPP)],
            gateway: (vec![domain(SIP)], SocketAddr::from(([127, 0, 0, 1], 5269))),
            listen: SocketAddr::from(([127, 0, 0, 1], 15269)),
            certificates: &data_dir.join("certs"),
            methods: vec![Method::SaslExternal, Method::TlsDialback],
        };
        let (mut partner, at) = Partner::start(&settings, &placement)
            .map_err(|error| format!("the partner cannot listen: {error}; is another demo running?"))?;
        let stream = timeout(PATIENCE, partner.connect(&domain(XMPP), &domain(SIP)))
            .await
            .map_err(|_| "the stream to the running tombolo took too long".to_owned())??;
        let server = SocketAddr::from(([127, 0, 0, 1], 5060));
        let phone = async |name: &str| {
            let phone = Phone::connect(server, &format!("{name}-{mark}"), SIP, "demo").await;
            let phone = phone.map_err(|error| format!("{name}'s phone: {error}"))?;
            phone.register().await.map_err(|error| format!("{name}'s phone: {error}"))?;
            Ok::<_, String>(phone)
        };
        let (alice, bob) = (phone("alice").await?, phone("bob").await?);
        let clock = Clock::system();
        let begun = clock.now().instant;
        let mut stage = Self {
            clock,
            json,
            partner,
            stream,
            came: VecDeque::new(),
            alice,
            bob,
            tag: String::new(),
            told: 0,
            begun,
        };
        stage.say(&format!("partner {XMPP} at {at}, phones of alice and bob registered at {server}"));
        Ok(stage)
    }

    fn say(&mut self, what: &str) {
        if self.json {
            say!("{}", json!({ "event": what }));
        } else {
            say!("{what}");
        }
    }

    /// Tells what crossed, and how long it took since [`Stage::mark`].
    fn tell(&mut self, what: &str) {
        let span = self.clock.now().instant.saturating_duration_since(self.begun);
        let milliseconds = span.as_secs_f64() * 1000.0;
        self.told += 1;
        if self.json {
            say!("{}", json!({ "event": what, "milliseconds": milliseconds }));
        } else {
            say!("{milliseconds:8.2} ms  {what}");
        }
    }

    fn mark(&mut self) {
        self.begun = self.clock.now().instant;
    }

    fn alice_address(&self) -> String {
        self.alice.uri().trim_start_matches("sip:").to_owned()
    }

    fn send(&self, stanza: String) {
        self.partner.send(self.stream, 1, stanza.into_bytes());
    }

    /// The next stanza to the partner for which `pick` gives something.
    async fn stanza<T>(&mut self, what: &str, pick: impl Fn(&[u8]) -> Option<T>) -> Result<T, String> {
        let found = async {
            loop {
                while let Some(stanza) = self.came.pop_front() {
                    if let Some(found) = pick(&stanza) {
                        return Ok(found);
                    }
                }
                match self.partner.event().await {
                    Some(PartnerEvent::Stanzas(stanzas)) => self.came.extend(stanzas),
                    Some(PartnerEvent::Ended(_, end)) => return Err(format!("the stream ended: {end}")),
                    Some(_) => {}
                    None => return Err("the partner ended".to_owned()),
                }
            }
        };
        timeout(PATIENCE, found).await.map_err(|_| missing(what))?
    }

    async fn presence(&mut self, what: &str, wanted: PresenceKind, show: Option<&str>) -> Result<(), String> {
        let show = show.map(ToOwned::to_owned);
        self.stanza(what, |stanza| {
            let presence = PresenceStanza::read(stanza).ok()?;
            let is_it = presence.kind == wanted
                && show
                    .as_deref()
                    .is_none_or(|show| presence.show.map_or("", |shown| shown.as_str()) == show);
            is_it.then_some(())
        })
        .await?;
        self.tell(what);
        Ok(())
    }

    async fn xmpp_watches_sip(&mut self) -> Result<(), String> {
        let alice = self.alice_address();
        let entity = format!("pres:{alice}");
        let published = self.alice.publish(&document(&entity, "open", "", "At my desk"), None).await;
        self.tag = published.map_err(|error| error.to_string())?;
        self.mark();
        self.send(format!("<presence from='{JULIET}' to='{alice}' type='subscribe'/>"));
        self.presence(
            "juliet added alice, who is asked and grants (approve = partner)",
            PresenceKind::Subscribed,
            None,
        )
        .await?;
        self.presence("juliet sees alice available", PresenceKind::Available, Some("")).await?;
        for (basic, show, what, kind) in [
            ("open", "away", "alice goes away; juliet sees it", PresenceKind::Available),
            ("open", "dnd", "alice is busy; juliet sees it", PresenceKind::Available),
            ("closed", "", "alice goes offline; juliet sees it", PresenceKind::Unavailable),
        ] {
            self.mark();
            let published = self.alice.publish(&document(&entity, basic, show, ""), Some(&self.tag)).await;
            self.tag = published.map_err(|error| error.to_string())?;
            self.presence(what, kind, (kind == PresenceKind::Available).then_some(show)).await?;
        }
        Ok(())
    }

    /// The next NOTIFY at bob's phone for which `pick` holds.
    async fn notify(&mut self, what: &str, pick: impl Fn(&Message) -> bool) -> Result<(), String> {
        let found = async {
            while let Some(request) = self.bob.request().await {
                if request.method_text() == "NOTIFY" && pick(&request) {
                    return Ok(());
                }
            }
            Err("bob's phone lost its connection".to_owned())
        };
        timeout(PATIENCE, found).await.map_err(|_| missing(what))??;
        self.tell(what);
        Ok(())
    }

    async fn sip_watches_xmpp(&mut self) -> Result<(), String> {
        self.mark();
        let subscribed = self.bob.subscribe(&format!("sip:{JULIET}")).await;
        subscribed.map_err(|error| error.to_string())?;
        let state = |wanted| {
            move |notify: &Message| {
                notify.subscription_state().ok().flatten().is_some_and(|state| state.state == wanted)
            }
        };
        self.notify("bob subscribed to juliet and waits", state(Substate::Pending)).await?;
        let bob = self.bob.uri().trim_start_matches("sip:").to_owned();
        self.stanza("juliet is asked by bob", |stanza| {
            let presence = PresenceStanza::read(stanza).ok()?;
            (presence.kind == PresenceKind::Subscribe).then_some(())
        })
        .await?;
        self.tell("juliet is asked by bob");
        self.mark();
        self.send(format!("<presence from='{JULIET}' to='{bob}' type='subscribed'/>"));
        self.notify("juliet grants; bob's subscription is active", state(Substate::Active)).await?;
        for (show, what) in
            [("chat", "juliet wants to chat; bob sees it"), ("xa", "juliet is away for long; bob sees it")]
        {
            // A watcher is told at most every 5 s (RFC 3856 §6.10), so these take their time.
            self.mark();
            self.send(format!(
                "<presence from='{JULIET}/balcony' to='{bob}'><show>{show}</show><status>from the balcony</status></presence>"
            ));
            self.notify(what, |notify| {
                let document = pidf::read(notify.body(), &pidf::Limits::default());
                document.is_ok_and(|document| {
                    let mut children = document.tuples.iter().flat_map(|tuple| &tuple.status_children);
                    children.any(|child| child.name == "show" && child.text == show)
                })
            })
            .await?;
        }
        Ok(())
    }

    async fn messages(&mut self) -> Result<(), String> {
        let bob = self.bob.uri().trim_start_matches("sip:").to_owned();
        self.mark();
        let text = "Grüße vom Balkon 🌹\nzweite Zeile";
        self.send(format!(
            "<message from='{JULIET}/balcony' to='{bob}' type='chat' id='demo-1'><body>{text}</body></message>"
        ));
        let arrived = async {
            while let Some(request) = self.bob.request().await {
                if request.method_text() == "MESSAGE" {
                    return Some(String::from_utf8_lossy(request.body()).replace("\r\n", "\n"));
                }
            }
            None
        };
        let what = "juliet writes to bob";
        let arrived = timeout(PATIENCE, arrived).await.map_err(|_| missing(what))?;
        if arrived.as_deref() != Some(text) {
            return Err(format!("{what}: the text arrived as {arrived:?}"));
        }
        self.tell("juliet writes to bob, who gets every character");
        self.mark();
        let status = self.bob.message(&format!("sip:{JULIET}"), "Ciao, Giulietta").await;
        let status = status.map_err(|error| error.to_string())?;
        self.tell(&format!("bob writes to juliet and is answered {status}"));
        self.stanza("juliet gets bob's message", |stanza| {
            let message = MessageStanza::read(stanza).ok()?;
            message.bodies.iter().any(|body| body.text == "Ciao, Giulietta").then_some(())
        })
        .await?;
        self.mark();
        self.send(format!(
            "<message from='{JULIET}/balcony' to='nobody@{SIP}' type='chat' id='demo-2'><body>?</body></message>"
        ));
        let condition = self
            .stanza("juliet's message to nobody comes back", |stanza| {
                let head = StanzaHead::read(stanza).ok()?;
                let message = (head.kind == StanzaKind::Message && head.id.as_deref() == Some("demo-2"))
                    .then(|| MessageStanza::read(stanza).ok())??;
                Some(message.error?.condition.as_str())
            })
            .await?;
        self.tell(&format!("juliet writes to nobody and is told why: {condition}"));
        Ok(())
    }

    async fn curtain(&mut self) {
        let told = self.told;
        self.say(&format!("{told} crossings, all as they should be"));
        if !self.json {
            say!("Next: tombolo status; or a real server: cargo xtask lab up");
        }
        // What was sent last is to be read before the connections go, and streams are closed by both sides.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.partner.close();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn missing(what: &str) -> String {
    format!(
        "did not happen within {} s: {what}. See the log of the running tombolo, and: tombolo status",
        PATIENCE.as_secs()
    )
}
