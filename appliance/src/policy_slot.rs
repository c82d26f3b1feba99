//! The active policy bundle, and how another one takes its place. Without a valid one everything is denied.
//!
//! A bundle becomes active after its version stands durably in the store, in the transaction of its audit leaf. One that
//! is refused leaves the active one in place; the refusal is a leaf too, and shows in health until a load succeeds.

use std::sync::{Arc, PoisonError, RwLock};

use casemate_attest::{Detail, Entry, Guard, GuardChange, Op, Origin, Text};
use casemate_policy::bundle::{Newest, SignedBundle};
use casemate_policy::signers::Principal;
use casemate_policy::{Bundle, BundleError, Client};
use casemate_wire::Code;
use jiff::Timestamp;

use crate::config::Config;
use crate::daemon::Node;
use crate::pipeline::policy_client;
use crate::store::{PolicyRow, StoreError, Urgency};

/// Holds the active bundle, and why the last load failed if it did.
#[derive(Default)]
pub struct PolicySlot {
    state: RwLock<State>,
    /// One load at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    active: Option<Arc<SignedBundle>>,
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
    pub fn active(&self) -> Option<Arc<SignedBundle>> {
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
pub async fn reload(node: &Arc<Node>, origin: Option<Origin>) -> Result<Arc<SignedBundle>, ReloadError> {
    let _turn = node.policy.turn.lock().await;
    if let Some(quarantine) = node.store.quarantine() {
        return Err(StoreError::Quarantined(quarantine.to_string()).into());
    }
    let newest = node.store.read(PolicyRow::newest).await?;
    let judged = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || load(&node.config, newest.map(Newest::from))).await
    };
    let loaded = judged.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let row = loaded.as_ref().ok().map(|bundle| PolicyRow::from(bundle.as_newest()));
    let entry = entry(&loaded);
    let entry = match origin {
        Some(origin) => entry.asked_by(origin),
        None => entry,
    };
    let written = node
        .store
        .write(Urgency::Record, move |transaction| {
            if let Some(row) = row {
                row.put(transaction)?;
            }
            transaction.append(entry)
        })
        .await;
    if let Err(error) = written {
        // Without its anchor the newest version on record is another one than the active: nothing is allowed by either.
        if matches!(error, StoreError::Unanchored(_)) {
            node.policy.write().problem =
                Some(format!("a load at {} came to nothing: {error}; load it again", Timestamp::now()));
        }
        return Err(error.into());
    }
    let mut state = node.policy.write();
    node.metrics.policy_loaded(loaded.as_ref().ok().map(|bundle| bundle.bundle().version()));
    match loaded {
        Ok(bundle) => {
            report(&bundle);
            node.hsm.set_recipients(bundle.bundle().recipients().recovery().values().cloned());
            let bundle = Arc::new(bundle);
            *state = State { active: Some(bundle.clone()), problem: None };
            Ok(bundle)
        }
        Err(error) => {
            let still = match &state.active {
                Some(active) => {
                    format!("version {} of {} stays active", active.bundle().version(), active.bundle().name())
                }
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
pub fn load(config: &Config, newest: Option<Newest>) -> Result<SignedBundle, BundleError> {
    let clients: Vec<Client> = config.clients.all().map(|client| policy_client(&client)).collect();
    Bundle::load_signed(&config.policy.dir, &clients, &config.policy.anchors, newest, Timestamp::now())
}

impl From<Newest> for PolicyRow {
    fn from(newest: Newest) -> Self {
        Self { version: newest.version, digest: newest.digest }
    }
}

impl From<PolicyRow> for Newest {
    fn from(row: PolicyRow) -> Self {
        Self { version: row.version, digest: row.digest }
    }
}

fn report(signed: &SignedBundle) {
    let bundle = signed.bundle();
    let signers: Vec<&str> = signed.signers().iter().map(Principal::as_str).collect();
    tracing::info!(
        event = "policy_loaded", name = bundle.name(), version = bundle.version(), digest = %bundle.digest(),
        signers = signers.join(", ")
    );
    for ignored in signed.ignored() {
        tracing::warn!(event = "policy_signature_ignored", "{ignored}");
    }
}

/// Which bundle is active from now on, or why none took its place.
fn entry(loaded: &Result<SignedBundle, BundleError>) -> Entry {
    match loaded {
        Ok(signed) => {
            let bundle = signed.bundle();
            let state = format!("version {} {}", bundle.version(), bundle.digest());
            let change =
                GuardChange { guard: Guard::Bundle, id: Text::fitted(bundle.name()), to: Some(Text::fitted(&state)) };
            Entry::admin(Op::Policy).guarding(vec![change])
        }
        Err(error) => {
            let reason = Some(Text::fitted(&error.to_string()).to_string());
            Entry::policy_refused(Text::fitted(Code::PolicyRefused.as_str()))
                .disclosing(crate::disclosure(Detail { decoded: None, reason }))
        }
    }
}
