//! The active policy bundle. Without a valid one everything is denied.

use std::path::Path;
use std::sync::Arc;

use casemate_policy::{Bundle, Client};
use jiff::Timestamp;

/// Holds the active bundle, or why there is none.
pub struct PolicySlot(Result<Arc<Bundle>, String>);

impl PolicySlot {
    /// Loads the bundle of `dir`. A bundle that does not load, or is not in force yet, leaves the slot empty.
    pub fn load(dir: &Path, clients: &[Client], now: Timestamp) -> Self {
        let bundle = match Bundle::load(dir, clients) {
            Ok(bundle) if bundle.not_before() > now => {
                Err(format!("the bundle comes into force at {}", bundle.not_before()))
            }
            Ok(bundle) => Ok(Arc::new(bundle)),
            Err(error) => Err(error.to_string()),
        };
        match &bundle {
            Ok(bundle) => {
                tracing::info!(event = "policy_loaded", name = bundle.name(), version = bundle.version(), digest = %bundle.digest());
            }
            Err(error) => tracing::error!(event = "policy_refused", %error, "every request will be denied"),
        }
        Self(bundle)
    }

    /// The active bundle.
    pub fn active(&self) -> Option<Arc<Bundle>> {
        self.0.as_ref().ok().cloned()
    }

    /// Why there is no bundle.
    pub fn problem(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }
}
