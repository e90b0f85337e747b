//! The same decision, told rule by rule for people and programs.

use serde::Serialize;

use crate::{
    decide::{Approve, Capability, Direction, Outcome, Question, Rule},
    partner::Detail,
    table::Table,
};

/// Why a question is answered as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Our user.
    pub local: String,
    /// The other one.
    pub remote: String,
    /// Who acts.
    pub direction: Direction,
    /// What is done.
    pub capability: Capability,
    /// Whether our user asked for the other's presence, or has it.
    pub has_relation: bool,
    /// What our user's account says.
    pub approve: Approve,
    /// The partner entry that the remote domain falls under.
    pub partner: Option<String>,
    /// Each rule that was looked at, in order; the last one decided.
    pub steps: Vec<RuleStep>,
    /// `allow`, `ask` or `deny`.
    pub outcome: &'static str,
    /// Why it is refused; only with `deny`.
    pub denied: Option<String>,
    /// What may be seen.
    pub detail: Detail,
    /// Generation of the table.
    pub generation: u64,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleStep {
    /// Which rule.
    pub rule: Rule,
    /// Its condition in words; of the rule that decided, how it decided.
    pub text: String,
    /// Whether the condition is true of this question.
    pub holds: bool,
    /// This one gave the answer.
    pub decided: bool,
}

impl Table {
    /// Answers a question and tells how.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let mut looked = Vec::new();
        let verdict = self.walk(question, &mut |rule, decided| looked.push((rule, decided)));
        let (outcome, denied) = match &verdict.outcome {
            Outcome::Allow => ("allow", None),
            Outcome::AskTheUser => ("ask", None),
            Outcome::Deny(denied) => ("deny", Some(denied.to_string())),
        };
        let step = |(rule, decided): (Rule, bool)| RuleStep {
            rule,
            text: if decided { decided_text(rule, &verdict.outcome) } else { rule.condition().to_owned() },
            holds: rule.holds(decided, question.approve),
            decided,
        };
        Explanation {
            local: question.local.to_string(),
            remote: question.remote.to_string(),
            direction: question.direction,
            capability: question.capability,
            has_relation: question.has_relation,
            approve: question.approve,
            partner: self.partner(question.remote.domain()).map(|partner| partner.domain.to_string()),
            steps: looked.into_iter().map(step).collect(),
            outcome,
            denied,
            detail: verdict.detail,
            generation: verdict.generation,
        }
    }
}

/// How a rule decided, for people.
fn decided_text(rule: Rule, outcome: &Outcome) -> String {
    match (rule, outcome) {
        (_, Outcome::Deny(denied)) => denied.to_string(),
        (Rule::LocalWatch, Outcome::AskTheUser) => {
            "the account's approve is not \"all\", so the user is asked about a local watcher".to_owned()
        }
        (Rule::UnverifiedNeedsRelation, _) => {
            "the partner is public-unverified, and the user asked for this contact".to_owned()
        }
        (Rule::UnverifiedAlwaysAsks, _) => {
            "the partner is public-unverified, so the user is asked whatever the account says".to_owned()
        }
        (rule, _) => rule.condition().to_owned(),
    }
}
