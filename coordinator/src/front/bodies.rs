//! What the front door gives as JSON.

use casemate_wire::{
    DerivationPath, Digest32, EcdsaSignature, KeyCertificate, PartyId, Problem, PublicKey, SessionId, SessionType,
    ShareType,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::account::{Account, AccountId, AccountStatus, Device, Share, ethereum_address};
use crate::invitation::JoinTokens;
use crate::session::{Participant, ParticipantStatus, Purpose, Session, Status};

/// A session, as it is created, asked for, and waited for.
#[derive(Serialize)]
pub(super) struct SessionBody {
    session_id: SessionId,
    session_type: SessionType,
    status: Status,
    threshold_n: u16,
    threshold_t: u16,
    participants: Vec<ParticipantBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_hash: Option<Digest32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    derivation_path: Option<DerivationPath>,
    /// The epoch that a rotation leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// The key that is made or that signs: the child key where there is a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<KeyCertificate>,
    #[serde(flatten)]
    signature: Option<SignatureBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
    /// In the answer to the call that created the session, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    join_tokens: Option<JoinTokens>,
    created_at: String,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
}

#[derive(Serialize)]
struct ParticipantBody {
    party_id: PartyId,
    party_index: u16,
    status: ParticipantStatus,
}

/// The signature as DER and by its parts.
#[derive(Serialize)]
struct SignatureBody {
    signature: String,
    #[serde(with = "hex::serde")]
    r: [u8; 32],
    #[serde(with = "hex::serde")]
    s: [u8; 32],
    v: u8,
}

impl SessionBody {
    /// The session as it stands; `join_tokens` for the one who created it.
    pub(super) fn new(session: &Session, join_tokens: Option<JoinTokens>) -> Self {
        let certificate = session.finding().and_then(|finding| finding.certificate());
        let mut derivation_path = None;
        let (account_id, public_key, message_hash) = match session.purpose() {
            Purpose::Keygen(new) => {
                let key = certificate.map(|certificate| certificate.statement.public_key);
                (key.map(|_| new.account_id), key, None)
            }
            Purpose::Sign { account_id, public_key, message_hash, child } => {
                derivation_path = child.as_ref().map(|child| child.path.clone());
                let signs = child.as_ref().map_or(*public_key, |child| child.public_key);
                (Some(*account_id), Some(signs), Some(*message_hash))
            }
            Purpose::Rotate(new) => (Some(new.account_id), Some(new.from.public_key), None),
        };
        Self {
            session_id: session.id().clone(),
            session_type: session.session_type(),
            status: session.status(),
            threshold_n: session.threshold().n(),
            threshold_t: session.threshold().t(),
            participants: session.participants().iter().map(ParticipantBody::from).collect(),
            account_id,
            message_hash,
            derivation_path,
            epoch: session.new_shares().map(|new| new.rotation.epoch),
            public_key,
            address: public_key.as_ref().and_then(ethereum_address),
            certificate: certificate.cloned(),
            signature: session.finding().and_then(|finding| finding.signature()).and_then(SignatureBody::new),
            error: session.error().cloned(),
            join_tokens,
            created_at: rfc3339(session.created_at()),
            expires_at: rfc3339(session.expires_at()),
            completed_at: session.ended_at().map(rfc3339),
        }
    }
}

impl From<&Participant> for ParticipantBody {
    fn from(participant: &Participant) -> Self {
        Self {
            party_id: participant.member.party_id.clone(),
            party_index: participant.member.party_index,
            status: participant.status,
        }
    }
}

impl SignatureBody {
    fn new(signature: &EcdsaSignature) -> Option<Self> {
        let EcdsaSignature { r, s, v } = *signature;
        Some(Self { signature: hex::encode(signature.to_der()?), r, s, v })
    }
}

/// An account.
#[derive(Serialize)]
pub(super) struct AccountBody {
    id: AccountId,
    username: Option<String>,
    email: Option<String>,
    label: Option<String>,
    share_type: ShareType,
    public_key: PublicKey,
    address: Option<String>,
    threshold_n: u16,
    threshold_t: u16,
    status: AccountStatus,
    created_at: String,
    shares: Vec<ShareBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<KeyCertificate>,
}

/// Where one share lies. Shares are held by appliances only.
#[derive(Serialize)]
struct ShareBody {
    party_id: PartyId,
    party_index: u16,
    share_type: &'static str,
    device_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    storage_location: &'static str,
    is_active: bool,
}

impl AccountBody {
    /// One account with its key certificate.
    pub(super) fn whole(account: Account) -> Self {
        let certificate = account.certificate.clone();
        Self { certificate: Some(certificate), ..Self::listed(account) }
    }

    /// One account of a list.
    pub(super) fn listed(account: Account) -> Self {
        Self {
            id: account.id,
            username: account.username,
            email: account.email,
            label: account.label,
            share_type: account.share_type,
            public_key: account.public_key,
            address: ethereum_address(&account.public_key),
            threshold_n: account.threshold.n(),
            threshold_t: account.threshold.t(),
            status: account.status,
            created_at: rfc3339(account.created_at),
            shares: account.shares.into_iter().map(ShareBody::from).collect(),
            certificate: None,
        }
    }
}

impl From<Share> for ShareBody {
    fn from(share: Share) -> Self {
        let Device { kind, id, platform } = share.device;
        Self {
            party_id: share.party_id,
            party_index: share.party_index,
            share_type: "server",
            device_type: kind,
            device_id: id,
            platform,
            storage_location: "appliance",
            is_active: share.is_active,
        }
    }
}

fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}
