//! The border between the rest of the product and a threshold signature scheme.
//!
//! Sessions, storage and policy know this trait and the types in it; which crate computes behind it is nobody else's
//! business. [`Cggmp21`](crate::ecdsa::Cggmp21) is the implementation for ECDSA on secp256k1.

use std::sync::Arc;

use crate::engine::{Engine, Session};
use crate::error::ExecutionId;
use crate::io::{Limits, Wiring};

/// A threshold signature scheme: distributed key generation and signing.
pub trait Scheme {
    /// The scheme's name in share headers and key certificates. Never reused for anything else.
    const ID: &'static str;
    /// What key generation leaves at one party.
    type DkgShare: Send + 'static;
    /// What one party signs with.
    type KeyShare: Send + Sync + 'static;
    /// What a quorum makes together.
    type Signature: Send + 'static;

    /// Starts a key generation.
    ///
    /// The last message may be altered on its way to one party while the others finish: a share becomes active only when
    /// all parties have confirmed the session's transcript, which is the caller's part.
    ///
    /// # Errors
    /// The session ends with an [`MpcError`](crate::MpcError) if the inputs do not fit together, a peer misbehaves or is
    /// silent, or a limit is reached. Then there is no share.
    fn dkg(engine: &Engine, params: DkgParams, limits: Limits, wiring: Wiring) -> Session<Self::DkgShare>;

    /// Starts a signing session among exactly `t` parties.
    ///
    /// # Errors
    /// As for [`dkg`](Self::dkg); a signature is returned only if it verifies against the key that was asked for.
    fn sign(
        engine: &Engine,
        params: SignParams<Self::KeyShare>,
        limits: Limits,
        wiring: Wiring,
    ) -> Session<Self::Signature>;
}

/// What a party brings to key generation.
#[derive(Debug, Clone, Copy)]
pub struct DkgParams {
    /// The run's execution id, never used before.
    pub execution_id: ExecutionId,
    /// This party's position in the ordered party list; it becomes the share's index.
    pub position: u16,
    /// How many of the parties sign together: `2 ≤ t ≤ n`.
    pub t: u16,
    /// How many parties there are.
    pub n: u16,
}

/// What a party brings to a signature.
pub struct SignParams<S> {
    /// The run's execution id, never used before.
    pub execution_id: ExecutionId,
    /// This party's position in `parties_at_keygen`.
    pub position: u16,
    /// For each signer, in this session's order, the index of its share: strictly ascending, exactly `t` of them.
    pub parties_at_keygen: Vec<u16>,
    /// This party's share.
    pub share: Arc<S>,
    /// The 32-byte message hash.
    ///
    /// # Security
    /// Only ever a hash that this appliance has computed itself from a decoded intent.
    pub digest: [u8; 32],
    /// Non-hardened child indices below the key (BIP-32 numbering, each below 2³¹), or `None` for the key itself.
    pub derivation_path: Option<Vec<u32>>,
}
