//! The whole system: real daemons, real SoftHSM tokens, real TLS, real files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod attacks_on_signing;
mod bodies;
mod join_tokens;
mod relayed_sessions;
mod repeated_calls;
mod transport;
