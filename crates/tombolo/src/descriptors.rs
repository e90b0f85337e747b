//! Open files: how many this process may have, and how many of them peers may take.
//!
//! Every connection is an open file, and so is every dial, the store and each question of an administrator. The limit of the
//! system is raised as far as it goes; connections from outside are then held to what it leaves, so that a crowd at the door
//! cannot take from the process what it needs itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What connections from outside are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Of XMPP partners.
    pub xmpp: usize,
    /// Of SIP peers.
    pub sip: usize,
}

/// Threads that the process gives to actors.
pub fn arbiters() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Raises the soft limit of open files to the hard one. The limit that holds.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current.unwrap_or(u64::MAX);
    let hard = maximum.unwrap_or(u64::MAX);
    if soft >= hard || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        return soft;
    }
    hard
}

/// Whether `limit` open files are enough to start with so many arbiters.
///
/// # Errors
/// What is missing, and how to give it.
pub fn check(limit: u64, arbiters: usize) -> Result<(), String> {
    let needed = own(arbiters) + MIN_FOR_PEERS;
    if limit >= needed {
        return Ok(());
    }
    Err(format!(
        "the limit of open files is {limit}; at least {needed} are needed. Raise it with LimitNOFILE= in the unit file, or \
         `ulimit -n` in the shell that starts tombolo"
    ))
}

/// Holds the connections that the settings allow to what `limit` open files leave, in proportion. Dials to `partners`
/// partners, the store and administration are kept back.
pub fn fit(limit: u64, asked: Connections, arbiters: usize, partners: usize) -> Connections {
    let own = own(arbiters);
    let dials = (limit / 8).max(2 * partners as u64).max(MIN_DIALS);
    let for_peers = limit.saturating_sub(own).saturating_sub(dials.min(limit / 2)).max(MIN_FOR_PEERS / 2);
    let sum = asked.xmpp as u64 + asked.sip as u64;
    if sum <= for_peers {
        return asked;
    }
    let part = |asked: usize| {
        let part = u128::from(for_peers) * asked as u128 / u128::from(sum.max(1));
        usize::try_from(part).unwrap_or(asked).clamp(asked.min(1), asked)
    };
    Connections { xmpp: part(asked.xmpp), sip: part(asked.sip) }
}

/// What an operator is told where less was `fitted` than `asked`.
pub fn fitted_text(limit: u64, asked: Connections, fitted: Connections) -> String {
    let sides = [("partners", asked.xmpp, fitted.xmpp), ("SIP peers", asked.sip, fitted.sip)];
    let held = sides.iter().filter(|(_, asked, fitted)| fitted < asked);
    let held =
        held.map(|(of, asked, fitted)| format!("{fitted} connections of {of} (the settings allow {asked})"));
    format!(
        "the limit of open files is {limit}: at most {} are taken; raise LimitNOFILE or lower limits.connections",
        held.collect::<Vec<_>>().join(" and ")
    )
}

/// Listeners, reactors, signals, the store and administration.
fn own(arbiters: usize) -> u64 {
    OWN_FIXED + OWN_PER_ARBITER * arbiters as u64
}

const OWN_FIXED: u64 = 40;
/// The reactor of a thread: its poll, its waker and its end.
const OWN_PER_ARBITER: u64 = 4;
const MIN_FOR_PEERS: u64 = 8;
const MIN_DIALS: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Connections = Connections { xmpp: 10_000, sip: 20_000 };

    #[test]
    fn connections_are_held_to_what_the_limit_leaves_and_to_no_less_than_was_asked_where_it_suffices() {
        assert_eq!(fit(1_048_576, DEFAULT, 4, 10), DEFAULT);
        assert_eq!(fit(u64::MAX, DEFAULT, 64, 10_000), DEFAULT);
        let Connections { xmpp, sip } = fit(1024, DEFAULT, 2, 5);
        assert!(xmpp + sip <= 1024 - 128 - 48 && xmpp + sip > 800, "{xmpp} {sip}");
        assert!(sip / xmpp == 2 || sip / xmpp == 1, "in proportion: {xmpp} {sip}");
    }

    #[test]
    fn only_a_side_that_is_held_to_less_than_was_asked_is_told_of() {
        let asked = Connections { xmpp: 0, sip: 20_000 };
        assert_eq!(
            fitted_text(20_000, asked, fit(20_000, asked, 2, 5)),
            "the limit of open files is 20000: at most 17452 connections of SIP peers (the settings allow 20000) are \
             taken; raise LimitNOFILE or lower limits.connections"
        );
        let text = fitted_text(1024, DEFAULT, fit(1024, DEFAULT, 2, 5));
        assert!(text.contains(" connections of partners (the settings allow 10000) and "), "{text}");
    }

    #[test]
    fn many_partners_keep_more_back_and_half_of_a_small_limit_at_most() {
        let few = fit(4096, DEFAULT, 2, 5);
        let many = fit(4096, DEFAULT, 2, 1000);
        assert!(many.xmpp + many.sip < few.xmpp + few.sip && many.xmpp + many.sip >= 4096 - 2000 - 60);
        let crowd = fit(4096, DEFAULT, 2, 100_000);
        assert!(crowd.xmpp + crowd.sip >= 4096 / 2 - 60);
    }

    #[test]
    fn a_limit_that_is_too_small_to_start_with_is_an_error_that_says_how_to_raise_it() {
        for limit in [0, 3, 16, 17, 30, 50] {
            let error = check(limit, 2).expect_err("too small");
            assert!(error.contains(&format!("is {limit};")) && error.contains("LimitNOFILE"), "{error}");
        }
        assert_eq!(check(1024, 2), Ok(()));
        let least = fit(40, DEFAULT, 2, 0);
        assert!(least.xmpp >= 1 && least.sip >= 1);
        assert_eq!(
            fit(40, Connections { xmpp: 0, sip: 50 }, 2, 0).xmpp,
            0,
            "nothing is asked, nothing is given"
        );
    }
}
