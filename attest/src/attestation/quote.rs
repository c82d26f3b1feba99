//! A TPM 2.0 quote inside a token: read and verified in plain Rust, without a TPM library.
//!
//! The layouts are those of the TCG's "TPM 2.0 Library", part 2: TPMS_ATTEST (section 10.12.12), TPMS_CLOCK_INFO (10.11.1),
//! TPMS_QUOTE_INFO (10.12.4), TPML_PCR_SELECTION (10.9.7). All numbers are big-endian.

use std::fmt;

use casemate_wire::Digest32;
use sha2::{Digest, Sha256};

use super::key::AttestKey;
use super::nonce::Nonces;

/// TPM_GENERATED_VALUE: only a TPM signs structures that begin so with a restricted key.
const GENERATED: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const ATTEST_QUOTE: u16 = 0x8018;
/// TPM_ALG_SHA256.
const SHA256: u16 = 0x000b;
/// The number of PCRs that a PC's TPM has.
const PCRS: u8 = 24;
/// The longest TPMS_ATTEST of a quote that is read.
const MAX_ATTESTED: usize = 1024;

/// A quote as it stands in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The TPM's attestation key that signed it.
    pub ak: AttestKey,
    /// The signed TPMS_ATTEST.
    pub attested: Vec<u8>,
    /// ECDSA P-256 over SHA-256 of it, `r ‖ s`.
    pub signature: [u8; 64],
    /// The quoted PCRs of the SHA-256 bank with their values, by rising index.
    pub pcrs: Vec<(u8, Digest32)>,
}

/// What a verified quote says beside the PCRs. A TPM blurs these where its key is not of the endorsement hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuoteInfo {
    /// How many times the TPM was reset: the host's starts from power-off or reboot.
    pub resets: u32,
    /// How many times it was resumed or restarted since then.
    pub restarts: u32,
    /// Whether the TPM's clock cannot have gone back.
    pub clock_safe: bool,
    /// The TPM's firmware, as its vendor counts.
    pub firmware: u64,
}

/// Why a quote proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The bytes are no quote.
    #[error("it is not a TPMS_ATTEST of a quote: {0}")]
    Malformed(&'static str),
    /// The signature is not the attestation key's.
    #[error("the attestation key did not sign it")]
    Signature,
    /// It was made for something else.
    #[error("it is bound to other nonces or to another attest key: it was made for another token")]
    OtherNonce,
    /// It covers other PCRs than the token lists.
    #[error("it covers other PCRs than the token lists")]
    OtherSelection,
    /// It covers other values.
    #[error("the token's PCR values are not those that the TPM signed")]
    OtherValues,
}

/// The qualifying data that binds a quote to one token: SHA-256 of a domain, the token's nonces in their order, each after
/// its length in one byte, and the fingerprint of the key that signs the token.
pub fn qualifying_data(nonces: &Nonces, key: &AttestKey) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"casemate/tpm-quote/v1\0");
    for nonce in nonces.all() {
        // At most 64, by construction.
        hash.update([u8::try_from(nonce.as_bytes().len()).unwrap_or(u8::MAX)]);
        hash.update(nonce.as_bytes());
    }
    hash.chain_update(key.fingerprint().0).finalize().into()
}

impl Quote {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let rising = self.pcrs.iter().zip(self.pcrs.iter().skip(1)).all(|(one, next)| one.0 < next.0);
        if self.pcrs.is_empty() || !rising || self.pcrs.iter().any(|(index, _)| *index >= PCRS) {
            return Err("its PCRs are not 1 to 24 indexes from 0 to 23, each above the one before");
        }
        if self.attested.len() > MAX_ATTESTED { Err("its TPMS_ATTEST is too long") } else { Ok(()) }
    }

    /// Verifies the quote of a token with these nonces, by the owner of `key`.
    ///
    /// # Errors
    /// What keeps it from being the TPM's word for that token.
    ///
    /// # Security
    /// It holds for the attestation key *in the token*, which anybody can make: the key itself must be pinned, as
    /// [`super::Reference`] does, and known to be a restricted key of that TPM.
    pub fn verify(&self, nonces: &Nonces, key: &AttestKey) -> Result<QuoteInfo, QuoteError> {
        self.check().map_err(QuoteError::Malformed)?;
        if !self.ak.verifies(&self.attested, &self.signature) {
            return Err(QuoteError::Signature);
        }
        let attested = Attested::read(&self.attested)?;
        if attested.extra != qualifying_data(nonces, key) {
            return Err(QuoteError::OtherNonce);
        }
        if attested.selected != self.pcrs.iter().map(|(index, _)| *index).collect::<Vec<_>>() {
            return Err(QuoteError::OtherSelection);
        }
        let mut digest = Sha256::new();
        self.pcrs.iter().for_each(|(_, value)| digest.update(value.0));
        let digest: [u8; 32] = digest.finalize().into();
        if attested.digest == digest { Ok(attested.info) } else { Err(QuoteError::OtherValues) }
    }
}

/// What a TPMS_ATTEST of a quote holds.
struct Attested<'a> {
    extra: &'a [u8],
    info: QuoteInfo,
    selected: Vec<u8>,
    digest: &'a [u8],
}

impl<'a> Attested<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        let mut rest = Bytes(bytes);
        if rest.u32()? != GENERATED {
            return Err(QuoteError::Malformed("no TPM made it"));
        }
        if rest.u16()? != ATTEST_QUOTE {
            return Err(QuoteError::Malformed("it attests something else than PCRs"));
        }
        let _signer = rest.sized()?;
        let extra = rest.sized()?;
        let _clock = rest.u64()?;
        let (resets, restarts) = (rest.u32()?, rest.u32()?);
        let clock_safe = match rest.u8()? {
            0 => false,
            1 => true,
            _ => return Err(QuoteError::Malformed("its TPMI_YES_NO is neither")),
        };
        let firmware = rest.u64()?;
        let selected = rest.selection()?;
        let digest = rest.sized()?;
        if !rest.0.is_empty() {
            return Err(QuoteError::Malformed("there are bytes after its end"));
        }
        Ok(Self { extra, info: QuoteInfo { resets, restarts, clock_safe, firmware }, selected, digest })
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], QuoteError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(QuoteError::Malformed("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], QuoteError> {
        self.take(N)?.try_into().map_err(|_| QuoteError::Malformed("it is cut off"))
    }

    fn u8(&mut self) -> Result<u8, QuoteError> {
        self.array().map(u8::from_be_bytes)
    }
    fn u16(&mut self) -> Result<u16, QuoteError> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Result<u32, QuoteError> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Result<u64, QuoteError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: a length in two bytes, and so many.
    fn sized(&mut self) -> Result<&'a [u8], QuoteError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// The indexes of a TPML_PCR_SELECTION that selects from the SHA-256 bank alone.
    fn selection(&mut self) -> Result<Vec<u8>, QuoteError> {
        if self.u32()? != 1 || self.u16()? != SHA256 {
            return Err(QuoteError::Malformed("it is not over the SHA-256 bank alone"));
        }
        let octets = self.u8()?;
        let octets = self.take(octets.into())?;
        let mut selected = Vec::new();
        for (octet, first) in octets.iter().zip((0..PCRS).step_by(8)) {
            selected.extend((0..8).filter(|bit| octet >> bit & 1 == 1).map(|bit| first + bit));
        }
        if octets.iter().skip(usize::from(PCRS) / 8).any(|octet| *octet != 0) {
            return Err(QuoteError::Malformed("it is over PCRs that no PC has"));
        }
        Ok(selected)
    }
}

impl fmt::Display for QuoteInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = if self.clock_safe { "" } else { ", clock not safe" };
        write!(f, "reset {}, restart {}, firmware {:016x}{clock}", self.resets, self.restarts, self.firmware)
    }
}
