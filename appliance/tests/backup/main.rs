//! Backups of real shares on real SoftHSM tokens: made, verified, restored on another token; and every way in which they are
//! refused. The custodians are real age identities.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, dead_code)]

#[path = "../../../hsm/tests/support/mod.rs"]
mod support;

mod attacks;
mod late;
mod making;
mod refusing;
mod restoring;
mod site;
mod verifying;
