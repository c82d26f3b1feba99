//! The life of the KEKs, as the appliance sees it.
//!
//! | file | what it holds |
//! |---|---|
//! | `ledger.rs` | what the audit log says of the KEKs |
//! | `plan.rs` | what every row's entries are to be, and one row's way there |
//! | `rewrap.rs` | all rows, in bounded transactions, resumable |
//! | `trace.rs` | what the audit log is told of a re-wrapping: before its first row, and after its last |
//! | `retire.rs` | whether nothing needs an old KEK, and the rows on each |

mod ledger;
mod plan;
mod retire;
mod rewrap;
mod trace;

pub use ledger::{Ledger, LedgerError};
pub use plan::{NewEntries, Plan, Renewal};
pub use retire::{Holders, Needed, epoch_taken, holders, needing};
pub use rewrap::{Damaged, Report, Rewrap, Step};

use casemate_hsm::HsmError;

use crate::store::StoreError;

/// Why the work on KEKs and entries stopped. What was done stays done; the same command goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The HSM refused or is away.
    #[error("{0}; nothing is lost, run it again")]
    Hsm(#[from] HsmError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Entries could not be encoded.
    #[error("the wrapped keys of {0} cannot be encoded")]
    Encoding(String),
}
