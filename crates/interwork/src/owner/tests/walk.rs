//! Random walks: whatever happens in whatever order, in the end everybody sees what is, and nobody more than granted.
//!
//! The world around the shard is modelled apart: what each watcher was told, and what is true. Every state carries a
//! mark of its own, so that an old state cannot be taken for the new one. A walk that fails says its seed and its
//! steps; `TOMBOLO_SEEDS` sets how many walks of each kind there are.

use std::ops::RangeInclusive;

mod front_end;
mod phones;

/// The choices of one walk (xorshift64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from zero on, below `most`.
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % most
    }
}

/// The seeds of the walks to be done.
fn walks() -> RangeInclusive<u64> {
    1..=std::env::var("TOMBOLO_SEEDS").map_or(200, |text| text.parse().expect("a number of seeds"))
}

/// An attribute of a stanza's start tag.
fn attribute<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let head = &stanza[..stanza.find('>')?];
    between(head, &format!(" {name}='"), "'")
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}
