//! How secrets lie at rest: `header ‖ wrapped DEKs ‖ body`.
//!
//! Every sealed object has a fresh 256-bit DEK, wrapped by the HSM and encrypted to each recovery HSM that the policy bundle
//! names; the body is AES-256-GCM under it. The header is
//! authenticated by both: by the body (AAD = SHA-256(header)) and by each wrapped DEK. Whoever changes a header makes
//! the object unreadable.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use casemate_hsm::{HsmError, Secret32};
use casemate_wire::stack;
use rand::RngCore;
use rand::rngs::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::entries::{DekEntries, DekEntry};
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
    let mut entries = DekEntries::default();
    entries.push(DekEntry::Kek(hsm.wrap(&context, &dek).await?));
    for recipient in hsm.recipients().iter() {
        let entry = hsm.wrap_for_recovery(recipient, &context, &dek).await?;
        entries.push(DekEntry::Recovery(Box::new(entry)));
    }
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    let body = cipher(&dek)
        .encrypt(Nonce::from_slice(&nonce), Payload { msg: plain, aad: &context })
        .map_err(|_| SealError::Damaged { what: "object", why: "it is too large to seal" })?;
    Ok(SealedColumns { header, deks: cbor(&entries)?, nonce, body })
}

/// Opens what [`seal`] made, and checks header, DEK and body.
///
/// # Errors
/// Says that the HSM is away, or that something was altered.
pub async fn open(hsm: &Vault, what: &'static str, sealed: &SealedColumns) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let damaged = |why| SealError::Damaged { what, why };
    let context = Sha256::digest(&sealed.header);
    let entries = DekEntries::read(&sealed.deks).ok_or(damaged("its wrapped keys cannot be read"))?;
    let dek = match unwrap_any(hsm, &context, &entries).await? {
        Unwrapped::Key(dek) => dek,
        Unwrapped::Rejected => return Err(damaged("its wrapped key does not belong to its header")),
        Unwrapped::OtherHsm(unknown) => return Err(unknown.into()),
        Unwrapped::Nothing => return Err(damaged("it has no wrapped key")),
    };
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

/// What came of the entries of one object.
pub(crate) enum Unwrapped {
    /// One of them opens here.
    Key(Secret32),
    /// One names a KEK that is here, and does not open under it.
    Rejected,
    /// None names a KEK that is here.
    OtherHsm(HsmError),
    /// There is none under a KEK.
    Nothing,
}

/// The DEK by the first entry that opens on this HSM: another HSM's entries may stand beside its own, under the same names.
///
/// # Errors
/// The HSM is away.
pub(crate) async fn unwrap_any(hsm: &Vault, context: &[u8], entries: &DekEntries) -> Result<Unwrapped, HsmError> {
    let mut outcome = Unwrapped::Nothing;
    for entry in entries.keks() {
        match hsm.unwrap(context, entry).await {
            Ok(dek) => return Ok(Unwrapped::Key(dek)),
            Err(HsmError::Rejected) => outcome = Unwrapped::Rejected,
            Err(unknown @ HsmError::UnknownKek { .. }) => {
                if matches!(outcome, Unwrapped::Nothing) {
                    outcome = Unwrapped::OtherHsm(unknown);
                }
            }
            Err(away) => return Err(away),
        }
    }
    Ok(outcome)
}

/// Which KEK the object's first DEK is wrapped by.
pub fn kek_of(sealed: &SealedColumns) -> String {
    let entries = DekEntries::read(&sealed.deks).unwrap_or_default();
    entries.keks().next().map(|entry| entry.kek_id.clone()).unwrap_or_default()
}

/// AES-256-GCM under a key, of which nothing stays on the stack.
pub(crate) struct Cipher<'a>(&'a Secret32);

pub(crate) fn cipher(key: &Secret32) -> Cipher<'_> {
    Cipher(key)
}

impl Cipher<'_> {
    pub(crate) fn encrypt(&self, nonce: &Nonce<U12>, payload: Payload<'_, '_>) -> aes_gcm::aead::Result<Vec<u8>> {
        stack::wiped(|| Aes256Gcm::new(self.0.expose().into()).encrypt(nonce, payload))
    }

    pub(crate) fn decrypt(&self, nonce: &Nonce<U12>, payload: Payload<'_, '_>) -> aes_gcm::aead::Result<Vec<u8>> {
        stack::wiped(|| Aes256Gcm::new(self.0.expose().into()).decrypt(nonce, payload))
    }
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
