//! What the rest of Casemate may rely on, shown on a real SoftHSM token and, for what SoftHSM never does, on SoftHSM
//! behind a module that fails on demand (`tests/support/faulty_module.c`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod anchor_faults;
mod anchors;
mod canaries;
mod keks;
mod limits;
mod opening;
mod pin_file;
mod pins;
mod provisioning;
mod raw;
mod recovery;
mod recovery_keys;
mod signing;
mod unfit_keys;
mod wrapping;
