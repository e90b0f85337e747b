//! The targets: what is called, and where its corpus lies.

use std::time::Instant;

use tombolo_sip::fuzz_bodies as sip;
use tombolo_xmpp::fuzz_bodies as xmpp;

use crate::sip_message;

/// One parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `--target` names it.
    pub name: &'static str,
    /// Takes any octets; panics where the parser broke its rule.
    pub body: fn(&[u8]),
    /// Folders with inputs to begin with, relative to the project.
    pub corpora: &'static [&'static str],
}

/// One for each parser that reads what a peer or an operator wrote.
pub const TARGETS: &[Target] = &[
    Target {
        name: "xmpp-framer",
        body: xmpp::framer,
        corpora: &["crates/xmpp/corpus/stream_inbound", "crates/xmpp/corpus/gate"],
    },
    Target { name: "xmpp-gate", body: xmpp::gate, corpora: &["crates/xmpp/corpus/gate"] },
    Target { name: "xmpp-stanza", body: xmpp::stanza, corpora: &["crates/xmpp/corpus/gate"] },
    Target { name: "xmpp-jid", body: xmpp::jid, corpora: &["fuzz/corpus/jid"] },
    Target { name: "xmpp-dialback", body: xmpp::dialback, corpora: &["crates/xmpp/corpus/dialback"] },
    Target {
        name: "xmpp-stream-inbound",
        body: stream_inbound,
        corpora: &["crates/xmpp/corpus/stream_inbound"],
    },
    Target {
        name: "xmpp-stream-outbound",
        body: stream_outbound,
        corpora: &["crates/xmpp/corpus/stream_outbound"],
    },
    Target { name: "sip-stream", body: sip_message::stream, corpora: &["fuzz/corpus/sip"] },
    Target { name: "sip-datagram", body: sip_message::datagram, corpora: &["fuzz/corpus/sip"] },
    Target { name: "sip-print", body: sip::print_again, corpora: &["fuzz/corpus/sip"] },
    Target { name: "sip-refusal", body: sip::refusal, corpora: &["fuzz/corpus/sip"] },
    Target { name: "sip-transactions", body: transactions, corpora: &["fuzz/corpus/sip"] },
    Target { name: "sip-values", body: sip::values, corpora: &["fuzz/corpus/values"] },
    Target { name: "sip-digest", body: tombolo_sip::digest::fuzz_body, corpora: &["fuzz/corpus/digest"] },
    Target { name: "sip-body", body: tombolo_sip::body::fuzz_body, corpora: &["fuzz/corpus/body"] },
    Target { name: "sip-pidf", body: tombolo_sip::pidf::fuzz_body, corpora: &["crates/sip/corpus/pidf"] },
    Target {
        name: "settings",
        body: tombolo_config::fuzz_body,
        corpora: &["fuzz/corpus/settings", "config"],
    },
];

fn stream_inbound(data: &[u8]) {
    xmpp::stream_inbound(data, some_moment());
}

fn stream_outbound(data: &[u8]) {
    xmpp::stream_outbound(data, some_moment());
}

fn transactions(data: &[u8]) {
    sip::transactions(data, some_moment());
}

/// The machines count differences only, so any moment will do and the inputs stay reproducible.
#[allow(clippy::disallowed_methods)]
fn some_moment() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    #[test]
    fn every_corpus_exists_and_every_entry_passes_its_body() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the project");
        for target in TARGETS {
            let mut entries = 0;
            for corpus in target.corpora {
                for entry in std::fs::read_dir(root.join(corpus)).expect("the corpus exists").flatten() {
                    if entry.path().is_file() {
                        (target.body)(&std::fs::read(entry.path()).expect("a readable entry"));
                        entries += 1;
                    }
                }
            }
            assert!(entries > 0, "{} begins with nothing", target.name);
        }
    }
}
