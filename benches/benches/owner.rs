//! The pure machine of one shard: what a change costs with all its mapping, policy and state, but without sockets.

use divan::{Bencher, counter::ItemsCount};
use tombolo_benches::surroundings::{BATCH, Surroundings, presence};
use tombolo_interwork::owner::Input;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

const COUNT: usize = 10_000;

/// One PUBLISH of alice to 10,000 XMPP watchers at 10 partners: until every stanza is rendered.
#[divan::bench(sample_count = 50)]
fn publish_to_xmpp_watchers(bencher: Bencher) {
    let mut shard = Surroundings::new();
    shard.let_watch(COUNT);
    shard.publish("");
    let mut turn = 0;
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        turn ^= 1;
        shard.stanzas = 0;
        shard.publish(["away", "dnd"][turn]);
        assert_eq!(shard.stanzas, COUNT);
    });
}

/// 10,000 XMPP contacts each send presence to alice, whose phone has a dialog for each: until every NOTIFY is rendered
/// and its 200 taken. Each contact's state is a view of its own.
#[divan::bench(sample_count = 50)]
fn presence_to_sip_dialogs(bencher: Bencher) {
    let mut shard = Surroundings::new();
    let mut answers = shard.watch(COUNT);
    let storms =
        ["away", "dnd"].map(|show| (0..COUNT).map(|number| presence(number, show)).collect::<Vec<_>>());
    let mut turn = 0;
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        turn ^= 1;
        shard.notifies = 0;
        for (stanzas, answers) in storms[turn].chunks(BATCH).zip(answers.chunks_mut(BATCH)) {
            shard.handle(Input::Stanzas(stanzas.to_vec()));
            for answer in answers.iter_mut() {
                answer.cseq += 1;
            }
            shard.answers_come(answers.to_vec());
        }
        assert_eq!(shard.notifies, COUNT);
    });
}
