//! Signed checkpoints of the own log: while leaves arrive, at each session's end, whenever a peer asks, and at the stop.
//!
//! One task signs, so sessions that wait at the same time share a signature. A checkpoint is kept in the store before
//! anybody gets it, and only what continues the one before is signed: an appliance whose log went back signs nothing.

use std::sync::Arc;
use std::time::Duration;

use casemate_attest::{Checkpoint, CheckpointError, SignedCheckpoint};
use casemate_hsm::{HsmError, KeyPurpose};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::daemon::Node;
use crate::store::{Signable, StoreError, Urgency, newest_checkpoint, put_checkpoint, signable};

/// How long a durable outcome waits for the checkpoint that covers it. It is released either way.
const AT_AN_END: Duration = Duration::from_secs(2);
/// How long a peer's question waits for one.
const FOR_A_PEER: Duration = Duration::from_secs(12);

/// Why there is no checkpoint of the log as it stands.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckpointTrouble {
    /// The HSM did not sign.
    #[error("the HSM did not sign a checkpoint of the audit log: {0}")]
    Hsm(String),
    /// It could not be kept, or what was signed before cannot be read.
    #[error("a checkpoint of the audit log could not be kept: {0}")]
    Store(#[from] StoreError),
    /// What was signed does not verify.
    #[error("the HSM's signature of a checkpoint is not usable: {0}")]
    Signature(#[from] CheckpointError),
    /// The log does not continue what was signed before.
    #[error("no checkpoint is signed any more: {0}; the audit log was rolled back or rewritten")]
    Never(String),
    /// It takes too long.
    #[error("no checkpoint of the audit log was signed in time")]
    Slow,
}

/// What is signed of the own log, and who waits for more.
#[derive(Default)]
pub struct Checkpoints {
    newest: watch::Sender<Newest>,
    wanted: Notify,
    /// One signature at a time.
    turn: Mutex<()>,
}

#[derive(Default, Clone)]
struct Newest {
    signed: Option<Arc<SignedCheckpoint>>,
    /// How many attempts failed, and why the last one did, unless one has succeeded since.
    failures: u64,
    trouble: Option<CheckpointTrouble>,
}

impl Newest {
    fn covers(&self, size: u64) -> Option<Arc<SignedCheckpoint>> {
        self.signed.clone().filter(|signed| signed.checkpoint().size >= size)
    }
}

impl Checkpoints {
    /// The newest one.
    pub fn newest(&self) -> Option<Arc<SignedCheckpoint>> {
        self.newest.borrow().signed.clone()
    }

    /// Why the last attempt failed, if it did.
    pub fn problem(&self) -> Option<String> {
        self.newest.borrow().trouble.as_ref().map(ToString::to_string)
    }

    /// One of at least `size` leaves, which must be durable; signed now if there is none yet.
    ///
    /// # Errors
    /// Why the log was not signed.
    pub async fn at_least(&self, size: u64) -> Result<Arc<SignedCheckpoint>, CheckpointTrouble> {
        let mut changes = self.newest.subscribe();
        let before = changes.borrow_and_update().clone();
        if let Some(signed) = before.covers(size) {
            return Ok(signed);
        }
        self.wanted.notify_one();
        let settled = |newest: &Newest| newest.covers(size).is_some() || newest.failures > before.failures;
        let waited = timeout(FOR_A_PEER, changes.wait_for(settled)).await;
        let Ok(Ok(newest)) = waited else { return Err(CheckpointTrouble::Slow) };
        newest.covers(size).ok_or_else(|| newest.trouble.clone().unwrap_or(CheckpointTrouble::Slow))
    }

    /// Waits, for a while, until a session's end is covered. What is durable is released even if the HSM does not sign: the
    /// failure is logged and counted, and signing is tried again.
    pub(crate) async fn cover(&self, size: u64) {
        drop(timeout(AT_AN_END, self.at_least(size)).await);
    }

    fn signed(&self, signed: Arc<SignedCheckpoint>) {
        self.newest.send_modify(|newest| {
            if newest.trouble.take().is_some() {
                tracing::info!(event = "checkpoint_signed_again", size = signed.checkpoint().size);
            }
            newest.signed = Some(signed);
        });
    }

    fn failed(&self, trouble: &CheckpointTrouble) {
        self.newest.send_modify(|newest| {
            let (now, before) = (trouble.to_string(), newest.trouble.as_ref().map(ToString::to_string));
            if before.as_ref() != Some(&now) {
                tracing::error!(event = "checkpoint_not_signed", error = now, "it will be tried again");
            }
            newest.failures = newest.failures.saturating_add(1);
            newest.trouble = Some(trouble.clone());
        });
    }
}

/// Takes up what was signed before this start.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn take_up(node: &Node) -> Result<(), StoreError> {
    let (key, log) = (node.audit.clone(), node.store.audit_head().log().clone());
    let newest = node.store.read(move |store| newest_checkpoint(store, &key)).await?;
    // One of a log that was replaced covers nothing of this one.
    if let Some(newest) = newest.filter(|newest| newest.checkpoint().log == log) {
        node.checkpoints.newest.send_modify(|state| state.signed = Some(Arc::new(newest)));
    }
    Ok(())
}

/// Signs for as long as the daemon runs: soon after each leaf, and at once where somebody waits.
pub(crate) async fn keep_signing(node: Arc<Node>) {
    let mut tick = interval(node.config.audit.checkpoint_interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = node.checkpoints.wanted.notified() => {}
        }
        sign(&node).await;
    }
}

/// Signs the log as it stands, unless that is done. A failure is logged, counted, and shown in health.
pub(crate) async fn sign(node: &Node) {
    if let Err(trouble) = try_sign(node).await {
        node.metrics.checkpoint_failed();
        node.checkpoints.failed(&trouble);
    }
}

async fn try_sign(node: &Node) -> Result<(), CheckpointTrouble> {
    let _turn = node.checkpoints.turn.lock().await;
    // The store shows a head only once its leaves are durable.
    let next = Checkpoint::of(&node.store.audit_head());
    let before = node.checkpoints.newest();
    if before.as_ref().is_some_and(|before| *before.checkpoint() == next) {
        return Ok(());
    }
    let (key, wanted) = (node.audit.clone(), next.clone());
    match node.store.read(move |store| signable(store, &key, &wanted)).await? {
        Signable::Yes => {}
        Signable::Signed(signed) => {
            node.checkpoints.signed(Arc::new(signed));
            return Ok(());
        }
        Signable::Never(why) => return Err(CheckpointTrouble::Never(why)),
    }
    let unsigned = |e: HsmError| CheckpointTrouble::Hsm(e.to_string());
    let signature = node.hsm.sign(KeyPurpose::Audit, next.text().as_bytes()).await.map_err(unsigned)?;
    let signed = Arc::new(next.signed(&node.audit, &signature)?);
    let kept = signed.clone();
    node.store.write(Urgency::Record, move |transaction| put_checkpoint(transaction, &kept)).await?;
    node.checkpoints.signed(signed);
    Ok(())
}
