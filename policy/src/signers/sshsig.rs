//! One SSHSIG signature (OpenSSH's PROTOCOL.sshsig, as `ssh-keygen -Y sign` makes it), checked against who may sign.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey, SshSig};

use super::Namespace;
use super::allowed::{AllowedKey, AllowedSigners, Principal};

/// The longest armored signature that is looked at, in bytes. Those of the key types that are taken have under 1 KiB.
pub const MAX_SIGNATURE: usize = 4 * 1024;
/// The flag of a FIDO signature that says that someone touched the key (OpenSSH's PROTOCOL.u2f).
const USER_PRESENT: u8 = 1;

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// More bytes than a signature has.
    #[error("the signature is longer than {MAX_SIGNATURE} bytes")]
    TooLong,
    /// Not an armored SSHSIG.
    #[error("it is not a signature as `ssh-keygen -Y sign` makes it: {0}")]
    Malformed(String),
    /// Made for another use.
    #[error("it was made for the namespace {found:?}, not for `{wanted}`: sign with `-n {wanted}`")]
    Namespace {
        /// What the signature says.
        found: String,
        /// What it is needed for.
        wanted: Namespace,
    },
    /// Nobody's key.
    #[error("the key {fingerprint} is nobody's who may sign here")]
    UnknownKey {
        /// `SHA256:…`.
        fingerprint: String,
    },
    /// The line of `allowed_signers` does not allow this use.
    #[error("the key of {principal} is not allowed for `{namespace}`")]
    NotAllowed {
        /// Whose key it is.
        principal: Principal,
        /// What it is needed for.
        namespace: Namespace,
    },
    /// Before `valid-after`.
    #[error("the key of {principal} is valid from {from} on only")]
    NotYetValid {
        /// Whose key it is.
        principal: Principal,
        /// From when on.
        from: Timestamp,
    },
    /// After `valid-before`.
    #[error("the key of {principal} was valid until {until}: sign with a newer key")]
    Expired {
        /// Whose key it is.
        principal: Principal,
        /// Until when.
        until: Timestamp,
    },
    /// A FIDO key signed without being touched.
    #[error("the FIDO key signed without anyone touching it: make the key without `no-touch-required`")]
    NoUserPresence,
    /// The signature does not fit the bytes, or the key.
    #[error(
        "it does not fit what it is said to sign: the file was changed after it was signed, or another one was signed"
    )]
    Wrong,
}

/// Checks an armored signature over `message`, and finds out whose it is.
///
/// # Errors
/// [`SignatureError`] says why it does not count.
///
/// # Security
/// The key must stand in `allowed`, for this namespace, at this time. FIDO keys must have been touched.
pub fn verify<'a>(
    armored: &[u8],
    message: &[u8],
    namespace: Namespace,
    allowed: &'a AllowedSigners,
    now: Timestamp,
) -> Result<&'a AllowedKey, SignatureError> {
    let signature = parse(armored, namespace)?;
    let key = signature.public_key();
    let allowed = allowed.find(key).ok_or_else(|| SignatureError::UnknownKey { fingerprint: fingerprint(key) })?;
    let principal = || allowed.principal().clone();
    if !allowed.is_for(namespace) {
        return Err(SignatureError::NotAllowed { principal: principal(), namespace });
    }
    check(&signature, allowed.key(), message, namespace)?;
    if let Some(from) = allowed.valid_after().filter(|from| now < *from) {
        return Err(SignatureError::NotYetValid { principal: principal(), from });
    }
    if let Some(until) = allowed.valid_before().filter(|until| now > *until) {
        return Err(SignatureError::Expired { principal: principal(), until });
    }
    Ok(allowed)
}

/// Checks a signature that was just made, and returns the fingerprint of its key, `SHA256:…`. It says nothing about whether
/// that key may sign.
///
/// # Errors
/// As [`verify`], but for what it needs `allowed_signers` for.
pub fn fingerprint_of_signer(armored: &[u8], message: &[u8], namespace: Namespace) -> Result<String, SignatureError> {
    let signature = parse(armored, namespace)?;
    check(&signature, signature.public_key(), message, namespace)?;
    Ok(fingerprint(signature.public_key()))
}

fn parse(armored: &[u8], namespace: Namespace) -> Result<SshSig, SignatureError> {
    if armored.len() > MAX_SIGNATURE {
        return Err(SignatureError::TooLong);
    }
    let signature = SshSig::from_pem(armored).map_err(|error| SignatureError::Malformed(error.to_string()))?;
    if !has_exact_lengths(armored) {
        return Err(SignatureError::Malformed("its lengths do not fit what they are lengths of".into()));
    }
    // OpenSSH makes version 1 with nothing in the reserved field, and verifies nothing else.
    if signature.version() != SshSig::VERSION || !signature.reserved().is_empty() {
        return Err(SignatureError::Malformed("its version is not known here".into()));
    }
    if signature.namespace() != namespace.as_str() {
        let found = signature.namespace().chars().take(64).collect();
        return Err(SignatureError::Namespace { found, wanted: namespace });
    }
    Ok(signature)
}

fn check(signature: &SshSig, key: &KeyData, message: &[u8], namespace: Namespace) -> Result<(), SignatureError> {
    if signature.algorithm() != key.algorithm() {
        return Err(SignatureError::Malformed("the signature is of another type than its key".into()));
    }
    PublicKey::from(key.clone()).verify(namespace.as_str(), message, signature).map_err(|_| SignatureError::Wrong)?;
    match key {
        KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => user_present(signature.signature_bytes()),
        _ => Ok(()),
    }
}

/// A FIDO signature ends in one byte of flags and a counter of four.
fn user_present(bytes: &[u8]) -> Result<(), SignatureError> {
    match bytes.iter().rev().nth(4) {
        Some(flags) if flags & USER_PRESENT == USER_PRESENT => Ok(()),
        _ => Err(SignatureError::NoUserPresence),
    }
}

/// Whether every length inside says exactly what follows. The decoder takes longer ones, and then one signature would have
/// several forms.
fn has_exact_lengths(armored: &[u8]) -> bool {
    let exact = || -> Option<bool> {
        let text = std::str::from_utf8(armored).ok()?;
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = BASE64.decode(body).ok()?;
        // Preamble and version; then key, namespace, reserved, hash, signature.
        let (key, rest) = prefixed(bytes.get(10..)?)?;
        let rest = (0..3).try_fold(rest, |rest, _| Some(prefixed(rest)?.1))?;
        let (signature, end) = prefixed(rest)?;
        let (algorithm, rest) = prefixed(signature)?;
        let flags_and_counter = prefixed(rest)?.1.len();
        let expected = if algorithm.starts_with(b"sk-") { 5 } else { 0 };
        Some(end.is_empty() && flags_and_counter == expected && is_all_prefixed(key))
    };
    exact().unwrap_or(false)
}

/// The bytes behind a length of four bytes, and what follows them.
fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn is_all_prefixed(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((_, rest)) = prefixed(bytes) else { return false };
        bytes = rest;
    }
    true
}

fn fingerprint(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
