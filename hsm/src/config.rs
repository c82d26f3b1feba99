//! What the operator states about the HSM.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::HsmError;
use crate::pin::PinSource;

/// Everything needed to open one token.
#[derive(Clone, Debug)]
pub struct HsmConfig {
    /// Absolute path of the PKCS#11 module (a shared library).
    pub module: PathBuf,
    /// Which token; exactly one must match.
    pub token: TokenSelector,
    /// Where the user PIN is read from, at each login.
    pub pin: PinSource,
    /// How DEKs are wrapped.
    pub wrap: WrapMode,
    /// Worker threads, each with a session of its own: 1 to 64.
    pub threads: usize,
    /// Calls that may wait for a thread; one more is refused with [`HsmError::Busy`]. At least 1.
    pub queue: usize,
    /// Limit for one call, the wait in the queue included.
    pub timeout: Duration,
}

impl HsmConfig {
    const MAX_THREADS: usize = 64;

    pub(crate) fn check(&self) -> Result<(), HsmError> {
        let problem = if !self.module.is_absolute() {
            "module must be an absolute path"
        } else if self.threads == 0 || self.threads > Self::MAX_THREADS {
            "threads must be 1 to 64"
        } else if self.queue == 0 {
            "queue must be at least 1"
        } else if self.timeout.is_zero() {
            "timeout must be more than zero"
        } else {
            return Ok(());
        };
        Err(HsmError::Config(problem))
    }
}

/// How a token is told from the others of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSelector {
    /// By its `CK_TOKEN_INFO` label.
    Label(String),
    /// By its `CK_TOKEN_INFO` serial number.
    Serial(String),
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label:?}"),
            Self::Serial(serial) => write!(f, "serial {serial:?}"),
        }
    }
}

/// Whose IV AES-GCM wrapping uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapMode {
    /// The host's IV if the token takes it, else the token's own.
    Auto,
    /// The host chooses the IV (SoftHSM, Luna, nShield).
    HostIv,
    /// The token chooses the IV and writes it back (cloud HSMs, FIPS mode).
    TokenIv,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config() -> HsmConfig {
        HsmConfig {
            module: PathBuf::from("/usr/lib/module.so"),
            token: TokenSelector::Label("a".into()),
            pin: PinSource::file("/etc/pin"),
            wrap: WrapMode::Auto,
            threads: 2,
            queue: 8,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_sound_config_is_accepted() {
        config().check().unwrap();
    }

    #[test]
    fn each_unusable_value_is_named() {
        type Change = fn(&mut HsmConfig);
        let cases: [(Change, &str); 5] = [
            (|c| c.module = PathBuf::from("libsofthsm2.so"), "module"),
            (|c| c.threads = 0, "threads"),
            (|c| c.threads = 65, "threads"),
            (|c| c.queue = 0, "queue"),
            (|c| c.timeout = Duration::ZERO, "timeout"),
        ];
        for (change, name) in cases {
            let mut config = config();
            change(&mut config);
            assert!(config.check().unwrap_err().to_string().contains(name));
        }
    }
}
