//! The two listeners: HTTP on loopback, and the unix socket.
//!
//! Every account of the machine, and by a rebound name every page in a browser on it, can ask HTTP: it says how the process
//! is, and nothing about people, and only to who asks for it by its own address.

use std::{
    future::{Future, IntoFuture},
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{Path as UrlPath, Request, State},
    http::{StatusCode, header::HOST, uri::Authority},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::JoinSet,
};
use tombolo_broker::{BindingReport, Broker};
use tombolo_edge::LinkReport;
use tombolo_interwork::typed_address::typed_address;
use tombolo_net::moment;
use tombolo_policy::{Approve, Table};
use tombolo_presence::Address;
use tombolo_runtime::guard_future;
use tombolo_telemetry::{Metrics, PartState};

use crate::{
    answers::{
        BindingAnswer, CertificateAnswer, DecisionAnswer, PendingAnswer, RegistrationsAnswer, RelationAnswer,
        ReloadAnswer, UserAnswer,
    },
    explain::explain,
    limited::Limited,
    reports::{metrics, partner, partners, ready, status},
    socket_path::SocketPath,
};

/// The accounts of built-in homes, as far as they are changed while the process runs. Errors are texts for the operator.
pub trait UserBook: Send + Sync {
    /// All users, with how they approve.
    fn list(&self) -> Result<Vec<(Address, Approve)>, String>;

    /// Adds a user with a password.
    fn add(&self, aor: &Address, password: &str, approve: Approve) -> Result<(), String>;

    /// Takes a user out: by its address, or by exactly what stands in the accounts file, which may be no address. Phones,
    /// watchers and contacts are told as soon as the broker has heard of it. Gives the address that was taken out.
    fn remove(&self, written: &str) -> Result<String, String>;

    /// Gives a user another password.
    fn set_password(&self, aor: &Address, password: &str) -> Result<(), String>;
}

/// What can be read again while the process runs.
pub trait Reloadable: Send + Sync {
    /// Reads the settings, certificates, authorities and accounts again. `is_forced` takes what looks like a
    /// mistake too.
    fn reload(&self, is_forced: bool) -> ReloadAnswer;

    /// Our certificates, the first to run out first.
    fn certificates(&self) -> Vec<CertificateAnswer>;
}

/// What is asked about.
pub struct AdminState {
    /// `all-in-one`, `edge` or `gateway`.
    pub role: &'static str,
    /// When the process began.
    pub begun: Instant,
    /// It takes traffic.
    pub is_ready: AtomicBool,
    /// The broker; an edge has none.
    pub broker: Option<Arc<Broker>>,
    /// The policy in force.
    pub policy: Arc<ArcSwap<Table>>,
    /// The links between edge and gateway; none in role all-in-one.
    pub links: Box<dyn Fn() -> Vec<LinkReport> + Send + Sync>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The accounts; an edge has none.
    pub users: Option<Arc<dyn UserBook>>,
    /// What is read again by order.
    pub files: Arc<dyn Reloadable>,
    /// Told when somebody orders the end.
    pub shutdown: Arc<Notify>,
    /// Reads the monotonic clock, for the uptime.
    pub now: Box<dyn Fn() -> Instant + Send + Sync>,
    /// Reads the wall clock, since the Unix epoch.
    pub wall: Box<dyn Fn() -> Duration + Send + Sync>,
}

pub(crate) type Shared = Arc<AdminState>;

impl AdminState {
    /// What `/readyz` says in one word, and its code.
    pub(crate) fn readiness(&self) -> (&'static str, StatusCode) {
        if !self.is_ready.load(Ordering::Relaxed) {
            return ("starting", StatusCode::SERVICE_UNAVAILABLE);
        }
        match self.metrics.health().worst() {
            PartState::Up | PartState::Noted => ("ready", StatusCode::OK),
            PartState::Degraded => ("degraded", StatusCode::OK),
            PartState::Unready => ("unready", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// Serves HTTP on `listen` and the unix socket at `socket` until the future is dropped; it ends only with an error of a
/// listener. Gives the address that HTTP listens on.
pub async fn serve(
    state: Shared,
    listen: SocketAddr,
    socket: PathBuf,
) -> io::Result<(SocketAddr, impl Future<Output = io::Error>)> {
    let http = tombolo_net::listen_all(listen, &[listen])?;
    let address = http.first().map_or(Ok(listen), TcpListener::local_addr)?;
    let unix = bind_private(&socket)?;
    let guarded = from_fn_with_state(state.clone(), guard_answer);
    let questions = public().layer(from_fn_with_state(address, check_host)).layer(guarded.clone());
    let orders = private().merge(public()).layer(guarded);
    let (questions, orders) = (questions.with_state(state.clone()), orders.with_state(state));
    let all = async move {
        let mut listeners = JoinSet::new();
        for listener in http {
            listeners.spawn(axum::serve(Limited::new(listener), questions.clone()).into_future());
        }
        listeners.spawn(axum::serve(Limited::new(unix), orders).into_future());
        // The first listener that ends is missing from then on.
        match listeners.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => io::Error::other(error),
            Some(Ok(Ok(()))) | None => io::Error::other("a listener ended"),
        }
    };
    Ok((address, all))
}

/// A panic over one request is counted and answered; the connection and its listener go on.
async fn guard_answer(State(state): State<Shared>, request: Request, next: Next) -> Response {
    match guard_future(next.run(request)).await {
        Ok(answer) => answer,
        Err(panicked) => {
            state.metrics.panicked();
            tracing::error!(place = "administration", error = %panicked, "a request was dropped: handling it panicked");
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer could not be made: it is a fault of tombolo, see its log",
            )
        }
    }
}

/// Only the owner may connect. A socket that a killed process left is taken over; one that is in use is not.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let way = SocketPath::of(path)?;
    if std::os::unix::net::UnixStream::connect(way.as_path()).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{}: another process serves this data directory", path.display()),
        ));
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(way.as_path())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Refuses a request for a host that is not this listener.
async fn check_host(State(own): State<SocketAddr>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| is_own(host, own)) {
        return next.run(request).await;
    }
    refuse(StatusCode::MISDIRECTED_REQUEST, format!("asked for another host; accepted: {own}"))
}

/// True for the address of the listener and for `localhost`, with its port or none. A listener on all addresses takes any
/// of them; a name is none.
fn is_own(host: &str, own: SocketAddr) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    if host.port().is_some() && host.port_u16() != Some(own.port()) {
        return false;
    }
    let name = host.host();
    let own = own.ip().to_canonical();
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => own.is_unspecified() || address.to_canonical() == own,
        Err(_) => name.eq_ignore_ascii_case("localhost") && (own.is_loopback() || own.is_unspecified()),
    }
}

/// What anybody on this machine may ask.
fn public() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
}

/// What only the owner of the unix socket may ask and order.
fn private() -> Router<Shared> {
    Router::new()
        .route("/api/v1/partners", get(partners))
        .route("/api/v1/partners/{domain}", get(partner))
        .route("/api/v1/explain", get(explain))
        .route("/api/v1/users", get(users))
        .route("/api/v1/users/{aor}", get(user))
        .route("/api/v1/users/{aor}/add", post(add_user))
        .route("/api/v1/users/{aor}/remove", post(remove_user))
        .route("/api/v1/users/{aor}/passwd", post(set_password))
        .route("/api/v1/users/{aor}/bindings", get(bindings))
        .route("/api/v1/users/{aor}/bindings/clear", post(clear_bindings))
        .route("/api/v1/users/{aor}/approve", post(approve))
        .route("/api/v1/users/{aor}/deny", post(deny))
        .route("/api/v1/partners/{domain}/retry", post(retry))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/shutdown", post(shutdown))
}

/// A refusal, with what would be accepted.
pub(crate) fn refuse(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(json!({ "error": error.into() }))).into_response()
}

fn no_broker() -> Response {
    refuse(StatusCode::CONFLICT, "an edge has no users or sessions: ask its gateway")
}

pub(crate) fn address(text: &str) -> Result<Address, Box<Response>> {
    typed_address(text).map_err(|error| Box::new(refuse(StatusCode::BAD_REQUEST, error.to_string())))
}

async fn users(State(state): State<Shared>) -> Response {
    let Some(users) = &state.users else { return no_broker() };
    let answer = |(aor, approve): (Address, Approve)| UserAnswer {
        aor: aor.to_string(),
        approve: approve.as_str().to_owned(),
    };
    match users.list() {
        Ok(users) => Json(users.into_iter().map(answer).collect::<Vec<_>>()).into_response(),
        Err(error) => refuse(StatusCode::CONFLICT, error),
    }
}

async fn user(State(state): State<Shared>, UrlPath(aor): UrlPath<String>) -> Response {
    let aor = match address(&aor) {
        Ok(aor) => aor,
        Err(refusal) => return *refusal,
    };
    let Some(broker) = &state.broker else { return no_broker() };
    let report = broker.report(aor.clone()).await;
    let waiting = report.relations.iter().filter(|relation| relation.is_waiting);
    Json(PendingAnswer {
        aor: aor.to_string(),
        pending: waiting.map(|relation| relation.contact.to_string()).collect(),
        relations: report
            .relations
            .iter()
            .map(|relation| RelationAnswer {
                contact: relation.contact.to_string(),
                subscription: format!("{:?}", relation.subscription),
                heard: relation.heard.clone(),
            })
            .collect(),
        state: report.state,
    })
    .into_response()
}

/// A user of a built-in home who exists: only these have bindings.
async fn bindings(State(state): State<Shared>, UrlPath(aor): UrlPath<String>) -> Response {
    let (broker, aor, approve) = match known_user(&state, &aor) {
        Ok(known) => known,
        Err(refusal) => return *refusal,
    };
    let wall = (state.wall)();
    let answer = |report: BindingReport| BindingAnswer {
        contact: report.contact,
        instance: report.instance,
        remote: report.remote.to_string(),
        transport: if report.is_datagram { "udp" } else { "stream" }.to_owned(),
        is_reachable: report.is_reachable,
        expires: moment(wall + report.expires_in),
        expires_seconds: report.expires_in.as_secs(),
    };
    let bindings = broker.bindings(&aor).await.into_iter().map(answer).collect();
    Json(RegistrationsAnswer { aor: aor.to_string(), approve: approve.as_str().to_owned(), bindings })
        .into_response()
}

/// Removes all bindings of a user.
async fn clear_bindings(State(state): State<Shared>, UrlPath(aor): UrlPath<String>) -> Response {
    let (broker, aor, _) = match known_user(&state, &aor) {
        Ok(known) => known,
        Err(refusal) => return *refusal,
    };
    Json(json!({ "removed": broker.clear_bindings(&aor).await })).into_response()
}

fn known_user(state: &AdminState, aor: &str) -> Result<(Arc<Broker>, Address, Approve), Box<Response>> {
    let aor = address(aor)?;
    let (Some(broker), Some(users)) = (&state.broker, &state.users) else {
        return Err(Box::new(no_broker()));
    };
    let users = users.list().map_err(|error| Box::new(refuse(StatusCode::CONFLICT, error)))?;
    match users.into_iter().find(|(known, _)| *known == aor) {
        Some((_, approve)) => Ok((broker.clone(), aor, approve)),
        None => {
            let error = format!("{aor} is no user of a built-in home; see: tombolo user list");
            Err(Box::new(refuse(StatusCode::NOT_FOUND, error)))
        }
    }
}

#[derive(Deserialize)]
struct NewUser {
    password: String,
    #[serde(default)]
    approve: Option<String>,
}

async fn add_user(
    State(state): State<Shared>,
    UrlPath(aor): UrlPath<String>,
    Json(new): Json<NewUser>,
) -> Response {
    let aor = match address(&aor) {
        Ok(aor) => aor,
        Err(refusal) => return *refusal,
    };
    let Some(users) = &state.users else { return no_broker() };
    let approve = match new.approve.as_deref() {
        None | Some("ask") => Approve::Ask,
        Some("partner") => Approve::Partner,
        Some("all") => Approve::All,
        Some(other) => {
            let error = format!("{other:?} is no way to approve; accepted: ask, partner, all");
            return refuse(StatusCode::BAD_REQUEST, error);
        }
    };
    match users.add(&aor, &new.password, approve) {
        Ok(()) => {
            Json(UserAnswer { aor: aor.to_string(), approve: approve.as_str().to_owned() }).into_response()
        }
        Err(error) => refuse(StatusCode::CONFLICT, error),
    }
}

async fn remove_user(State(state): State<Shared>, UrlPath(aor): UrlPath<String>) -> Response {
    let Some(users) = &state.users else { return no_broker() };
    match users.remove(&aor) {
        Ok(aor) => Json(json!({ "aor": aor })).into_response(),
        Err(error) => refuse(StatusCode::CONFLICT, error),
    }
}

#[derive(Deserialize)]
struct NewPassword {
    password: String,
}

async fn set_password(
    State(state): State<Shared>,
    UrlPath(aor): UrlPath<String>,
    Json(new): Json<NewPassword>,
) -> Response {
    change_user(&state, &aor, |users, aor| users.set_password(aor, &new.password))
}

/// Changes one user of the accounts file, and answers with its address.
fn change_user(
    state: &AdminState,
    aor: &str,
    change: impl FnOnce(&dyn UserBook, &Address) -> Result<(), String>,
) -> Response {
    let aor = match address(aor) {
        Ok(aor) => aor,
        Err(refusal) => return *refusal,
    };
    let Some(users) = &state.users else { return no_broker() };
    match change(&**users, &aor) {
        Ok(()) => Json(json!({ "aor": aor.to_string() })).into_response(),
        Err(error) => refuse(StatusCode::CONFLICT, error),
    }
}

#[derive(Deserialize, Default)]
struct Decision {
    contact: Option<String>,
}

async fn approve(state: State<Shared>, aor: UrlPath<String>, decision: Json<Decision>) -> Response {
    decide(state, aor, decision, true).await
}

async fn deny(state: State<Shared>, aor: UrlPath<String>, decision: Json<Decision>) -> Response {
    decide(state, aor, decision, false).await
}

async fn decide(
    State(state): State<Shared>,
    UrlPath(aor): UrlPath<String>,
    Json(decision): Json<Decision>,
    is_approved: bool,
) -> Response {
    let contact = decision.contact.as_deref().map(address).transpose();
    let (aor, contact) = match (address(&aor), contact) {
        (Ok(aor), Ok(contact)) => (aor, contact),
        (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
    };
    let Some(broker) = &state.broker else { return no_broker() };
    let watchers = broker.decide(aor, contact, is_approved).await;
    if watchers.is_empty() {
        return refuse(StatusCode::NOT_FOUND, "nobody waits for this decision; see: tombolo user pending");
    }
    Json(DecisionAnswer { watchers: watchers.iter().map(ToString::to_string).collect() }).into_response()
}

async fn retry(State(state): State<Shared>, UrlPath(domain): UrlPath<String>) -> Response {
    let Some(broker) = &state.broker else { return no_broker() };
    Json(json!({ "sessions": broker.retry(&domain) })).into_response()
}

#[derive(Deserialize)]
struct ReloadOrder {
    /// Absent in the orders of older command lines.
    #[serde(default)]
    force: bool,
}

async fn reload(State(state): State<Shared>, Json(order): Json<ReloadOrder>) -> Response {
    let metrics = state.metrics.clone();
    // Files are read, which may take a moment.
    match tokio::task::spawn_blocking(move || state.files.reload(order.force)).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            metrics.panicked();
            refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

async fn shutdown(State(state): State<Shared>) -> Response {
    state.shutdown.notify_one();
    Json(json!({ "is_ending": true })).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct NoFiles;

    impl Reloadable for NoFiles {
        fn reload(&self, _is_forced: bool) -> ReloadAnswer {
            ReloadAnswer::default()
        }

        fn certificates(&self) -> Vec<CertificateAnswer> {
            Vec::new()
        }
    }

    fn edge() -> Shared {
        let begun = tombolo_runtime::Clock::system().now().instant;
        Arc::new(AdminState {
            role: "edge",
            begun,
            is_ready: AtomicBool::new(true),
            broker: None,
            policy: Arc::new(ArcSwap::from_pointee(Table::new(1, vec![], vec![]).expect("empty"))),
            metrics: Arc::new(Metrics::new(1)),
            links: Box::new(Vec::new),
            users: None,
            files: Arc::new(NoFiles),
            shutdown: Arc::default(),
            now: Box::new(move || begun),
            wall: Box::new(|| Duration::from_secs(1_000_000)),
        })
    }

    async fn readyz(state: &Shared) -> (u16, String) {
        let answer = ready(State(state.clone())).await;
        let code = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("a body");
        (code, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn readyz_names_each_part_and_only_an_unready_part_takes_the_process_out_of_service() {
        let state = edge();
        assert_eq!(readyz(&state).await, (200, "ready\n".to_owned()));
        let (partners, shards) =
            (state.metrics.health().part("partners"), state.metrics.health().part("shards"));
        partners.set(PartState::Noted, "1 of 2 lost: b.example");
        let noted = "ready\npartners: noted: 1 of 2 lost: b.example\nshards: up\n".to_owned();
        assert_eq!(readyz(&state).await, (200, noted));
        shards.set(PartState::Degraded, "1 of 4 is being rebuilt");
        let (code, body) = readyz(&state).await;
        assert!(code == 200 && body.starts_with("degraded\n"), "{code} {body}");
        shards.set(PartState::Unready, "none is left");
        let (code, body) = readyz(&state).await;
        assert!(code == 503 && body.starts_with("unready\n"), "{code} {body}");
        shards.set_up();
        assert_eq!(readyz(&state).await.0, 200);
        let Json(answer) = status(State(state.clone())).await;
        assert_eq!((answer.readiness.as_str(), answer.parts[0].state.as_str()), ("ready", "noted"));
        state.is_ready.store(false, Ordering::Relaxed);
        assert_eq!(readyz(&state).await.0, 503);
    }

    /// The status of the answer on a connection of its own.
    async fn asked(at: SocketAddr, path: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(at).await.expect("a listener");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("answered");
        answer.split(' ').nth(1).expect("a status").to_owned()
    }

    #[tokio::test]
    async fn a_request_over_which_its_handler_panics_gets_500_and_is_counted_and_the_listener_goes_on() {
        struct Trap;
        impl Reloadable for Trap {
            fn reload(&self, _is_forced: bool) -> ReloadAnswer {
                ReloadAnswer::default()
            }

            fn certificates(&self) -> Vec<CertificateAnswer> {
                panic!("as the test ordered")
            }
        }
        let mut state = Arc::into_inner(edge()).expect("the only one");
        state.files = Arc::new(Trap);
        let (state, folder) = (Arc::new(state), tempfile::tempdir().expect("a folder"));
        let any = "127.0.0.1:0".parse().expect("an address");
        let served = serve(state.clone(), any, folder.path().join("socket")).await;
        let (at, serving) = served.expect("it listens");
        let serving = tokio::spawn(serving);
        for _ in 0..2 {
            assert_eq!(asked(at, "/api/v1/status").await, "500");
            assert_eq!(asked(at, "/healthz").await, "200");
        }
        assert!(state.metrics.render().contains("tombolo_panics_total 2\n"));
        assert!(!serving.is_finished());
    }

    #[test]
    fn a_listener_is_asked_by_its_own_address_and_by_no_name_that_somebody_else_could_rebind() {
        let is_own = |host, own: &str| is_own(host, own.parse().expect("an address"));
        for host in ["127.0.0.1:8086", "localhost:8086", "LOCALHOST", "127.0.0.1"] {
            assert!(is_own(host, "127.0.0.1:8086"), "{host}");
        }
        for host in [
            "rebound.example:8086",
            "127.0.0.1:80",
            "127.0.0.2:8086",
            "localhost.rebound.example:8086",
            "",
            "a b",
        ] {
            assert!(!is_own(host, "127.0.0.1:8086"), "{host}");
        }
        assert!(is_own("[::1]:8086", "[::1]:8086") && !is_own("[::1]:8086", "127.0.0.1:8086"));
        assert!(is_own("192.0.2.1:8086", "0.0.0.0:8086") && !is_own("rebound.example:8086", "0.0.0.0:8086"));
        assert!(!is_own("localhost:8086", "192.0.2.1:8086"));
    }
}
