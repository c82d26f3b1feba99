//! Policy: what a request means, and whether this party takes part.
//!
//! Security staff write Cedar policies in a bundle ([`Bundle`]). A request to sign carries an intent, which [`intent`]
//! decodes into effects (what leaves, who is empowered) and ties to the 32-byte hash that would be signed. [`decide`]
//! evaluates the bundle once for every effect; all of them must be allowed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`intent`] | decoders, one file for each kind of intent; the proof token [`Understood`] |
//! | [`bundle`] | loading and sealing bundles: manifest, bounds, policies, `entities.json`, test cases |
//! | [`address`] | addresses of a key, for people |
//! | [`signers`] | people and their SSH keys; SSHSIG signatures; the quorum for bundles |
//! | [`approval`] | approval statements, and which of a request's approvals count |
//! | [`request`] | what policies see besides the effects |
//! | [`spend`], [`totals`] | the ledger of what keys have spent, and its sums over rolling windows |
//! | [`verdict`] | allowed or denied, with reasons |
//! | `evaluate` | one request in Cedar's terms, on a thread with a large stack |
//! | `explain` | what a refusing policy compared, beside what it saw |
//! | `full` | windows that count as full after the audit log was begun anew |
//! | `narrate` | effects in words for approvers |
//! | `amount` | u256 to Cedar's decimal, rounded up, saturating |
//!
//! Pure: no clock, no network; only bundle loading and sealing touch a folder.
//!
//! # Security
//! Everything that goes wrong is a refusal: no bundle, an evaluation error in any policy, a request that does not fit the
//! schema, a panic in the evaluator. Only [`decide`] can make an [`Allowed`].

pub mod address;
pub mod approval;
pub mod bundle;
pub mod intent;
pub mod request;
pub mod signers;
pub mod spend;
pub mod totals;
pub mod verdict;

mod amount;
mod counters;
mod evaluate;
mod explain;
mod full;
mod narrate;
mod stack;
mod tx;

pub use bundle::{Bundle, BundleError, Draft, SignedBundle};
pub use intent::{IntentError, Understood};
pub use request::{Action, Approvals, Client, KeyFacts, NewRoster, Request, Resource, SessionFacts, SlotFacts};
pub use signers::{AllowedSigners, Quorum, TrustAnchors};
pub use spend::{AlreadyReserved, AssetId, Charge, Ledger, Spending};
pub use totals::{Reserved, Signing, Totals};
pub use verdict::{Allowed, Denied, PolicyNote, Verdict};

/// The schema that policies are written against, as Cedar text.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// Its version, which a bundle's manifest names.
pub const SCHEMA_VERSION: u64 = 1;

/// Decides a request. Without a valid bundle everything is denied.
pub fn decide(bundle: Option<&Bundle>, request: &Request<'_>) -> Verdict {
    match bundle {
        Some(bundle) => bundle.decide(request),
        None => Verdict::Deny(Denied::no_bundle()),
    }
}
