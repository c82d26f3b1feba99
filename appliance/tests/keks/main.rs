//! The life of KEKs on real SoftHSM tokens: every row opens at every moment, and nothing opens that should not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, dead_code)]

#[path = "../../../hsm/tests/support/mod.rs"]
mod support;

mod crashing;
mod logging;
mod moving;
mod recovering;
mod retiring;
mod rewrapping;
mod site;
