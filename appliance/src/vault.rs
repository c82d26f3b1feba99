//! The HSM as the appliance uses it: every call is measured.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use casemate_hsm::{Anchor, Hsm, HsmError, HsmState, HsmStatus, KeyPurpose, RecoveryEntry, Secret32, WrappedKey};
use casemate_wire::RecoveryKey;

use crate::metrics::HsmMetrics;

/// An open HSM, the metrics that its calls go into, and the recovery HSMs to which new objects are sealed as well. Clones
/// share all three.
#[derive(Clone)]
pub struct Vault {
    hsm: Arc<Hsm>,
    metrics: HsmMetrics,
    recipients: Arc<RwLock<Arc<[RecoveryKey]>>>,
}

impl Vault {
    /// Measures the calls to `hsm`.
    pub fn new(hsm: Hsm, metrics: HsmMetrics) -> Self {
        Self { hsm: Arc::new(hsm), metrics, recipients: Arc::new(RwLock::new(Arc::new([]))) }
    }

    /// Wraps a DEK under the live KEK, bound to `context`.
    ///
    /// # Errors
    /// Why the HSM did not.
    pub async fn wrap(&self, context: &[u8], key: &Secret32) -> Result<WrappedKey, HsmError> {
        self.measured("wrap", self.hsm.wrap(context, key)).await
    }

    /// Unwraps a DEK that was wrapped for `context`.
    ///
    /// # Errors
    /// Why the HSM did not.
    pub async fn unwrap(&self, context: &[u8], entry: &WrappedKey) -> Result<Secret32, HsmError> {
        self.measured("unwrap", self.hsm.unwrap(context, entry)).await
    }

    /// Encrypts a DEK to a recovery HSM, bound to `context`.
    ///
    /// # Errors
    /// Why the HSM did not.
    pub async fn wrap_for_recovery(
        &self,
        recipient: &RecoveryKey,
        context: &[u8],
        key: &Secret32,
    ) -> Result<RecoveryEntry, HsmError> {
        self.measured("wrap_for_recovery", self.hsm.wrap_for_recovery(recipient, context, key)).await
    }

    /// The recovery HSMs to which new objects are sealed as well.
    pub fn recipients(&self) -> Arc<[RecoveryKey]> {
        self.recipients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seals new objects to these recovery HSMs as well, from now on.
    ///
    /// # Security
    /// They come from the signed policy bundle that is in force, and from nowhere else.
    pub fn set_recipients(&self, keys: impl IntoIterator<Item = RecoveryKey>) {
        *self.recipients.write().unwrap_or_else(PoisonError::into_inner) = keys.into_iter().collect();
    }

    /// Signs with one of the HSM's keys: ECDSA P-256 over SHA-256, `r ‖ s`.
    ///
    /// # Errors
    /// Why the HSM did not.
    pub async fn sign(&self, purpose: KeyPurpose, message: &[u8]) -> Result<[u8; 64], HsmError> {
        self.measured("sign", self.hsm.sign(purpose, message)).await
    }

    /// The audit anchor that counts; `None` when nothing was ever anchored.
    ///
    /// # Errors
    /// Why the HSM did not give it.
    pub async fn anchor(&self) -> Result<Option<Anchor>, HsmError> {
        self.measured("anchor_read", self.hsm.anchor()).await
    }

    /// Anchors a head of the audit log, if `expected` is what the HSM holds.
    ///
    /// # Errors
    /// Why the HSM did not.
    pub async fn put_anchor(&self, expected: Option<&Anchor>, anchor: &Anchor) -> Result<(), HsmError> {
        self.measured("anchor", self.hsm.put_anchor(expected, anchor)).await
    }

    /// Makes this the only anchor, whatever is there.
    ///
    /// # Errors
    /// Why the HSM did not.
    ///
    /// # Security
    /// Only the recovery that the policy quorum has signed may call it: see [`Hsm::replace_anchor`].
    pub async fn replace_anchor(&self, anchor: &Anchor) -> Result<(), HsmError> {
        self.measured("anchor_replace", self.hsm.replace_anchor(anchor)).await
    }

    /// SubjectPublicKeyInfo (DER) of one of the HSM's keys.
    pub fn public_key(&self, purpose: KeyPurpose) -> Vec<u8> {
        self.hsm.public_key(purpose)
    }

    /// The token and the keys on it.
    pub fn status(&self) -> HsmStatus {
        self.hsm.status()
    }

    /// Whether calls can be made now.
    pub fn state(&self) -> HsmState {
        self.hsm.state()
    }

    /// For how long every HSM thread has been inside a call that does not end: see [`Hsm::stuck`].
    pub fn stuck(&self) -> Option<Duration> {
        self.hsm.stuck()
    }

    /// Ends the HSM's threads.
    ///
    /// # Errors
    /// That a thread is stuck inside the module.
    pub async fn shutdown(&self) -> Result<(), HsmError> {
        self.hsm.shutdown().await
    }

    async fn measured<T>(&self, op: &str, call: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = call.await;
        self.metrics.took(op, begun.elapsed());
        result
    }
}
