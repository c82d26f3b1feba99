//! How secrets lie at rest: `header ‖ wrapped DEKs ‖ body`.
//!
//! Every sealed object has a fresh 256-bit DEK, wrapped by the HSM; the body is AES-256-GCM under it. The header is
//! authenticated by both: by the body (AAD = SHA-256(header)) and by each wrapped DEK. Whoever changes a header makes
//! the object unreadable.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use casemate_hsm::{HsmError, Secret32, WrappedKey};
use rand::RngCore;
use rand::rngs::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::store::SealedColumns;
use crate::vault::Vault;

/// Why an object could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The HSM refused or is away.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The stored bytes are not what was sealed.
    #[error("the sealed {what} has been altered or damaged: {why}; restore it from a backup")]
    Damaged {
        /// What was being opened.
        what: &'static str,
        /// Where it failed.
        why: &'static str,
    },
}

/// Seals `plain` under a fresh DEK. `header` is any serializable value; it stays readable and is authenticated.
///
/// # Errors
/// Says that the HSM could not wrap.
pub async fn seal<H: Serialize>(hsm: &Vault, header: &H, plain: &[u8]) -> Result<SealedColumns, SealError> {
    let header = cbor(header)?;
    let context = Sha256::digest(&header);
    let dek = Secret32::random()?;
    let wrapped = hsm.wrap(&context, &dek).await?;
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    let body = cipher(&dek)
        .encrypt(Nonce::from_slice(&nonce), Payload { msg: plain, aad: &context })
        .map_err(|_| SealError::Damaged { what: "object", why: "it is too large to seal" })?;
    Ok(SealedColumns { header, deks: cbor(&[wrapped])?, nonce, body })
}

/// Opens what [`seal`] made, and checks header, DEK and body.
///
/// # Errors
/// Says that the HSM is away, or that something was altered.
pub async fn open(hsm: &Vault, what: &'static str, sealed: &SealedColumns) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let damaged = |why| SealError::Damaged { what, why };
    let context = Sha256::digest(&sealed.header);
    let entries: Vec<WrappedKey> = read_cbor(&sealed.deks).ok_or(damaged("its wrapped keys cannot be read"))?;
    let entry = entries.first().ok_or(damaged("it has no wrapped key"))?;
    let dek = hsm.unwrap(&context, entry).await.map_err(|error| match error {
        HsmError::Rejected => damaged("its wrapped key does not belong to its header"),
        error => SealError::Hsm(error),
    })?;
    cipher(&dek)
        .decrypt(Nonce::from_slice(&sealed.nonce), Payload { msg: &sealed.body, aad: &context })
        .map(Zeroizing::new)
        .map_err(|_| damaged("its body does not belong to its header and key"))
}

/// Reads a header without proving it; [`open`] proves it.
///
/// # Errors
/// Says that it is not such a header.
pub fn header<H: DeserializeOwned>(what: &'static str, header: &[u8]) -> Result<H, SealError> {
    read_cbor(header).ok_or(SealError::Damaged { what, why: "its header cannot be read" })
}

/// Which KEK the object's first DEK is wrapped by.
pub fn kek_of(sealed: &SealedColumns) -> String {
    let entries: Vec<WrappedKey> = read_cbor(&sealed.deks).unwrap_or_default();
    entries.first().map(|entry| entry.kek_id.clone()).unwrap_or_default()
}

fn cipher(dek: &Secret32) -> Aes256Gcm {
    Aes256Gcm::new(dek.expose().into())
}

fn cbor<T: Serialize>(value: &T) -> Result<Vec<u8>, SealError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .map_err(|_| SealError::Damaged { what: "object", why: "its header cannot be encoded" })?;
    Ok(bytes)
}

fn read_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).ok()?;
    rest.is_empty().then_some(value)
}
