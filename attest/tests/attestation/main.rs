//! Attestation tokens from outside: what is accepted, what is refused, and what an appraiser finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod appraising;
mod forging;
mod form;
mod quotes;
mod support;
