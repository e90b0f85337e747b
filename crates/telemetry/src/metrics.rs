//! All counters and gauges of the process, kept as handles and written as Prometheus text.
//!
//! In: what happened, one call each, from any thread. Out: the text. It decides nothing and logs nothing.

use std::{fmt::Write, sync::atomic::AtomicI64, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{Health, Lag, SipMethod, StanzaKind, StatusClass, labels::Counts};

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    health: Health,
    streams: Gauge<i64, AtomicI64>,
    sessions: Gauge<i64, AtomicI64>,
    users: Gauge<i64, AtomicI64>,
    subscriptions: Gauge<i64, AtomicI64>,
    dialogs: Gauge<i64, AtomicI64>,
    queue_depth: Gauge<i64, AtomicI64>,
    memory_taken: Gauge<i64, AtomicI64>,
    memory_limit: Gauge<i64, AtomicI64>,
    over_budget: Family<[(&'static str, &'static str); 1], Counter>,
    store_rows_kept: Gauge<i64, AtomicI64>,
    certificates: Family<[(&'static str, String); 1], Gauge<i64, AtomicI64>>,
    front_ends: Family<[(&'static str, String); 1], Gauge<i64, AtomicI64>>,
    partners: Family<[(&'static str, String); 1], Gauge<i64, AtomicI64>>,
    partners_lost: Gauge<i64, AtomicI64>,
    registrations: Gauge<i64, AtomicI64>,
    registered_users: Gauge<i64, AtomicI64>,
    links: Family<[(&'static str, String); 1], Gauge<i64, AtomicI64>>,
    link_frames: Family<[(&'static str, String); 1], Gauge<i64, AtomicI64>>,
    stanzas_in: Counter,
    stanzas_out: Counter,
    requests_in: Counter,
    requests_out: Counter,
    responses_in: Counter,
    refused_stanzas: Counter,
    malformed_addresses: Counter,
    refused_requests: Counter,
    failed_logins: Counter,
    refused_bodies: Counter,
    refused_streams: Counter,
    refused_connections: Counter,
    throttled_streams: Counter,
    malformed: Counter,
    certificate_downgrades: Counter,
    messages_to_sip: Counter,
    messages_to_xmpp: Counter,
    presence_to_xmpp: Counter,
    presence_to_sip: Counter,
    causes_left_out: Counter,
    store_failures: Counter,
    panics: Counter,
    stanzas_in_by_kind: Counts<StanzaKind>,
    requests_in_by_method: Counts<SipMethod>,
    requests_out_by_method: Counts<SipMethod>,
    responses_in_by_class: Counts<StatusClass>,
    responses_out_by_class: Counts<StatusClass>,
    rows_committed: Counter,
    commits: Lag,
    turns: Vec<Lag>,
    lags: Vec<Lag>,
}

impl Metrics {
    /// All at zero, for so many shards.
    pub fn new(shards: usize) -> Self {
        let mut registry = Registry::with_prefix("tombolo");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let streams = gauge("streams", "XMPP streams that are up");
        let sessions = gauge("sessions", "Federated sessions");
        let users = gauge("users", "Local users with an actor");
        let subscriptions = gauge("subscriptions", "Pairs of a local user and a contact");
        let dialogs = gauge("dialogs", "SIP dialogs");
        let memory_taken = gauge("memory_taken_bytes", "What the process takes by itself");
        let memory_limit = gauge("memory_limit_bytes", "What it may take before nothing new is let in");
        let queue_depth = gauge("queue_depth", "Inputs that wait for shards");
        let store_rows_kept = gauge("store_rows_kept", "Rows that wait until the disk takes them again");
        let partners_lost = gauge("partners_lost", "Partners that cannot be reached");
        let registrations = gauge("registrations", "Contacts that phones have registered");
        let registered_users = gauge("registered_users", "Users with a registered phone");
        let certificates = Family::default();
        registry.register(
            "certificate_days_left",
            "Whole days until a certificate of ours runs out, negative once it has",
            certificates.clone(),
        );
        let over_budget = Family::default();
        registry.register(
            "over_budget",
            "Times that something was refused or cut, since a budget of memory had no room",
            over_budget.clone(),
        );
        let front_ends = Family::default();
        registry.register(
            "front_end_up",
            "1 while the front end of a domain of ours is up, else 0",
            front_ends.clone(),
        );
        let partners = Family::default();
        registry.register(
            "partner_up",
            "0 while a partner that the settings name cannot be reached, else 1; absent while nothing is said to it",
            partners.clone(),
        );
        let links = Family::default();
        registry.register("link_up", "1 while the inside link has a connection, else 0", links.clone());
        let link_frames = Family::default();
        registry.register(
            "link_waiting_frames",
            "Frames of the inside link that the other end has not acknowledged",
            link_frames.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            streams,
            sessions,
            users,
            subscriptions,
            dialogs,
            queue_depth,
            store_rows_kept,
            memory_taken,
            memory_limit,
            certificates,
            over_budget,
            front_ends,
            partners,
            partners_lost,
            registrations,
            registered_users,
            links,
            link_frames,
            stanzas_in: counter("stanzas_in", "Stanzas from partners"),
            stanzas_out: counter("stanzas_out", "Stanzas to partners"),
            requests_in: counter("sip_requests_in", "SIP requests from peers"),
            requests_out: counter("sip_requests_out", "SIP requests to peers"),
            responses_in: counter("sip_responses_in", "SIP responses from peers"),
            refused_stanzas: counter("refused_stanzas", "Stanzas that were refused or dropped"),
            malformed_addresses: counter(
                "malformed_addresses",
                "Stanzas that were dropped for an address that RFC 7622 does not allow",
            ),
            refused_requests: counter("refused_requests", "SIP requests that were refused"),
            failed_logins: counter(
                "sip_failed_logins",
                "SIP requests whose sender did not prove the user it named",
            ),
            refused_bodies: counter("refused_bodies", "Presence documents that were refused"),
            refused_streams: counter("refused_streams", "XMPP streams that were refused"),
            refused_connections: counter("refused_connections", "SIP connections over a limit"),
            throttled_streams: counter(
                "throttled_streams",
                "Times that a partner sent faster than it may and was read slower",
            ),
            malformed: counter(
                "malformed",
                "Malformed SIP messages, and SIP connections whose handshake failed",
            ),
            certificate_downgrades: counter(
                "certificate_downgrades",
                "Times that a stream was left to dialback, for the certificate of one side did not serve, or to the clear, for TLS failed",
            ),
            messages_to_sip: counter("messages_to_sip", "Page-mode messages toward SIP"),
            messages_to_xmpp: counter("messages_to_xmpp", "Page-mode messages toward XMPP"),
            presence_to_xmpp: counter("presence_to_xmpp", "Presence stanzas toward partners"),
            presence_to_sip: counter("presence_to_sip", "NOTIFYs toward SIP watchers"),
            causes_left_out: counter(
                "causes_left_out",
                "Late failures of messages whose sender was not told: automatic, or told of another lately",
            ),
            store_failures: counter("store_failures", "Commits that failed"),
            panics: counter("panics", "Panics that were caught"),
            rows_committed: counter("rows_committed", "Rows that were made durable"),
            stanzas_in_by_kind: Counts::register(
                &mut registry,
                "stanzas_in_by_kind",
                "Stanzas from partners",
            ),
            requests_in_by_method: Counts::register(
                &mut registry,
                "sip_requests_in_by_method",
                "SIP requests from peers",
            ),
            requests_out_by_method: Counts::register(
                &mut registry,
                "sip_requests_out_by_method",
                "SIP requests to peers",
            ),
            responses_in_by_class: Counts::register(
                &mut registry,
                "sip_responses_in_by_class",
                "SIP responses from peers",
            ),
            responses_out_by_class: Counts::register(
                &mut registry,
                "sip_responses_out_by_class",
                "SIP responses to peers",
            ),
            commits: Lag::default(),
            turns: lags(shards),
            lags: lags(shards),
            registry: Mutex::new(registry),
            health: Health::default(),
        }
    }

    /// How the parts of the process are doing; each part registers here.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry.lock());
        let end = text.rfind("# EOF").unwrap_or(text.len());
        text.truncate(end);
        summary(&mut text, "turn_seconds", "Time of a shard's turn", &self.turns);
        summary(&mut text, "lag_seconds", "How late a shard's thread comes to what is due", &self.lags);
        summary(
            &mut text,
            "commit_seconds",
            "Time of a commit to the store",
            std::slice::from_ref(&self.commits),
        );
        log_lines(&mut text);
        part_states(&mut text, &self.health);
        text.push_str("# EOF\n");
        text
    }

    /// Sets how many whole days the certificate of a domain of ours, or of the link, still holds.
    pub fn certificate_days_left(&self, name: &str, days: i64) {
        self.certificates.get_or_create(&[("name", name.to_owned())]).set(days);
    }

    /// The process takes so many octets of so many that it may.
    pub fn memory(&self, taken: u64, limit: u64) {
        self.memory_taken.set(i64::try_from(taken).unwrap_or(i64::MAX));
        self.memory_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// A budget of memory had no room. `budget` is one of a few names.
    pub fn over_budget(&self, budget: &'static str) {
        self.over_budget.get_or_create(&[("budget", budget)]).inc();
    }

    /// Sets whether the front end of a domain of ours is up.
    pub fn front_end_up(&self, domain: &str, is_up: bool) {
        self.front_ends.get_or_create(&[("domain", domain.to_owned())]).set(i64::from(is_up));
    }

    /// A domain has no front end any more.
    pub fn forget_front_end(&self, domain: &str) {
        self.front_ends.remove(&[("domain", domain.to_owned())]);
    }

    /// Sets whether a partner can be reached.
    pub fn partner_up(&self, domain: &str, is_up: bool) {
        self.partners.get_or_create(&[("partner", domain.to_owned())]).set(i64::from(is_up));
    }

    /// A partner is none any more, or nothing is said to it.
    pub fn forget_partner(&self, domain: &str) {
        self.partners.remove(&[("partner", domain.to_owned())]);
    }

    /// Sets how the inside link to a peer stands, and how many frames wait.
    pub fn link(&self, peer: &str, is_up: bool, waiting_frames: usize) {
        let label = [("peer", peer.to_owned())];
        self.links.get_or_create(&label).set(i64::from(is_up));
        self.link_frames.get_or_create(&label).set(i64::try_from(waiting_frames).unwrap_or(i64::MAX));
    }

    /// A shard's turn took so long.
    pub fn turn(&self, shard: usize, span: Duration) {
        if let Some(lag) = self.turns.get(shard) {
            lag.record(span);
        }
    }

    /// The thread of a shard came so late to what was due.
    pub fn lag(&self, shard: usize, span: Duration) {
        if let Some(lag) = self.lags.get(shard) {
            lag.record(span);
        }
    }

    /// A commit made so many rows durable and took so long.
    pub fn committed(&self, rows: u64, span: Duration) {
        self.rows_committed.inc_by(rows);
        self.commits.record(span);
    }

    /// Sets how many rows wait until the disk takes them again.
    pub fn store_rows_kept(&self, rows: i64) {
        self.store_rows_kept.set(rows);
    }

    /// Counts stanzas from a partner, in all and by their kind.
    pub fn stanzas_in(&self, kind: StanzaKind, count: u64) {
        self.stanzas_in.inc_by(count);
        self.stanzas_in_by_kind.add(kind, count);
    }

    /// Counts one request from a peer, in all and by its method.
    pub fn request_in(&self, method: SipMethod) {
        self.requests_in.inc();
        self.requests_in_by_method.add(method, 1);
    }

    /// Counts requests to a peer, in all and by their method.
    pub fn requests_out(&self, method: SipMethod, count: u64) {
        self.requests_out.inc_by(count);
        self.requests_out_by_method.add(method, count);
    }

    /// Counts one response from a peer, in all and by its class; in place of [`Metrics::responses_in`].
    pub fn response_in(&self, class: StatusClass) {
        self.responses_in.inc();
        self.responses_in_by_class.add(class, 1);
    }

    /// Counts one response to a peer by its class.
    pub fn response_out(&self, class: StatusClass) {
        self.responses_out_by_class.add(class, 1);
    }
}

fn log_lines(text: &mut String) {
    let dropped = crate::logs::dropped_lines();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP tombolo_log_lines_dropped Log lines that nobody read in time.");
    let _ = writeln!(text, "# TYPE tombolo_log_lines_dropped counter");
    let _ = writeln!(text, "tombolo_log_lines_dropped_total {dropped}");
}

/// One gauge a part; its names are constants of ours, so they need no escaping.
fn part_states(text: &mut String, health: &Health) {
    let parts = health.parts();
    if parts.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ =
        writeln!(text, "# HELP tombolo_part_state State of a part: 0 up, 1 noted, 2 degraded, 3 unready.");
    let _ = writeln!(text, "# TYPE tombolo_part_state gauge");
    for part in parts {
        let _ = writeln!(text, "tombolo_part_state{{part=\"{}\"}} {}", part.name, part.state as u8);
    }
}

fn lags(shards: usize) -> Vec<Lag> {
    (0..shards.max(1)).map(|_| Lag::default()).collect()
}

/// One line for each quantile over all shards; nothing while nothing was recorded.
fn summary(text: &mut String, name: &str, help: &str, lags: &[Lag]) {
    let Some((quantiles, count)) = Lag::merged(lags) else { return };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP tombolo_{name} {help}.");
    let _ = writeln!(text, "# TYPE tombolo_{name} summary");
    for (quantile, seconds) in quantiles {
        let _ = writeln!(text, "tombolo_{name}{{quantile=\"{quantile}\"}} {seconds}");
    }
    let _ = writeln!(text, "tombolo_{name}_count {count}");
}

macro_rules! gauges {
    ($($name:ident),*) => {
        impl Metrics {
            $(
                #[doc = concat!("Sets `", stringify!($name), "`.")]
                pub fn $name(&self, value: i64) {
                    self.$name.set(value);
                }
            )*
        }
    };
}

macro_rules! counters {
    ($($method:ident => $name:ident),*) => {
        impl Metrics {
            $(
                #[doc = concat!("Counts one more of `", stringify!($name), "`.")]
                pub fn $method(&self) {
                    self.$name.inc();
                }
            )*
        }
    };
}

macro_rules! bulk_counters {
    ($($name:ident),*) => {
        impl Metrics {
            $(
                #[doc = concat!("Counts so many more of `", stringify!($name), "`.")]
                pub fn $name(&self, count: u64) {
                    self.$name.inc_by(count);
                }
            )*
        }
    };
}

gauges!(
    streams,
    sessions,
    users,
    subscriptions,
    dialogs,
    queue_depth,
    partners_lost,
    registrations,
    registered_users
);
counters!(
    refused_stanza => refused_stanzas,
    malformed_address => malformed_addresses,
    refused_request => refused_requests,
    failed_login => failed_logins,
    refused_body => refused_bodies,
    refused_stream => refused_streams,
    refused_connection => refused_connections,
    throttled_stream => throttled_streams,
    malformed_input => malformed,
    certificate_downgrade => certificate_downgrades,
    message_to_sip => messages_to_sip,
    message_to_xmpp => messages_to_xmpp,
    cause_left_out => causes_left_out,
    store_failed => store_failures,
    panicked => panics
);
bulk_counters!(stanzas_out, responses_in, presence_to_xmpp, presence_to_sip);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new(2);
        metrics.stanzas_in(StanzaKind::Presence, 3);
        metrics.streams(2);
        metrics.refused_request();
        metrics.turn(0, Duration::from_micros(150));
        metrics.turn(1, Duration::from_micros(150));
        metrics.lag(1, Duration::from_millis(4));
        metrics.request_in(SipMethod::Subscribe);
        metrics.request_in(SipMethod::of("EVIL"));
        metrics.requests_out(SipMethod::Notify, 7);
        metrics.response_in(StatusClass::of(481));
        metrics.committed(7, Duration::from_millis(2));
        metrics.certificate_days_left("corp.example", -2);
        metrics.front_end_up("corp.example", true);
        metrics.health().part("store").set(crate::PartState::Degraded, "slow");
        metrics.over_budget("messages");
        let text = metrics.render();
        for line in [
            "tombolo_stanzas_in_total 3",
            "tombolo_streams 2",
            "tombolo_refused_requests_total 1",
            "tombolo_stanzas_in_by_kind_total{kind=\"presence\"} 3",
            "tombolo_sip_requests_in_total 2",
            "tombolo_sip_requests_out_by_method_total{method=\"NOTIFY\"} 7",
            "tombolo_sip_requests_in_by_method_total{method=\"SUBSCRIBE\"} 1",
            "tombolo_sip_requests_in_by_method_total{method=\"other\"} 1",
            "tombolo_sip_responses_in_by_class_total{class=\"4xx\"} 1",
            "tombolo_rows_committed_total 7",
            "tombolo_over_budget_total{budget=\"messages\"} 1",
            "tombolo_certificate_days_left{name=\"corp.example\"} -2",
            "tombolo_part_state{part=\"store\"} 2",
            "tombolo_front_end_up{domain=\"corp.example\"} 1",
            "tombolo_commit_seconds_count 1",
            "tombolo_turn_seconds_count 2",
            "tombolo_lag_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        for absent in ["EVIL", "method=\"BYE\""] {
            assert!(!text.contains(absent), "{absent} was never counted, but is in\n{text}");
        }
    }

    #[test]
    fn every_line_is_a_comment_or_a_name_with_a_number() {
        let metrics = Metrics::new(1);
        metrics.stanzas_in(StanzaKind::Iq, 1);
        metrics.requests_out(SipMethod::Notify, 1);
        metrics.response_out(StatusClass::Success);
        metrics.turn(0, Duration::from_micros(3));
        for line in metrics.render().lines().filter(|line| !line.starts_with('#')) {
            let (name, number) = line.rsplit_once(' ').expect("two parts");
            assert!(name.starts_with("tombolo_") && number.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn a_shard_that_is_not_there_is_not_counted() {
        let metrics = Metrics::new(1);
        metrics.turn(1, Duration::from_secs(1));
        assert!(!metrics.render().contains("tombolo_turn_seconds"));
    }
}
