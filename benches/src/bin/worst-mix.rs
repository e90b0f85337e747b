//! The most that one shard holds when everybody outside sends as much as the default limits allow, and nobody answers.
//!
//! Partners, phones and front ends are hostile and silent: messages from and to any number of users, states of many devices
//! with long notes, documents, requests behind a store that does not answer, rows behind a disk that does not. What the allocator gave out must stay under
//! the sum that `docs/ARCHITECTURE.md` states; else the program ends with 1.

use std::{process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use cap::Cap;
use mimalloc::MiMalloc;
use tombolo_interwork::{
    owner::{
        Accounts, BudgetLimits, Input, Output, Owner, OwnerSettings, PeerKey, PeerWay, PhoneKey, ReplyTo,
        SipRequest,
    },
    token::TokenKey,
};
use tombolo_policy::{
    Approve, FrontEnd, Home, LocalDomain, NextHop, Partner, PartnerKind, SipTransport, Table,
};
use tombolo_presence::{Address, Domain, Now};
use tombolo_runtime::Clock;
use tombolo_sip::message::{MessageLimits, read_datagram};
use tombolo_store::{RedbOptions, RedbStore, Row, StateStore};
use tombolo_xmpp::stream::ReceivedStanza;

/// Counts what it gives out.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

const PARTNERS: usize = 10;
const USERS: usize = 200;
/// Contacts that users watch.
const WATCHED: usize = 2000;
/// What one pair takes with its dialog, its row and the state that each contact always has.
const PAIR_BYTES: usize = 6 * 1024;
/// What the store writes at a time.
const GROUP_BYTES: usize = 8 << 20;

struct Stage {
    owner: Owner,
    now: Now,
    /// Requests to peers that answer nothing, and stanzas for sessions without a stream.
    kept: Vec<Output>,
    stores: bool,
    /// Rows went to a store with a disk.
    has_disk: bool,
    refused: usize,
    over_budget: usize,
    next: u64,
}

/// What is offered, and how.
type Step = (&'static str, fn(&mut Stage));

fn main() -> ExitCode {
    let mut stage = Stage::new();
    let begin = ALLOCATOR.allocated();
    let limits = BudgetLimits::default();
    let pairs = WATCHED + USERS;
    // Answered messages take a quarter of the messages' budget more, and our answers an eighth.
    let mut stated =
        limits.messages + limits.messages / 4 + limits.messages / 8 + limits.states + pairs * PAIR_BYTES;
    let mut is_over = false;
    let steps: [Step; 6] = [
        ("messages of 60 kB to users behind a silent front end", Stage::flood_front_end),
        ("states of 40 devices with notes of 200 kB", Stage::flood_states),
        ("documents of 60 kB, 16 for each user", Stage::flood_documents),
        ("messages of 60 kB to partners without a stream", Stage::flood_partners),
        ("states and requests behind a store that does not answer", Stage::flood_store),
        ("rows of 60 kB behind a disk that does not answer", Stage::flood_disk),
    ];
    for (what, step) in steps {
        step(&mut stage);
        if stage.has_disk {
            // Rows wait in the store's queue and, as many more octets, beside it; a group of them is there twice.
            stated += 2 * RedbOptions::default().waiting_octets + GROUP_BYTES;
        }
        // Rows and queues that carry the budgeted octets, and what grows by doubling.
        let allowed = stated + stated / 4;
        let held = ALLOCATOR.allocated() - begin;
        is_over |= held > allowed;
        println!(
            "{what:<60} {:6.1} MiB held of {:.0} stated   {} refused, {} over a budget",
            mebi(held),
            mebi(stated),
            stage.refused,
            stage.over_budget,
        );
    }
    if is_over {
        println!("more was held than is stated");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn mebi(octets: usize) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

impl Stage {
    fn new() -> Self {
        let partners = (0..PARTNERS).map(|number| Partner {
            kind: PartnerKind::Federated,
            ..Partner::new(domain(&format!("p{number}.example")))
        });
        let next_hop = NextHop {
            host: "127.0.0.31".into(),
            port: Some(5060),
            transport: SipTransport::Tcp,
            is_transport_named: true,
        };
        let corp = FrontEnd { next_hop, insecure: true, trusted_addresses: vec![] };
        let locals = vec![
            LocalDomain { name: domain("sip.example"), home: Home::BuiltIn },
            LocalDomain { name: domain("corp.example"), home: Home::FrontEnd(corp) },
        ];
        let table = Table::new(1, locals, partners.collect()).expect("each domain once");
        let now = Clock::system().now();
        let settings = OwnerSettings::new(TokenKey::new(&[9; 32]), 1, 42);
        let mut owner = Owner::new(settings, Arc::new(table), now);
        let approve = (0..USERS).map(|n| (address(&user(n)), Approve::All)).collect();
        owner.handle(Input::Accounts(Arc::new(Accounts { approve })), now);
        Self {
            owner,
            now,
            kept: Vec::new(),
            stores: true,
            has_disk: false,
            refused: 0,
            over_budget: 0,
            next: 1,
        }
    }

    fn handle(&mut self, input: Input) {
        self.owner.handle(input, self.now);
        while let Some(output) = self.owner.poll_output() {
            match output {
                Output::Request { .. }
                | Output::Deliver { .. }
                | Output::Message { message: Some(_), .. } => {
                    self.kept.push(output);
                }
                Output::Persist { token, .. } if self.stores => {
                    self.owner.handle(Input::Persisted { token, is_stored: true }, self.now);
                }
                Output::Event(event) => {
                    use tombolo_interwork::owner::OwnerEvent::{OverBudget, RequestRefused, StanzaRefused};
                    self.refused +=
                        usize::from(matches!(event, RequestRefused { .. } | StanzaRefused { .. }));
                    self.over_budget += usize::from(matches!(event, OverBudget { .. }));
                }
                _ => {}
            }
        }
    }

    fn stanza(&mut self, stanza: String) {
        // As from a read buffer that is far larger than the stanza.
        let mut buffer = stanza.into_bytes();
        let len = buffer.len();
        buffer.resize(len + 65_536, b' ');
        let stanza = ReceivedStanza::read(Bytes::from(buffer).slice(..len)).expect("a stanza");
        self.handle(Input::Stanzas(vec![stanza]));
    }

    fn request(&mut self, from: &str, method: &str, to: &str, headers: &str, body: &str) {
        self.next += 1;
        let n = self.next;
        let text = format!(
            "{method} sip:{to} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{n}\r\nFrom: <sip:{from}>;tag=f{n}\r\n\
             To: <sip:{to}>\r\nCall-ID: c{n}\r\nCSeq: 1 {method}\r\nContact: <sip:x@h>\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let message = read_datagram(Bytes::from(text), &MessageLimits::default()).expect("a request");
        let instance = format!("phone-{}", n % 16).into();
        let peer = PeerKey::Phone(Arc::new(PhoneKey { aor: address(from), instance }));
        let way = PeerWay {
            is_reliable: true,
            takes_large: true,
            via: "SIP/2.0/TCP 127.0.0.1:5060".into(),
            contact: "127.0.0.1:5060;transport=tcp".into(),
        };
        self.handle(Input::Request(SipRequest {
            peer,
            reply: ReplyTo(n),
            message,
            identity: address(from),
            way,
        }));
    }

    fn flood_front_end(&mut self) {
        let body = "x".repeat(60_000);
        for n in 0..3000 {
            let (from, to) = (contact(n), format!("u{}@corp.example", n % 50));
            self.stanza(format!("<message from='{from}/r' to='{to}' id='{n}'><body>{body}</body></message>"));
        }
    }

    fn flood_states(&mut self) {
        let note = "ž".repeat(100_000);
        for n in 0..WATCHED {
            let (user, contact) = (user(n % USERS), contact(n));
            self.request(&user, "SUBSCRIBE", &contact, "Event: presence\r\nExpires: 3600\r\n", "");
            self.stanza(format!("<presence from='{contact}' to='{user}' type='subscribed'/>"));
            let devices = if n < 100 { 40 } else { 4 };
            for device in 0..devices {
                self.stanza(format!(
                    "<presence from='{contact}/d{device}' to='{user}'><status>{note}</status></presence>"
                ));
            }
        }
    }

    fn flood_documents(&mut self) {
        let note = "n".repeat(60_000);
        for n in 0..USERS * 16 {
            let user = user(n % USERS);
            let body = format!(
                "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{user}'><tuple id='t'><status>\
                 <basic>open</basic></status><note>{note}</note></tuple></presence>"
            );
            let headers = "Event: presence\r\nContent-Type: application/pidf+xml\r\n";
            self.request(&user, "PUBLISH", &user, headers, &body);
        }
    }

    fn flood_partners(&mut self) {
        let body = "x".repeat(60_000);
        for n in 0..5000 {
            self.request(&user(n % USERS), "MESSAGE", &contact(n), "Content-Type: text/plain\r\n", &body);
        }
        self.now = self.now.after(Duration::from_secs(2));
        self.owner.handle_timeout(self.now);
    }

    fn flood_disk(&mut self) {
        self.has_disk = true;
        let folder = std::env::temp_dir().join(format!("tombolo-worst-mix-{}", std::process::id()));
        let store =
            RedbStore::open(&folder.join("state.redb"), RedbOptions::default()).expect("a store opens");
        // Nothing of it is needed by its name any more.
        std::fs::remove_dir_all(&folder).expect("it was just made");
        // The first answer holds the writer for as long as this program runs.
        let (held, is_held) = std::sync::mpsc::channel();
        let hold = move |_, _| {
            held.send(()).expect("this thread waits");
            loop {
                std::thread::park();
            }
        };
        store.commit(vec![Row::put(1, 1, *b"first", vec![1])], 0, Box::new(hold));
        is_held.recv().expect("the writer answers");
        for number in 0..10_000_u64 {
            let row = |table| Row::put(1, table, number.to_be_bytes(), vec![1; 60_000]);
            store.commit(vec![row(1)], number, Box::new(|_, _| {}));
            store.keep(vec![row(2)], number, Box::new(|_, _| {}));
        }
        self.refused += usize::try_from(store.state().lost_rows).unwrap_or(usize::MAX);
        // Its end would wait for the writer.
        std::mem::forget(store);
    }

    fn flood_store(&mut self) {
        self.stores = false;
        let note = "n".repeat(200_000);
        for n in 0..USERS {
            let (user, contact) = (user(n), contact(WATCHED + n));
            self.stanza(format!("<presence from='{contact}' to='{user}' type='subscribe'/>"));
            for _ in 0..16 {
                self.stanza(format!(
                    "<presence from='{contact}/d' to='{user}'><status>{note}</status></presence>"
                ));
            }
        }
    }
}

fn user(n: usize) -> String {
    format!("user{n}@sip.example")
}

fn contact(n: usize) -> String {
    format!("u{n}@p{}.example", n % PARTNERS)
}

fn address(text: &str) -> Address {
    Address::from_prepared(text).expect("a prepared address")
}

fn domain(text: &str) -> Domain {
    Domain::from_prepared(text).expect("a prepared domain")
}
