//! Log lines that repeat: each kind has a limit, so that nobody can fill the log, or hide other lines, by doing one thing
//! again and again.
//!
//! A kind is a place in the code together with the partner, domain or edge that its line names. Lines at `debug` and
//! `trace` are not limited: whoever turns them on wants each of them. What was left out is told in a line of its own when
//! [`tell_left_out`] finds that the kind's span is over.

use std::{
    collections::HashMap,
    fmt::{self, Debug, Write},
    hash::{BuildHasher, Hasher, RandomState},
    sync::LazyLock,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

use crate::LogLimit;

/// Lines of one kind that are written in [`SPAN`].
const MAX_LINES: u32 = 20;
/// Lines of one place in the code, whomever they name, that are written in [`SPAN`].
const MAX_LINES_OF_PLACE: u32 = 200;
const SPAN: Duration = Duration::from_secs(60);
/// Kinds that are told apart by whom they name; beyond that only the place in the code counts.
const MAX_KINDS: usize = 1024;
/// Fields that say whom a line is about. None of them names a person.
const NAMING: [&str; 5] = ["partner", "domain", "edge", "front_end", "client"];

/// The kinds of this process.
static KINDS: LazyLock<Mutex<Kinds>> = LazyLock::new(Mutex::default);

/// Lets lines pass as long as their kind is within its limit.
pub(crate) struct Repeated;

impl<S: Subscriber> Filter<S> for Repeated {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        is_exempt(event.metadata()) || KINDS.lock().admit(event, now())
    }
}

/// Says how many lines were left out of each kind whose span is over. To be called every few seconds.
pub fn tell_left_out() {
    // The lock is free again before a line is written, which asks for it.
    let left_out = KINDS.lock().take_left_out(now());
    for LeftOut { level, message, about, count } in left_out {
        let seconds = SPAN.as_secs();
        match level {
            Level::ERROR => tracing::error!(message_of = message, about, count, seconds, "{TEXT}"),
            Level::WARN => tracing::warn!(message_of = message, about, count, seconds, "{TEXT}"),
            _ => tracing::info!(message_of = message, about, count, seconds, "{TEXT}"),
        }
    }
}

const TEXT: &str = "and more lines like one above, which were left out";

fn is_exempt(metadata: &Metadata<'_>) -> bool {
    *metadata.level() > Level::INFO || metadata.module_path() == Some(module_path!())
}

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "log lines have no turn of an actor whose time they could take"
    )]
    Instant::now()
}

#[derive(Debug, Default)]
struct Kinds {
    kinds: HashMap<(Identifier, u64), Kind>,
    places: HashMap<Identifier, LogLimit>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Kind {
    limit: LogLimit,
    level: Level,
    message: String,
    about: String,
    /// Left out though the kind's own limit let them pass, or before the last line that was written.
    untold: u64,
}

/// Lines of one kind that were left out.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    level: Level,
    message: String,
    about: String,
    count: u64,
}

impl Kinds {
    fn admit(&mut self, event: &Event<'_>, now: Instant) -> bool {
        let mut about = About(self.hasher.build_hasher());
        event.record(&mut about);
        let place = event.metadata().callsite();
        let mut key = (place.clone(), about.0.finish());
        let is_other = self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&key);
        if is_other {
            key.1 = 0;
        }
        let kind = self.kinds.entry(key).or_insert_with(|| {
            let mut texts = Texts::default();
            event.record(&mut texts);
            let about = if is_other { "others".to_owned() } else { texts.about };
            let (limit, level) = (LogLimit::new(MAX_LINES, SPAN), *event.metadata().level());
            Kind { limit, level, message: texts.message, about, untold: 0 }
        });
        let Some(left_out) = kind.limit.admit(now) else { return false };
        kind.untold += left_out;
        let of_place = self.places.entry(place).or_insert(LogLimit::new(MAX_LINES_OF_PLACE, SPAN));
        let is_admitted = of_place.admit(now).is_some();
        kind.untold += u64::from(!is_admitted);
        is_admitted
    }

    /// Takes what is to be told, and forgets kinds of which nothing was heard for a span.
    fn take_left_out(&mut self, now: Instant) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        self.kinds.retain(|_, kind| {
            if !kind.limit.is_over(now) {
                return true;
            }
            let count = kind.untold + kind.limit.poll_left_out(now).unwrap_or(0);
            if count > 0 {
                let (message, about) = (kind.message.clone(), kind.about.clone());
                left_out.push(LeftOut { level: kind.level, message, about, count });
            }
            false
        });
        left_out
    }
}

/// Hashes whom a line is about, without an allocation.
struct About<H>(H);

impl<H: Hasher> Visit for About<H> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if NAMING.contains(&field.name()) {
            // A hasher takes everything.
            let _ = write!(Hashed(&mut self.0), "{value:?}");
        }
    }
}

struct Hashed<'a, H>(&'a mut H);

impl<H: Hasher> Write for Hashed<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The words of a line that its kind is told by.
#[derive(Debug, Default)]
struct Texts {
    message: String,
    about: String,
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if NAMING.contains(&field.name()) {
            self.about = value.to_owned();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name if NAMING.contains(&name) => self.about = format!("{value:?}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::{
        Layer,
        filter::{FilterExt, LevelFilter},
        layer::SubscriberExt,
    };

    use super::*;

    /// Writes down what passes [`Kinds`], with a time of its own.
    struct Recorder {
        kinds: Mutex<Kinds>,
        now: Mutex<Instant>,
        lines: Mutex<Vec<String>>,
    }

    struct Recording(Arc<Recorder>);

    impl<S: Subscriber> Layer<S> for Recording {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let Self(recorder) = self;
            if is_exempt(event.metadata()) || recorder.kinds.lock().admit(event, *recorder.now.lock()) {
                let mut texts = Texts::default();
                event.record(&mut texts);
                recorder.lines.lock().push(format!("{} {}", texts.message, texts.about));
            }
        }
    }

    fn recorded(act: impl FnOnce(&Recorder)) -> Vec<String> {
        let recorder = Arc::new(Recorder {
            kinds: Mutex::default(),
            now: Mutex::new(super::now()),
            lines: Mutex::default(),
        });
        let layer = Recording(recorder.clone()).with_filter(LevelFilter::TRACE);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || act(&recorder));
        std::mem::take(&mut *recorder.lines.lock())
    }

    fn lost(partner: &str) {
        tracing::warn!(partner, "partner is lost");
    }

    #[test]
    fn one_kind_is_limited_and_neither_other_places_nor_other_partners_lose_lines_by_it() {
        let lines = recorded(|_| {
            for _ in 0..1000 {
                lost("a.example");
            }
            lost("b.example");
            tracing::warn!(partner = "a.example", "partner is back");
        });
        assert_eq!(lines.len(), MAX_LINES as usize + 2);
        assert_eq!(lines[MAX_LINES as usize..], ["partner is lost b.example", "partner is back a.example"]);
    }

    #[test]
    fn what_was_left_out_is_told_with_its_words_and_number_after_the_span() {
        recorded(|recorder| {
            for _ in 0..1000 {
                lost("a.example");
            }
            let mut kinds = recorder.kinds.lock();
            let over = *recorder.now.lock() + SPAN;
            assert_eq!(kinds.take_left_out(over - Duration::from_secs(1)), []);
            let told = kinds.take_left_out(over);
            let [LeftOut { level: Level::WARN, message, about, count }] = &told[..] else {
                panic!("{told:?}")
            };
            assert_eq!((&**message, &**about), ("partner is lost", "a.example"));
            assert_eq!(*count, 1000 - u64::from(MAX_LINES));
            assert!(kinds.kinds.is_empty(), "it is forgotten until it comes again");
        });
    }

    #[test]
    fn details_that_somebody_turned_on_are_not_limited() {
        let lines = recorded(|_| (0..100).for_each(|_| tracing::debug!("detail")));
        assert_eq!(lines.len(), 100);
    }

    #[test]
    fn names_that_strangers_invent_take_no_memory_without_bound_and_share_one_limit() {
        let lines = recorded(|recorder| {
            for n in 0..3 * MAX_KINDS {
                lost(&format!("p{n}.example"));
            }
            assert!(recorder.kinds.lock().kinds.len() <= MAX_KINDS + 1);
        });
        assert_eq!(lines.len(), MAX_LINES_OF_PLACE as usize);
    }

    #[test]
    fn the_filter_of_this_process_limits_what_a_layer_writes() {
        let lines = Arc::new(Mutex::new(0));
        struct Count(Arc<Mutex<u32>>);
        impl<S: Subscriber> Layer<S> for Count {
            fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
                *self.0.lock() += 1;
            }
        }
        let layer = Count(lines.clone()).with_filter(LevelFilter::TRACE.and(Repeated));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            (0..1000).for_each(|_| lost("a.example"));
        });
        assert_eq!(*lines.lock(), MAX_LINES);
    }
}
