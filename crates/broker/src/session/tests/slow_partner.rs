//! Partners that read slowly: how old is what they read, and how much of their rate is used.

use std::collections::VecDeque;

use super::*;

const STANZA_BYTES: usize = 250;
/// What the kernels of both sides and the partner hold.
const BUFFER_BYTES: usize = 8 << 20;
const TICK: Duration = Duration::from_millis(2);
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A partner that reads one stream so many octets a second, in order, and answers pings after a while. What it has not
/// read waits in large buffers.
struct Partner {
    session: Session,
    now: Instant,
    rate: f64,
    round_trip: Duration,
    /// False for one that never answers.
    has_pongs: bool,
    /// What waits for room in the buffers, and the number of the last stanza of each.
    unwritten: VecDeque<(usize, Instant, Option<u64>)>,
    numbers: VecDeque<u64>,
    /// What it has not read: octets, when they were said, and the number of a ping.
    buffered: VecDeque<(usize, Instant, Option<u64>)>,
    part: f64,
    pongs: VecDeque<(Instant, u64)>,
    handed: u64,
    /// Shards that always owe something.
    busy: usize,
    /// Of what was read: stanzas, octets, and how old the oldest was.
    read: Read,
}

#[derive(Debug, Default)]
struct Read {
    bytes: usize,
    pings: usize,
    oldest: Duration,
}

impl Partner {
    fn new(rate: f64, round_trip: Duration, busy: usize) -> Self {
        let now = start();
        let session =
            Session::new(SessionSettings::default(), 7).with_ping("corp.example", "partner.example");
        let mut partner = Self {
            session,
            now,
            rate,
            round_trip,
            has_pongs: true,
            unwritten: VecDeque::new(),
            numbers: VecDeque::new(),
            buffered: VecDeque::new(),
            part: 0.0,
            pongs: VecDeque::new(),
            handed: 0,
            busy,
            read: Read::default(),
        };
        partner.restart();
        partner
    }

    /// A stream begins.
    fn restart(&mut self) {
        self.session.handle_stream_up(STREAM, 65_536, self.now);
        (self.handed, self.part) = (0, 0.0);
        self.unwritten.clear();
        self.numbers.clear();
        self.buffered.clear();
        self.pongs.clear();
        for shard in 0..self.busy {
            self.session.handle_want(shard, 1 << 20, self.now);
        }
    }

    fn carry(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Grant { shard, bytes } => {
                    // The newest states, made now.
                    let count = bytes / STANZA_BYTES;
                    let stanzas = vec![b'x'; count * STANZA_BYTES];
                    self.session.handle_stanzas(shard, count as u32, stanzas, self.now);
                    if shard < self.busy {
                        self.session.handle_want(shard, 1 << 20, self.now);
                    }
                }
                SessionOutput::Stanzas { count, bytes, .. } => {
                    self.handed += u64::from(count);
                    let text = std::str::from_utf8(&bytes).expect("text");
                    let ping = text.split_once("id='").map(|(_, rest)| {
                        number_of_pong(rest.split_once('\'').expect("quoted").0).expect("a ping of ours")
                    });
                    self.unwritten.push_back((bytes.len(), self.now, ping));
                    self.numbers.push_back(self.handed);
                }
                SessionOutput::Fate { fate: Ok(()), .. }
                | SessionOutput::Reachable { .. }
                | SessionOutput::LaneLost { .. }
                | SessionOutput::Dial => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What the buffers have room for is written.
    fn write(&mut self) {
        let mut full: usize = self.buffered.iter().map(|(bytes, ..)| bytes).sum();
        while full < BUFFER_BYTES
            && let Some(part) = self.unwritten.pop_front()
        {
            full += part.0;
            self.buffered.push_back(part);
            let last = self.numbers.pop_front().expect("one for each");
            self.session.handle_written(STREAM, last, part.0 as u32, self.now);
        }
    }

    fn read(&mut self) {
        self.part += self.rate * TICK.as_secs_f64();
        while let Some((bytes, said, ping)) = self.buffered.front_mut() {
            let part = (*bytes).min(self.part as usize);
            *bytes -= part;
            self.part -= part as f64;
            self.read.bytes += part;
            self.read.oldest = self.read.oldest.max(self.now - *said);
            if *bytes > 0 {
                return;
            }
            if let Some(ping) = *ping {
                self.read.pings += 1;
                self.pongs.push_back((self.now + self.round_trip, ping));
            }
            self.buffered.pop_front();
        }
        // It cannot read ahead.
        self.part = 0.0;
    }

    /// Runs for so long; what was read meanwhile.
    fn run(&mut self, time: Duration) -> Read {
        self.read = Read::default();
        let end = self.now + time;
        while self.now < end {
            self.carry();
            self.write();
            self.now += TICK;
            self.read();
            while let Some((_, ping)) = self.pongs.pop_front_if(|(at, _)| *at <= self.now) {
                if self.has_pongs {
                    self.session.handle_pong(ping, self.now);
                }
            }
            if self.session.poll_timeout().is_some_and(|at| at <= self.now) {
                self.session.handle_timeout(self.now);
            }
        }
        std::mem::take(&mut self.read)
    }
}

#[test]
fn a_slow_partner_is_kept_busy_and_reads_nothing_that_is_older_than_two_seconds() {
    for (kilobytes, least) in [(10, 0.7), (30, 0.95), (50, 0.95), (100, 0.95), (1000, 0.95)] {
        for round_trip in [0, 20, 150].map(Duration::from_millis) {
            for shards in [1, 2, 16] {
                let mut partner = Partner::new(f64::from(kilobytes) * 1e3, round_trip, shards);
                let what = format!("{kilobytes} kB/s, {round_trip:?}, {shards} shards");
                let (first, read) = (partner.run(5 * SECOND), partner.run(20 * SECOND));
                assert!(first.oldest.max(read.oldest) < 2 * SECOND, "{what}: {first:?}, {read:?}");
                let used = read.bytes as f64 / (partner.rate * 20.0);
                assert!(used >= least, "{what}: {used:.3} of its rate");
            }
        }
    }
}

#[test]
fn a_partner_that_reads_fast_at_first_and_then_slowly_reads_old_states_once_only() {
    for (fast, time) in [(60e3, SECOND), (1e6, 5 * SECOND)] {
        let mut partner = Partner::new(fast, 20 * MILLISECOND, 2);
        partner.run(time);
        partner.rate = 30e3;
        // As much as it would have read in a second before.
        let much = Duration::from_secs_f64(fast / 30e3);
        let read = partner.run(much + 2 * SECOND);
        assert!(read.oldest <= much + SECOND, "{read:?}");
        let read = partner.run(20 * SECOND);
        assert!(read.oldest < 2 * SECOND, "{read:?}");
    }
}

#[test]
fn after_a_rest_no_more_goes_at_once_than_to_a_partner_about_whom_nothing_is_known() {
    let mut partner = Partner::new(10e6, 20 * MILLISECOND, 2);
    partner.run(5 * SECOND);
    partner.busy = 0;
    partner.run(10 * SECOND);
    partner.rate = 30e3;
    for shard in 0..2 {
        partner.session.handle_want(shard, 1 << 20, partner.now);
    }
    partner.busy = 2;
    let read = partner.run(20 * SECOND);
    assert!(read.oldest < 2 * SECOND, "{read:?}");
}

#[test]
fn a_partner_that_answers_no_pings_gets_what_its_stream_takes_after_two_seconds_and_from_then_on_at_once() {
    let mut mute = Partner::new(1e6, 20 * MILLISECOND, 2);
    mute.has_pongs = false;
    let first = mute.run(SECOND);
    assert!(first.bytes <= 9 << 10, "one small window until it is known: {first:?}");
    mute.run(SECOND + 4 * TICK);
    assert!(mute.run(10 * SECOND).bytes as f64 >= 0.95 * 10e6);
    mute.session.handle_stream_down(STREAM, &broken(), 0, mute.now);
    mute.restart();
    assert!(mute.run(SECOND).bytes as f64 >= 0.95e6, "it is not waited for again");
}

#[test]
fn many_messages_and_many_states_share_a_slow_partner() {
    let mut partner = Partner::new(30e3, 20 * MILLISECOND, 1);
    for n in 0..1000 {
        partner.session.handle_message(0, Some(MessageId(n)), vec![b'm'; 1000], partner.now);
    }
    let read = partner.run(20 * SECOND);
    assert!(read.oldest < 2 * SECOND, "{read:?}");
    let messages = 1000 - partner.session.waiting();
    assert!((200..=400).contains(&messages), "{messages} of 600 that it can read in that time");
    assert!(read.bytes as f64 >= 0.95 * 600e3, "{read:?}");
}

#[test]
fn a_partner_that_nobody_hurries_is_hardly_ever_asked() {
    let mut partner = Partner::new(10e6, 20 * MILLISECOND, 0);
    let mut pings = 0;
    for _ in 0..100 {
        partner.session.handle_want(0, STANZA_BYTES, partner.now);
        pings += partner.run(100 * MILLISECOND).pings;
    }
    assert!(pings <= 100 * 4096 / (16 << 10) + 2, "{pings} for 400 kB");
}

#[test]
fn messages_do_not_wait_to_hear_whether_a_partner_answers_pings() {
    let mut mute = Partner::new(1e6, 20 * MILLISECOND, 0);
    mute.has_pongs = false;
    for n in 0..30 {
        mute.session.handle_message(0, Some(MessageId(n)), vec![b'm'; 1000], mute.now);
    }
    mute.run(SECOND);
    assert_eq!(mute.session.waiting(), 0);
}
