//! All counters and gauges of the process, kept as handles and written as Prometheus text.

use std::{fmt::Write, sync::atomic::AtomicI64, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::Lag;

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    streams: Gauge<i64, AtomicI64>,
    sessions: Gauge<i64, AtomicI64>,
    users: Gauge<i64, AtomicI64>,
    subscriptions: Gauge<i64, AtomicI64>,
    dialogs: Gauge<i64, AtomicI64>,
    queue_depth: Gauge<i64, AtomicI64>,
    stanzas_in: Counter,
    stanzas_out: Counter,
    requests_in: Counter,
    requests_out: Counter,
    responses_in: Counter,
    refused_stanzas: Counter,
    refused_requests: Counter,
    refused_bodies: Counter,
    refused_streams: Counter,
    malformed: Counter,
    messages_to_sip: Counter,
    messages_to_xmpp: Counter,
    presence_to_xmpp: Counter,
    presence_to_sip: Counter,
    store_failures: Counter,
    panics: Counter,
    turns: Vec<Lag>,
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
        let queue_depth = gauge("queue_depth", "Inputs that wait for shards");
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
            stanzas_in: counter("stanzas_in", "Stanzas from partners"),
            stanzas_out: counter("stanzas_out", "Stanzas to partners"),
            requests_in: counter("sip_requests_in", "SIP requests from peers"),
            requests_out: counter("sip_requests_out", "SIP requests to peers"),
            responses_in: counter("sip_responses_in", "SIP responses from peers"),
            refused_stanzas: counter("refused_stanzas", "Stanzas that were refused or dropped"),
            refused_requests: counter("refused_requests", "SIP requests that were refused"),
            refused_bodies: counter("refused_bodies", "Presence documents that were refused"),
            refused_streams: counter("refused_streams", "XMPP streams that were refused"),
            malformed: counter("malformed", "Connections that ended with malformed input"),
            messages_to_sip: counter("messages_to_sip", "Page-mode messages toward SIP"),
            messages_to_xmpp: counter("messages_to_xmpp", "Page-mode messages toward XMPP"),
            presence_to_xmpp: counter("presence_to_xmpp", "Presence stanzas toward partners"),
            presence_to_sip: counter("presence_to_sip", "NOTIFYs toward SIP watchers"),
            store_failures: counter("store_failures", "Commits that failed"),
            panics: counter("panics", "Panics that were caught"),
            turns: (0..shards.max(1)).map(|_| Lag::default()).collect(),
            registry: Mutex::new(registry),
        }
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry.lock());
        let end = text.rfind("# EOF").unwrap_or(text.len());
        text.truncate(end);
        let _ = writeln!(text, "# HELP tombolo_turn_seconds Time of a shard's turn.");
        let _ = writeln!(text, "# TYPE tombolo_turn_seconds summary");
        for (shard, lag) in self.turns.iter().enumerate() {
            let (quantiles, count) = lag.summary();
            for (quantile, seconds) in quantiles {
                let _ = writeln!(
                    text,
                    "tombolo_turn_seconds{{shard=\"{shard}\",quantile=\"{quantile}\"}} {seconds}"
                );
            }
            let _ = writeln!(text, "tombolo_turn_seconds_count{{shard=\"{shard}\"}} {count}");
        }
        text.push_str("# EOF\n");
        text
    }

    /// A shard's turn took so long.
    pub fn turn(&self, shard: usize, span: Duration) {
        if let Some(lag) = self.turns.get(shard) {
            lag.record(span);
        }
    }
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

gauges!(streams, sessions, users, subscriptions, dialogs, queue_depth);
counters!(
    refused_stanza => refused_stanzas,
    refused_request => refused_requests,
    refused_body => refused_bodies,
    refused_stream => refused_streams,
    malformed_input => malformed,
    message_to_sip => messages_to_sip,
    message_to_xmpp => messages_to_xmpp,
    store_failed => store_failures,
    panicked => panics
);
bulk_counters!(
    stanzas_in,
    stanzas_out,
    requests_in,
    requests_out,
    responses_in,
    presence_to_xmpp,
    presence_to_sip
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new(2);
        metrics.stanzas_in(3);
        metrics.streams(2);
        metrics.refused_request();
        metrics.turn(1, Duration::from_micros(150));
        let text = metrics.render();
        for line in [
            "tombolo_stanzas_in_total 3",
            "tombolo_streams 2",
            "tombolo_refused_requests_total 1",
            "tombolo_turn_seconds_count{shard=\"1\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
