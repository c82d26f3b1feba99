//! The whole system: real daemons, real SoftHSM tokens, real TLS, real files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod approvals;
mod attacks_on_keygen;
mod attacks_on_signing;
mod attestation;
mod audit;
mod backups;
mod bodies;
mod children;
mod configuration;
mod crashes;
mod custodians;
mod disk;
mod end_to_end;
mod evidence_routes;
mod hardware_change;
mod join_tokens;
mod keks;
mod lineage;
mod load;
mod lying_peer;
mod lying_witness;
mod pending_shares;
mod policy;
mod policy_reload;
mod receipts;
mod recovery;
mod relayed_sessions;
mod repeated_calls;
mod restored;
mod revoking;
mod rotating_accounts;
mod rotation;
mod rotation_crashes;
mod session_commands;
mod spending;
mod start;
mod store_trouble;
mod tls_renewal;
mod transport;
mod witnesses;
