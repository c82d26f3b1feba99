//! Supervision: a panic outside the protocol threads ends the daemon in order.

use std::panic;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Threads whose panics end the one session or decision that they work for: protocol, prime search, policy.
const CONTAINED: [&str; 2] = ["mpc-", "policy"];

/// Runs tasks, and knows when one has panicked anywhere in the process.
pub(super) struct Supervisor {
    failed: Arc<watch::Sender<Option<String>>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Supervisor {
    /// Installs the process's panic hook.
    pub(super) fn new() -> Self {
        let failed = Arc::new(watch::Sender::new(None));
        let report = failed.clone();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            // The message may quote values, so it is not logged.
            tracing::error!(event = "panic", thread, place, "a thread panicked");
            if !CONTAINED.iter().any(|prefix| thread.starts_with(prefix)) {
                report.send_replace(Some(format!("thread {thread} panicked at {place}")));
            }
        }));
        Self { failed, stopping: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        let stopping = self.stopping.clone();
        let running = self.tasks.spawn(async move { stopping.run_until_cancelled_owned(task).await });
        tokio::spawn(async move {
            if let Err(error) = running.await
                && error.is_panic()
            {
                failed.send_if_modified(|why| {
                    let first = why.is_none();
                    if first {
                        *why = Some(format!("its {name} task panicked"));
                    }
                    first
                });
            }
        });
    }

    /// Ends every task at its next await, and returns when all have ended.
    pub(super) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns, with the reason, once something has panicked.
    pub(super) async fn failed(&self) -> String {
        let mut changes = self.failed.subscribe();
        match changes.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

/// Completes when the process is told to stop: SIGTERM or SIGINT.
pub(super) fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Completes at each SIGHUP.
pub(super) fn reload_signals() -> std::io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::hangup())
}
