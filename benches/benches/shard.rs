//! The pure fan-out shard: one presentity with 10,000 watches on 10 lanes changes, and every update is handed out.

use divan::{Bencher, counter::ItemsCount};
use tombolo_fanout::{LaneId, Shard, WatchId};

fn main() {
    divan::main();
}

const WATCHES: u32 = 10_000;
const LANES: usize = 10;

fn shard() -> (Shard<u64>, Vec<LaneId>, Vec<WatchId>) {
    let mut shard = Shard::default();
    let lanes: Vec<LaneId> = (0..LANES).map(|_| shard.add_lane()).collect();
    let watches = (0..WATCHES).map(|owner| shard.insert(lanes[owner as usize % LANES], owner)).collect();
    (shard, lanes, watches)
}

/// Marks every watch and hands every update out; `render` is a stand-in that counts 250 bytes.
#[divan::bench]
fn change_and_hand_out(bencher: Bencher) {
    let (mut shard, lanes, watches) = shard();
    let mut content = 0;
    bencher.counter(ItemsCount::new(WATCHES)).bench_local(|| {
        content += 1;
        let view = shard.views.intern(content);
        for watch in &watches {
            shard.handle_change(*watch, view);
        }
        shard.views.release(view);
        let mut updates = 0;
        while shard.poll_wanting().is_some() {}
        for lane in &lanes {
            shard.poll_lane(*lane, usize::MAX, |update| {
                updates += usize::from(update.from != update.to);
                250
            });
        }
        assert_eq!(updates, WATCHES as usize);
    });
}

/// Ten changes while no lane has credit, then one: each watch is handed out once, with the newest state.
#[divan::bench]
fn ten_changes_without_credit(bencher: Bencher) {
    let (mut shard, lanes, watches) = shard();
    let mut content = 0;
    bencher.counter(ItemsCount::new(10 * WATCHES)).bench_local(|| {
        for _ in 0..10 {
            content += 1;
            let view = shard.views.intern(content);
            for watch in &watches {
                shard.handle_change(*watch, view);
            }
            shard.views.release(view);
        }
        let mut updates = 0;
        while shard.poll_wanting().is_some() {}
        for lane in &lanes {
            shard.poll_lane(*lane, usize::MAX, |_| {
                updates += 1;
                250
            });
        }
        assert_eq!(updates, WATCHES as usize);
    });
}

/// A lane with 10 watches is lost, as when a phone's connection ends, beside 100,000 watches of others: what it costs
/// must not depend on the others.
#[divan::bench]
fn a_small_lane_is_lost(bencher: Bencher) {
    let (mut shard, lanes, _) = shard();
    for owner in 0..100_000 {
        shard.insert(lanes[owner as usize % LANES], owner);
    }
    let small = shard.add_lane();
    let view = shard.views.intern(1);
    for owner in 0..10 {
        let watch = shard.insert(small, owner);
        shard.handle_change(watch, view);
    }
    shard.poll_lane(small, usize::MAX, |_| 250);
    bencher.counter(ItemsCount::new(10_u32)).bench_local(|| {
        shard.handle_lane_lost(small);
        while shard.poll_wanting().is_some() {}
        let mut updates = 0;
        shard.poll_lane(small, usize::MAX, |update| {
            updates += usize::from(update.whole);
            250
        });
        assert_eq!(updates, 10);
    });
}
