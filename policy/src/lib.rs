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
//! | [`request`] | what policies see besides the effects |
//! | [`verdict`] | allowed or denied, with reasons |
//! | `evaluate` | one request in Cedar's terms, on a thread with a large stack |
//! | `narrate` | effects in words for approvers |
//! | `amount` | u256 to Cedar's decimal, rounded up, saturating |
//!
//! Pure: no clock, no network; only bundle loading and sealing touch a folder.
//!
//! # Security
//! Everything that goes wrong is a refusal: no bundle, an evaluation error in any policy, a request that does not fit the
//! schema, a panic in the evaluator. Only [`decide`] can make an [`Allowed`].

pub mod bundle;
pub mod intent;
pub mod request;
pub mod verdict;

mod amount;
mod evaluate;
mod narrate;
mod stack;
mod tx;

pub use bundle::{Bundle, BundleError};
pub use intent::{IntentError, Understood};
pub use request::{Action, Approvals, Client, KeyFacts, Request, Resource, SessionFacts, SlotFacts};
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
