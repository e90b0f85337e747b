//! A few seconds of the fuzz bodies, from the torture messages of RFC 4475 and RFC 5118 on.

#[path = "torture/archive.rs"]
mod archive;

use std::time::Instant;

use tombolo_sip::fuzz_bodies;

/// xorshift: the same inputs each time.
struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    fn new(seeds: Vec<Vec<u8>>) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, seeds }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % limit.max(1) as u64).expect("below a usize")
    }

    fn next_input(&mut self) -> Vec<u8> {
        const PIECES: &[&[u8]] = &[
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"\"",
            b"\\",
            b"<",
            b">",
            b",",
            b";",
            b"=",
            b":",
            b"%00",
            b"%",
            b"@",
            b"[",
            b"]",
            b"\r\n ",
            b"\r\nVia: ",
            b"\r\nContent-Length: 0",
            b"\xff",
            "\u{e9}".as_bytes(),
            b"?",
            b" ",
        ];
        let seed = self.below(self.seeds.len());
        let mut data = self.seeds[seed].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len() + 1);
            let end = (at + self.below(20)).min(data.len());
            match self.below(5) {
                0 => drop(data.splice(at..at, PIECES[self.below(PIECES.len())].iter().copied())),
                1 => drop(data.drain(at..end)),
                2 => {
                    let piece = data[at..end].to_vec();
                    drop(data.splice(at..at, piece));
                }
                3 => {
                    let bit = self.below(8);
                    if let Some(octet) = data.get_mut(at) {
                        *octet ^= 1 << bit;
                    }
                }
                _ => {
                    let other = self.below(self.seeds.len());
                    let from = self.below(self.seeds[other].len());
                    let to = (from + self.below(60)).min(self.seeds[other].len());
                    let piece = self.seeds[other][from..to].to_vec();
                    drop(data.splice(at..end, piece));
                }
            }
        }
        data
    }
}

fn messages() -> Vec<Vec<u8>> {
    let old = archive::unpack(include_str!("data/rfc4475.txt"));
    let newer = archive::unpack(include_str!("data/rfc5118.txt"));
    old.into_values().chain(newer.into_values()).collect()
}

fn smoke(seeds: Vec<Vec<u8>>, rounds: usize, body: impl Fn(&[u8])) {
    for seed in &seeds {
        body(seed);
    }
    let mut mutator = Mutator::new(seeds);
    for _ in 0..rounds {
        body(&mutator.next_input());
    }
}

#[test]
fn what_is_read_prints_as_what_was_read() {
    smoke(messages(), 30_000, fuzz_bodies::print_again);
}

#[test]
fn every_refusal_is_one_legal_response() {
    smoke(messages(), 30_000, fuzz_bodies::refusal);
}

#[test]
fn no_message_breaks_the_transactions() {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    let now = Instant::now();
    smoke(messages(), 30_000, |data| fuzz_bodies::transactions(data, now));
}

#[test]
fn no_text_breaks_header_values_and_uris() {
    let seeds: [&[u8]; 8] = [
        b"\"A \\\" B\" <sips:al%69ce:pw@[2001:db8::1]:5061;transport=tcp;lr?subject=a%20b&x=y>;tag=1;q=0.5",
        b"sip:alice@corp.test;tag=a~b",
        b"SIP / 2.0/UDP h.example : 5060 ; branch=z9hG4bKa;received=[2001:db8::9];rport",
        b"SIP/2.0/TLS [::ffff:192.0.2.1]:5061;branch=z9hG4bKb;alias",
        b"presence.winfo;id=7",
        b"multipart/related;boundary=\"a b\";type=\"application/rlmi+xml\"",
        b"tel:+1-201-555-0123;phone-context=x",
        b"pres:juliet%40x@example.com",
    ];
    smoke(seeds.map(<[u8]>::to_vec).to_vec(), 60_000, fuzz_bodies::values);
}
