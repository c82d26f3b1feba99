//! Trials of the token's own keys before they are trusted with anything.

use cryptoki::error::RvError;
use sha2::{Digest, Sha256};

use crate::config::WrapMode;
use crate::error::{Fault, HsmError};
use crate::keys::KeyPurpose;
use crate::secret::Secret32;
use crate::session::OpenSession;
use crate::wrapped::{WrapAlgorithm, WrappedKey};

const CONTEXT: &[u8] = b"casemate/hsm/canary/v1";

/// Picks the configured way of wrapping, or the first that the token can do, and runs the canary with it.
pub(crate) fn probe_wrapping(session: &OpenSession, mode: WrapMode, kek_epoch: u32) -> Result<WrapAlgorithm, HsmError> {
    let candidates: &[WrapAlgorithm] = match mode {
        WrapMode::Auto => &[WrapAlgorithm::HostIv, WrapAlgorithm::TokenIv],
        WrapMode::HostIv => &[WrapAlgorithm::HostIv],
        WrapMode::TokenIv => &[WrapAlgorithm::TokenIv],
    };
    let mut tried = Vec::new();
    for &alg in candidates {
        match wrap(session, alg, kek_epoch) {
            Ok(()) => return Ok(alg),
            Err(Outcome::Unsupported(why)) => tried.push(format!("{}: {why}", alg.name())),
            Err(Outcome::Failed(error)) => return Err(error),
        }
    }
    Err(HsmError::WrapUnsupported { tried: tried.join("; ") })
}

enum Outcome {
    /// The token does not wrap in this way.
    Unsupported(HsmError),
    /// The token must not be used at all, or is gone.
    Failed(HsmError),
}

/// Round trip, and three alterations that must not open.
fn wrap(session: &OpenSession, alg: WrapAlgorithm, kek_epoch: u32) -> Result<(), Outcome> {
    // A constant, so that a token which keeps the zero IV never encrypts two different texts under it.
    let key = Secret32::fill(|bytes| bytes.fill(0x5a));
    let entry = session.wrap(alg, kek_epoch, CONTEXT, &key).map_err(|error| match error {
        HsmError::Canary { .. } => Outcome::Unsupported(error),
        HsmError::Call { ref source, .. } if refuses_mechanism(source.code()) => Outcome::Unsupported(error),
        _ => Outcome::Failed(error),
    })?;

    let mut altered_iv = entry.clone();
    flip(altered_iv.iv.as_mut());
    let mut altered_blob = entry.clone();
    flip(altered_blob.blob.as_mut());
    must_not_open(session, b"another context", &entry, "another AAD")?;
    must_not_open(session, CONTEXT, &altered_iv, "an altered IV")?;
    must_not_open(session, CONTEXT, &altered_blob, "an altered ciphertext")?;

    if alg == WrapAlgorithm::TokenIv {
        let second = session.wrap(alg, kek_epoch, CONTEXT, &key).map_err(Outcome::Failed)?;
        if second.iv == entry.iv {
            return Err(failed("it used one IV twice"));
        }
    }
    Ok(())
}

fn must_not_open(session: &OpenSession, context: &[u8], entry: &WrappedKey, what: &str) -> Result<(), Outcome> {
    match session.unwrap(context, entry) {
        Err(HsmError::Rejected) => Ok(()),
        Err(error) => Err(Outcome::Failed(error)),
        Ok(_) => Err(failed(&format!("it opened a wrapped key with {what}"))),
    }
}

/// A signature by the pair, which [`OpenSession::sign`] verifies against the pair's public key.
pub(crate) fn sign(session: &OpenSession, purpose: KeyPurpose) -> Result<(), HsmError> {
    session.sign(purpose, &Sha256::digest(CONTEXT).into()).map(drop).map_err(|error| match error {
        HsmError::BadSignature { id } => {
            HsmError::Canary { problem: format!("a signature by {id:?} does not verify under its public key") }
        }
        // A broken token is not the caller's request: say what does not work.
        HsmError::Call { ref source, .. } if error.fault() == Fault::Request => {
            HsmError::Canary { problem: format!("{:?} does not sign with CKM_ECDSA: {source}", purpose.id()) }
        }
        other => other,
    })
}

fn refuses_mechanism(code: Option<RvError>) -> bool {
    matches!(
        code,
        Some(
            RvError::MechanismInvalid
                | RvError::MechanismParamInvalid
                | RvError::ArgumentsBad
                | RvError::FunctionNotSupported
                | RvError::FunctionFailed
                | RvError::KeyFunctionNotPermitted
                | RvError::DataInvalid
                | RvError::DataLenRange
                | RvError::BufferTooSmall
        )
    )
}

fn failed(problem: &str) -> Outcome {
    Outcome::Failed(HsmError::Canary { problem: problem.to_owned() })
}

fn flip(bytes: &mut [u8]) {
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
}
