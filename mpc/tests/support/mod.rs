//! What the tests of key generation and signing share: a simulated network with a man in the middle, and committees with
//! their auxiliary info dealt.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod alter;
pub mod committee;
pub mod network;
pub mod reshare;
pub mod tamper;

use casemate_mpc::ExecutionId;
use k256::ecdsa::VerifyingKey;
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use rand::RngCore;

/// A fresh execution id.
pub fn execution_id() -> ExecutionId {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    ExecutionId::new(bytes)
}

/// Verifies a signature with nothing but its public parts.
pub fn is_valid(signature: &casemate_mpc::Signature, public_key: &[u8; 33], digest: &[u8; 32]) -> bool {
    let key = VerifyingKey::from_sec1_bytes(public_key).expect("a key");
    let parsed = k256::ecdsa::Signature::from_scalars(*signature.r(), *signature.s()).expect("scalars");
    let recovery = k256::ecdsa::RecoveryId::from_byte(signature.v()).expect("0 or 1");
    key.verify_prehash(digest, &parsed).is_ok()
        && VerifyingKey::recover_from_prehash(digest, &parsed, recovery).ok().as_ref() == Some(&key)
}
