//! `tombolo run`: from settings to a running role, and its end.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};
use tombolo_admin::Reloadable;
use tombolo_admin::client::socket_of;
use tombolo_config::{Checked, LogFormat as FormatSetting, Role, Settings, embedded_defaults, load, report};
use tombolo_runtime::Clock;
use tombolo_telemetry::{LogFormat, LogSettings, init_logs, tell_left_out};

use crate::{
    assembly::assemble,
    data_dir, memory_watch,
    reload::{Files, LOOK_EVERY, Source, WATCH_EVERY},
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
    init_logs(&LogSettings {
        format,
        level: settings.log.level.as_str().to_owned(),
        shows_addresses: settings.log.show_addresses,
    })?;
    for finding in findings {
        tracing::warn!(error = %finding, "the settings can be used, but something in them will not work");
    }
    data_dir::prepare(&settings.data_dir).map_err(|error| error.to_string())?;
    if is_embedded {
        data_dir::make_certificates(settings).map_err(|error| error.to_string())?;
    }
    let system = actix::System::new();
    system.block_on(serve(settings, source, begins_anew))
}

async fn serve(settings: &Settings, source: Source, begins_anew: bool) -> Result<(), String> {
    let is_embedded = source.is_none();
    let assembled = assemble(settings, source, begins_anew).map_err(|error| error.to_string())?;
    let socket = socket_of(&settings.data_dir);
    let (admin_at, administration) =
        tombolo_admin::serve(assembled.admin.clone(), settings.admin.listen, socket)
            .await
            .map_err(|error| format!("admin {}: {error}", settings.admin.listen))?;
    let administration = actix::spawn(administration);
    assembled.admin.is_ready.store(true, Ordering::Relaxed);
    announce(settings, &assembled.listening, admin_at, is_embedded).map_err(|error| error.to_string())?;
    tracing::info!(role = settings.role.as_str(), "ready");
    let upkeep = actix::spawn(keep_files(assembled.files.clone())?);
    let memory = actix::spawn(memory_watch::watch(
        assembled.memory.clone(),
        assembled.admin.metrics.clone(),
        assembled.admin.broker.clone(),
    ));
    let left_out = actix::spawn(async {
        let mut due = interval(LEFT_OUT_EVERY);
        loop {
            due.tick().await;
            tell_left_out();
        }
    });
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        () = assembled.shutdown.notified() => tracing::info!("ending: ordered"),
        _ = terminate.recv() => tracing::info!("ending: SIGTERM"),
        _ = tokio::signal::ctrl_c() => tracing::info!("ending: interrupted"),
    }
    assembled.admin.is_ready.store(false, Ordering::Relaxed);
    assembled.stop().await;
    administration.abort();
    upkeep.abort();
    left_out.abort();
    memory.abort();
    Ok(())
}

/// Reloads on SIGHUP, takes in certificates whose files have changed, and says when one is about to run out.
fn keep_files(files: Arc<Files>) -> Result<impl Future<Output = ()>, String> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let (mut look, mut warn) = (interval(LOOK_EVERY), interval(WATCH_EVERY));
    Ok(async move {
        loop {
            let files = files.clone();
            let work: Box<dyn FnOnce() + Send> = tokio::select! {
                Some(()) = hangup.recv() => Box::new(move || _ = files.reload(false)),
                _ = look.tick() => Box::new(move || files.reload_changed()),
                _ = warn.tick() => Box::new(move || files.watch_ends()),
            };
            // Reading files may take a moment; a panic there is in the log and ends nothing else.
            let _ = tokio::task::spawn_blocking(work).await;
        }
    })
}

/// This program as a shell in the same directory finds it.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "tombolo".to_owned())
}

/// What it listens on, and what to try next.
fn announce(
    settings: &Settings,
    listening: &[(String, SocketAddr)],
    admin: SocketAddr,
    is_embedded: bool,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let domains: Vec<&str> = settings.domains.iter().map(|domain| domain.name.as_str()).collect();
    writeln!(out, "tombolo {} for {}", settings.role.as_str(), domains.join(", "))?;
    for (what, at) in listening {
        writeln!(out, "  {what:<16} {at}")?;
    }
    writeln!(out, "  {:<16} http://{admin} (/healthz /readyz /metrics /api/v1/status)", "administration")?;
    let data_dir: PathBuf = settings.data_dir.clone();
    writeln!(out, "  {:<16} {}", "data", data_dir.display())?;
    if is_embedded {
        writeln!(
            out,
            "Next, in another terminal: {} --data-dir {} demo    (two phones and a partner, as it happens)",
            program(),
            data_dir.display()
        )?;
    } else {
        writeln!(out, "Next: {} --data-dir {} status", program(), data_dir.display())?;
    }
    out.flush()
}
