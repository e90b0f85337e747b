//! `explain`: what one user may do toward another, by which rule, and how the two stand.
//!
//! Two addresses go in; the policy's own explanation comes out, with what the store and the accounts know beside it.

use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tombolo_broker::{SessionReport, SessionState};
use tombolo_policy::{Approve, Capability, Direction, Home, Question, Table};
use tombolo_presence::{Address, Subscription};

use crate::{
    answers::{CapabilityAnswer, ExplainAnswer},
    server::{AdminState, Shared, address},
};

#[derive(Deserialize)]
pub(crate) struct FromTo {
    from: String,
    to: String,
}

/// Answers `GET /api/v1/explain?from=…&to=…`.
pub(crate) async fn explain(
    State(state): State<Shared>,
    Query(FromTo { from, to }): Query<FromTo>,
) -> Response {
    let (from, to) = match (address(&from), address(&to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
    };
    let policy = state.policy.load_full();
    let is_ours = |address: &Address| policy.local_domain(address.domain()).is_some();
    // Between two local users the one who is watched or written to decides, as for a partner's user.
    let direction = if is_ours(&from) && !is_ours(&to) { Direction::Outbound } else { Direction::Inbound };
    let (local, remote) = match direction {
        Direction::Outbound => (&from, &to),
        Direction::Inbound => (&to, &from),
    };
    let (accounts, mut notes) = match accounts(&state) {
        Ok(accounts) => (accounts, Vec::new()),
        Err(error) => (None, vec![format!("the accounts cannot be read: {error}")]),
    };
    let approve_of = |user: &Address| {
        accounts.as_ref().and_then(|all| all.iter().find(|(aor, _)| aor == user)).map(|(_, approve)| *approve)
    };
    if accounts.is_some() {
        let unknown = [&from, &to]
            .into_iter()
            .filter(|user| has_built_in_home(&policy, user) && approve_of(user).is_none());
        notes.extend(unknown.map(|user| format!("there is no account {user}; see: tombolo user list")));
    }
    let mut relation = None;
    if let Some(broker) = &state.broker {
        let report = broker.report(local.clone()).await;
        relation = report.relations.into_iter().find(|relation| relation.contact == *remote);
        notes.extend(trouble(&broker.sessions().await, local.domain(), remote.domain()));
    }
    let subscription = relation.as_ref().map(|relation| relation.subscription);
    let has_relation = subscription.is_some_and(|state| state.is_to() || state.is_pending_out());
    let question = |capability| Question {
        local,
        remote,
        direction,
        capability,
        has_relation,
        approve: approve_of(local).unwrap_or_default(),
    };
    Json(ExplainAnswer {
        watch: CapabilityAnswer {
            explanation: policy.explain(&question(Capability::Watch)),
            standing: subscription.and_then(|state| standing(direction, state)).map(ToOwned::to_owned),
        },
        message: CapabilityAnswer {
            explanation: policy.explain(&question(Capability::Message)),
            standing: None,
        },
        subscription: subscription.map(|state| format!("{state:?}")),
        heard: relation.map(|relation| relation.heard),
        notes,
        from: from.to_string(),
        to: to.to_string(),
    })
    .into_response()
}

/// Why there is no stream from our domain to the partner's, where one is needed.
fn trouble(sessions: &[SessionReport], local: &str, remote: &str) -> Option<String> {
    let is_meant =
        |session: &&SessionReport| session.local.as_str() == local && session.remote.as_str() == remote;
    let session = sessions.iter().find(is_meant)?;
    if matches!(session.state, SessionState::Connected | SessionState::Idle) {
        return None;
    }
    session.last_failure.as_ref().map(|cause| format!("there is no stream to {remote}: {cause}"))
}

type AccountList = Option<Vec<(Address, Approve)>>;

fn accounts(state: &AdminState) -> Result<AccountList, String> {
    state.users.as_ref().map(|users| users.list()).transpose()
}

fn has_built_in_home(policy: &Table, user: &Address) -> bool {
    policy.local_domain(user.domain()).is_some_and(|domain| domain.home == Home::BuiltIn)
}

/// What was decided about this watcher already, whatever the policy would say to a new request.
fn standing(direction: Direction, state: Subscription) -> Option<&'static str> {
    match direction {
        Direction::Inbound if state.is_from() => Some("approved"),
        Direction::Inbound if state.is_pending_in() => Some("waits for the user's decision"),
        Direction::Outbound if state.is_to() => Some("granted by the contact"),
        Direction::Outbound if state.is_pending_out() => Some("asked; the contact has not answered yet"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tombolo_presence::Domain;

    use super::*;

    #[test]
    fn why_there_is_no_stream_is_told_of_the_two_domains_that_are_asked_about_and_only_while_one_is_needed() {
        let domain = |name| Domain::from_prepared(name).expect("prepared");
        let session = |remote, state| SessionReport {
            local: domain("corp.example"),
            remote: domain(remote),
            stream: None,
            is_lost: state == SessionState::Lost,
            waiting: 0,
            stanzas_out: 0,
            state,
            in_state_for: Duration::ZERO,
            next_dial: None,
            last_failure: Some(format!("{remote} failed")),
        };
        let told = |state| {
            let sessions = [session("other.example", SessionState::Lost), session("partner.example", state)];
            trouble(&sessions, "corp.example", "partner.example")
        };
        let text = "there is no stream to partner.example: partner.example failed";
        for state in [SessionState::Lost, SessionState::Doubtful, SessionState::Connecting] {
            assert_eq!(told(state).as_deref(), Some(text));
        }
        for state in [SessionState::Connected, SessionState::Idle] {
            assert_eq!(told(state), None);
        }
        assert_eq!(
            trouble(&[session("partner.example", SessionState::Lost)], "a.example", "partner.example"),
            None
        );
    }

    #[test]
    fn what_was_decided_about_a_watcher_is_told_in_its_own_direction() {
        use Subscription::{
            Both, From, FromPendingOut, None as Nothing, NonePendingIn, NonePendingOut, To, ToPendingIn,
        };
        for (state, inbound, outbound) in [
            (Nothing, None, None),
            (NonePendingIn, Some("waits for the user's decision"), None),
            (NonePendingOut, None, Some("asked; the contact has not answered yet")),
            (To, None, Some("granted by the contact")),
            (ToPendingIn, Some("waits for the user's decision"), Some("granted by the contact")),
            (From, Some("approved"), None),
            (FromPendingOut, Some("approved"), Some("asked; the contact has not answered yet")),
            (Both, Some("approved"), Some("granted by the contact")),
        ] {
            assert_eq!(standing(Direction::Inbound, state), inbound, "{state:?}");
            assert_eq!(standing(Direction::Outbound, state), outbound, "{state:?}");
        }
    }
}
