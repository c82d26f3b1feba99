//! The reference file: what a token should say, as the people who rely on it have written it down.

use std::collections::BTreeMap;
use std::fmt::Display;

use casemate_wire::{Digest32, PartyId};
use serde::{Deserialize, Serialize};

use super::appraisal::{Appraisal, Finding};
use super::claims::Claims;
use super::key::AttestKey;
use super::verify::Verified;
use crate::text::{LogId, Text};

/// The largest reference file that is read, in bytes.
const MAX_REFERENCE: usize = 64 * 1024;
/// What an empty list of allowed values would allow.
const NOTHING_ALLOWED: &str = "is an empty list, which nothing fits; name the allowed values, or leave it out";

/// What one appliance's tokens should say. Whatever is left out is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The appliance.
    pub party: PartyId,
    /// The key of its HSM that signs its tokens.
    pub attest_key: AttestKey,
    /// The programs that it may run: SHA-256 of `casemated`.
    pub binary: Vec<Digest32>,
    /// The configurations that it may run with: SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Vec<Digest32>>,
    /// The policy bundles that it may obey, by their digests; no bundle at all does not fit then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Vec<Digest32>>,
    /// The versions that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<Text>>,
    /// SHA-256 of the public key in its TLS certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_spki: Option<Digest32>,
    /// Its audit log; a new one has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_log: Option<LogId>,
    /// Its HSM token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenReference>,
    /// The key that wraps its share keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kek: Option<KekReference>,
    /// Its TPM: with this, a token without a quote does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmReference>,
}

/// What the HSM token should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenReference {
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Text>,
    /// Its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Text>,
    /// The firmware versions that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Vec<Text>>,
}

/// What the KEK should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KekReference {
    /// The lowest epoch that is good.
    pub min_epoch: u32,
}

/// What the TPM should say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmReference {
    /// Its attestation key.
    pub ak: AttestKey,
    /// PCRs of the SHA-256 bank that must have these values, by index.
    #[serde(default)]
    pub pcrs: BTreeMap<String, Digest32>,
}

/// Why a reference file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Too long.
    #[error("the reference has more than {MAX_REFERENCE} bytes")]
    TooLong,
    /// It is not TOML of the expected form.
    #[error("the reference cannot be understood: {0}")]
    Parse(String),
    /// A value cannot be used.
    #[error("the reference's {key} {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

impl Reference {
    /// Reads a reference file (TOML).
    ///
    /// # Errors
    /// Says what cannot be used.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > MAX_REFERENCE {
            return Err(InvalidReference::TooLong);
        }
        let reference: Self = toml::from_str(text).map_err(|error| InvalidReference::Parse(error.to_string()))?;
        reference.check().map(|()| reference)
    }

    /// The reference as a file.
    ///
    /// # Errors
    /// It cannot be written, which no reference causes that [`Self::parse`] would take.
    pub fn to_toml(&self) -> Result<String, InvalidReference> {
        self.check()?;
        toml::to_string(self).map_err(|error| InvalidReference::Parse(error.to_string()))
    }

    /// Compares a genuine, fresh token with what it should say: every claim that the reference names, so that one look
    /// shows all that differs.
    pub fn appraise(&self, token: &Verified) -> Appraisal {
        let claims = token.claims();
        let mut findings = Vec::new();
        // `Verified` was checked against a key and a party of the caller's choice; the file has the last word.
        one(&mut findings, "attest_key", Some(&self.attest_key.fingerprint()), &token.key().fingerprint());
        one(&mut findings, "party", Some(&self.party), &claims.party);
        let measured = &claims.measurements;
        any(&mut findings, "binary", Some(&self.binary), Some(&measured.binary));
        any(&mut findings, "config", self.config.as_deref(), Some(&measured.config));
        any(&mut findings, "policy", self.policy.as_deref(), measured.policy.as_ref());
        any(&mut findings, "swversion", self.versions.as_deref(), Some(&claims.version));
        one(&mut findings, "tls_spki", self.tls_spki.as_ref(), &claims.tls_spki);
        one(&mut findings, "audit.origin", self.audit_log.as_ref(), &claims.audit.origin);
        if let Some(expected) = &self.token {
            one(&mut findings, "token.model", expected.model.as_ref(), &claims.token.model);
            one(&mut findings, "token.serial", expected.serial.as_ref(), &claims.token.serial);
            any(&mut findings, "token.firmware", expected.firmware.as_deref(), Some(&claims.token.firmware));
        }
        if let Some(KekReference { min_epoch }) = self.kek
            && claims.kek.epoch < min_epoch
        {
            findings.push(Finding::new("kek.epoch", format!("at least {min_epoch}"), claims.kek.epoch));
        }
        if let Some(expected) = &self.tpm {
            expected.compare(claims, &mut findings);
        }
        Appraisal::of(findings)
    }

    fn check(&self) -> Result<(), InvalidReference> {
        let bad = |key: &str, why: &str| InvalidReference::Value { key: key.to_owned(), why: why.to_owned() };
        let firmware = self.token.as_ref().and_then(|token| token.firmware.as_ref());
        for (key, empty) in [
            ("binary", self.binary.is_empty()),
            ("config", self.config.as_ref().is_some_and(Vec::is_empty)),
            ("policy", self.policy.as_ref().is_some_and(Vec::is_empty)),
            ("versions", self.versions.as_ref().is_some_and(Vec::is_empty)),
            ("token.firmware", firmware.is_some_and(Vec::is_empty)),
        ] {
            if empty {
                return Err(bad(key, NOTHING_ALLOWED));
            }
        }
        for index in self.tpm.iter().flat_map(|tpm| tpm.pcrs.keys()) {
            let known = index.parse().is_ok_and(|number: u8| number < 24 && number.to_string() == *index);
            if !known {
                return Err(bad("tpm.pcrs", &format!("has {index:?}, which is no PCR; they are 0 to 23")));
            }
        }
        Ok(())
    }
}

impl TpmReference {
    fn compare(&self, claims: &Claims, findings: &mut Vec<Finding>) {
        let Some(quote) = &claims.quote else {
            findings.push(Finding::new("tpm", "a quote", "none"));
            return;
        };
        one(findings, "tpm.ak", Some(&self.ak.fingerprint()), &quote.ak.fingerprint());
        for (index, expected) in &self.pcrs {
            let found = quote.pcrs.iter().find(|(quoted, _)| quoted.to_string() == *index);
            match found {
                Some((_, value)) if value == expected => {}
                Some((_, value)) => findings.push(pcr(index, expected, value)),
                None => findings.push(pcr(index, expected, &"not in the quote")),
            }
        }
    }
}

fn pcr(index: &str, expected: &Digest32, found: &dyn Display) -> Finding {
    Finding::new("tpm.pcrs", format!("{expected} in PCR {index}"), found)
}

/// One value must be this one, if the reference names it.
fn one<T: PartialEq + Display>(findings: &mut Vec<Finding>, claim: &'static str, expected: Option<&T>, found: &T) {
    if let Some(expected) = expected
        && expected != found
    {
        findings.push(Finding::new(claim, expected, found));
    }
}

/// One value must be among these, if the reference names any.
fn any<T: PartialEq + Display>(
    findings: &mut Vec<Finding>,
    claim: &'static str,
    allowed: Option<&[T]>,
    found: Option<&T>,
) {
    let Some(allowed) = allowed else { return };
    if found.is_some_and(|found| allowed.contains(found)) {
        return;
    }
    let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    let found = found.map_or_else(|| "none".to_owned(), ToString::to_string);
    findings.push(Finding::new(claim, list.join(" or "), found));
}
