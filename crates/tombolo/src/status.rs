//! `tombolo status`: what a process says of itself, as lines for people, and again each second with `--watch`.
//!
//! In: a [`StatusAnswer`]. Out: lines. A partner is one line, whatever it is doing.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tombolo_admin::{
    CertificateAnswer, FrontEndAnswer, LinkAnswer, PartAnswer, PartnerStateAnswer, SessionAnswer,
    StatusAnswer, StreamAnswer,
    client::{AskError, ask},
};
use tombolo_net::{moment, span_text};

use crate::run::wall;

/// What to show, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusOptions {
    /// Only partners whose domain contains this text.
    #[arg(long, value_name = "TEXT")]
    partner: Option<String>,
    /// Show it again each second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Print JSON; with --watch one object a line.
    #[arg(long)]
    json: bool,
}

/// Asks and prints, once or until the process is gone or somebody interrupts.
pub(crate) async fn status(options: &StatusOptions, data_dir: &Path) -> Result<(), AskError> {
    let mut answer = ask_for(options, data_dir).await?;
    if !options.watch {
        match options.json {
            true => say!("{}", serde_json::to_string_pretty(&answer).unwrap_or_default()),
            false => lines(&answer).iter().for_each(|line| say!("{line}")),
        }
        return Ok(());
    }
    // Before anything is shown: whoever has seen the first lines may interrupt.
    let interrupted = signal(SignalKind::interrupt());
    let mut interrupted = interrupted.map_err(|error| AskError::Refused(error.to_string()))?;
    let screen = Screen { is_terminal: std::io::stdout().is_terminal() && !options.json };
    screen.clear();
    loop {
        match options.json {
            true => say!("{}", serde_json::to_string(&answer).unwrap_or_default()),
            false => screen.show(&lines(&answer)),
        }
        tokio::select! {
            _ = interrupted.recv() => return Ok(()),
            () = sleep(WATCH_EVERY) => {}
        }
        answer = tokio::select! {
            _ = interrupted.recv() => return Ok(()),
            answer = ask_for(options, data_dir) => answer.map_err(|error| {
                AskError::Refused(format!("the process does not answer any more, at {}: {error}", moment(wall())))
            })?,
        };
    }
}

async fn ask_for(options: &StatusOptions, data_dir: &Path) -> Result<StatusAnswer, AskError> {
    let mut answer: StatusAnswer = ask(data_dir, "/api/v1/status").await?;
    if let Some(text) = &options.partner {
        let text = text.to_lowercase();
        answer.partners.retain(|partner| partner.domain.contains(&text));
        answer.sessions.retain(|session| session.partner.contains(&text));
        answer.streams.retain(|stream| stream.pairs.iter().any(|pair| pair.contains(&text)));
    }
    Ok(answer)
}

/// Where `--watch` paints: a terminal is painted over, anything else gets one block behind the other.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn clear(&self) {
        if self.is_terminal {
            print(CLEAR);
        }
    }

    fn show(&self, lines: &[String]) {
        if !self.is_terminal {
            say!("--- {}", moment(wall()));
            lines.iter().for_each(|line| say!("{line}"));
            return;
        }
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        // Some terminals do not know their size and say 0.
        let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()));
        print(&painted(lines, rows, columns));
    }
}

fn print(text: &str) {
    let mut out = std::io::stdout();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// The lines as they are painted over the former ones, cut to a terminal of this size.
fn painted(lines: &[String], rows: usize, columns: usize) -> String {
    // The last row stays free for the cursor.
    let room = rows.max(3) - 1;
    let shown = if lines.len() > room { room - 1 } else { lines.len() };
    let mut text = HOME.to_owned();
    let more = (shown < lines.len()).then(|| format!("… and {} more lines", lines.len() - shown));
    for line in lines.iter().take(shown).chain(&more) {
        text.extend(line.chars().take(columns.max(20)));
        text.push_str(END_OF_LINE);
    }
    text.push_str(REST_OF_SCREEN);
    text
}

/// Everything, without control characters that a peer may have put into a cause.
fn lines(status: &StatusAnswer) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {} since {} ({})",
        status.role,
        status.readiness,
        status.since,
        span(status.uptime_seconds)
    )];
    let has_news = |part: &&PartAnswer| part.state != "up" || !part.note.is_empty();
    let is_told_below = |part: &&PartAnswer| TOLD_BELOW.contains(&part.name.as_str());
    for part in status.parts.iter().filter(has_news).filter(|part| !is_told_below(part)) {
        lines.push(format!("{} {}: {}", part.name, part.state, part.note));
    }
    lines.extend(status.links.iter().map(link_line));
    if status.role != "edge" {
        lines.extend(count_lines(status));
    }
    lines.extend(status.front_ends.iter().map(front_end_line));
    lines.extend(
        status
            .certificates
            .iter()
            .map(|certificate| format!("certificate {}: {}", certificate.name, validity(certificate))),
    );
    if status.role != "edge" {
        lines.push(summary(&status.partners));
    }
    let width = status.partners.iter().map(|partner| partner.domain.chars().count()).max().unwrap_or(0);
    let width = width.min(WIDEST_DOMAIN);
    lines.extend(status.partners.iter().map(|partner| partner_line(partner, width)));
    for line in &mut lines {
        *line = line.trim_end().replace(char::is_control, "·");
    }
    lines
}

fn count_lines(status: &StatusAnswer) -> [String; 3] {
    [
        format!(
            "registrations: {} of {}",
            counted(status.registrations, "Contact"),
            counted(status.registered_users, "user")
        ),
        format!(
            "subscriptions: {} of {}, {} as notifier, {} as subscriber",
            counted(status.pairs, "pair"),
            counted(status.users, "user"),
            counted(status.notifier_dialogs, "dialog"),
            status.subscriber_dialogs
        ),
        format!(
            "traffic: {}, {} on {}, {} waiting, {} given back",
            counted(status.streams.len(), "stream"),
            counted(status.peers, "SIP peer"),
            counted(status.flows, "flow"),
            counted(status.waiting_inputs, "input"),
            status.refused_inputs
        ),
    ]
}

/// `partners: 2 lost, 40 connected, 4 idle`.
fn summary(partners: &[PartnerStateAnswer]) -> String {
    let counts: Vec<String> = ["lost", "doubtful", "connecting", "connected", "idle"]
        .iter()
        .filter_map(|state| {
            let count = partners.iter().filter(|partner| partner.state == *state).count();
            (count > 0).then(|| format!("{count} {state}"))
        })
        .collect();
    if counts.is_empty() { "partners: none".to_owned() } else { format!("partners: {}", counts.join(", ")) }
}

fn partner_line(partner: &PartnerStateAnswer, width: usize) -> String {
    let PartnerStateAnswer { domain, state, since, state_seconds, .. } = partner;
    let mut line = format!("  {state:<10} {domain:<width$}");
    if let (Some(since), Some(seconds)) = (since, state_seconds) {
        line.push_str(&format!("  since {since} ({})", span(*seconds)));
    }
    let is_dialled = matches!(state.as_str(), "lost" | "doubtful" | "connecting");
    let details = [
        is_dialled.then(|| next_attempt(partner.next_dial_seconds)),
        partner.local.as_ref().map(|local| format!("seen from {local}")),
        partner.cause.clone().filter(|cause| !cause.is_empty()),
        (partner.waiting_messages > 0)
            .then(|| format!("{} waiting", counted(partner.waiting_messages, "message"))),
        (partner.incoming + partner.outgoing > 0)
            .then(|| format!("{} in, {} out", counted(partner.incoming, "stream"), partner.outgoing)),
        (!partner.proofs.is_empty()).then(|| partner.proofs.join(" and ")),
    ];
    append(line, details)
}

fn link_line(link: &LinkAnswer) -> String {
    let LinkAnswer { peer, state, since, state_seconds, .. } = link;
    let line = format!("link to {peer}: {state} since {since} ({})", span(*state_seconds));
    let details = [
        link.remote.as_ref().map(|remote| format!("at {remote}")),
        Some(format!("{} waiting", counted(link.waiting_frames, "frame"))),
        link.cause.clone(),
        link.next_attempt_seconds.map(|seconds| next_attempt(Some(seconds))),
    ];
    append(line, details)
}

fn front_end_line(front_end: &FrontEndAnswer) -> String {
    let FrontEndAnswer { domain, state, since, state_seconds, .. } = front_end;
    let line = format!("front end of {domain}: {state} since {since} ({})", span(*state_seconds));
    let details = [
        front_end.remote.as_ref().map(|remote| format!("at {remote}")),
        front_end.cause.clone(),
        front_end.last_failure.clone(),
        front_end.next_dial_seconds.map(|seconds| next_attempt(Some(seconds))),
    ];
    append(line, details)
}

/// One session, as `tombolo partner show` prints it.
pub(crate) fn session_line(session: &SessionAnswer) -> String {
    let SessionAnswer { local, partner, state, since, state_seconds, .. } = session;
    let line = format!("session {local} ↔ {partner}: {state} since {since} ({})", span(*state_seconds));
    let details = [
        (!session.is_connected).then(|| session.last_failure.clone()).flatten(),
        session.next_dial_seconds.map(|seconds| next_attempt(Some(seconds))),
        Some(format!("{} out", counted(session.stanzas_out, "stanza"))),
        (session.waiting_messages > 0)
            .then(|| format!("{} waiting", counted(session.waiting_messages, "message"))),
    ];
    append(line, details)
}

/// One stream, as `tombolo partner show` prints it.
pub(crate) fn stream_line(stream: &StreamAnswer) -> String {
    let StreamAnswer { stream: number, direction, pairs, proof, tls, since, up_seconds } = stream;
    let (pairs, span) = (pairs.join(", "), span(*up_seconds));
    let line = format!("stream {number} {direction}: {pairs}, up since {since} ({span}), {proof}");
    match tls {
        None => format!("{line} in the clear"),
        Some(tls) => format!(
            "{line} over {} {}, certificate {}{}",
            tls.version,
            tls.cipher,
            tls.certificate.get(..16).unwrap_or("none"),
            tls.certificate_until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default()
        ),
    }
}

fn append<const N: usize>(mut line: String, details: [Option<String>; N]) -> String {
    for detail in details.into_iter().flatten() {
        line.push_str(", ");
        line.push_str(&detail);
    }
    line
}

/// `1 stream`, `2 streams`.
fn counted(count: impl TryInto<u64>, what: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn next_attempt(seconds: Option<u64>) -> String {
    match seconds {
        Some(seconds) => format!("next attempt in {}", span(seconds)),
        None => "attempt under way".to_owned(),
    }
}

fn span(seconds: u64) -> String {
    span_text(Duration::from_secs(seconds))
}

/// `until 2027-02-28, 90 days left`; of an end that is years away the day is enough.
fn validity(certificate: &CertificateAnswer) -> String {
    let CertificateAnswer { days_left, until, file, .. } = certificate;
    match days_left {
        ..0 => format!("EXPIRED on {until}: renew {file}"),
        0..1000 => format!("until {until}, {days_left} days left"),
        _ => format!("until {until}"),
    }
}

/// Parts whose members have lines of their own.
const TOLD_BELOW: [&str; 3] = ["partners", "front_ends", "link"];
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Domains that are longer push their line's columns to the right.
const WIDEST_DOMAIN: usize = 40;
const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\r\n";
const REST_OF_SCREEN: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    fn partner(domain: &str, state: &str) -> PartnerStateAnswer {
        PartnerStateAnswer {
            domain: domain.to_owned(),
            state: state.to_owned(),
            since: Some("2026-11-30T21:04:11Z".to_owned()),
            state_seconds: Some(3_720),
            next_dial_seconds: None,
            cause: None,
            local: None,
            incoming: 0,
            outgoing: 0,
            proofs: Vec::new(),
            waiting_messages: 0,
        }
    }

    #[test]
    fn a_partner_is_one_line_with_its_state_since_when_the_cause_and_the_next_attempt() {
        let lost = PartnerStateAnswer {
            next_dial_seconds: Some(40),
            cause: Some("192.0.2.1:5269: connection refused".to_owned()),
            ..partner("b.example", "lost")
        };
        assert_eq!(
            partner_line(&lost, 12),
            "  lost       b.example     since 2026-11-30T21:04:11Z (1 h 2 min), next attempt in 40 s, \
             192.0.2.1:5269: connection refused"
        );
        let dialled = PartnerStateAnswer { next_dial_seconds: None, ..lost };
        assert!(partner_line(&dialled, 0).contains("attempt under way"), "{}", partner_line(&dialled, 0));
        let idle = PartnerStateAnswer { since: None, state_seconds: None, ..partner("c.example", "idle") };
        assert_eq!(partner_line(&idle, 0), "  idle       c.example");
        let partners = [partner("a.example", "connected"), partner("b.example", "lost"), idle];
        assert_eq!(summary(&partners), "partners: 1 lost, 1 connected, 1 idle");
    }

    #[test]
    fn a_part_whose_members_have_lines_of_their_own_is_not_told_twice_and_no_cause_moves_the_cursor() {
        let status = serde_json::json!({
            "role": "all-in-one", "is_ready": true, "readiness": "ready", "since": "2026-11-30T21:04:11Z",
            "uptime_seconds": 60, "streams": [], "sessions": [], "users": 0, "pairs": 0, "notifier_dialogs": 0,
            "subscriber_dialogs": 0, "peers": 0, "flows": 0, "waiting_inputs": 0, "refused_inputs": 0,
            "parts": [
                { "name": "partners", "state": "noted", "note": "1 lost: b.example: it said no" },
                { "name": "store", "state": "degraded", "note": "the disk is full" },
            ],
            "partners": [PartnerStateAnswer { cause: Some("no\u{1b}[2J".into()), ..partner("b.example", "lost") }],
        });
        let lines = lines(&serde_json::from_value(status).expect("an answer"));
        let about = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        assert_eq!((about("b.example"), about("the disk is full")), (1, 1), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains('\u{1b}') && line.trim_end() == line), "{lines:?}");
    }

    #[test]
    fn what_is_painted_fits_the_terminal_and_says_what_is_left_out() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n} {}", "x".repeat(200))).collect();
        let text = painted(&lines, 10, 30);
        let rows: Vec<&str> = text.trim_start_matches(HOME).split(END_OF_LINE).collect();
        assert_eq!(rows.len(), 10, "eight lines, the rest as a number, and the row of the cursor");
        assert!(rows[..8].iter().all(|row| row.chars().count() == 30), "{text:?}");
        assert_eq!(rows[8], "… and 92 more lines");
        assert_eq!(rows[9], REST_OF_SCREEN);
        assert_eq!(painted(&lines[..2], 10, 30).matches(END_OF_LINE).count(), 2);
    }
}
