//! The store by its public face: what it promises about database, anchor and effect, and what it finds at a start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::similar_names,
    clippy::type_complexity,
    unreachable_pub,
    reason = "test code"
)]

mod anchoring;
mod beginning;
mod contract;
mod histories;
mod pruning;
mod recovering;
mod site;
mod standing;
mod tables;
mod writing;
