//! Makes inputs out of a corpus. The same seed and the same corpus give the same inputs in the same order.

/// Longer inputs find little that shorter ones don't, and take their time.
const LENGTH_MAX: usize = 16 * 1024;

/// Octets and words that parsers of text protocols stumble over.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"<",
    b">",
    b"</",
    b"/>",
    b"<!--",
    b"<![CDATA[",
    b"]]>",
    b"<!DOCTYPE x [",
    b"<?xml?>",
    b"&amp;",
    b"&#0;",
    b"&#x110000;",
    b"&x;",
    b"\"",
    b"'",
    b"=",
    b";",
    b",",
    b":",
    b"%",
    b"%00",
    b"%c3%28",
    b"\\",
    b"\\20",
    b"@",
    b"[",
    b"]",
    b"(",
    b")",
    b"*",
    b"-1",
    b"0",
    b"65536",
    b"4294967296",
    b"18446744073709551616",
    b"99999999999999999999999",
    b"Content-Length: 5\r\n",
    b"l: -1\r\n",
    b"Via: ",
    b"SIP/2.0",
    b";tag=",
    b";branch=z9hG4bK",
    b"<sip:a@b>",
    b"xmlns=''",
    b"xmlns:x='y'",
    b" xml:lang='",
    b"\t",
    b" ",
];

/// The stream of inputs for one target.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// Begins at `seed`; the corpus may be empty, which leaves words to begin with.
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        let corpus = if corpus.is_empty() { vec![Vec::new()] } else { corpus };
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15, corpus }
    }

    /// The next input, at most 16 KiB.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.entry();
        for _ in 0..=self.below(5) {
            self.change(&mut input);
        }
        input.truncate(LENGTH_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let short = (at + self.below(16)).min(input.len());
        match self.below(9) {
            0 => {
                let bit = self.below(8);
                if let Some(octet) = input.get_mut(at) {
                    *octet ^= 1 << bit;
                }
            }
            1 => {
                let octet = self.next().to_le_bytes()[0];
                if let Some(place) = input.get_mut(at) {
                    *place = octet;
                }
            }
            2 => drop(input.drain(at..short)),
            3 => {
                let piece = input[at..short].to_vec();
                let times = 1 + self.below(40);
                input.splice(at..at, piece.repeat(times));
            }
            4 => {
                // The head of one entry, the tail of another: states of two stories meet.
                let other = self.entry();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 => {
                let other = self.entry();
                let from = self.below(other.len() + 1);
                let to = (from + self.below(80)).min(other.len());
                input.splice(at..short, other[from..to].iter().copied());
            }
            6 => input.truncate(at),
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                let end = if self.below(2) == 0 { at } else { short };
                input.splice(at..end, word.iter().copied());
            }
        }
    }

    fn entry(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        self.corpus[at].clone()
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{LENGTH_MAX, Mutator};

    fn corpus() -> Vec<Vec<u8>> {
        vec![b"NOTIFY sip:a@b SIP/2.0\r\n".to_vec(), b"<presence/>".to_vec()]
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_seed_others() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, corpus());
            (0..200).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(5), inputs(5));
        assert_ne!(inputs(5), inputs(6));
    }

    #[test]
    fn most_inputs_differ_from_each_other_and_all_are_bounded() {
        let mut mutator = Mutator::new(1, corpus());
        let inputs: Vec<Vec<u8>> = (0..1000).map(|_| mutator.next_input()).collect();
        assert!(inputs.iter().collect::<BTreeSet<_>>().len() > 900);
        assert!(inputs.iter().all(|input| input.len() <= LENGTH_MAX));
    }

    #[test]
    fn without_a_corpus_there_are_inputs_all_the_same() {
        let mut mutator = Mutator::new(1, Vec::new());
        assert!((0..100).any(|_| !mutator.next_input().is_empty()));
    }
}
