//! Backups: all shares of an appliance in one file, whose key is split among custodians.
//!
//! ```text
//! rows ─ make ─► file ─ Backup::read ─► Backup ─ open (k pieces) ─► Opened ─ check ─► Checked
//!                                                     Checked + Mandate ─ restore ─► rows, `restored`
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `format.rs` | the file: its fields, its one encoding, what proves it |
//! | `custody.rs` | the pieces of its key: split, encrypted to custodians, put together again |
//! | `make.rs` | how a backup is made: DEKs pass through memory, share bodies stay sealed |
//! | `check.rs` | every share opened, loaded and compared with what is said of it |
//! | `restore.rs` | the shares of a backup under this host's KEK, in one transaction |
//!
//! # Security
//! Whoever holds a backup and enough pieces has this party's shares. The recipients of pieces come from the signed policy bundle
//! alone. A backup does not hold what must not come back: primes, spend, used tokens, the audit log.

mod check;
mod custody;
mod format;
mod make;
mod restore;

pub use check::{Checked, Opened, ShareReport, ShareVerdict};
pub use custody::{CustodyError, Keyring, MAX_PIECE};
pub use format::{Backup, BackupId, BundleName, Custodian, Entry, FormatError, Head, Known, MAX_FILE, Proof};
pub use make::{Made, Source, make};
/// A restore statement that the policy quorum signed.
pub type Mandate = crate::mandate::Mandate<casemate_attest::restoration::Statement>;
/// Why there is none.
pub type MandateError = crate::mandate::MandateError<casemate_attest::restoration::RestorationError>;

pub use restore::{LeftOut, Plan, RestoreError, Restored};

use casemate_hsm::HsmError;

use crate::sealing::SealError;

/// Why no backup was made, or why one does not open.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The pieces of its key.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// The HSM is away.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// A share that is stored does not open, so that a backup would lack it.
    #[error("the share {share} cannot be backed up: {why}")]
    Share {
        /// Its id.
        share: String,
        /// Why.
        why: SealError,
    },
    /// There is nothing to back up.
    #[error("this appliance holds no shares, so there is nothing to back up")]
    Nothing,
}
