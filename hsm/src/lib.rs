//! The only user of PKCS#11 in Casemate.
//!
//! One [`Hsm`] stands for one token. It finds the token and its keys, refuses to open unless every key is what
//! `FORMATS.md` ("Keys in the HSM") asks for, and then does five things: [wrap](Hsm::wrap) and [unwrap](Hsm::unwrap)
//! data encryption keys under the token's KEK, [sign](Hsm::sign) with the token's P-256 keys, give
//! [random bytes](Hsm::random), and keep the [anchor](Hsm::put_anchor) of the audit log.
//!
//! Calls into the module run on named threads (`hsm-0`, `hsm-1`, …; `hsm-watch` watches the token) behind a bounded
//! queue and a time limit, so that a slow or hung HSM never holds the caller's runtime. A lost session is reopened and
//! the call tried once more; a lost token makes the HSM [unavailable](HsmState::Unavailable) until it is back; a
//! refused PIN is never tried twice.
//!
//! [`init_token`] and [`init_keys`] make what [`Hsm::open`] expects; [`new_kek`] and [`destroy_kek`] are the two ends of a
//! KEK's life. A recovery HSM is another token, with one RSA pair that [`init_recovery`] makes: any [`Hsm`] wraps
//! [for it](Hsm::wrap_for_recovery), and [`RecoveryHsm`] opens that.

mod anchor;
mod anchor_objects;
mod canary;
mod config;
mod error;
mod facts;
mod handle;
mod kek;
mod keys;
mod login;
mod module;
mod pin;
mod profile;
mod provision;
mod queue;
mod recovery;
mod recovery_entry;
mod secret;
mod session;
mod state;
mod token;
mod watch;
mod worker;
mod wrapped;

pub use anchor::Anchor;
pub use config::{HsmConfig, TokenSelector, WrapMode};
pub use error::{HsmError, TokenError};
pub use handle::Hsm;
pub use kek::{destroy_kek, new_kek};
pub use keys::{KeyPurpose, KeyStatus};
pub use pin::{Pin, PinError, PinKind, PinSource};
pub use profile::HsmStatus;
pub use provision::{CreatedKey, init_keys, init_keys_from, init_token};
pub use recovery::{RecoveryHsm, init_recovery};
pub use recovery_entry::{RecoveryAlgorithm, RecoveryEntry};
pub use secret::Secret32;
pub use state::HsmState;
pub use token::TokenDescription;
pub use wrapped::{WrapAlgorithm, WrappedKey};
