//! A process that is offered more pairs than its memory has room for: it must live, refuse with the cause, and go on
//! serving what it took.
//!
//! `memory-limit PATH-OF-TOMBOLO [--pairs 600000] [--messages 20000]`
//!
//! The limit is the one that the system sets for both processes, as by `memory.max` of a cgroup. Exit code 1 when the
//! program ended, took more than the system allows, refused without a cause, or did not serve its watchers any more.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use serde_json::{Value, json};
use tokio::time::timeout;
use tombolo_admin::client::ask;
use tombolo_benches::program::{LOCAL, PASSWORD, Program, certificates, free_port};
use tombolo_edge::StreamId;
use tombolo_load::{
    partner::{Partner, PartnerEvent, PartnerSettings},
    phone::{Phone, document},
};
use tombolo_net::Authority;
use tombolo_policy::Method;
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, Placement, memory_limit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// The program.
    program: PathBuf,
    /// Pairs that are offered.
    #[arg(long, default_value_t = 600_000)]
    pairs: usize,
    /// Messages of 4,000 octets to one phone, when no more pairs are taken.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
}

const PARTNERS: usize = 10;
const USERS: usize = 20;
/// Stanzas that are written before the next ones are made.
const CHUNK: usize = 250;
/// So long nothing is answered any more: what was refused meanwhile and found no room is left out.
const QUIET: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments = Arguments::parse();
    let outcome = actix_rt::System::new().block_on(run(&arguments));
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

async fn run(arguments: &Arguments) -> io::Result<()> {
    let allowed = memory_limit().ok_or_else(|| io::Error::other("the system's limit is not known"))?;
    let mut bench = Bench::start(arguments).await?;
    let most_taken = watch_taken(bench.program.pid());
    let begun = bench.taken()?;
    let answers = bench.offer_pairs(arguments.pairs).await?;
    let after_pairs = bench.taken()?;
    let bounced = bench.offer_messages(arguments.messages).await?;
    let after_messages = bench.taken()?;
    let served = bench.change_is_seen(answers.watchers_of_first).await?;
    let status: Value = ask(bench.program.folder(), "/api/v1/status").await.map_err(io::Error::other)?;
    let most_taken = most_taken.load(Ordering::Relaxed);
    println!(
        "{}",
        json!({
            "allowed": allowed, "begun": begun, "after_pairs": after_pairs, "after_messages": after_messages,
            "most_taken": most_taken, "offered": arguments.pairs, "granted": answers.granted,
            "refused": answers.refused, "left_out": arguments.pairs - answers.granted - answers.refused,
            "messages": arguments.messages, "messages_refused": bounced,
            "watchers_served": served, "pairs": status["pairs"], "readiness": status["readiness"],
            "parts": status["parts"],
        })
    );
    let left_out = arguments.pairs - answers.granted - answers.refused;
    if left_out > 0 && answers.refused == 0 {
        return Err(io::Error::other("pairs were neither granted nor refused with resource-constraint"));
    }
    if most_taken > allowed {
        return Err(io::Error::other("the program takes more than the system allows"));
    }
    Ok(())
}

struct Bench {
    program: Program,
    partner: Partner,
    streams: Vec<StreamId>,
    phone: Phone,
    tag: String,
    clock: Clock,
}

#[derive(Default)]
struct Answers {
    granted: usize,
    refused: usize,
    watchers_of_first: usize,
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
        for user in 0..USERS {
            program.add_user(&user_name(user)).await?;
        }
        let phone = Phone::connect(program.sip_tcp, &user_name(0), LOCAL, PASSWORD).await?;
        phone.register().await?;
        let entity = format!("pres:{}@{LOCAL}", user_name(0));
        let tag = phone.publish(&document(&entity, "open", "", "Here"), None).await?;
        Ok(Self { program, partner, streams, phone, tag, clock: Clock::system() })
    }

    fn taken(&self) -> io::Result<u64> {
        taken(self.program.pid()).ok_or_else(|| io::Error::other("the program ended"))
    }

    async fn event(&mut self, what: &str) -> io::Result<PartnerEvent> {
        match timeout(PATIENCE, self.partner.event()).await {
            Ok(Some(PartnerEvent::Ended(_, end))) => {
                Err(io::Error::other(format!("{what}: a stream ended: {end}")))
            }
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(io::Error::other("the partner ended")),
            Err(_) => Err(io::Error::other(format!("{what}: nothing came for so long"))),
        }
    }

    /// Each contact of each partner asks for one user after the other.
    async fn offer_pairs(&mut self, pairs: usize) -> io::Result<Answers> {
        let mut answers = Answers::default();
        let mut next: Vec<usize> = (0..PARTNERS).collect();
        let mut unwritten: HashMap<StreamId, usize> = HashMap::new();
        let mut answered_at = self.clock.now().instant;
        while answers.granted + answers.refused < pairs {
            // Answers for which there is no room are left out.
            let is_quiet = self.clock.now().instant - answered_at > QUIET;
            if is_quiet && next.iter().all(|number| *number >= pairs) {
                break;
            }
            for (partner, stream) in self.streams.clone().into_iter().enumerate() {
                if unwritten.get(&stream).copied().unwrap_or(0) > 0 || next[partner] >= pairs {
                    continue;
                }
                let (mut count, mut bytes) = (0, String::new());
                while count < CHUNK && next[partner] < pairs {
                    let number = next[partner];
                    let (contact, user) = (number / USERS, user_name(number / PARTNERS % USERS));
                    bytes.push_str(&format!(
                        "<presence from='c{contact}@{}' to='{user}@{LOCAL}' type='subscribe' id='{number}'/>",
                        partner_name(partner)
                    ));
                    next[partner] += PARTNERS;
                    count += 1;
                }
                unwritten.insert(stream, bytes.len());
                self.partner.send(stream, count as u32, bytes.into_bytes());
            }
            match self.event("pairs").await? {
                PartnerEvent::Written(stream, bytes) => {
                    let left = unwritten.entry(stream).or_default();
                    *left = left.saturating_sub(bytes as usize);
                }
                PartnerEvent::Stanzas(stanzas) => {
                    for stanza in stanzas {
                        let stanza = String::from_utf8_lossy(&stanza);
                        if stanza.contains("type='subscribed'") {
                            answered_at = self.clock.now().instant;
                            answers.granted += 1;
                            answers.watchers_of_first +=
                                usize::from(stanza.contains(&format!("from='{}@", user_name(0))));
                        } else if stanza.contains("type='error'") {
                            if !stanza.contains("resource-constraint") {
                                return Err(io::Error::other(format!("refused otherwise: {stanza}")));
                            }
                            answered_at = self.clock.now().instant;
                            answers.refused += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    /// Messages to the phone of the first user, which takes and answers them; how many were refused.
    async fn offer_messages(&mut self, messages: usize) -> io::Result<usize> {
        let body = "m".repeat(4_000);
        let mut refused = 0;
        let (mut sent, mut unwritten) = (0, 0_usize);
        let stream = self.streams[0];
        while sent < messages || unwritten > 0 {
            if unwritten == 0 {
                let mut bytes = String::new();
                let count = 10.min(messages - sent);
                for number in sent..sent + count {
                    bytes.push_str(&format!(
                        "<message from='c{number}@{}' to='{}@{LOCAL}' id='m{number}'><body>{body}</body></message>",
                        partner_name(0),
                        user_name(0)
                    ));
                }
                sent += count;
                unwritten = bytes.len();
                self.partner.send(stream, count as u32, bytes.into_bytes());
            }
            match self.event("messages").await? {
                PartnerEvent::Written(of, bytes) if of == stream => {
                    unwritten = unwritten.saturating_sub(bytes as usize);
                }
                PartnerEvent::Stanzas(stanzas) => {
                    refused += stanzas.iter().filter(|stanza| contains(stanza, b"type='error'")).count();
                }
                _ => {}
            }
        }
        Ok(refused)
    }

    /// The first user's state changes: how many watchers see it.
    async fn change_is_seen(&mut self, watchers: usize) -> io::Result<usize> {
        let entity = format!("pres:{}@{LOCAL}", user_name(0));
        let tag = self.tag.clone();
        self.phone.publish(&document(&entity, "open", "dnd", "Busy"), Some(&tag)).await?;
        let mut seen = 0;
        while seen < watchers {
            if let PartnerEvent::Stanzas(stanzas) = self.event("a change").await? {
                seen += stanzas.iter().filter(|stanza| contains(stanza, b"<show>dnd</show>")).count();
            }
        }
        Ok(seen)
    }
}

/// Octets of a process that the kernel cannot get back; `None` when it ended.
fn taken(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The most that a process takes at any time from now on.
fn watch_taken(pid: u32) -> Arc<AtomicU64> {
    let most = Arc::<AtomicU64>::default();
    let noted = most.clone();
    std::thread::spawn(move || {
        while let Some(taken) = taken(pid) {
            noted.fetch_max(taken, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    most
}

fn contains(stanza: &[u8], part: &[u8]) -> bool {
    stanza.windows(part.len()).any(|some| some == part)
}

fn partner_name(number: usize) -> String {
    format!("p{number}.localhost")
}

fn user_name(number: usize) -> String {
    format!("user{number}")
}

fn domain(name: &str) -> Domain {
    Domain::from_prepared(name).expect("a prepared name")
}
