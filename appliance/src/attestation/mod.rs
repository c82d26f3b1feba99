//! What this appliance says of itself, and what it thinks of what others say. The form of a token, and what verifies
//! one, is in `casemate_attest::attestation`.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | a token, from the state of this moment |
//! | `measured.rs` | what is measured once, at the start |
//! | `peers.rs` | a peer's token against what is pinned of that peer |

mod measured;
mod peers;

use std::time::Duration;

use casemate_attest::attestation::{
    AttestKey, AuditClaim, Claims, InvalidClaims, InvalidNonce, KekClaim, MAX_LIFETIME, Measurements, Nonce, Nonces,
    Quote, TokenClaim, Ueid, hardware_model, now_in_seconds,
};
use casemate_attest::{Checkpoint, Text};
use casemate_hsm::{HsmError, KeyPurpose};
use casemate_tpm::TpmError;
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::VERSION;
use crate::daemon::Node;

pub use measured::{Measured, MeasuringError};
pub(crate) use measured::{program, tls_spki};
pub use peers::{PeerAppraisal, appraise};

/// The longest wait for the TPM, and for those who asked it before.
const TPM_LIMIT: Duration = Duration::from_secs(15);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The nonces cannot stand in a token.
    #[error(transparent)]
    Nonce(#[from] InvalidNonce),
    /// The own log does not stand as it must, so nothing is signed of it.
    #[error("the attestation cannot be made: the audit log is in quarantine; health says why")]
    Quarantined,
    /// The HSM did not sign it.
    #[error("the attestation cannot be signed: {0}")]
    Hsm(#[from] HsmError),
    /// The configured TPM gave no quote: a token without it would say less than it should.
    #[error("the attestation cannot be made: {0}")]
    Tpm(#[from] TpmError),
    /// The TPM does not answer in time.
    #[error("the attestation cannot be made: the TPM did not answer within {} s", TPM_LIMIT.as_secs())]
    TpmLate,
    /// The claims do not fit into a token.
    #[error("the attestation cannot be made: {0}")]
    Claims(#[from] InvalidClaims),
    /// The attest key of the HSM cannot be used.
    #[error("the attestation cannot be signed: {0}")]
    Key(#[from] casemate_attest::attestation::InvalidAttestKey),
}

/// A token that answers these nonces, of this moment, signed by the HSM.
///
/// # Errors
/// Bad nonces, or that HSM or TPM did not do their part.
pub async fn token(node: &Node, nonces: &[Vec<u8>]) -> Result<Vec<u8>, AttestError> {
    let head = Checkpoint::of(&node.store.audit_head());
    token_at(node, nonces, &head).await
}

/// The same, that says of the audit log where it stood at `place`, which it has signed: whoever is shown both can compare
/// them.
///
/// # Errors
/// As [`token`].
pub(crate) async fn token_at(node: &Node, nonces: &[Vec<u8>], place: &Checkpoint) -> Result<Vec<u8>, AttestError> {
    if node.store.quarantine().is_some() {
        return Err(AttestError::Quarantined);
    }
    let nonces = nonces.iter().map(|nonce| Nonce::new(nonce.as_slice())).collect::<Result<Vec<_>, _>>()?;
    let nonces = Nonces::new(nonces)?;
    let key = attest_key(node)?;
    let quote = quote(node, &nonces, &key).await?;
    let unsigned = claims(node, nonces, quote, place, Timestamp::now()).unsigned(&key)?;
    let signature = node.hsm.sign(KeyPurpose::Attest, unsigned.to_sign()).await?;
    Ok(unsigned.signed(&signature)?)
}

/// The HSM's attest key.
///
/// # Errors
/// The HSM holds none that can be used, which it checks when it is opened.
pub fn attest_key(node: &Node) -> Result<AttestKey, AttestError> {
    Ok(AttestKey::from_spki(&node.hsm.public_key(KeyPurpose::Attest))?)
}

fn claims(node: &Node, nonces: Nonces, quote: Option<Quote>, place: &Checkpoint, now: Timestamp) -> Claims {
    let hsm = node.hsm.status();
    let issued_at = now_in_seconds(now);
    let measured = &node.measured;
    let policy = node.policy.active().map(|active| active.bundle().digest());
    Claims {
        nonces,
        issued_at,
        expires_at: issued_at.saturating_add(SignedDuration::from_secs(MAX_LIFETIME)).unwrap_or(issued_at),
        ueid: Ueid::of(&node.identity),
        hwmodel: hardware_model(&hsm.token.manufacturer, &hsm.token.model),
        boots: node.store.audit_head().boot(),
        version: Text::fitted(VERSION),
        measurements: Measurements { binary: measured.binary, config: node.config.digest, policy },
        party: node.config.party.clone(),
        audit: audit_claim(place),
        token: TokenClaim {
            model: Text::fitted(&hsm.token.model),
            serial: Text::fitted(&hsm.token.serial),
            firmware: Text::fitted(&hsm.token.firmware),
        },
        kek: KekClaim { label: Text::fitted(&hsm.kek_id), epoch: hsm.kek_epoch },
        tls_spki: node.tls.current().spki(),
        quote,
    }
}

/// Where the audit log stands, as a token says it.
fn audit_claim(place: &Checkpoint) -> AuditClaim {
    AuditClaim { origin: place.log.clone(), size: place.size, root: place.root }
}

/// The TPM answers in its own time, so off the network threads.
async fn quote(node: &Node, nonces: &Nonces, key: &AttestKey) -> Result<Option<Quote>, AttestError> {
    let Some(tpm) = node.config.attestation.tpm.clone() else { return Ok(None) };
    let (nonces, key, turns) = (nonces.clone(), key.clone(), node.measured.tpm.clone());
    let asking = async {
        // One at a time: a TPM does one thing after the other, and a device without resource manager takes one caller. The
        // turn ends with the TPM's answer, not with our patience, so that a stuck TPM holds one thread and no more.
        let turn = turns.lock_owned().await;
        let asked = tokio::task::spawn_blocking(move || {
            let quoted = tpm.quote(&nonces, &key);
            drop(turn);
            quoted
        });
        asked.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    };
    let quoted = timeout(TPM_LIMIT, asking).await.map_err(|_| AttestError::TpmLate)?;
    Ok(Some(quoted?))
}
