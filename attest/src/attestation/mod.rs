//! Attestation: what an appliance says of itself, fresh for a nonce and signed by its HSM's `attest` key.
//!
//! An Entity Attestation Token (EAT, RFC 9711) as a CBOR Web Token in COSE_Sign1 (RFC 9052), in the profile that
//! `docs/attestation.md` states. Pure: callers bring the time, the nonce and the signature.
//!
//! ```text
//! Claims ─ unsigned(key) ─► Unsigned ─ signed(signature) ─► token bytes
//! token bytes ─ Verified::check(expected) ─► Verified ─ Reference::appraise ─► Appraisal
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `claims.rs` | what a token says |
//! | `nonce.rs` | what makes it fresh |
//! | `key.rs` | the key that signs it |
//! | `cbor.rs`, `encode.rs`, `decode.rs` | claims ⇄ deterministic CBOR |
//! | `token.rs` | the COSE_Sign1 around them |
//! | `verify.rs` | whose token it is, and whether it is fresh |
//! | `quote.rs` | the TPM quote in it |
//! | `reference.rs`, `appraisal.rs` | what it should say, and how it differs |
//! | `show.rs` | claims for people |
//!
//! # What a token proves
//! That whoever could use the HSM's `attest` key said this, after the nonce was made. It does not prove that the host
//! told the truth about itself: see `docs/threat-model.md`.

mod appraisal;
mod cbor;
mod claims;
mod decode;
mod encode;
mod key;
mod nonce;
mod quote;
mod reference;
mod show;
mod token;
mod verify;

pub use appraisal::{Appraisal, Finding};
pub use claims::{AuditClaim, Claims, InvalidClaims, KekClaim, MAX_LIFETIME, Measurements, TokenClaim, Ueid};
pub use claims::{hardware_model, now_in_seconds};
pub use key::{AttestKey, InvalidAttestKey};
pub use nonce::{InvalidNonce, Nonce, Nonces};
pub use quote::{Quote, QuoteError, QuoteInfo, qualifying_data};
pub use reference::{InvalidReference, KekReference, Reference, TokenReference, TpmReference};
pub use show::describe;
pub use token::{MEDIA_TYPE, PROFILE, Unsigned};
pub use verify::{Expected, MAX_TOKEN, TokenError, Unverified, Verified};
