//! The appliance: `casemated`, the daemon, and `casemate`, the operator's tool.
//!
//! Read [`pipeline`] first: it is a request's whole life.
//!
//! | module | what it knows |
//! |---|---|
//! | [`pipeline`] | authenticate → understand → decide → commit → unseal → run → record → answer |
//! | [`session`] | live sessions: message stream, hello, phases of a protocol |
//! | [`http`] | routes, roles, bodies, problems |
//! | [`tls`], [`clients`] | who may connect, and who is who |
//! | [`store`], [`sealing`] | the database and audit log; how secrets lie in it |
//! | [`checkpoints`] | signed checkpoints of the own audit log |
//! | [`witness`] | what is known of the peers' audit logs |
//! | [`policy_slot`], [`till`] | the active policy bundle; what was spent within its windows |
//! | [`attestation`] | what this appliance says of itself, and what it thinks of what peers say |
//! | [`vault`] | the HSM, measured |
//! | [`mandate`] | what the policy quorum has signed: to begin a log anew, to restore |
//! | [`backup`] | all shares in one file, whose key is split among custodians; and back |
//! | [`primes`] | the pool of safe primes |
//! | [`daemon`] | start, supervise, stop |
//! | [`sandbox`] | which files and system calls the daemon can still use |
//! | [`clock`] | jumps of the wall clock |
//! | [`config`] | `casemate.toml` |
//! | [`metrics`] | what Prometheus reads |
//! | [`cli`] | the operator's commands |
//! | [`lab`] | several appliances and a coordinator on one machine |

pub mod attestation;
pub mod backup;
pub mod checkpoints;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod entries;
pub mod http;
pub mod kek;
pub mod lab;
pub mod mandate;
pub mod metrics;
pub mod pipeline;
pub mod policy_slot;
pub mod primes;
pub mod sandbox;
pub mod sealing;
pub mod session;
mod settle;
pub mod shares;
pub mod store;
pub mod till;
pub mod tls;
pub mod vault;
pub mod witness;

use casemate_wire::Digest32;
use sha2::{Digest, Sha256};

/// The name and version that the daemon shows.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn digest(bytes: &[u8]) -> Digest32 {
    Digest32(Sha256::digest(bytes).into())
}

/// What a leaf only commits to, with a fresh salt.
pub(crate) fn disclosure(detail: casemate_attest::Detail) -> casemate_attest::Disclosure {
    casemate_attest::Disclosure { salt: rand::random(), detail }
}

/// The wall clock as RFC 3339 text in UTC, whole milliseconds.
pub(crate) fn now_text() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Millisecond).unwrap_or(now).to_string()
}
