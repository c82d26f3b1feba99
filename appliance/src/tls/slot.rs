//! The TLS material in use, and its exchange while the daemon runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::material::Contents;
use super::{Material, TlsError};
use crate::config::TlsFiles;
use crate::daemon::Node;

/// How often the files are looked at without being asked to.
const LOOK: Duration = Duration::from_secs(60);

/// The material in use. It is replaced only by checked material, so a bad file changes nothing but what health says.
pub struct TlsSlot {
    files: TlsFiles,
    current: watch::Sender<Arc<Material>>,
    refused: Mutex<Option<Refused>>,
}

/// Files that did not take the place of what is in use.
#[derive(Debug, Clone)]
struct Refused {
    since: Timestamp,
    why: String,
}

/// What came of a look at the files.
#[derive(Debug)]
#[must_use]
pub enum Looked {
    /// They hold what is in use.
    Same,
    /// New connections use what they hold from now on.
    Loaded,
    /// They cannot be used for this reason, and could not for the same reason at the last look.
    StillRefused(String),
    /// They cannot be used, for a reason that is new.
    Refused(String),
}

impl TlsSlot {
    /// Holds what was loaded from `files`.
    pub fn new(files: TlsFiles, material: Arc<Material>) -> Self {
        Self { files, current: watch::Sender::new(material), refused: Mutex::default() }
    }

    /// What is in use.
    pub fn current(&self) -> Arc<Material> {
        self.current.borrow().clone()
    }

    /// What is in use, and word of everything that takes its place.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Material>> {
        self.current.subscribe()
    }

    /// Looks at the files, and uses what they hold if that is other than what is in use, and good. Reads files: call it off the network
    /// threads.
    pub fn look(&self, now: Timestamp) -> Looked {
        let judged = self.judge(now);
        let mut refused = self.refused();
        match judged {
            Ok(None) => {
                *refused = None;
                Looked::Same
            }
            Ok(Some(material)) => {
                *refused = None;
                self.current.send_replace(material);
                Looked::Loaded
            }
            Err(error) => {
                let why = error.to_string();
                match refused.as_mut() {
                    Some(before) if before.why == why => Looked::StillRefused(why),
                    // Another fault on the way does not begin a new time: the host has had no good files since the first.
                    Some(before) => {
                        before.why.clone_from(&why);
                        Looked::Refused(why)
                    }
                    None => {
                        *refused = Some(Refused { since: now, why: why.clone() });
                        Looked::Refused(why)
                    }
                }
            }
        }
    }

    /// What is wrong, for health: files that were refused, and what has ended or ends soon.
    pub fn problem(&self, now: Timestamp) -> Option<String> {
        let current = self.current();
        let refused = self.refused().as_ref().map(|Refused { since, why }| {
            format!(
                "the TLS files are refused since {since}: {why}; what was loaded at {} stays in use",
                current.loaded()
            )
        });
        let worries = current.lifetimes().iter().filter_map(|lifetime| lifetime.worry(now));
        let lines: Vec<String> = refused.into_iter().chain(worries).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Whether the files on disk are refused, since when in seconds.
    pub fn refused_for(&self, now: Timestamp) -> Option<i64> {
        self.refused().as_ref().map(|refused| now.duration_since(refused.since).as_secs())
    }

    /// Nothing if the files hold what is in use.
    fn judge(&self, now: Timestamp) -> Result<Option<Arc<Material>>, TlsError> {
        let contents = Contents::read(&self.files)?;
        if self.current().contents() == contents.digest() {
            Ok(None)
        } else {
            Material::judge(&contents, &self.files, now).map(Some)
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the files at each SIGHUP, and once a minute. What was refused is tried again each time: it may come into force, or be
/// half of a change whose other half follows.
pub(crate) async fn keep_fresh(node: Arc<Node>, mut signals: Signal) {
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(()) = signals.recv() => {}
            _ = clock.tick() => {}
        }
        let looking = {
            let node = node.clone();
            tokio::task::spawn_blocking(move || node.tls.look(Timestamp::now())).await
        };
        let looked = looking.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        node.metrics.tls_looked(&looked);
        match looked {
            Looked::Same | Looked::StillRefused(_) => {}
            Looked::Loaded => {
                let current = node.tls.current();
                let ends = current.lifetimes().iter().map(|life| format!("{} {}", life.what().as_str(), life.ends()));
                let ends: Vec<String> = ends.collect();
                tracing::info!(event = "tls_files_loaded", spki = %current.spki(), ends = ends.join(", "));
            }
            Looked::Refused(why) => {
                tracing::error!(event = "tls_files_refused", error = why, "what was loaded before stays in use");
            }
        }
    }
}

/// Returns, with the reason, once material comes into use with which a handshake would refuse this client.
pub(crate) async fn distrusted(mut material: watch::Receiver<Arc<Material>>, shown: &[CertificateDer<'_>]) -> String {
    loop {
        if material.changed().await.is_err() {
            return std::future::pending().await;
        }
        let current = material.borrow_and_update().clone();
        if let Err(error) = current.judge_client(shown) {
            return error.to_string();
        }
    }
}
