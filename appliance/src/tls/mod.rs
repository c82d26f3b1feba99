//! TLS: version 1.3 only, a client certificate on every connection.
//!
//! | file | what it holds |
//! |---|---|
//! | `material.rs` | certificate, key, CA and list of revoked certificates, read and checked as one |
//! | `checks.rs` | what is checked of them, beyond what rustls does |
//! | `lifetime.rs` | until when they hold, and from when on that is a worry |
//! | `slot.rs` | what is in use; reading the files anew while the daemon runs |

mod checks;
mod lifetime;
mod material;
mod slot;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use lifetime::{Lifetime, What};
pub use material::Material;
pub use slot::{Looked, TlsSlot};
pub(crate) use slot::{distrusted, keep_fresh};

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not hold what it should.
    #[error("cannot use {what} {}: {why}", path.display())]
    File {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to try.
        why: String,
    },
    /// The files do not fit together.
    #[error("the TLS files do not fit together: {0}; check that certificate and key belong to each other")]
    Setup(String),
}
