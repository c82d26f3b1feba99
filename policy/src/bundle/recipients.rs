//! `recipients.toml`: to whom secrets may be encrypted beside the host's own HSM. Nothing else names recipients: no flag
//! and no configuration, so that adding one takes the quorum of the bundle's signers.
//!
//! ```toml
//! [[recovery]]                 # recovery HSMs: each can open every share of the host
//! name = "vault-b"
//! key = "308201a2…"            # what `casemate hsm init-recovery` prints
//!
//! [[custodian]]                # who holds a piece of a backup's key
//! name = "alice"
//! age = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
//!
//! [backup]
//! threshold = 2                # pieces that open a backup
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::bech32::Bech32;
use bitcoin::bech32::primitives::decode::CheckedHrpstring;
use casemate_wire::RecoveryKey;
use serde::Deserialize;

use super::error::BundleError;
use super::files::RECIPIENTS;

/// Recovery HSMs in one bundle: each adds an entry to every sealed row.
const MAX_RECOVERY: usize = 8;
/// Custodians in one bundle.
const MAX_CUSTODIANS: usize = 32;
/// Pieces of which a backup's key takes at least as many: one person alone never opens it.
const LEAST_THRESHOLD: u8 = 2;

/// The recipients of a bundle; none, where it has no `recipients.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    recovery: BTreeMap<String, RecoveryKey>,
    custodians: BTreeMap<String, AgeRecipient>,
    threshold: Option<u8>,
}

/// An age recipient (X25519), `age1…`, whose checksum holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgeRecipient(String);

impl AgeRecipient {
    /// The recipient as age takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: String) -> Result<Self, String> {
        // age writes lower case; taking another would let one recipient stand twice.
        let sound = CheckedHrpstring::new::<Bech32>(&text)
            .is_ok_and(|decoded| decoded.hrp().as_str() == "age" && decoded.byte_iter().count() == 32);
        if sound && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self(text));
        }
        Err(format!("`{text}` is not an age recipient (age1…, X25519); `age-keygen` prints one"))
    }
}

impl Recipients {
    /// Reads the file; without one there are no recipients.
    pub(super) fn parse(bytes: Option<&[u8]>) -> Result<Self, BundleError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let refused = |why: String| BundleError::file(RECIPIENTS, why);
        let file: File = toml::from_slice(bytes).map_err(|error| refused(error.to_string().trim_end().to_owned()))?;
        Self::build(file).map_err(refused)
    }

    fn build(file: File) -> Result<Self, String> {
        let mut recipients = Self::default();
        if file.recovery.len() > MAX_RECOVERY || file.custodian.len() > MAX_CUSTODIANS {
            return Err(format!(
                "at most {MAX_RECOVERY} recovery keys and {MAX_CUSTODIANS} custodians may stand in it"
            ));
        }
        let mut seen = BTreeSet::new();
        for RecoveryRow { name, key } in file.recovery {
            check_name("recovery key", &name)?;
            if !seen.insert(key.to_string()) {
                return Err(format!("the key of recovery key `{name}` stands twice"));
            }
            if recipients.recovery.insert(name.clone(), key).is_some() {
                return Err(format!("recovery key `{name}` stands twice"));
            }
        }
        for CustodianRow { name, age } in file.custodian {
            check_name("custodian", &name)?;
            let age = AgeRecipient::parse(age).map_err(|why| format!("custodian `{name}`: {why}"))?;
            if !seen.insert(age.0.clone()) {
                return Err(format!("the recipient of custodian `{name}` stands twice; each needs their own"));
            }
            if recipients.custodians.insert(name.clone(), age).is_some() {
                return Err(format!("custodian `{name}` stands twice"));
            }
        }
        recipients.threshold = file.backup.map(|backup| backup.threshold);
        let custodians = recipients.custodians.len();
        match recipients.threshold {
            Some(needed) if needed < LEAST_THRESHOLD || usize::from(needed) > custodians => Err(format!(
                "backup.threshold is {needed}; it takes at least {LEAST_THRESHOLD} and at most as many as there are \
                 custodians, {custodians}"
            )),
            None if custodians > 0 => Err("there are custodians, but no [backup] threshold".into()),
            _ => Ok(recipients),
        }
    }

    /// The keys of recovery HSMs, by name.
    pub fn recovery(&self) -> &BTreeMap<String, RecoveryKey> {
        &self.recovery
    }

    /// Who holds a piece of a backup's key, by name.
    pub fn custodians(&self) -> &BTreeMap<String, AgeRecipient> {
        &self.custodians
    }

    /// How many custodians open a backup; there are at least as many. `None` where there are no custodians.
    pub fn threshold(&self) -> Option<u8> {
        self.threshold
    }

    /// What people compare: each recipient and what it is.
    pub(super) fn outline(&self) -> BTreeMap<String, String> {
        let recovery =
            self.recovery.iter().map(|(name, key)| (format!("recovery {name}"), key.fingerprint().to_string()));
        let custodians = self.custodians.iter().map(|(name, age)| (format!("custodian {name}"), age.0.clone()));
        let threshold = self.threshold.map(|needed| ("backup threshold".to_owned(), needed.to_string()));
        recovery.chain(custodians).chain(threshold).collect()
    }
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let sound = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@'));
    if sound {
        Ok(())
    } else {
        Err(format!("the name of a {what} has 1 to 64 characters of A-Z a-z 0-9 . _ - @, not {name:?}"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    recovery: Vec<RecoveryRow>,
    #[serde(default)]
    custodian: Vec<CustodianRow>,
    backup: Option<BackupRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoveryRow {
    name: String,
    key: RecoveryKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustodianRow {
    name: String,
    age: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRow {
    threshold: u8,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// From the age specification, and `age-keygen`.
    const ALICE: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    const BOB: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn key(mark: u8) -> RecoveryKey {
        let mut modulus = [mark; 384];
        (modulus[0], modulus[383]) = (0x80, 1);
        RecoveryKey::from_modulus(&modulus).unwrap()
    }

    fn recovery(name: &str, mark: u8) -> String {
        format!("[[recovery]]\nname = \"{name}\"\nkey = \"{}\"\n", key(mark))
    }

    fn custodian(name: &str, age: &str) -> String {
        format!("[[custodian]]\nname = \"{name}\"\nage = \"{age}\"\n")
    }

    fn read(text: &str) -> Result<Recipients, String> {
        Recipients::parse(Some(text.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn recipients_are_read_by_name() {
        let text = [
            recovery("vault-b", 1),
            custodian("alice", ALICE),
            custodian("bob", BOB),
            "[backup]\nthreshold = 2\n".to_owned(),
        ];
        let read = read(&text.concat()).unwrap();
        assert_eq!(read.recovery()["vault-b"], key(1));
        assert_eq!(read.custodians()["bob"].as_str(), BOB);
        assert_eq!(read.threshold(), Some(2));
        assert_eq!(read.outline().len(), 4);
    }

    #[test]
    fn no_altered_byte_is_taken_for_another_recipient_without_a_complaint_or_makes_reading_panic() {
        let text = custodian("alice", ALICE) + &custodian("bob", BOB) + "[backup]\nthreshold = 2\n";
        let good = read(&text).unwrap();
        for place in 0..text.len() {
            for byte in [0, b'"', b'a', b'q', b'=', b'\n', 0xff] {
                let mut altered = text.clone().into_bytes();
                *altered.get_mut(place).unwrap() = byte;
                // Names may become others; a recipient with one character changed has no valid checksum.
                if let Ok(read) = Recipients::parse(Some(&altered)) {
                    let known = |age: &AgeRecipient| good.custodians.values().any(|known| known == age);
                    assert!(read.custodians.values().all(known), "byte {place}");
                }
            }
        }
    }

    #[test]
    fn without_the_file_there_are_none() {
        assert_eq!(Recipients::parse(None).unwrap(), Recipients::default());
    }

    #[test]
    fn whatever_is_not_exactly_so_is_refused() {
        let two = custodian("alice", ALICE) + &custodian("bob", BOB);
        let mistyped = ALICE.replace("zvky", "zvkz");
        let many: String = (0..9).map(|mark| recovery(&format!("r{mark}"), mark + 1)).collect();
        let cases = [
            ("name = 1\n".to_owned(), "unknown field"),
            ("[[recovery]]\nname = \"a\"\nkey = \"3082\"\n".to_owned(), "RSA-3072"),
            (recovery("a", 1) + &recovery("a", 2), "stands twice"),
            (recovery("a", 1) + &recovery("b", 1), "stands twice"),
            (recovery("a b", 1), "characters"),
            (many, "at most 8"),
            (custodian("alice", &mistyped) + "[backup]\nthreshold = 2\n", "age recipient"),
            (custodian("alice", &ALICE.to_uppercase()) + "[backup]\nthreshold = 2\n", "age recipient"),
            (custodian("a", ALICE) + &custodian("b", ALICE) + "[backup]\nthreshold = 2\n", "stands twice"),
            (two.clone(), "no [backup]"),
            (two.clone() + "[backup]\nthreshold = 3\n", "threshold is 3"),
            (two + "[backup]\nthreshold = 1\n", "threshold is 1"),
            ("[backup]\nthreshold = 2\n".to_owned(), "threshold is 2"),
        ];
        for (text, why) in cases {
            let refused = read(&text).unwrap_err();
            assert!(refused.contains(why) && refused.contains("recipients.toml"), "{text}: {refused}");
        }
    }
}
