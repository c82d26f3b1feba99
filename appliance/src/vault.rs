//! The HSM as the appliance uses it: every call is measured.

use std::time::Instant;

use casemate_hsm::{Hsm, HsmError, HsmState, HsmStatus, KeyPurpose, Secret32, WrappedKey};

use crate::metrics::HsmMetrics;

/// An open HSM and the metrics that its calls go into.
pub struct Vault {
    hsm: Hsm,
    metrics: HsmMetrics,
}

impl Vault {
    /// Measures the calls to `hsm`.
    pub fn new(hsm: Hsm, metrics: HsmMetrics) -> Self {
        Self { hsm, metrics }
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

    /// Signs with one of the HSM's keys: ECDSA P-256 over SHA-256, `r ‖ s`.
    ///
    /// # Errors
    /// Why the HSM did not.
    pub async fn sign(&self, purpose: KeyPurpose, message: &[u8]) -> Result<[u8; 64], HsmError> {
        self.measured("sign", self.hsm.sign(purpose, message)).await
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
