//! Bytes and types that the appliance and the coordinator share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | session, party and key identifiers; each is validated by its one constructor |
//! | [`roster`] | who takes part in a session, in which order, pinned by which identity key |
//! | [`token`] | the join token: claims, signing, strict verification |
//! | [`api`] | HTTP bodies of the appliance's participate calls, session and share views |
//! | [`derivation`] | the path from a key to a child key |
//! | [`problem`] | RFC 9457 problem details with the product's stable codes |
//! | [`frame`] | length-prefixed frames of the message stream |
//! | [`envelope`] | hello, transcript, signed and sealed session messages |
//! | [`signature`] | an ECDSA signature with its recovery id, and its verification |
//! | [`certificate`] | the key certificate: n identity signatures over one public key |
//! | [`stack`] | overwrites what work with secrets leaves on the stack |
//! | [`rotation`] | rotations: dealers and their places, what proves that a key has moved on |

pub mod api;
pub mod certificate;
pub mod derivation;
pub mod envelope;
pub mod frame;
pub mod ids;
pub mod lineage;
pub mod problem;
mod recovery_key;
pub mod roster;
pub mod rotation;
pub mod signature;
pub mod stack;
#[cfg(test)]
mod testing;
pub mod token;

pub use api::Intent;
pub use certificate::{KeyCertificate, KeyStatement};
pub use derivation::DerivationPath;
pub use ids::{Digest32, IdentityKey, PartyId, PublicKey, SessionId, SessionType, ShareType};
pub use lineage::Committee;
pub use problem::{Code, Problem};
pub use recovery_key::RecoveryKey;
pub use roster::{Member, Roster, Threshold};
pub use rotation::{Rotation, Succession};
pub use signature::EcdsaSignature;
