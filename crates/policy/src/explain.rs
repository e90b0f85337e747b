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
    /// The rule in words.
    pub text: &'static str,
    /// This one gave the answer.
    pub decided: bool,
}

impl Table {
    /// Answers a question and tells how.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let mut steps = Vec::new();
        let verdict = self
            .walk(question, &mut |rule, decided| steps.push(RuleStep { rule, text: rule.text(), decided }));
        let (outcome, denied) = match verdict.outcome {
            Outcome::Allow => ("allow", None),
            Outcome::AskTheUser => ("ask", None),
            Outcome::Deny(denied) => ("deny", Some(denied.to_string())),
        };
        Explanation {
            local: question.local.to_string(),
            remote: question.remote.to_string(),
            direction: question.direction,
            capability: question.capability,
            has_relation: question.has_relation,
            approve: question.approve,
            partner: self.partner(question.remote.domain()).map(|partner| partner.domain.to_string()),
            steps,
            outcome,
            denied,
            detail: verdict.detail,
            generation: verdict.generation,
        }
    }
}
