//! One answer for each partner: how it is doing, the partners in trouble first.
//!
//! In: the policy, sessions and streams. Out: the list for `tombolo status`. Pure.

use std::{cmp::Reverse, collections::HashMap};

use tombolo_policy::Table;

use crate::answers::{PartnerStateAnswer, SessionAnswer, StreamAnswer};

/// The partners that the settings name, and those below a wildcard that have a session or a stream. Those in trouble
/// come first, and among them those that have been so for the shortest time; then all others by name.
pub(crate) fn partner_states(
    policy: &Table,
    sessions: &[SessionAnswer],
    streams: &[StreamAnswer],
) -> Vec<PartnerStateAnswer> {
    let mut found: HashMap<&str, Gathered<'_>> = HashMap::new();
    for partner in policy.partners() {
        found.entry(partner.domain.as_str()).or_default();
    }
    for session in sessions.iter().filter(|session| policy.partner(&session.partner).is_some()) {
        found.entry(&session.partner).or_default().sessions.push(session);
    }
    for stream in streams {
        let mut remotes: Vec<&str> =
            stream.pairs.iter().filter_map(|pair| Some(pair.rsplit_once(' ')?.1)).collect();
        remotes.sort_unstable();
        remotes.dedup();
        for remote in remotes.into_iter().filter(|remote| policy.partner(remote).is_some()) {
            found.entry(remote).or_default().streams.push(stream);
        }
    }
    let mut partners: Vec<PartnerStateAnswer> =
        found.into_iter().map(|(domain, gathered)| gathered.answer(domain)).collect();
    partners.sort_by(|one, other| {
        let key = |partner: &PartnerStateAnswer| {
            let rank = rank(&partner.state).min(HEALTHY);
            (rank, if rank < HEALTHY { partner.state_seconds } else { None })
        };
        key(one).cmp(&key(other)).then_with(|| one.domain.cmp(&other.domain))
    });
    partners
}

/// What is known of one partner.
#[derive(Default)]
struct Gathered<'a> {
    sessions: Vec<&'a SessionAnswer>,
    streams: Vec<&'a StreamAnswer>,
}

impl Gathered<'_> {
    fn answer(&self, domain: &str) -> PartnerStateAnswer {
        let in_direction =
            |direction: &str| self.streams.iter().filter(|stream| stream.direction == direction).count();
        let worst = self.sessions.iter().min_by_key(|session| {
            (rank(&session.state), Reverse(session.state_seconds), session.local.as_str())
        });
        let oldest_stream = self.streams.iter().max_by_key(|stream| stream.up_seconds);
        let base = PartnerStateAnswer {
            domain: domain.to_owned(),
            state: "idle".to_owned(),
            since: None,
            state_seconds: None,
            next_dial_seconds: None,
            cause: None,
            local: None,
            incoming: in_direction("incoming"),
            outgoing: in_direction("outgoing"),
            proofs: proofs(&self.streams),
            waiting_messages: self.sessions.iter().map(|session| session.waiting_messages).sum(),
        };
        match (worst, oldest_stream) {
            // Its own streams are up, and we have nothing to say to it.
            (None, Some(stream)) => of_stream(base, stream),
            (Some(session), Some(stream)) if session.state == "idle" => of_stream(base, stream),
            (None, None) => base,
            (Some(session), _) => {
                let is_alike = self.sessions.iter().all(|other| other.state == session.state);
                PartnerStateAnswer {
                    state: session.state.clone(),
                    since: Some(session.since.clone()),
                    state_seconds: Some(session.state_seconds),
                    next_dial_seconds: session.next_dial_seconds,
                    cause: session.last_failure.clone().filter(|_| session.state != "connected"),
                    local: (!is_alike).then(|| session.local.clone()),
                    ..base
                }
            }
        }
    }
}

fn of_stream(base: PartnerStateAnswer, stream: &StreamAnswer) -> PartnerStateAnswer {
    PartnerStateAnswer {
        state: "connected".to_owned(),
        since: Some(stream.since.clone()),
        state_seconds: Some(stream.up_seconds),
        ..base
    }
}

fn proofs(streams: &[&StreamAnswer]) -> Vec<String> {
    let proof = |stream: &&StreamAnswer| match &stream.tls {
        Some(tls) => format!("{} over {}", stream.proof, tls.version),
        None => format!("{} in the clear", stream.proof),
    };
    let mut proofs: Vec<String> = streams.iter().map(proof).collect();
    proofs.sort_unstable();
    proofs.dedup();
    proofs
}

/// The worst state is the lowest.
fn rank(state: &str) -> u8 {
    match state {
        "lost" => 0,
        "doubtful" => 1,
        "connecting" => 2,
        "connected" => HEALTHY,
        _ => HEALTHY + 1,
    }
}

/// From this rank on nothing is wrong.
const HEALTHY: u8 = 3;

#[cfg(test)]
mod tests {
    use tombolo_policy::{DomainPattern, Home, LocalDomain, Partner};
    use tombolo_presence::Domain;

    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::from_prepared(name).expect("prepared")
    }

    fn table(partners: &[&str]) -> Table {
        let locals = ["corp.example", "lab.example"]
            .map(|name| LocalDomain { name: domain(name), home: Home::BuiltIn });
        let mut entries: Vec<Partner> = partners.iter().map(|name| Partner::new(domain(name))).collect();
        let further_domains = vec![DomainPattern::Below(domain("wide.example"))];
        entries.push(Partner { further_domains, ..Partner::new(domain("wide.example")) });
        Table::new(1, locals.into(), entries).expect("fits")
    }

    fn session(local: &str, partner: &str, state: &str, seconds: u64) -> SessionAnswer {
        SessionAnswer {
            local: local.to_owned(),
            partner: partner.to_owned(),
            is_connected: state == "connected",
            is_lost: state == "lost",
            state: state.to_owned(),
            since: format!("since {seconds}"),
            state_seconds: seconds,
            next_dial_seconds: (state == "lost").then_some(7),
            waiting_messages: 1,
            stanzas_out: 0,
            last_failure: Some("connection refused".to_owned()),
        }
    }

    fn incoming(partner: &str) -> StreamAnswer {
        StreamAnswer {
            stream: 1,
            direction: "incoming".to_owned(),
            pairs: vec![format!("corp.example ← {partner}"), format!("lab.example ← {partner}")],
            proof: "sasl-external".to_owned(),
            tls: None,
            since: "since 5".to_owned(),
            up_seconds: 5,
        }
    }

    #[test]
    fn partners_in_trouble_come_first_and_the_others_by_name_one_line_each() {
        let policy = table(&["zoo.example", "b.example", "c.example", "a.example", "d.example"]);
        let sessions = [
            session("corp.example", "a.example", "connected", 900),
            session("corp.example", "b.example", "connecting", 1),
            session("corp.example", "c.example", "lost", 50),
            session("lab.example", "c.example", "connected", 60),
            session("corp.example", "x.wide.example", "lost", 10),
            session("corp.example", "removed.example", "lost", 10),
        ];
        let streams = [incoming("zoo.example"), incoming("removed.example")];
        let partners = partner_states(&policy, &sessions, &streams);
        let lines: Vec<_> = partners
            .iter()
            .map(|partner| (partner.domain.as_str(), partner.state.as_str(), partner.since.as_deref()))
            .collect();
        assert_eq!(
            lines,
            [
                ("x.wide.example", "lost", Some("since 10")),
                ("c.example", "lost", Some("since 50")),
                ("b.example", "connecting", Some("since 1")),
                ("a.example", "connected", Some("since 900")),
                ("d.example", "idle", None),
                ("wide.example", "idle", None),
                ("zoo.example", "connected", Some("since 5")),
            ]
        );
        let c = &partners[1];
        assert_eq!(
            (c.local.as_deref(), c.next_dial_seconds, c.waiting_messages),
            (Some("corp.example"), Some(7), 2)
        );
        assert_eq!(c.cause.as_deref(), Some("connection refused"));
        assert_eq!(partners[3].cause, None, "a cause of before says nothing of a partner that is connected");
        assert_eq!((partners[6].incoming, partners[6].outgoing), (1, 0), "two pairs are one stream");
        assert_eq!(partners[6].proofs, ["sasl-external in the clear"]);
    }
}
