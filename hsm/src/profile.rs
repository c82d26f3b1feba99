//! What was learned about the token when it was opened.

use std::sync::Arc;

use crate::canary;
use crate::config::HsmConfig;
use crate::error::HsmError;
use crate::keys::{KeyPurpose, KeyStatus};
use crate::module::{Lease, Module};
use crate::session::OpenSession;
use crate::state::HsmState;
use crate::token::TokenDescription;
use crate::wrapped::{WrapAlgorithm, kek_id};

/// The token, its keys and the state of the connection to it.
#[derive(Clone, Debug)]
pub struct HsmStatus {
    /// The token.
    pub token: TokenDescription,
    /// How DEKs are wrapped, as configured and probed.
    pub wrap: WrapAlgorithm,
    /// `CKA_ID` of the KEK that wraps, as text.
    pub kek_id: String,
    /// Epoch of the KEK that wraps.
    pub kek_epoch: u32,
    /// All keys that were found and checked.
    pub keys: Vec<KeyStatus>,
    /// Whether calls can be made now.
    pub state: HsmState,
}

/// The token as it was checked at opening; worker threads open their sessions by it.
#[derive(Clone)]
pub(crate) struct Profile {
    pub(crate) token: TokenDescription,
    pub(crate) wrap: WrapAlgorithm,
    pub(crate) live_epoch: u32,
    pub(crate) keys: Vec<KeyStatus>,
}

impl Profile {
    /// Opens a session, checks everything on the token, probes the wrapping and runs the canaries.
    ///
    /// `before` is what an earlier opening learned: the same token with the same keys must have come back.
    pub(crate) fn learn(
        module: &Module,
        lease: &Lease<'_>,
        config: &HsmConfig,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, HsmError> {
        let session = OpenSession::log_in(module, lease, config, before)?;
        let outcome = Self::check(&session, config);
        session.close(lease);
        outcome.map(Arc::new)
    }

    fn check(session: &OpenSession, config: &HsmConfig) -> Result<Self, HsmError> {
        let keys = session.keys().status()?;
        let live_epoch = session.keys().live_epoch();
        let live_epoch = live_epoch.ok_or_else(|| HsmError::KeyMissing { id: kek_id(1) })?;
        let wrap = canary::probe_wrapping(session, config.wrap, live_epoch)?;
        for purpose in KeyPurpose::ALL {
            canary::sign(session, purpose)?;
        }
        Ok(Self { token: session.token().clone(), wrap, live_epoch, keys })
    }

    /// Refuses another token than before.
    pub(crate) fn expect_same_token(&self, token: &TokenDescription) -> Result<(), HsmError> {
        if token.serial != self.token.serial {
            return Err(HsmError::TokenChanged { was: self.token.serial.clone(), is: token.serial.clone() });
        }
        Ok(())
    }

    /// Refuses a token on which a key known from before is gone or another one. New keys are fine.
    pub(crate) fn expect_same_keys(&self, keys: &[KeyStatus]) -> Result<(), HsmError> {
        for known in &self.keys {
            if !keys.contains(known) {
                return Err(HsmError::KeysChanged { id: known.id.clone() });
            }
        }
        Ok(())
    }

    pub(crate) fn status(&self, state: HsmState) -> HsmStatus {
        HsmStatus {
            token: self.token.clone(),
            wrap: self.wrap,
            kek_id: kek_id(self.live_epoch),
            kek_epoch: self.live_epoch,
            keys: self.keys.clone(),
            state,
        }
    }

    /// SubjectPublicKeyInfo in DER.
    pub(crate) fn public_key(&self, purpose: KeyPurpose) -> Option<Vec<u8>> {
        self.keys.iter().find(|key| key.id == purpose.id())?.public_key.clone()
    }
}
