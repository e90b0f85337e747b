//! Bytes of one pair (G7) and of one idle SIP dialog (G8) in the pure machine of a shard.
//!
//! `memory [COUNT]` (default 100,000). Two numbers for each: what the allocator gave out, and what became resident.

use std::{process::Command, time::Duration};

use cap::Cap;
use mimalloc::MiMalloc;
use tombolo_benches::{
    process::resident_bytes,
    surroundings::{BATCH, Surroundings, presence},
};
use tombolo_interwork::owner::Input;

/// Counts what it gives out.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

struct Mark {
    given: usize,
    resident: u64,
}

impl Mark {
    fn set() -> Self {
        let resident = resident_bytes(None).expect("/proc is readable");
        Self { given: ALLOCATOR.allocated(), resident }
    }

    fn tell(&self, what: &str, count: usize) {
        let now = Self::set();
        let given = now.given.saturating_sub(self.given) as f64 / count as f64;
        let resident = now.resident.saturating_sub(self.resident) as f64 / count as f64;
        println!("{what:<66} {given:7.0} B allocated  {resident:7.0} B resident");
    }
}

/// After so long every subscription stanza counts as confirmed, with or without pings (`OwnerSettings::confirm_after`).
const CONFIRMED: Duration = Duration::from_secs(160);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (first, second) = (arguments.next(), arguments.next());
    let count_of = |text: Option<String>| text.map_or(100_000, |text| text.parse().expect("a number"));
    match first.as_deref() {
        Some("pairs") => pairs(count_of(second)),
        Some("dialogs") => dialogs(count_of(second)),
        _ => {
            let count: usize = count_of(first);
            println!("{count} of each; octets for one");
            // Each in a process of its own: what one leaves to the allocator would hide what the other takes.
            for part in ["pairs", "dialogs"] {
                let program = std::env::current_exe().expect("a name");
                let done = Command::new(program).args([part, &count.to_string()]).status();
                assert!(done.is_ok_and(|status| status.success()), "{part}");
            }
        }
    }
}

/// XMPP contacts that watch a SIP user.
fn pairs(count: usize) {
    let mut shard = Surroundings::new();
    let mark = Mark::set();
    shard.let_watch(count);
    mark.tell("pair, XMPP watches SIP, just granted (its due slot's timer runs)", count);
    shard.publish("away");
    shard.wait(CONFIRMED);
    mark.tell("pair, XMPP watches SIP, settled (G7)", count);
}

/// A SIP user's phone that watches XMPP contacts: a pair and a dialog each.
fn dialogs(count: usize) {
    let mut shard = Surroundings::new();
    let mark = Mark::set();
    let mut answers = shard.watch(count);
    shard.wait(CONFIRMED);
    mark.tell("pair + dialog, SIP watches XMPP, nothing heard", count);
    for first in (0..count).step_by(BATCH) {
        let all = first..count.min(first + BATCH);
        shard.handle(Input::Stanzas(all.clone().map(|number| presence(number, "away")).collect()));
        for answer in &mut answers[all.clone()] {
            answer.cseq += 1;
        }
        shard.answers_come(answers[all].to_vec());
    }
    drop(answers);
    shard.wait(CONFIRMED);
    mark.tell("pair + dialog + the contact's own state (a view each)", count);
    let mark = Mark::set();
    shard.watch_again(count);
    shard.wait(CONFIRMED);
    mark.tell("a second dialog of the same pair (G8)", count);
}
