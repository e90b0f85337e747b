//! What is said of the process as a whole and of its partners: `status`, `partners`, `metrics`, and the body of `/readyz`.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tombolo_broker::{FrontEndReport, SessionReport, SessionState, StreamReport};
use tombolo_edge::{LinkReport, LinkState, StreamDirection};
use tombolo_interwork::address::domain_of_text;
use tombolo_net::{date, moment};
use tombolo_policy::{Partner, Table};
use tombolo_telemetry::PartReport;

use crate::{
    answers::{
        FrontEndAnswer, LinkAnswer, PartAnswer, PartnerAnswer, SessionAnswer, StatusAnswer, StreamAnswer,
        TlsAnswer,
    },
    partner_states::partner_states,
    server::{AdminState, Shared, refuse},
};

/// `ready`, `degraded` or why not, and then a line for each part. A degraded process still takes traffic: 200.
pub(crate) async fn ready(State(state): State<Shared>) -> Response {
    let (readiness, code) = state.readiness();
    let mut body = format!("{readiness}\n");
    for part in state.metrics.health().parts() {
        let separator = if part.note.is_empty() { "" } else { ": " };
        body.push_str(&format!("{}: {}{separator}{}\n", part.name, part.state.as_str(), part.note));
    }
    for link in (state.links)() {
        body.push_str(&format!(
            "link to {}: {}, {} frames wait\n",
            link.peer,
            link.state.as_str(),
            link.waiting_frames
        ));
    }
    if let Some(broker) = &state.broker {
        let counts = broker.registrations();
        body.push_str(&format!("registrations: {} of {} users\n", counts.bindings, counts.users));
    }
    (code, body).into_response()
}

pub(crate) async fn metrics(State(state): State<Shared>) -> String {
    if let Some(broker) = &state.broker {
        // Sets the gauges that are counted when somebody looks.
        broker.shards().await;
    }
    for certificate in state.files.certificates() {
        state.metrics.certificate_days_left(&certificate.name, certificate.days_left);
    }
    for link in (state.links)() {
        state.metrics.link(&link.peer, link.state == LinkState::Up, link.waiting_frames);
    }
    state.metrics.render()
}

pub(crate) async fn status(State(state): State<Shared>) -> Json<StatusAnswer> {
    let wall = (state.wall)();
    let (readiness, code) = state.readiness();
    let parts = state.metrics.health().parts();
    let part = |part: PartReport| PartAnswer {
        name: part.name.to_owned(),
        state: part.state.as_str().to_owned(),
        note: part.note,
    };
    let uptime = (state.now)().saturating_duration_since(state.begun);
    let mut answer = StatusAnswer {
        role: state.role.to_owned(),
        is_ready: code == StatusCode::OK,
        readiness: readiness.to_owned(),
        parts: parts.into_iter().map(part).collect(),
        since: ago(wall, uptime),
        uptime_seconds: uptime.as_secs(),
        partners: Vec::new(),
        links: (state.links)().into_iter().map(|link| link_answer(link, wall)).collect(),
        registered_users: 0,
        registrations: 0,
        streams: Vec::new(),
        sessions: Vec::new(),
        front_ends: Vec::new(),
        users: 0,
        pairs: 0,
        notifier_dialogs: 0,
        subscriber_dialogs: 0,
        peers: 0,
        flows: 0,
        waiting_inputs: 0,
        refused_inputs: 0,
        certificates: state.files.certificates(),
    };
    let Some(broker) = &state.broker else { return Json(answer) };
    answer.streams = streams_of(&state);
    answer.sessions = sessions_of(&state).await;
    answer.partners = partner_states(&state.policy.load(), &answer.sessions, &answer.streams);
    let front_ends = broker.front_ends().await.into_iter();
    answer.front_ends = front_ends.map(|front_end| front_end_answer(front_end, wall)).collect();
    for shard in broker.shards().await {
        answer.users += shard.report.users;
        answer.pairs += shard.report.pairs;
        answer.notifier_dialogs += shard.report.notifier_dialogs;
        answer.subscriber_dialogs += shard.report.subscriber_dialogs;
        answer.waiting_inputs += shard.waiting;
        answer.refused_inputs += shard.refused;
    }
    (answer.peers, answer.flows) = broker.peer_counts();
    let counts = broker.registrations();
    (answer.registered_users, answer.registrations) = (counts.users, counts.bindings);
    Json(answer)
}

/// When something began that has lasted for `span`.
pub(crate) fn ago(wall: Duration, span: Duration) -> String {
    moment(wall.saturating_sub(span))
}

fn link_answer(report: LinkReport, wall: Duration) -> LinkAnswer {
    LinkAnswer {
        peer: report.peer,
        state: report.state.as_str().to_owned(),
        since: ago(wall, report.in_state_for),
        state_seconds: report.in_state_for.as_secs(),
        remote: report.remote.map(|remote| remote.to_string()),
        waiting_frames: report.waiting_frames,
        waiting_bytes: report.waiting_bytes,
        cause: report.cause,
        next_attempt_seconds: report.next_attempt.map(|next| next.as_secs()),
    }
}

fn stream_answer(report: StreamReport, wall: Duration) -> StreamAnswer {
    let (direction, arrow) = match report.direction {
        StreamDirection::Incoming => ("incoming", '←'),
        StreamDirection::Outgoing => ("outgoing", '→'),
    };
    let days_left = |until: u64| (until as i64 - wall.as_secs() as i64).div_euclid(86_400);
    StreamAnswer {
        stream: report.id.0,
        direction: direction.to_owned(),
        pairs: report.pairs.iter().map(|pair| format!("{} {arrow} {}", pair.local, pair.remote)).collect(),
        proof: report.method.as_str().to_owned(),
        tls: report.tls.map(|tls| TlsAnswer {
            version: tls.version.clone(),
            cipher: tls.cipher.clone(),
            certificate: tls.certificate.clone(),
            certificate_days_left: tls.certificate_until.map(days_left),
            certificate_until: tls.certificate_until.map(|until| date(Duration::from_secs(until))),
        }),
        since: ago(wall, report.up_for),
        up_seconds: report.up_for.as_secs(),
    }
}

fn session_answer(report: SessionReport, wall: Duration) -> SessionAnswer {
    SessionAnswer {
        local: report.local.to_string(),
        partner: report.remote.to_string(),
        is_connected: report.stream.is_some(),
        is_lost: report.state == SessionState::Lost,
        state: report.state.as_str().to_owned(),
        since: ago(wall, report.in_state_for),
        state_seconds: report.in_state_for.as_secs(),
        next_dial_seconds: report.next_dial.map(|next| next.as_secs()),
        waiting_messages: report.waiting,
        stanzas_out: report.stanzas_out,
        last_failure: report.last_failure,
    }
}

fn front_end_answer(report: FrontEndReport, wall: Duration) -> FrontEndAnswer {
    FrontEndAnswer {
        domain: report.domain.to_string(),
        state: report.health.as_str().to_owned(),
        since: ago(wall, report.in_state_for),
        state_seconds: report.in_state_for.as_secs(),
        cause: report.cause.map(ToOwned::to_owned),
        remote: report.remote.map(|remote| remote.to_string()),
        last_failure: report.last_failure,
        next_dial_seconds: report.next_dial.map(|next| next.as_secs()),
    }
}

async fn sessions_of(state: &AdminState) -> Vec<SessionAnswer> {
    let wall = (state.wall)();
    match &state.broker {
        Some(broker) => {
            broker.sessions().await.into_iter().map(|session| session_answer(session, wall)).collect()
        }
        None => Vec::new(),
    }
}

fn streams_of(state: &AdminState) -> Vec<StreamAnswer> {
    let wall = (state.wall)();
    let reports = state.broker.iter().flat_map(|broker| broker.streams());
    reports.map(|stream| stream_answer(stream, wall)).collect()
}

fn partner_answer(
    partner: &Partner,
    sessions: &[SessionAnswer],
    streams: &[StreamAnswer],
    policy: &Table,
) -> PartnerAnswer {
    let is_its = |remote: &str| policy.partner(remote).is_some_and(|owner| owner.domain == partner.domain);
    let is_its_stream = |stream: &&StreamAnswer| {
        stream.pairs.iter().any(|pair| pair.rsplit_once(' ').is_some_and(|(_, remote)| is_its(remote)))
    };
    PartnerAnswer {
        domain: partner.domain.to_string(),
        further_domains: partner.further_domains.iter().map(ToString::to_string).collect(),
        kind: partner.kind.as_str().to_owned(),
        authenticate: partner.authenticate.iter().map(|method| method.as_str().to_owned()).collect(),
        proxy: partner.proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host, proxy.port)),
        sessions: sessions.iter().filter(|session| is_its(&session.partner)).cloned().collect(),
        streams: streams.iter().filter(is_its_stream).cloned().collect(),
    }
}

pub(crate) async fn partners(State(state): State<Shared>) -> Json<Vec<PartnerAnswer>> {
    let (sessions, streams) = (sessions_of(&state).await, streams_of(&state));
    let policy = state.policy.load();
    let answer = |partner| partner_answer(partner, &sessions, &streams, &policy);
    Json(policy.partners().iter().map(answer).collect())
}

pub(crate) async fn partner(State(state): State<Shared>, UrlPath(domain): UrlPath<String>) -> Response {
    let (sessions, streams) = (sessions_of(&state).await, streams_of(&state));
    let policy = state.policy.load();
    match domain_of_text(&domain).and_then(|domain| policy.partner(domain.as_str())) {
        Some(partner) => Json(partner_answer(partner, &sessions, &streams, &policy)).into_response(),
        None => {
            let known: Vec<String> =
                policy.partners().iter().map(|partner| partner.domain.to_string()).collect();
            let error = format!("{domain} is no configured partner; accepted: {}", known.join(", "));
            refuse(StatusCode::NOT_FOUND, error)
        }
    }
}
