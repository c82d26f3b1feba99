//! HTTP bodies of the appliance (API contract, section 1), as both sides use them.

use serde::{Deserialize, Deserializer, Serialize};

use crate::certificate::KeyCertificate;
use crate::ids::{Digest32, InvalidId, PartyId, PublicKey, SessionId, SessionType, ShareType};
use crate::lineage::MAX_EARLIER;
use crate::problem::Problem;
use crate::rotation::{Succession, Switched};
use crate::signature::EcdsaSignature;

/// The base path of every call of the appliance.
pub const BASE_PATH: &str = "/api/v1/mpc-party";
/// The largest JSON body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// What is asked to be signed, in a form that each party decodes, encodes again and hashes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// For example `ethereum_transaction`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hex for Ethereum and messages, JSON text for EIP-712, base64 for a PSBT.
    pub payload: String,
    /// Which input of a PSBT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_index: Option<u32>,
}

/// The most approvals of one request.
pub const MAX_APPROVALS: usize = 16;
/// The longest approval statement, in bytes: room for a roster of 32 parties.
pub const MAX_STATEMENT: usize = 16 * 1024;
/// The longest armored signature of an approval, in bytes.
pub const MAX_APPROVAL_SIGNATURE: usize = 4 * 1024;

/// A signed approval statement: carried as it was signed, and judged by each appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawApproval")]
pub struct Approval {
    statement: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Approval")]
struct RawApproval {
    statement: String,
    signature: String,
}

impl TryFrom<RawApproval> for Approval {
    type Error = InvalidId;

    fn try_from(raw: RawApproval) -> Result<Self, InvalidId> {
        Self::new(raw.statement, raw.signature)
    }
}

impl Approval {
    /// Takes a statement's exact text and its armored SSHSIG signature.
    ///
    /// # Errors
    /// One of the two is longer than [`MAX_STATEMENT`] or [`MAX_APPROVAL_SIGNATURE`].
    pub fn new(statement: String, signature: String) -> Result<Self, InvalidId> {
        for (what, text, limit) in [
            ("the approval's statement", &statement, MAX_STATEMENT),
            ("the approval's signature", &signature, MAX_APPROVAL_SIGNATURE),
        ] {
            if text.len() > limit {
                return Err(InvalidId::new(what, format!("it has more than {limit} bytes")));
            }
        }
        Ok(Self { statement, signature })
    }

    /// The text that was signed, to the byte.
    pub fn statement(&self) -> &str {
        &self.statement
    }

    /// `-----BEGIN SSH SIGNATURE-----` and so on.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

/// Reads a list of at most [`MAX_APPROVALS`] approvals, for a body's `deserialize_with`.
///
/// # Errors
/// One is not an approval, or there are more.
pub fn bounded_approvals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Approval>, D::Error> {
    let approvals = Vec::<Approval>::deserialize(deserializer)?;
    if approvals.len() > MAX_APPROVALS {
        return Err(serde::de::Error::custom(format!("a request takes at most {MAX_APPROVALS} approvals")));
    }
    Ok(approvals)
}

/// Reads at most [`MAX_EARLIER`] successions.
fn bounded_successions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Succession>, D::Error> {
    let successions = Vec::<Succession>::deserialize(deserializer)?;
    if successions.len() > MAX_EARLIER {
        return Err(serde::de::Error::custom(format!("a request takes at most {MAX_EARLIER} earlier successions")));
    }
    Ok(successions)
}

/// `POST keygen/participate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeygenRequest {
    /// The session.
    #[serde(alias = "sessionId")]
    pub session_id: SessionId,
    /// The party that is asked.
    #[serde(alias = "partyId")]
    pub party_id: PartyId,
    /// Its join token.
    #[serde(alias = "joinToken")]
    pub join_token: String,
    /// What the key is for.
    #[serde(alias = "shareType")]
    pub share_type: ShareType,
    /// A name that policy can put the key into groups by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Signed approval statements, at most [`MAX_APPROVALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_approvals")]
    pub approvals: Vec<Approval>,
}

/// `POST signing/participate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningRequest {
    /// The session.
    #[serde(alias = "sessionId")]
    pub session_id: SessionId,
    /// The party that is asked.
    #[serde(alias = "partyId")]
    pub party_id: PartyId,
    /// Its join token.
    #[serde(alias = "joinToken")]
    pub join_token: String,
    /// The key's public key.
    pub key: PublicKey,
    /// A non-hardened BIP-32 path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation_path: Option<String>,
    /// What is signed.
    #[serde(alias = "messageHash")]
    pub message_hash: Digest32,
    /// What it means. Without one, the request is to sign blindly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// Signed approval statements, at most [`MAX_APPROVALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_approvals")]
    pub approvals: Vec<Approval>,
    /// The key's certificate, by which a party whose keygen missed its last message adopts its pending share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<KeyCertificate>,
}

/// `POST rotation/participate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationRequest {
    /// The session.
    #[serde(alias = "sessionId")]
    pub session_id: SessionId,
    /// The party that is asked.
    #[serde(alias = "partyId")]
    pub party_id: PartyId,
    /// Its join token, which says all else.
    #[serde(alias = "joinToken")]
    pub join_token: String,
    /// The key's public key.
    pub key: PublicKey,
    /// Signed approval statements, at most [`MAX_APPROVALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_approvals")]
    pub approvals: Vec<Approval>,
}

/// `POST rotation/settle`: what a rotation has proven, for those who missed its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// What proves that the key has moved on.
    pub succession: Succession,
    /// How the key came to where that begins, the oldest first, at most [`MAX_EARLIER`]: for those who missed more than one rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_successions")]
    pub earlier: Vec<Succession>,
    /// Who has signed that it has switched, as far as is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switched: Vec<Switched>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleAnswer {
    /// The party that answers.
    pub party_id: PartyId,
    /// Its word that it has switched; absent for a party that has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched: Option<Switched>,
    /// How many superseded shares of the key lie here still.
    pub old_shares: u32,
}

/// `GET keys/{public_key}/succession`: how far a key has come at one party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyProgress {
    /// The party that answers.
    pub party_id: PartyId,
    /// The latest epoch that it has taken part in, also in vain: a rotation must lead to a later one.
    pub newest_epoch: u64,
    /// What proves the latest epoch that a rotation has brought the key to here; absent where none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<Succession>,
}

/// The 202 answer of the participate calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The session.
    pub session_id: SessionId,
    /// The party that answers.
    pub party_id: PartyId,
    /// What happens next, for people.
    pub message: String,
    /// Where the session stands.
    pub status: SessionStatus,
}

/// Where a session stands at one appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Committed; waits for the message stream.
    Accepted,
    /// The protocol runs.
    Running,
    /// It ended with a result.
    Completed,
    /// It ended without one.
    Failed,
    /// Nobody attached in time.
    Expired,
}

impl SessionStatus {
    /// The status as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing more will change.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired)
    }
}

/// `GET sessions/{id}`, and the 200 answer of the `-sync` calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionView {
    /// The session.
    pub session_id: SessionId,
    /// What it is for.
    pub session_type: SessionType,
    /// Where it stands.
    pub status: SessionStatus,
    /// The protocol's round, for people; 0 before it starts.
    pub round: u16,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// The key that was made or used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// The signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<EcdsaSignature>,
    /// The new key's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<KeyCertificate>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
}

/// `GET shares/{id}`: metadata only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareView {
    /// The share's id.
    pub id: String,
    /// The party that holds it.
    pub party_id: PartyId,
    /// The session that made it.
    pub session_id: SessionId,
    /// What the key is for.
    pub share_type: ShareType,
    /// The key's public key.
    pub public_key: PublicKey,
    /// For example `2-of-3`.
    pub threshold: String,
    /// All parties of the key, in order.
    pub participants: Vec<PartyId>,
    /// `pending`, `active`, `rotated`, `restored`, `revoked` or `destroyed`.
    pub status: String,
    /// 1 for a new key.
    pub epoch: u64,
    /// The key-encryption key, for example `kek/1`.
    pub kek: String,
    /// The label, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// RFC 3339: when the share was stored here.
    pub created_at: String,
    /// RFC 3339: when the key was made.
    pub key_created_at: String,
    /// RFC 3339: when the rotation to this epoch made the share; absent for a key that was never rotated, and where the share
    /// came out of a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// RFC 3339: when the newest backup was made that holds this share and was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_at: Option<String>,
}

/// `POST shares/{id}/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Why, for the audit log; approvals name the same text.
    pub reason: String,
    /// Signed approval statements, at most [`MAX_APPROVALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_approvals")]
    pub approvals: Vec<Approval>,
}

/// The answer to a revocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevokeAnswer {
    /// The share that was named, as it is now.
    pub share: ShareView,
    /// All shares of its key that this call withdrew; none if it was revoked before.
    pub revoked: Vec<String>,
    /// Sessions with the key that were stopped.
    pub sessions_stopped: u32,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// From 1.
    pub page: u32,
    /// Items a page.
    pub limit: u32,
    /// Items in all.
    pub total: u64,
}
