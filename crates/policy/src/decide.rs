//! One question about two addresses, and the rules that answer it in order.
//!
//! The first rule that applies and decides ends the walk. [`Table::decide`] and [`Table::explain`] walk the same path, so
//! they never disagree.

use serde::Serialize;
use tombolo_presence::{Address, Domain};

use crate::{
    local::Home,
    partner::{Detail, Partner, PartnerKind, Permitted},
    table::Table,
};

/// May these two do this?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Our user.
    pub local: &'a Address,
    /// The other one: a partner's user, or another of ours.
    pub remote: &'a Address,
    /// Who acts.
    pub direction: Direction,
    /// What is done.
    pub capability: Capability,
    /// Our user asked for the other's presence, or has it.
    pub has_relation: bool,
    /// What our user's account says about requests to watch; read only in a built-in home.
    pub approve: Approve,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The other side watches or writes to our user.
    Inbound,
    /// Our user watches or writes to the other side.
    Outbound,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Seeing presence.
    Watch,
    /// Sending messages.
    Message,
}

/// What an account of a built-in home says about requests to watch its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approve {
    /// The user is asked each time.
    #[default]
    Ask,
    /// Granted to users of partners, within the ceiling of the partner's kind.
    Partner,
    /// Granted to those, and to our own users too.
    All,
}

impl Approve {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Partner => "partner",
            Self::All => "all",
        }
    }
}

/// What is answered, by which rule, and what may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub outcome: Outcome,
    /// The rule that gave it.
    pub rule: Rule,
    /// The most that the partner's users may see of ours; `Full` between our own users, `None` where nothing may pass.
    pub detail: Detail,
    /// Generation of the table.
    pub generation: u64,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Without asking anybody here. Behind a front end its notifier still decides about a watcher; outbound, the other
    /// side does.
    Allow,
    /// The request waits for our user. Behind a front end, where we cannot ask, until he has a relation himself.
    AskTheUser,
    /// Refused.
    Deny(Denied),
}

/// Why policy refuses. SIP says 403, XMPP `forbidden` (STOX-A-22).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The domain that should be local is none of ours.
    #[error("{domain} is not served here")]
    NotServed {
        /// The unserved domain.
        domain: Domain,
    },
    /// Neither of the two domains is ours.
    #[error("nothing is relayed from {from} to {to}: neither is served here")]
    Relay {
        /// Who acts.
        from: Domain,
        /// Who is meant.
        to: Domain,
    },
    /// No partner entry names the domain.
    #[error("no [[partner]] entry names {domain}")]
    NotConfigured {
        /// The domain without an entry.
        domain: Domain,
    },
    /// The partner's `direction` closes this way.
    #[error("partner {partner} has direction = \"{permitted}\"", permitted = .permitted.as_str())]
    DirectionClosed {
        /// The entry.
        partner: Domain,
        /// What its direction leaves open.
        permitted: Permitted,
    },
    /// The partner's `detail` is `none`.
    #[error("partner {partner} has detail = \"none\"")]
    NothingShown {
        /// The entry.
        partner: Domain,
    },
    /// A stranger from a public-unverified partner writes first.
    #[error("partner {partner} is public-unverified and the recipient did not ask for this contact")]
    NoRelation {
        /// The entry.
        partner: Domain,
    },
    /// Two local users, of whom one lives behind a front end.
    #[error("nothing is relayed between {from} and {to}: both need home = {{ kind = \"built-in\" }}")]
    HomesNotJoined {
        /// Who acts.
        from: Domain,
        /// Who is meant.
        to: Domain,
    },
}

/// The rules, in the order in which they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The local domain is one of ours, or all is refused.
    LocalDomainServed,
    /// Two users of ours: only where both homes are built in.
    BuiltInHomesOnly,
    /// A message between two of our own users passes.
    LocalMessage,
    /// A request to watch between two of our own users: the account's `approve = "all"`, else the user is asked.
    LocalWatch,
    /// A `[[partner]]` entry names the remote domain, or all is refused.
    PartnerConfigured,
    /// The entry's `direction` leaves this way open, or it is refused.
    DirectionOpen,
    /// The entry's `detail` is not `none`, or watching our users is refused.
    DetailShown,
    /// Our user acts: the other side decides.
    OtherSideDecides,
    /// A message from a public-unverified partner passes only where the recipient has a relation.
    UnverifiedNeedsRelation,
    /// A message from a federated or public-verified partner passes.
    KindMayWrite,
    /// A watcher from a public-unverified partner: the user is asked, whatever the account says. Behind a front end,
    /// where we cannot ask, the user's own relation is the answer.
    UnverifiedAlwaysAsks,
    /// Behind a front end its notifier decides.
    FrontEndDecides,
    /// The account's `approve` is `partner` or `all`: granted.
    AccountApproves,
    /// The account's `approve` is `ask`: the user is asked.
    AccountAsks,
}

impl Rule {
    /// What the rule asks of the question, as a sentence that is true or false of it.
    pub fn condition(self) -> &'static str {
        match self {
            Self::LocalDomainServed => "the local domain is one of the [[domain]] entries",
            Self::BuiltInHomesOnly => "both are local users, and both homes are built-in",
            Self::LocalMessage => "a message between two local users passes",
            Self::LocalWatch => "the account's approve is \"all\", which lets local users watch",
            Self::PartnerConfigured => "a [[partner]] entry names the remote domain",
            Self::DirectionOpen => "the partner's direction leaves this way open",
            Self::DetailShown => "the partner's detail is not \"none\"",
            Self::OtherSideDecides => "our user acts, so the other side decides",
            Self::UnverifiedNeedsRelation | Self::UnverifiedAlwaysAsks => "the partner is public-unverified",
            Self::KindMayWrite => "the partner is federated or public-verified, so its users may write first",
            Self::FrontEndDecides => "the user lives behind a front end, which decides",
            Self::AccountApproves => "the account's approve grants it without asking",
            Self::AccountAsks => "the account's approve is \"ask\", so the user is asked",
        }
    }

    /// Whether [`Rule::condition`] is true of a question that this rule answered (`decided`) or let pass.
    pub(crate) fn holds(self, decided: bool, approve: Approve) -> bool {
        match self {
            // These refuse where they are not met.
            Self::LocalDomainServed
            | Self::BuiltInHomesOnly
            | Self::PartnerConfigured
            | Self::DirectionOpen
            | Self::DetailShown => !decided,
            Self::LocalWatch => approve == Approve::All,
            // These answer where they apply.
            Self::LocalMessage
            | Self::OtherSideDecides
            | Self::UnverifiedNeedsRelation
            | Self::KindMayWrite
            | Self::UnverifiedAlwaysAsks
            | Self::FrontEndDecides
            | Self::AccountApproves
            | Self::AccountAsks => decided,
        }
    }
}

impl Table {
    /// Answers a question.
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        self.walk(question, &mut |_, _| {})
    }

    /// Walks the rules in order; `looked` hears of each one and whether it decided.
    pub(crate) fn walk(&self, question: &Question<'_>, looked: &mut dyn FnMut(Rule, bool)) -> Verdict {
        let mut detail = Detail::None;
        let (rule, outcome) = self.first_that_decides(question, &mut detail, looked);
        looked(rule, true);
        Verdict { outcome, rule, detail, generation: self.generation() }
    }

    fn first_that_decides(
        &self,
        question: &Question<'_>,
        detail: &mut Detail,
        looked: &mut dyn FnMut(Rule, bool),
    ) -> (Rule, Outcome) {
        let (local, remote) = (question.local.domain(), question.remote.domain());
        let mut passed = |rule| looked(rule, false);

        let Some(served) = self.local_domain(local) else {
            return (Rule::LocalDomainServed, Outcome::Deny(self.unserved(local, remote)));
        };
        passed(Rule::LocalDomainServed);

        if let Some(other) = self.local_domain(remote) {
            if served.home != Home::BuiltIn || other.home != Home::BuiltIn {
                let (from, to) = match question.direction {
                    Direction::Inbound => (&other.name, &served.name),
                    Direction::Outbound => (&served.name, &other.name),
                };
                let denied = Denied::HomesNotJoined { from: from.clone(), to: to.clone() };
                return (Rule::BuiltInHomesOnly, Outcome::Deny(denied));
            }
            passed(Rule::BuiltInHomesOnly);
            *detail = Detail::Full;
            return match (question.capability, question.direction) {
                (Capability::Message, _) => (Rule::LocalMessage, Outcome::Allow),
                (Capability::Watch, Direction::Outbound) => (Rule::OtherSideDecides, Outcome::Allow),
                (Capability::Watch, Direction::Inbound) if question.approve == Approve::All => {
                    (Rule::LocalWatch, Outcome::Allow)
                }
                (Capability::Watch, Direction::Inbound) => (Rule::LocalWatch, Outcome::AskTheUser),
            };
        }

        let Some(partner) = self.partner(remote) else {
            // A prepared address holds a prepared domain.
            let domain = Domain::from_prepared(remote).expect("a prepared domain");
            return (Rule::PartnerConfigured, Outcome::Deny(Denied::NotConfigured { domain }));
        };
        passed(Rule::PartnerConfigured);

        let is_open = match partner.direction {
            Permitted::Both => true,
            Permitted::Inbound => question.direction == Direction::Inbound,
            Permitted::Outbound => question.direction == Direction::Outbound,
        };
        if !is_open {
            let denied =
                Denied::DirectionClosed { partner: partner.domain.clone(), permitted: partner.direction };
            return (Rule::DirectionOpen, Outcome::Deny(denied));
        }
        passed(Rule::DirectionOpen);
        *detail = partner.effective_detail();

        match (question.direction, question.capability) {
            (Direction::Outbound, _) => (Rule::OtherSideDecides, Outcome::Allow),
            (Direction::Inbound, Capability::Message) => inbound_message(partner, question, &mut passed),
            (Direction::Inbound, Capability::Watch) => {
                if partner.detail == Detail::None {
                    let denied = Denied::NothingShown { partner: partner.domain.clone() };
                    return (Rule::DetailShown, Outcome::Deny(denied));
                }
                passed(Rule::DetailShown);
                inbound_watch(partner, &served.home, question, &mut passed)
            }
        }
    }
}

/// A partner's user writes to ours.
fn inbound_message(
    partner: &Partner,
    question: &Question<'_>,
    passed: &mut dyn FnMut(Rule),
) -> (Rule, Outcome) {
    if partner.kind == PartnerKind::PublicUnverified {
        let outcome = if question.has_relation {
            Outcome::Allow
        } else {
            Outcome::Deny(Denied::NoRelation { partner: partner.domain.clone() })
        };
        return (Rule::UnverifiedNeedsRelation, outcome);
    }
    passed(Rule::UnverifiedNeedsRelation);
    (Rule::KindMayWrite, Outcome::Allow)
}

/// A partner's user asks to watch ours.
fn inbound_watch(
    partner: &Partner,
    home: &Home,
    question: &Question<'_>,
    passed: &mut dyn FnMut(Rule),
) -> (Rule, Outcome) {
    let is_behind_front_end = *home != Home::BuiltIn;
    if partner.kind == PartnerKind::PublicUnverified && !(is_behind_front_end && question.has_relation) {
        return (Rule::UnverifiedAlwaysAsks, Outcome::AskTheUser);
    }
    passed(Rule::UnverifiedAlwaysAsks);
    if is_behind_front_end {
        return (Rule::FrontEndDecides, Outcome::Allow);
    }
    passed(Rule::FrontEndDecides);
    if question.approve != Approve::Ask {
        return (Rule::AccountApproves, Outcome::Allow);
    }
    passed(Rule::AccountApproves);
    (Rule::AccountAsks, Outcome::AskTheUser)
}
