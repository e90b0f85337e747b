//! `tombolo run`: from settings to a running role, and its end.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
    task::JoinHandle,
    time::interval,
};
use tombolo_admin::Reloadable;
use tombolo_admin::client::socket_of;
use tombolo_config::{Checked, LogFormat as FormatSetting, Role, Settings, embedded_defaults, load, report};
use tombolo_runtime::{Clock, guard, lasting};
use tombolo_telemetry::{LogFormat, LogSettings, Metrics, init_logs, tell_lasting_panic, tell_left_out};

use crate::{
    assembly::{Assembled, assemble},
    data_dir, descriptors, memory_watch,
    notify::{self, MANAGER},
    reload::{Files, LOOK_EVERY, Source, WATCH_EVERY},
    starting::Starting,
};

/// The data directory where none is named: what TOMBOLO_DATA_DIR says, else `tombolo-data`.
pub fn default_data_dir() -> PathBuf {
    std::env::var_os("TOMBOLO_DATA_DIR")
        .filter(|path| !path.is_empty())
        .unwrap_or("tombolo-data".into())
        .into()
}

/// How often it is looked for log lines that were left out.
const LEFT_OUT_EVERY: Duration = Duration::from_secs(5);

/// The wall time since the Unix epoch.
pub(crate) fn wall() -> Duration {
    Clock::system().now().wall
}

/// The settings of a file, or the embedded defaults. The error is the report for the operator.
pub fn settings_of(config: Option<&Path>, role: Option<Role>, data_dir: &Path) -> Result<Checked, String> {
    match config {
        Some(path) => load(path, role, wall()).map_err(|errors| report(&errors)),
        None => match role {
            None | Some(Role::AllInOne) => {
                Ok(Checked { settings: embedded_defaults(data_dir), findings: Vec::new() })
            }
            Some(role) => Err(format!(
                "role {} needs a settings file: tombolo run --role {} --config FILE; see config/{}.toml",
                role.as_str(),
                role.as_str(),
                role.as_str()
            )),
        },
    }
}

/// Runs until it is told to end. The error says what could not be started; then nothing was.
///
/// `source` is where the settings came from: nothing for the embedded defaults. `begins_anew` orders an empty store
/// where one is missing.
pub fn run(checked: &Checked, source: Source, begins_anew: bool) -> Result<(), String> {
    let Checked { settings, findings } = checked;
    let is_embedded = source.is_none();
    let format = match settings.log.format {
        FormatSetting::Auto => LogFormat::Auto,
        FormatSetting::Text => LogFormat::Human,
        FormatSetting::Json => LogFormat::Json,
    };
    let _logs = init_logs(&LogSettings {
        format,
        level: settings.log.level.as_str().to_owned(),
        shows_addresses: settings.log.show_addresses,
    })?;
    for finding in findings {
        tracing::warn!(error = %finding, "the settings can be used, but something in them will not work");
    }
    descriptors::check(descriptors::raise(), descriptors::arbiters())?;
    let starting = Starting::begin()?;
    data_dir::prepare(&settings.data_dir).map_err(|error| error.to_string())?;
    if is_embedded {
        data_dir::make_certificates(settings).map_err(|error| error.to_string())?;
    }
    let system = actix::System::new();
    system.block_on(serve(settings, source, begins_anew, starting))
}

async fn serve(
    settings: &Settings,
    source: Source,
    begins_anew: bool,
    starting: Starting,
) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let is_embedded = source.is_none();
    let assembled = assemble(settings, source, begins_anew).map_err(|error| error.to_string())?;
    let socket = socket_of(&settings.data_dir);
    let (admin_at, administration) =
        tombolo_admin::serve(assembled.admin.clone(), settings.admin.listen, socket)
            .await
            .map_err(|error| format!("admin {}: {error}", settings.admin.listen))?;
    let mut administration = actix::spawn(administration);
    assembled.admin.is_ready.store(true, Ordering::Relaxed);
    announce(announcement(settings, &assembled.listening, admin_at, is_embedded));
    tracing::info!(role = settings.role.as_str(), "ready");
    MANAGER.ready();
    starting.finish();
    let assembled = Arc::new(assembled);
    let metrics = assembled.admin.metrics.clone();
    let mut upkeep = Vec::new();
    if let Some(period) = notify::watchdog_period() {
        let assembled = assembled.clone();
        upkeep.push(keep("watchdog", &metrics, move || watch(assembled.clone(), period)));
    }
    let (files, hangup, of_files) = (assembled.files.clone(), Arc::new(Mutex::new(hangup)), metrics.clone());
    let begin = move || keep_files(files.clone(), hangup.clone(), of_files.clone());
    upkeep.push(keep("files", &metrics, begin));
    let (gate, broker) = (assembled.memory.clone(), assembled.admin.broker.clone());
    let of_memory = metrics.clone();
    let begin = move || memory_watch::watch(gate.clone(), of_memory.clone(), broker.clone());
    upkeep.push(keep("memory", &metrics, begin));
    upkeep.push(keep("log", &metrics, || async {
        let mut due = interval(LEFT_OUT_EVERY);
        loop {
            due.tick().await;
            tell_left_out();
        }
    }));
    let mut outcome = Ok(());
    tokio::select! {
        () = assembled.shutdown.notified() => tracing::info!("ending: ordered"),
        _ = terminate.recv() => tracing::info!("ending: SIGTERM"),
        _ = tokio::signal::ctrl_c() => tracing::info!("ending: interrupted"),
        cause = assembled.ended_by_panics() => outcome = Err(cause),
        ended = &mut administration => {
            let error = ended.unwrap_or_else(io::Error::other);
            outcome = Err(format!("administration ended: {error}"));
        }
    }
    let outcome = outcome.map_err(|cause| {
        tracing::error!(cause, "ending, to be started anew");
        format!("ended, to be started anew: {cause}")
    });
    MANAGER.stopping();
    assembled.admin.is_ready.store(false, Ordering::Relaxed);
    assembled.stop().await;
    administration.abort();
    for work in upkeep {
        work.abort();
    }
    outcome
}

/// Keeps work going that lasts as long as the process: after a panic, which is counted, it begins anew.
fn keep<F: Future<Output = ()> + 'static>(
    place: &'static str,
    metrics: &Arc<Metrics>,
    begin: impl FnMut() -> F + 'static,
) -> JoinHandle<()> {
    let metrics = metrics.clone();
    actix::spawn(lasting(begin, move |panicked| tell_lasting_panic(&metrics, place, panicked)))
}

/// Reloads on SIGHUP, takes in certificates whose files have changed, and says when one is about to run out.
async fn keep_files(files: Arc<Files>, hangup: Arc<Mutex<Signal>>, metrics: Arc<Metrics>) {
    let mut hangup = hangup.lock().await;
    let (mut look, mut warn) = (interval(LOOK_EVERY), interval(WATCH_EVERY));
    loop {
        let files = files.clone();
        let work: Box<dyn FnOnce() + Send> = tokio::select! {
            Some(()) = hangup.recv() => Box::new(move || _ = files.reload(false)),
            _ = look.tick() => Box::new(move || files.reload_changed()),
            _ = warn.tick() => Box::new(move || files.watch_ends()),
        };
        // Reading files may take a moment.
        let outcome = tokio::task::spawn_blocking(move || guard(work)).await;
        if let Ok(Err(panicked)) = outcome {
            tell_lasting_panic(&metrics, "files", &panicked);
        }
    }
}

/// Tells the service manager that the process is alive, as long as each of its threads takes turns.
async fn watch(assembled: Arc<Assembled>, period: Duration) {
    let mut due = interval(period);
    loop {
        due.tick().await;
        if assembled.is_alive(period / 2).await {
            MANAGER.alive();
        } else {
            tracing::error!(
                "a thread of actors takes no turn: the service manager is not told that the process is alive"
            );
        }
    }
}

/// This program as a shell in the same directory finds it.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "tombolo".to_owned())
}

/// What it listens on, and what to try next.
fn announcement(
    settings: &Settings,
    listening: &[(String, SocketAddr)],
    admin: SocketAddr,
    is_embedded: bool,
) -> String {
    let domains: Vec<&str> = settings.domains.iter().map(|domain| domain.name.as_str()).collect();
    let mut lines = vec![format!("tombolo {} for {}", settings.role.as_str(), domains.join(", "))];
    lines.extend(listening.iter().map(|(what, at)| format!("  {what:<16} {at}")));
    let administration = "administration";
    lines.push(format!("  {administration:<16} http://{admin} (/healthz /readyz /metrics /api/v1/status)"));
    let data_dir = settings.data_dir.display();
    lines.push(format!("  {:<16} {data_dir}", "data"));
    lines.push(if is_embedded {
        format!(
            "Next, in another terminal: {} --data-dir {data_dir} demo    (two phones and a partner, as it happens)",
            program()
        )
    } else {
        format!("Next: {} --data-dir {data_dir} status", program())
    });
    lines.join("\n")
}

/// Prints it in a thread of its own: whoever should read it may not, and then only that thread waits.
fn announce(text: String) {
    let print = move || {
        let mut out = io::stdout().lock();
        if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            tracing::warn!(%error, "nobody reads the standard output");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("announce".to_owned()).spawn(print) {
        tracing::warn!(%error, "no thread to print with");
    }
}
