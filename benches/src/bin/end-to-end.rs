//! The program under load over real sockets: what a delivery costs it in CPU time (G1, G13), and what a pair and a
//! dialog take of its memory.
//!
//! `end-to-end PATH-OF-TOMBOLO [--watchers 10000] [--changes 100] [--storms 20] [--sip tls|tcp] [--json]`
//!
//! Starts the program with ten partners, plays their server by `tombolo_load::partner` (mutual TLS, one stream each
//! way and partner) and eight phones by `tombolo_load::phone` (one connection each). CPU time is that of the program
//! alone. The interval of 5 s between two states to one SIP watcher is switched off, since it would hide the cost.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tombolo_benches::{
    process::{cpu_time, resident_bytes},
    program::{LOCAL, PASSWORD, Program, certificates, free_port},
};
use tombolo_edge::StreamId;
use tombolo_load::{
    partner::{Partner, PartnerEvent, PartnerSettings},
    phone::{Phone, document},
};
use tombolo_net::{Authority, client_config, connect_tls};
use tombolo_policy::Method;
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, Placement};
use tombolo_sip::event::Substate;
use tombolo_xmpp::stanza::{StanzaHead, StanzaKind};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is to be measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program, built for release.
    program: PathBuf,
    /// XMPP watchers of one SIP user, and SIP dialogs of eight.
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    /// PUBLISH changes that are measured.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Storms of one presence from each contact that are measured.
    #[arg(long, default_value_t = 20)]
    storms: usize,
    /// How the phones are connected.
    #[arg(long, value_enum, default_value_t = Sip::Tls)]
    sip: Sip,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sip {
    Tls,
    Tcp,
}

const PARTNERS: usize = 10;
const PHONES: usize = 8;
/// Rounds before those that count: they fill buffers and caches.
const WARM_ROUNDS: usize = 2;
/// Requests of one phone that wait for their answers at once.
const OPEN_REQUESTS: usize = 64;
/// How long nothing may come before the run is broken off.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments = Arguments::parse();
    let done = actix_rt::System::new().block_on(run(&arguments));
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

async fn run(arguments: &Arguments) -> io::Result<()> {
    let mut bench = Bench::start(arguments).await?;
    let to_xmpp = bench.sip_to_xmpp(arguments).await?;
    let to_sip = bench.xmpp_to_sip(arguments).await?;
    if arguments.json {
        println!(
            "{}",
            json!({ "sip": format!("{:?}", arguments.sip), "g1": to_xmpp.json(), "g13": to_sip.json() })
        );
    } else {
        println!("phones by {:?}, partners by mutual TLS; watcher interval 0", arguments.sip);
        to_xmpp.print("G1  SIP change to XMPP watchers");
        to_sip.print("G13 XMPP presence to SIP dialogs");
    }
    Ok(())
}

/// What one direction gave.
struct Figures {
    watchers: usize,
    setup: Duration,
    /// Of the program, in the set-up.
    setup_cpu: Duration,
    resident_bytes_each: f64,
    rounds: Vec<Duration>,
    /// Of the program, over all rounds.
    cpu: Duration,
    /// Deliveries of all rounds.
    deliveries: usize,
}

impl Figures {
    fn per_cpu_second(&self) -> f64 {
        self.deliveries as f64 / self.cpu.as_secs_f64()
    }

    fn round(&self, part: f64) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort();
        let at = ((sorted.len() as f64 * part) as usize).min(sorted.len() - 1);
        sorted[at].as_secs_f64() * 1000.0
    }

    fn print(&self, what: &str) {
        println!("{what}: {} watchers, {} rounds", self.watchers, self.rounds.len());
        println!("  deliveries per CPU-second of the program   {:>10.0}", self.per_cpu_second());
        println!("  CPU per delivery                           {:>10.2} µs", 1e6 / self.per_cpu_second());
        println!(
            "  last delivery after: median, worst         {:>10.1} ms, {:.1} ms",
            self.round(0.5),
            self.round(1.0)
        );
        println!("  resident memory per watcher, process       {:>10.0} B", self.resident_bytes_each);
        println!(
            "  set-up: wall, CPU of the program, CPU each {:>10.2} s, {:.2} s, {:.0} µs",
            self.setup.as_secs_f64(),
            self.setup_cpu.as_secs_f64(),
            self.setup_cpu.as_secs_f64() * 1e6 / self.watchers as f64
        );
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "watchers": self.watchers,
            "rounds": self.rounds.len(),
            "deliveries_per_cpu_second": self.per_cpu_second(),
            "last_ms_median": self.round(0.5),
            "last_ms_worst": self.round(1.0),
            "resident_bytes_each": self.resident_bytes_each,
            "setup_seconds": self.setup.as_secs_f64(),
            "setup_cpu_seconds": self.setup_cpu.as_secs_f64(),
        })
    }
}

struct Bench {
    clock: Clock,
    program: Program,
    partner: Partner,
    /// The partner's streams to the program, by partner.
    streams: Vec<StreamId>,
    server: SocketAddr,
}

/// A point from which time, CPU time and memory are counted.
struct Mark {
    at: Instant,
    cpu: Duration,
    resident: u64,
}

impl Bench {
    async fn start(arguments: &Arguments) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let partners: Vec<String> = (0..PARTNERS).map(partner_name).collect();
        let authority = Authority::open_or_create(&certificates(folder.path())).map_err(io::Error::other)?;
        for name in &partners {
            authority.issue(name, &[name]).map_err(io::Error::other)?;
        }
        let listen = free_port()?;
        let certificates = certificates(folder.path());
        let program = Program::start(&arguments.program, &partners, listen, folder).await?;
        let settings = PartnerSettings {
            domains: partners.iter().map(|name| domain(name)).collect(),
            gateway: (vec![domain(LOCAL)], program.xmpp),
            listen,
            certificates: &certificates,
            methods: vec![Method::SaslExternal, Method::TlsDialback],
        };
        let (mut partner, _) = Partner::start(&settings, &Placement::single())?;
        let mut streams = Vec::new();
        for name in &partners {
            let connected = timeout(PATIENCE, partner.connect(&domain(name), &domain(LOCAL))).await;
            streams.push(connected?.map_err(io::Error::other)?);
        }
        let server = match arguments.sip {
            Sip::Tcp => program.sip_tcp,
            Sip::Tls => tunnel(program.sip_tls).await?,
        };
        Ok(Self { clock: Clock::system(), program, partner, streams, server })
    }

    fn mark(&self) -> io::Result<Mark> {
        let pid = Some(self.program.pid());
        Ok(Mark { at: self.clock.now().instant, cpu: cpu_time(pid)?, resident: resident_bytes(pid)? })
    }

    async fn phone(&self, name: &str) -> io::Result<Phone> {
        self.program.add_user(name).await?;
        let phone = Phone::connect(self.server, name, LOCAL, PASSWORD).await?;
        phone.register().await?;
        Ok(phone)
    }

    /// The next stanzas that came to the partners.
    async fn stanzas(&mut self) -> io::Result<Vec<Bytes>> {
        loop {
            match timeout(PATIENCE, self.partner.event()).await? {
                Some(PartnerEvent::Stanzas(stanzas)) => return Ok(stanzas),
                Some(PartnerEvent::Ended(_, end)) => {
                    return Err(io::Error::other(format!("a stream ended: {end}")));
                }
                Some(_) => {}
                None => return Err(io::Error::other("the partner ended")),
            }
        }
    }

    /// Counts presence stanzas of one kind until there are `wanted`.
    async fn count(&mut self, kind: Option<&str>, wanted: usize) -> io::Result<()> {
        let mut count = 0;
        while count < wanted {
            let stanzas = self.stanzas().await.map_err(|error| missing(&error, kind, count, wanted))?;
            count += stanzas.iter().filter(|stanza| is_presence(stanza, kind)).count();
        }
        if count > wanted {
            return Err(io::Error::other(format!("{count} of {kind:?} came instead of {wanted}")));
        }
        Ok(())
    }

    /// G1: alice's PUBLISH to every XMPP watcher.
    async fn sip_to_xmpp(&mut self, arguments: &Arguments) -> io::Result<Figures> {
        let alice = self.phone("alice").await?;
        let entity = format!("pres:alice@{LOCAL}");
        let mut tag = alice.publish(&document(&entity, "open", "", "At my desk"), None).await?;
        let before = self.mark()?;
        for (partner, stream) in self.streams.iter().enumerate() {
            let mut count = 0;
            let mut bytes = String::new();
            for number in (partner..arguments.watchers).step_by(PARTNERS) {
                bytes.push_str(&format!(
                    "<presence from='{}' to='alice@{LOCAL}' type='subscribe'/>",
                    contact(number)
                ));
                count += 1;
            }
            self.partner.send(*stream, count, bytes.into_bytes());
        }
        // Each watcher gets `subscribed` and the state.
        self.count(None, 2 * arguments.watchers).await?;
        let after = self.mark()?;
        let resident = after.resident.saturating_sub(before.resident) as f64;
        let mut rounds = Vec::new();
        let mut mark = self.mark()?;
        for round in 0..arguments.changes + WARM_ROUNDS {
            if round == WARM_ROUNDS {
                rounds.clear();
                mark = self.mark()?;
            }
            let document = document(&entity, "open", ["away", "dnd"][round % 2], "At my desk");
            let began = self.clock.now().instant;
            tag = alice.publish(&document, Some(&tag)).await?;
            self.count(Some(""), arguments.watchers).await?;
            rounds.push(self.clock.now().instant - began);
        }
        Ok(Figures {
            watchers: arguments.watchers,
            setup: after.at - before.at,
            setup_cpu: after.cpu - before.cpu,
            resident_bytes_each: resident / arguments.watchers as f64,
            rounds,
            cpu: self.mark()?.cpu - mark.cpu,
            deliveries: arguments.changes * arguments.watchers,
        })
    }

    /// G13: one presence from every contact to the phone that watches it.
    async fn xmpp_to_sip(&mut self, arguments: &Arguments) -> io::Result<Figures> {
        let mut phones = Vec::new();
        for number in 0..PHONES {
            phones.push(Arc::new(self.phone(&phone_name(number)).await?));
        }
        let before = self.mark()?;
        let mut phones = self.subscribe(phones, arguments.watchers).await?;
        let after = self.mark()?;
        let resident = after.resident.saturating_sub(before.resident) as f64;
        let mut rounds = Vec::new();
        let mut mark = self.mark()?;
        for round in 0..arguments.storms + WARM_ROUNDS {
            if round == WARM_ROUNDS {
                rounds.clear();
                mark = self.mark()?;
            }
            let began = self.clock.now().instant;
            for (partner, stream) in self.streams.iter().enumerate() {
                let stanzas = storm(partner, arguments.watchers, ["away", "dnd"][round % 2]);
                for (count, bytes) in stanzas {
                    self.partner.send(*stream, count, bytes);
                }
            }
            for (number, phone) in phones.iter_mut().enumerate() {
                let wanted = (number..arguments.watchers).step_by(PHONES).len();
                notifies(phone, wanted).await?;
            }
            rounds.push(self.clock.now().instant - began);
        }
        Ok(Figures {
            watchers: arguments.watchers,
            setup: after.at - before.at,
            setup_cpu: after.cpu - before.cpu,
            resident_bytes_each: resident / arguments.watchers as f64,
            rounds,
            cpu: self.mark()?.cpu - mark.cpu,
            deliveries: arguments.storms * arguments.watchers,
        })
    }

    /// Contact `n` is watched by phone `n` modulo 8; every dialog is active and was notified of that when this returns.
    async fn subscribe(&mut self, phones: Vec<Arc<Phone>>, watchers: usize) -> io::Result<Vec<Phone>> {
        let mut tasks = JoinSet::new();
        for (number, phone) in phones.iter().enumerate() {
            for first in 0..OPEN_REQUESTS {
                let phone = phone.clone();
                tasks.spawn(async move {
                    let step = PHONES * OPEN_REQUESTS;
                    for to in (number + first * PHONES..watchers).step_by(step) {
                        phone.subscribe(&format!("sip:{}", contact(to))).await?;
                    }
                    Ok::<(), io::Error>(())
                });
            }
        }
        let mut asked = 0;
        while asked < watchers {
            let stanzas =
                self.stanzas().await.map_err(|error| missing(&error, Some("subscribe"), asked, watchers))?;
            let mut answers: HashMap<usize, (u32, String)> = HashMap::new();
            for stanza in stanzas.iter().filter(|stanza| is_presence(stanza, Some("subscribe"))) {
                let head =
                    StanzaHead::read(stanza).map_err(|error| io::Error::other(format!("{error:?}")))?;
                let (from, to) = (head.from.unwrap_or_default(), head.to.unwrap_or_default());
                let (count, bytes) = answers.entry(partner_of(&to)?).or_default();
                *count += 1;
                bytes.push_str(&format!("<presence from='{to}' to='{from}' type='subscribed'/>"));
                asked += 1;
            }
            for (partner, (count, bytes)) in answers {
                self.partner.send(self.streams[partner], count, bytes.into_bytes());
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)??;
        }
        let mut out = Vec::new();
        for (number, phone) in phones.into_iter().enumerate() {
            let mut phone =
                Arc::try_unwrap(phone).map_err(|_| io::Error::other("a request of a phone is open"))?;
            // Pending ones may come before; where the contact was quick, active is the first and only one.
            notifies(&mut phone, (number..watchers).step_by(PHONES).len()).await?;
            out.push(phone);
        }
        Ok(out)
    }
}

/// Waits for so many NOTIFYs of active subscriptions; the phone answered each.
async fn notifies(phone: &mut Phone, wanted: usize) -> io::Result<()> {
    let mut count = 0;
    while count < wanted {
        let request = timeout(PATIENCE, phone.request())
            .await
            .map_err(|error| missing(&error.into(), Some("NOTIFY"), count, wanted))?;
        let request = request.ok_or_else(|| io::Error::other("a phone lost its connection"))?;
        let state = request.subscription_state().ok().flatten().map(|state| state.state);
        match state {
            Some(Substate::Active) => count += 1,
            Some(Substate::Pending) => {}
            other => return Err(io::Error::other(format!("a subscription is {other:?}"))),
        }
    }
    Ok(())
}

fn missing(error: &io::Error, kind: Option<&str>, count: usize, wanted: usize) -> io::Error {
    io::Error::other(format!("{error}: {count} of {wanted} came of {kind:?}"))
}

/// One presence of each contact of a partner, in pieces of about a window.
fn storm(partner: usize, watchers: usize, show: &str) -> Vec<(u32, Vec<u8>)> {
    let numbers: Vec<usize> = (partner..watchers).step_by(PARTNERS).collect();
    let piece = |numbers: &[usize]| {
        let mut bytes = String::new();
        for &number in numbers {
            bytes.push_str(&format!(
                "<presence from='{}/balcony' to='{}@{LOCAL}'><show>{show}</show><status>Wherefore art thou</status>\
                 <priority>5</priority></presence>",
                contact(number),
                phone_name(number % PHONES)
            ));
        }
        (numbers.len() as u32, bytes.into_bytes())
    };
    numbers.chunks(250).map(piece).collect()
}

fn is_presence(stanza: &[u8], kind: Option<&str>) -> bool {
    StanzaHead::read(stanza).is_ok_and(|head| {
        head.kind == StanzaKind::Presence
            && kind.is_none_or(|kind| head.type_attribute.as_deref().unwrap_or("") == kind)
    })
}

fn partner_name(number: usize) -> String {
    format!("p{number}.localhost")
}

fn partner_of(address: &str) -> io::Result<usize> {
    let number =
        address.rsplit_once("@p").and_then(|(_, rest)| rest.strip_suffix(".localhost")?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{address} is of no partner")))
}

/// The `number`-th contact; neighbours are of different partners.
fn contact(number: usize) -> String {
    format!("u{}@{}", number / PARTNERS, partner_name(number % PARTNERS))
}

fn phone_name(number: usize) -> String {
    format!("phone{number}")
}

fn domain(name: &str) -> Domain {
    Domain::from_prepared(name).expect("a prepared name")
}

/// Where phones that know no TLS reach a TLS port.
async fn tunnel(server: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            tokio::spawn(async move {
                plain.set_nodelay(true)?;
                let socket = TcpStream::connect(server).await?;
                socket.set_nodelay(true)?;
                let (mut secure, _) = connect_tls(socket, client_config(None, &[]), LOCAL, PATIENCE)
                    .await
                    .map_err(|error| io::Error::other(error.to_string()))?;
                tokio::io::copy_bidirectional_with_sizes(&mut plain, &mut secure, 65_536, 65_536).await
            });
        }
    });
    Ok(at)
}
