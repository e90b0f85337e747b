//! A few seconds of every fuzz body with its own seeds.

mod common;

use tombolo_xmpp::fuzz_bodies::{
    self, DIALBACK_SEEDS, GATE_SEEDS, INBOUND_SEEDS, JID_SEEDS, Mutator, OUTBOUND_SEEDS,
};

fn smoke(seeds: &'static [&'static [u8]], rounds: usize, body: impl Fn(&[u8])) {
    for seed in seeds {
        body(seed);
    }
    let mut mutator = Mutator::new(42, seeds);
    for _ in 0..rounds {
        body(&mutator.next_input());
    }
}

#[test]
fn no_bytes_break_the_framer() {
    smoke(INBOUND_SEEDS, 20_000, fuzz_bodies::framer);
}

#[test]
fn no_bytes_break_the_gate() {
    smoke(GATE_SEEDS, 20_000, fuzz_bodies::gate);
}

#[test]
fn no_bytes_break_the_stanza_readers() {
    smoke(GATE_SEEDS, 20_000, fuzz_bodies::stanza);
}

#[test]
fn no_bytes_break_the_addresses() {
    smoke(JID_SEEDS, 20_000, fuzz_bodies::jid);
}

#[test]
fn no_bytes_break_dialback() {
    smoke(DIALBACK_SEEDS, 20_000, fuzz_bodies::dialback);
}

#[test]
fn no_bytes_break_a_stream_that_a_peer_opened() {
    smoke(INBOUND_SEEDS, 5_000, |data| fuzz_bodies::stream_inbound(data, common::epoch()));
}

#[test]
fn no_bytes_break_a_stream_that_we_opened() {
    smoke(OUTBOUND_SEEDS, 5_000, |data| fuzz_bodies::stream_outbound(data, common::epoch()));
}
