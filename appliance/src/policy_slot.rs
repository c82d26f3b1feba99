//! The active policy bundle, and how another one takes its place. Without a valid one everything is denied.
//!
//! A bundle becomes active after its version stands durably in the store, in the transaction of its audit leaf. One that
//! is refused leaves the active one in place; the refusal is a leaf too, and shows in health until a load succeeds.

use std::sync::{Arc, PoisonError, RwLock};

use casemate_attest::{Entry, Guard, GuardChange, Op, Origin, Text};
use casemate_policy::bundle::Newest;
use casemate_policy::{Bundle, BundleError, Client};
use jiff::Timestamp;

use crate::config::Config;
use crate::daemon::Node;
use crate::pipeline::policy_client;
use crate::store::{PolicyRow, StoreError};

/// Holds the active bundle, and why the last load failed if it did.
#[derive(Default)]
pub struct PolicySlot {
    state: RwLock<State>,
    /// One load at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    active: Option<Arc<Bundle>>,
    problem: Option<String>,
}

/// Why a bundle did not become the active one.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The bundle is refused; the refusal is recorded, and the bundle before stays active.
    #[error("the policy bundle is refused: {why}; {still}")]
    Refused {
        /// Why.
        why: String,
        /// What applies instead.
        still: String,
    },
    /// It could not be recorded, so nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PolicySlot {
    /// The active bundle.
    pub fn active(&self) -> Option<Arc<Bundle>> {
        self.read().active.clone()
    }

    /// Why there is no bundle, or why the last load was refused.
    pub fn problem(&self) -> Option<String> {
        let state = self.read();
        match (&state.active, &state.problem) {
            (None, None) => Some("no policy bundle has been loaded yet".into()),
            (_, problem) => problem.clone(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads the configured bundle and makes it the active one; `origin` says who asked, if a client did.
///
/// # Errors
/// Why it was refused or could not be recorded. The bundle before stays active.
pub async fn reload(node: &Arc<Node>, origin: Option<Origin>) -> Result<Arc<Bundle>, ReloadError> {
    let _turn = node.policy.turn.lock().await;
    let newest = node.store.read(PolicyRow::newest).await?;
    let judged = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || load(&node.config, newest.map(Newest::from))).await
    };
    let loaded = judged.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let row = loaded.as_ref().ok().map(|bundle| PolicyRow { version: bundle.version(), digest: bundle.digest() });
    let mut entry = Entry::admin(Op::Policy).guarding(vec![guard(&loaded)]);
    if let Some(origin) = origin {
        entry = entry.asked_by(origin);
    }
    node.store
        .write(move |transaction| {
            if let Some(row) = row {
                row.put(transaction)?;
            }
            transaction.append(entry)
        })
        .await?;
    let mut state = node.policy.write();
    node.metrics.policy_loaded(loaded.as_ref().ok().map(Bundle::version));
    match loaded {
        Ok(bundle) => {
            tracing::info!(
                event = "policy_loaded", name = bundle.name(), version = bundle.version(), digest = %bundle.digest(),
                signers = bundle.signers().join(", ")
            );
            let bundle = Arc::new(bundle);
            *state = State { active: Some(bundle.clone()), problem: None };
            Ok(bundle)
        }
        Err(error) => {
            let still = match &state.active {
                Some(bundle) => format!("version {} of {} stays active", bundle.version(), bundle.name()),
                None => "every request is denied".into(),
            };
            let why = error.to_string();
            tracing::error!(event = "policy_refused", error = why, still);
            state.problem = Some(format!("refused at {}: {why}; {still}", Timestamp::now()));
            Err(ReloadError::Refused { why, still })
        }
    }
}

/// Loads the configured bundle as the daemon would, without making it active.
///
/// # Errors
/// Why it is refused.
pub fn load(config: &Config, newest: Option<Newest>) -> Result<Bundle, BundleError> {
    let clients: Vec<Client> = config.clients.all().map(|client| policy_client(&client)).collect();
    Bundle::load_signed(&config.policy.dir, &clients, &config.policy.anchors, newest, Timestamp::now())
}


impl From<PolicyRow> for Newest {
    fn from(row: PolicyRow) -> Self {
        Self { version: row.version, digest: row.digest }
    }
}

/// Which bundle is active from now on, or why none took its place.
fn guard(loaded: &Result<Bundle, BundleError>) -> GuardChange {
    let (name, state) = match loaded {
        Ok(bundle) => (bundle.name().to_owned(), format!("version {} {}", bundle.version(), bundle.digest())),
        Err(error) => ("none".into(), format!("refused: {error}")),
    };
    GuardChange { guard: Guard::Bundle, id: Text::fitted(&name), to: Some(Text::fitted(&state)) }
}
