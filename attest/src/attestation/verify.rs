//! Whose token it is, and whether it is fresh for the nonce of whoever asks.

use std::time::Duration;

use casemate_wire::{Digest32, PartyId};
use jiff::{SignedDuration, Timestamp};

use super::cbor::Bad;
use super::claims::Claims;
use super::decode;
use super::key::AttestKey;
use super::nonce::Nonce;
use super::quote::{QuoteError, QuoteInfo};
use super::token::Envelope;

/// The longest token that is read, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// What makes a token the one that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The appliance that was asked.
    pub party: &'a PartyId,
    /// Its attest key.
    pub key: &'a AttestKey,
    /// The nonce of the question.
    pub nonce: &'a Nonce,
    /// The time now.
    pub now: Timestamp,
    /// The clock difference that is tolerated.
    pub skew: Duration,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any appliance makes one.
    #[error("the token has more than {MAX_TOKEN} bytes")]
    TooLong,
    /// No token of this profile.
    #[error("it is not an attestation token of this profile: {0}")]
    Malformed(String),
    /// It names another key.
    #[error("it is signed by the key with the fingerprint {found}, not by {expected}; was the HSM changed?")]
    OtherKey {
        /// The fingerprint of the expected key.
        expected: Digest32,
        /// That in the token.
        found: Digest32,
    },
    /// The signature is not the key's.
    #[error("its signature does not verify: it was changed")]
    Signature,
    /// Made for another question.
    #[error("it does not answer the nonce {0}: it was made for another question")]
    OtherNonce(Nonce),
    /// Over.
    #[error("it expired at {expired}, and it is {now} now; ask again, and compare the clocks")]
    Expired {
        /// Its end.
        expired: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// Not begun.
    #[error("it was made at {made}, but it is only {now} now; compare the clocks")]
    FromTheFuture {
        /// Its beginning.
        made: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// Another appliance.
    #[error("it is of {found}, not of {expected}")]
    OtherParty {
        /// Who was asked.
        expected: PartyId,
        /// Who answered.
        found: PartyId,
    },
    /// The TPM's part proves nothing.
    #[error("its TPM quote proves nothing: {0}")]
    Quote(#[from] QuoteError),
}

/// What somebody claims; nothing was checked but the form.
#[derive(Debug, Clone)]
pub struct Unverified {
    /// The claims.
    pub claims: Claims,
    /// The fingerprint of the key that is said to have signed them.
    pub key_id: Digest32,
}

/// The claims of a token that the expected key signed for the expected nonce, and that is good now. It comes from
/// [`Verified::check`] alone.
#[derive(Debug, Clone)]
pub struct Verified {
    claims: Claims,
    key: AttestKey,
    quote: Option<QuoteInfo>,
}

impl Unverified {
    /// Reads a token.
    ///
    /// # Errors
    /// It is not one of this profile.
    ///
    /// # Security
    /// Anybody can make such a token: show it as a claim, and decide nothing by it.
    pub fn read(token: &[u8]) -> Result<Self, TokenError> {
        let envelope = envelope(token)?;
        let claims = decode::claims(envelope.payload()).map_err(malformed)?;
        Ok(Self { claims, key_id: Digest32(envelope.key_id()) })
    }
}

impl Verified {
    /// Checks the signature, then form, nonce, times, party and the TPM's quote if there is one.
    ///
    /// # Errors
    /// The first thing that keeps the token from being what was asked for.
    ///
    /// # Security
    /// It says who speaks and when, not whether what they say is as it should be: for that, [`super::Reference`].
    pub fn check(token: &[u8], expected: &Expected<'_>) -> Result<Self, TokenError> {
        let envelope = envelope(token)?;
        let (found, fingerprint) = (Digest32(envelope.key_id()), expected.key.fingerprint());
        if found != fingerprint {
            return Err(TokenError::OtherKey { expected: fingerprint, found });
        }
        if !envelope.is_signed_by(expected.key) {
            return Err(TokenError::Signature);
        }
        let claims = decode::claims(envelope.payload()).map_err(malformed)?;
        if claims.party != *expected.party {
            return Err(TokenError::OtherParty { expected: expected.party.clone(), found: claims.party });
        }
        if !claims.nonces.answer(expected.nonce) {
            return Err(TokenError::OtherNonce(expected.nonce.clone()));
        }
        in_time(&claims, expected.now, expected.skew)?;
        let quote = claims.quote.as_ref().map(|quote| quote.verify(&claims.nonces, expected.key)).transpose()?;
        Ok(Self { claims, key: expected.key.clone(), quote })
    }

    /// What the appliance says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The key that signed it.
    pub fn key(&self) -> &AttestKey {
        &self.key
    }

    /// What the TPM says of its start-ups.
    pub fn quote(&self) -> Option<&QuoteInfo> {
        self.quote.as_ref()
    }
}

fn in_time(claims: &Claims, now: Timestamp, skew: Duration) -> Result<(), TokenError> {
    let skew = SignedDuration::try_from(skew).unwrap_or(SignedDuration::ZERO);
    let latest_start = now.saturating_add(skew).unwrap_or(now);
    let earliest_end = now.saturating_sub(skew).unwrap_or(now);
    if claims.issued_at > latest_start {
        return Err(TokenError::FromTheFuture { made: claims.issued_at, now });
    }
    if claims.expires_at <= earliest_end {
        return Err(TokenError::Expired { expired: claims.expires_at, now });
    }
    Ok(())
}

fn envelope(token: &[u8]) -> Result<Envelope, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    Envelope::read(token).map_err(malformed)
}

fn malformed(Bad(why): Bad) -> TokenError {
    TokenError::Malformed(why)
}
