//! Says in time that a certificate of ours runs out.
//!
//! Ends of certificates and the wall time go in; what is new about them comes out: 30, 14, 3 and 1 days before the end,
//! and at the end. Each is told once; a renewed certificate begins anew.

use std::{collections::HashMap, time::Duration};

use tombolo_net::{Expiry, date};

/// What was told of each certificate.
#[derive(Debug, Default)]
pub struct ExpiryWatch {
    told: HashMap<(String, Duration), Stage>,
}

/// How near the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// 30 days at most.
    Month,
    /// 14 days at most.
    Fortnight,
    /// 3 days at most.
    Days,
    /// One day at most.
    Day,
    /// It is over.
    Ended,
}

/// A certificate that came nearer to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The certificate.
    pub expiry: Expiry,
    /// How near it is.
    pub stage: Stage,
}

impl Stage {
    /// Nothing for an end that is far away. `now` and `until` are wall times since the Unix epoch.
    pub fn of(until: Duration, now: Duration) -> Option<Self> {
        // The last second still counts (RFC 5280 §4.1.2.5).
        if now.as_secs() > until.as_secs() {
            return Some(Self::Ended);
        }
        let left = Duration::from_secs(until.as_secs() - now.as_secs());
        STAGES.into_iter().find(|(days, _)| left <= DAY * *days).map(|(_, stage)| stage)
    }
}

impl ExpiryWatch {
    /// What is new since the last time.
    pub fn notices(&mut self, expiries: &[Expiry], now: Duration) -> Vec<Notice> {
        self.told.retain(|(name, until), _| {
            expiries.iter().any(|expiry| expiry.name == *name && expiry.until == *until)
        });
        let mut notices = Vec::new();
        for expiry in expiries {
            let Some(stage) = Stage::of(expiry.until, now) else { continue };
            let told = self.told.insert((expiry.name.clone(), expiry.until), stage);
            if told.is_none_or(|told| told < stage) {
                notices.push(Notice { expiry: expiry.clone(), stage });
            }
        }
        notices
    }
}

/// One line for operators about the certificates that are over or nearly so, with their files; nothing where all is well.
pub fn summary(expiries: &[Expiry], now: Duration) -> Option<(Stage, String)> {
    let near = expiries.iter().filter_map(|expiry| Some((Stage::of(expiry.until, now)?, expiry)));
    let near: Vec<_> = near.filter(|(stage, _)| *stage >= Stage::Days).collect();
    let worst = near.iter().map(|(stage, _)| *stage).max()?;
    let text = |(stage, expiry): &(Stage, &Expiry)| {
        let verb = if *stage == Stage::Ended { "expired" } else { "expires" };
        format!("{} {verb} on {}: renew {}", expiry.name, date(expiry.until), expiry.file.display())
    };
    Some((worst, near.iter().map(text).collect::<Vec<_>>().join("; ")))
}

const DAY: Duration = Duration::from_secs(86_400);
const STAGES: [(u32, Stage); 4] =
    [(1, Stage::Day), (3, Stage::Days), (14, Stage::Fortnight), (30, Stage::Month)];

#[cfg(test)]
mod tests {
    use super::*;

    fn expiry(name: &str, day: u32) -> Expiry {
        Expiry { name: name.to_owned(), file: format!("{name}.pem").into(), until: DAY * day }
    }

    #[test]
    fn each_stage_is_told_once_whatever_is_slept_through() {
        let mut watch = ExpiryWatch::default();
        let expiries = [expiry("corp.example", 100)];
        let mut told = |now: Duration| -> Vec<Stage> {
            watch.notices(&expiries, now).into_iter().map(|notice| notice.stage).collect()
        };
        assert_eq!(told(DAY * 69), []);
        assert_eq!(told(DAY * 70), [Stage::Month]);
        assert_eq!(told(DAY * 71), []);
        assert_eq!(told(DAY * 86), [Stage::Fortnight]);
        assert_eq!(told(DAY * 97), [Stage::Days]);
        assert_eq!(told(DAY * 99), [Stage::Day]);
        assert_eq!(told(DAY * 100), [], "the last second still counts");
        assert_eq!(told(DAY * 100 + Duration::from_secs(1)), [Stage::Ended]);
        assert_eq!(told(DAY * 400), []);
        let mut late = ExpiryWatch::default();
        let ended = late.notices(&expiries, DAY * 400);
        assert_eq!(ended.len(), 1, "one notice for all that was missed");
        assert_eq!(ended[0].stage, Stage::Ended);
    }

    #[test]
    fn a_renewed_certificate_begins_anew_and_an_ended_one_in_its_place_is_told_at_once() {
        let mut watch = ExpiryWatch::default();
        assert_eq!(watch.notices(&[expiry("a", 100)], DAY * 99).len(), 1);
        assert_eq!(watch.notices(&[expiry("a", 400)], DAY * 99), []);
        assert_eq!(watch.notices(&[expiry("a", 50)], DAY * 99)[0].stage, Stage::Ended);
    }

    #[test]
    fn the_summary_names_the_file_and_says_nothing_of_what_is_well() {
        let all = [expiry("a", 100), expiry("b", 50), expiry("c", 300)];
        let (stage, text) = summary(&all, DAY * 98).expect("two are near");
        assert_eq!(stage, Stage::Ended);
        assert_eq!(text, "a expires on 1970-04-11: renew a.pem; b expired on 1970-02-20: renew b.pem");
        assert_eq!(summary(&all[2..], DAY * 98), None);
    }
}
