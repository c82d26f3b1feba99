//! The statement that an approver signs.
//!
//! ```json
//! {"v":1,"action":"sign","key":"0279be…","parameters":{"message_hash":"ab…","derivation_path":"m/0/1"},
//!  "bundle":"5f…","expires":"2026-11-21T12:00:00Z","nonce":"00112233445566778899aabbccddeeff"}
//! ```
//!
//! | action | of what | parameters |
//! |---|---|---|
//! | `sign` | `key` | `message_hash`, `derivation_path?` |
//! | `keygen` | `slot`: `share_type`, `threshold_t`, `threshold_n`, `label?` | `participants`: `party_id`, `identity` of each |
//! | `rotate` | `key` | the new roster: `participants`, `threshold_t`; `epoch`, `from_epoch`; `auxiliary`: `keep` or `fresh` |
//! | `revoke` | `key` | `party_id` whose share it is, `reason` |
//! | `backup` | – | `party_id` whose appliance it is, `recipients` |
//!
//! The exact text is signed and sent. Unknown fields, repeated fields and other versions are refused. Nothing in it names a
//! session, so that people can approve before one is convened.

use std::fmt;
use std::str::FromStr;

use casemate_wire::rotation::Auxiliary;
use casemate_wire::{Digest32, IdentityKey, PartyId, PublicKey, ShareType};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is approved. A request must be equal to it in every field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// One signature.
    Sign {
        /// With this key.
        key: PublicKey,
        /// Of what.
        parameters: SignParameters,
    },
    /// A new key.
    Keygen {
        /// What the key will be.
        slot: Slot,
        /// Who will hold it.
        parameters: KeygenParameters,
    },
    /// A key's shares are made anew, for the same people or others.
    Rotate {
        /// The key.
        key: PublicKey,
        /// Who will hold it.
        parameters: RotateParameters,
    },
    /// One party's share is destroyed.
    Revoke {
        /// The key.
        key: PublicKey,
        /// Whose share, and why.
        parameters: RevokeParameters,
    },
    /// One appliance is backed up.
    Backup {
        /// Which one, and for whom.
        parameters: BackupParameters,
    },
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignParameters {
    /// The 32 bytes.
    pub message_hash: Digest32,
    /// The BIP-32 path below the key, exactly as the request has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation_path: Option<String>,
}

/// A key before it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// What it is for.
    pub share_type: ShareType,
    /// Parties needed to sign.
    pub threshold_t: u16,
    /// Parties in all.
    pub threshold_n: u16,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Who takes part in making a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeygenParameters {
    /// All of them, in the order of the roster.
    pub participants: Vec<Participant>,
}

/// What a rotation starts from, and the committee that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateParameters {
    /// All of the new committee, in the order of the roster.
    pub participants: Vec<Participant>,
    /// How many of them will be needed to sign.
    pub threshold_t: u16,
    /// The epoch that begins.
    pub epoch: u64,
    /// The epoch that is dealt from: an approval says nothing of what the key may have become since.
    pub from_epoch: u64,
    /// What becomes of the auxiliary information. Who wants a compromised host healed must not get a rotation that keeps it.
    pub auxiliary: Auxiliary,
}

/// Which share is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeParameters {
    /// Whose share. Without it an approval for one party would destroy the shares of all.
    pub party_id: PartyId,
    /// Why.
    pub reason: String,
}

/// What is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupParameters {
    /// Whose appliance.
    pub party_id: PartyId,
    /// The public keys that can open the backup, in the order of the request.
    pub recipients: Vec<String>,
}

/// One party by name and identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    /// The party.
    pub party_id: PartyId,
    /// The identity key of its HSM.
    pub identity: IdentityKey,
}

impl Act {
    /// Whether one approval counts once only. A signature is bound to its message, which may be signed again; everything
    /// else would happen again.
    pub fn counts_once(&self) -> bool {
        !matches!(self, Self::Sign { .. })
    }

    /// What is approved, in plain words, one fact a line.
    pub fn summary(&self) -> String {
        let list = |lines: Vec<String>| "\n  ".to_owned() + &lines.join("\n  ");
        let line = |p: &Participant| format!("{} with identity {}", p.party_id, p.identity.fingerprint());
        let roster = |participants: &[Participant]| list(participants.iter().map(line).collect());
        match self {
            Self::Sign { key, parameters } => {
                let path = quoted(parameters.derivation_path.as_deref());
                format!("sign {} with key {key}\nderivation path: {path}", parameters.message_hash)
            }
            Self::Keygen { slot, parameters } => {
                let Slot { share_type, threshold_t, threshold_n, label } = slot;
                let label = quoted(label.as_deref());
                let parties = roster(&parameters.participants);
                format!(
                    "make a new {share_type} key, {threshold_t} of {threshold_n}\nlabel: {label}\nheld by:{parties}"
                )
            }
            Self::Rotate { key, parameters } => {
                let RotateParameters { participants, threshold_t, epoch, from_epoch, auxiliary } = parameters;
                let parties = roster(participants);
                let auxiliary = match auxiliary {
                    Auxiliary::Keep => "kept where all of them hold the same; heals no host that was compromised",
                    Auxiliary::Fresh => "made anew",
                };
                format!(
                    "rotate key {key} from epoch {from_epoch} to epoch {epoch}, {threshold_t} needed to sign\n\
                     auxiliary information: {auxiliary}\nheld from then on by:{parties}"
                )
            }
            Self::Revoke { key, parameters } => {
                let RevokeParameters { party_id, reason } = parameters;
                format!("destroy the share of {party_id} of key {key}\nreason: {reason:?}")
            }
            Self::Backup { parameters } => {
                let recipients = list(parameters.recipients.iter().map(|recipient| format!("{recipient:?}")).collect());
                format!("back up the appliance of {}\nreadable by:{recipients}", parameters.party_id)
            }
        }
    }
}

/// Foreign text in quotes, on one line.
fn quoted(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// At least 16 random bytes, lower-case hex, so that no two statements are equal by chance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(String);

/// Why a text is no nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the nonce is not 16 to 64 bytes of lower-case hex")]
pub struct InvalidNonce;

impl Nonce {
    /// A nonce of 16 bytes, which must come from the system's randomness.
    pub fn from_bytes(random: [u8; 16]) -> Self {
        Self(hex::encode(random))
    }
}

impl FromStr for Nonce {
    type Err = InvalidNonce;

    fn from_str(text: &str) -> Result<Self, InvalidNonce> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let fits = digits && (32..=128).contains(&text.len()) && text.len().is_multiple_of(2);
        fits.then(|| Self(text.to_owned())).ok_or(InvalidNonce)
    }
}

impl TryFrom<String> for Nonce {
    type Error = InvalidNonce;

    fn try_from(text: String) -> Result<Self, InvalidNonce> {
        text.parse()
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.0
    }
}

/// What an approver signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What is approved.
    pub act: Act,
    /// The digest of the policy bundle that the approver looked at.
    pub bundle: Digest32,
    /// Until when it counts, that second included.
    pub expires: Timestamp,
    /// What tells it from others.
    pub nonce: Nonce,
}

/// Why a text is no statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not an approval statement: {0}")]
pub struct InvalidStatement(String);

impl Statement {
    /// Reads a statement strictly: no unknown field, none twice, version 1.
    ///
    /// # Errors
    /// [`InvalidStatement`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidStatement> {
        let form: Form = serde_json::from_str(text).map_err(|error| InvalidStatement(error.to_string()))?;
        Ok(form.into())
    }

    /// The text to be signed.
    ///
    /// # Errors
    /// [`InvalidStatement`] if it cannot be written as JSON.
    pub fn to_text(&self) -> Result<String, InvalidStatement> {
        serde_json::to_string(&Form::from(self.clone())).map_err(|error| InvalidStatement(error.to_string()))
    }
}

/// The one version of statements, `1`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
struct Version;

impl TryFrom<u64> for Version {
    type Error = String;

    fn try_from(version: u64) -> Result<Self, String> {
        if version == 1 { Ok(Self) } else { Err(format!("version {version} is not known here, only 1 is")) }
    }
}

impl From<Version> for u64 {
    fn from(_: Version) -> Self {
        1
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nunder policy {}\nuntil {}", self.act.summary(), self.bundle, self.expires)
    }
}

/// A statement as JSON. Each variant lists all fields, since serde can refuse unknown ones only so.
#[derive(Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
enum Form {
    Sign {
        v: Version,
        key: PublicKey,
        parameters: SignParameters,
        bundle: Digest32,
        expires: Timestamp,
        nonce: Nonce,
    },
    Keygen {
        v: Version,
        slot: Slot,
        parameters: KeygenParameters,
        bundle: Digest32,
        expires: Timestamp,
        nonce: Nonce,
    },
    Rotate {
        v: Version,
        key: PublicKey,
        parameters: RotateParameters,
        bundle: Digest32,
        expires: Timestamp,
        nonce: Nonce,
    },
    Revoke {
        v: Version,
        key: PublicKey,
        parameters: RevokeParameters,
        bundle: Digest32,
        expires: Timestamp,
        nonce: Nonce,
    },
    Backup {
        v: Version,
        parameters: BackupParameters,
        bundle: Digest32,
        expires: Timestamp,
        nonce: Nonce,
    },
}

impl From<Form> for Statement {
    fn from(form: Form) -> Self {
        match form {
            Form::Sign { v: Version, key, parameters, bundle, expires, nonce } => {
                Self { act: Act::Sign { key, parameters }, bundle, expires, nonce }
            }
            Form::Keygen { v: Version, slot, parameters, bundle, expires, nonce } => {
                Self { act: Act::Keygen { slot, parameters }, bundle, expires, nonce }
            }
            Form::Rotate { v: Version, key, parameters, bundle, expires, nonce } => {
                Self { act: Act::Rotate { key, parameters }, bundle, expires, nonce }
            }
            Form::Revoke { v: Version, key, parameters, bundle, expires, nonce } => {
                Self { act: Act::Revoke { key, parameters }, bundle, expires, nonce }
            }
            Form::Backup { v: Version, parameters, bundle, expires, nonce } => {
                Self { act: Act::Backup { parameters }, bundle, expires, nonce }
            }
        }
    }
}

impl From<Statement> for Form {
    fn from(statement: Statement) -> Self {
        let Statement { act, bundle, expires, nonce } = statement;
        let v = Version;
        match act {
            Act::Sign { key, parameters } => Self::Sign { v, key, parameters, bundle, expires, nonce },
            Act::Keygen { slot, parameters } => Self::Keygen { v, slot, parameters, bundle, expires, nonce },
            Act::Rotate { key, parameters } => Self::Rotate { v, key, parameters, bundle, expires, nonce },
            Act::Revoke { key, parameters } => Self::Revoke { v, key, parameters, bundle, expires, nonce },
            Act::Backup { parameters } => Self::Backup { v, parameters, bundle, expires, nonce },
        }
    }
}
