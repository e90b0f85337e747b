//! The order in which to try what DNS names (RFC 2782, RFC 6120 §3.2, XEP-0368 §3).
//!
//! In: SRV records, or why there are none, and a source of chance. Out: targets, best first. It asks no name server.

use crate::Unresolved;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among records of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host in A-labels, without its final dot; empty for `.`.
    pub target: String,
}

/// Where a connection may be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS from the first octet (XEP-0368), else STARTTLS.
    pub is_direct_tls: bool,
}

/// Puts records into the order in which to try them (RFC 2782): by priority, and by chance in proportion to their
/// weights within one. `random(n)` gives a number from 0 to `n` inclusive.
pub fn order_srv(records: Vec<Srv>, random: impl FnMut(u32) -> u32) -> Vec<Srv> {
    order_by(records, |record| record, random)
}

/// [`order_srv`] for values that carry a record.
fn order_by<T>(mut values: Vec<T>, srv: impl Fn(&T) -> &Srv, mut random: impl FnMut(u32) -> u32) -> Vec<T> {
    // Records of weight 0 come first among their priority, so that they keep a small chance.
    values.sort_by_key(|value| (srv(value).priority, srv(value).weight != 0));
    let mut ordered = Vec::with_capacity(values.len());
    while let Some(first) = values.first() {
        let priority = srv(first).priority;
        let same = values.iter().take_while(|value| srv(value).priority == priority).count();
        let sum: u32 = values[..same].iter().map(|value| u32::from(srv(value).weight)).sum();
        let chosen = match sum {
            // No weights: each is as good as the others.
            0 => random(u32::try_from(same - 1).unwrap_or(u32::MAX)) as usize,
            _ => {
                let mark = random(sum);
                let mut running = 0;
                let reached = values[..same].iter().position(|value| {
                    running += u32::from(srv(value).weight);
                    running >= mark
                });
                reached.unwrap_or(0)
            }
        };
        ordered.push(values.remove(chosen));
    }
    ordered
}

/// What the records of one name say: a lone target `.` is [`Unresolved::NoService`], and so are only such ones.
///
/// More than 256 records are cut off, the last in order of priority.
pub(crate) fn usable(mut records: Vec<Srv>) -> Result<Vec<Srv>, Unresolved> {
    if records.is_empty() {
        return Err(Unresolved::NotFound);
    }
    records.retain(|record| !record.target.is_empty());
    if records.is_empty() {
        return Err(Unresolved::NoService);
    }
    records.sort_by_key(|record| record.priority);
    records.truncate(MOST_RECORDS);
    Ok(records)
}

/// One list of both kinds of records, `_xmpp-server` and `_xmpps-server`.
///
/// Without any record the domain itself at 5269, unless one kind says `.`; so too where the name servers failed to answer
/// (RFC 6120 §3.2.1, item 9): whether they know the domain's address is asked next.
pub(crate) fn xmpp_order(
    domain: &str,
    plain: Result<Vec<Srv>, Unresolved>,
    tls: Result<Vec<Srv>, Unresolved>,
    random: impl FnMut(u32) -> u32,
) -> Result<Vec<Target>, Unresolved> {
    let kinds = [(&plain, false), (&tls, true)];
    let records: Vec<(Srv, bool)> = kinds
        .into_iter()
        .flat_map(|(answer, is_direct)| answer.iter().flatten().map(move |srv| (srv.clone(), is_direct)))
        .collect();
    if !records.is_empty() {
        let ordered = order_by(records, |(srv, _)| srv, random);
        let target =
            |(srv, is_direct_tls): (Srv, bool)| Target { host: srv.target, port: srv.port, is_direct_tls };
        return Ok(ordered.into_iter().map(target).collect());
    }
    match (plain, tls) {
        (Err(Unresolved::NoService), _) | (_, Err(Unresolved::NoService)) => Err(Unresolved::NoService),
        _ => Ok(vec![Target { host: domain.to_owned(), port: 5269, is_direct_tls: false }]),
    }
}

const MOST_RECORDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5269, target: target.to_owned() }
    }

    /// Chance from a fixed seed, 0 to `most` inclusive.
    fn seeded() -> impl FnMut(u32) -> u32 {
        let mut state = 7_u64;
        move |most| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % (u64::from(most) + 1)) as u32
        }
    }

    #[test]
    fn xs_dns_01_records_of_both_kinds_are_one_list_by_priority_and_weight() {
        let plain = Ok(vec![srv(10, 0, "late"), srv(5, 10, "light")]);
        let tls = Ok(vec![srv(5, 30, "heavy"), srv(5, 60, "heaviest"), srv(20, 1, "last")]);
        let mut random = seeded();
        let mut firsts = [0; 3];
        for _ in 0..1000 {
            let targets = xmpp_order("x", plain.clone(), tls.clone(), &mut random).expect("records");
            let hosts: Vec<&str> = targets.iter().map(|target| target.host.as_str()).collect();
            assert_eq!(hosts[3..], ["late", "last"], "priority goes before weight");
            for target in &targets {
                let is_direct = ["heavy", "heaviest", "last"].contains(&target.host.as_str());
                assert_eq!(target.is_direct_tls, is_direct, "{}", target.host);
            }
            let first = ["light", "heavy", "heaviest"].iter().position(|host| *host == hosts[0]);
            firsts[first.expect("one of priority 5")] += 1;
        }
        // Shares of 10, 30 and 60 in 100; three standard deviations are below 50 of 1000.
        for (count, share) in firsts.iter().zip([100, 300, 600]) {
            assert!((share - 50..share + 50).contains(count), "{firsts:?}");
        }
    }

    #[test]
    fn a_record_of_weight_zero_keeps_a_small_chance_beside_heavy_ones() {
        let mut random = seeded();
        let mut firsts = 0;
        for _ in 0..1000 {
            let ordered = order_srv(vec![srv(1, 9, "heavy"), srv(1, 0, "none")], &mut random);
            firsts += u32::from(ordered[0].target == "none");
        }
        assert!((50..150).contains(&firsts), "{firsts} of 1000, one in ten is due");
    }

    #[test]
    fn one_host_and_port_in_both_kinds_is_tried_in_both_ways() {
        let targets =
            xmpp_order("x", Ok(vec![srv(2, 1, "h")]), Ok(vec![srv(1, 1, "h")]), |_| 0).expect("two");
        assert_eq!(targets.iter().map(|target| target.is_direct_tls).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn xs_dns_03_the_domain_itself_is_tried_where_there_is_no_record_or_no_answer_and_no_dot() {
        let no = || Err(Unresolved::NotFound);
        let dot = || Err(Unresolved::NoService);
        let silent = || Err(Unresolved::NoAnswer("x".into()));
        let order = |plain, tls| xmpp_order("x.example", plain, tls, |_| 0);
        assert_eq!(order(dot(), dot()), Err(Unresolved::NoService));
        assert_eq!(order(no(), dot()), Err(Unresolved::NoService));
        assert_eq!(order(dot(), no()), Err(Unresolved::NoService));
        assert_eq!(order(Ok(vec![srv(1, 1, "h")]), dot()).expect("records")[0].host, "h");
        let own = order(no(), no()).expect("the domain itself");
        assert_eq!((own[0].host.as_str(), own[0].port, own[0].is_direct_tls), ("x.example", 5269, false));
        assert_eq!(order(no(), silent()).expect("the domain itself").len(), 1);
        for (plain, tls) in [(silent(), no()), (silent(), silent())] {
            assert_eq!(order(plain, tls), Ok(own.clone()));
        }
        assert_eq!(order(silent(), dot()), Err(Unresolved::NoService));
    }

    #[test]
    fn only_dots_mean_no_service_and_a_flood_of_records_is_cut() {
        assert_eq!(usable(vec![]), Err(Unresolved::NotFound));
        assert_eq!(usable(vec![srv(0, 0, "")]), Err(Unresolved::NoService));
        assert_eq!(usable(vec![srv(0, 0, ""), srv(1, 0, "")]), Err(Unresolved::NoService));
        assert_eq!(usable(vec![srv(0, 0, ""), srv(1, 0, "h")]).expect("one").len(), 1);
        let mut flood = vec![srv(9, 0, "h"); 500];
        flood.push(srv(1, 0, "best"));
        let kept = usable(flood).expect("some");
        assert_eq!((kept.len(), kept[0].target.as_str()), (256, "best"));
    }

    #[test]
    fn records_without_weights_are_tried_in_any_order() {
        let mut random = seeded();
        let records: Vec<Srv> = (0..50).map(|n| srv(1, 0, &format!("h{n}"))).collect();
        let firsts: std::collections::HashSet<String> =
            (0..500).map(|_| order_srv(records.clone(), &mut random).remove(0).target).collect();
        assert_eq!(firsts.len(), 50);
    }
}
