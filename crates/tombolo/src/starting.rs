//! The time before a process takes traffic: what may end it then.
//!
//! Starting can take a while, as long as a large store is read, and does not look at signals. So a thread of its own waits
//! for SIGTERM and ends the process in order, with exit code 0: nothing was begun that could be broken off, since files are
//! replaced whole and the store survives `kill -9`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// Ends the process on SIGTERM, until [`Starting::finish`].
#[derive(Debug)]
pub struct Starting(Arc<AtomicBool>);

impl Starting {
    /// From now on SIGTERM ends the process with exit code 0.
    ///
    /// # Errors
    /// When the system gives no thread or takes no handler.
    pub fn begin() -> Result<Self, String> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, ready) = mpsc::channel();
        let over = is_over.clone();
        let wait = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(told.send(Err(error.to_string()))),
            };
            runtime.block_on(async move {
                let mut terminate = match signal(SignalKind::terminate()) {
                    Ok(terminate) => terminate,
                    Err(error) => return drop(told.send(Err(error.to_string()))),
                };
                let _ = told.send(Ok(()));
                if terminate.recv().await.is_some() && !over.load(Ordering::SeqCst) {
                    tracing::info!("ending: SIGTERM during the start");
                    tombolo_telemetry::flush_logs();
                    std::process::exit(0);
                }
            });
        };
        thread::Builder::new()
            .name("starting".to_owned())
            .spawn(wait)
            .map_err(|error| format!("no thread to wait for signals: {error}"))?;
        ready.recv().map_err(|error| error.to_string())??;
        Ok(Self(is_over))
    }

    /// Somebody else waits for SIGTERM now.
    pub fn finish(self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
