//! What the front door takes as JSON, and the orders that it becomes.

use casemate_wire::api::{Approval, bounded_approvals};
use casemate_wire::rotation::Auxiliary;
use casemate_wire::{DerivationPath, Digest32, Intent, PartyId, ShareType, Threshold};
use serde::Deserialize;

use super::problem::Failure;
use crate::account::{AccountId, Device};
use crate::convene::{KeygenOrder, RotateOrder, SignOrder};

/// `POST /api/v1/mpc/keygen`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeygenBody {
    threshold_n: u16,
    threshold_t: u16,
    participants: Vec<KeygenParticipant>,
    share_type: Option<ShareType>,
    label: Option<String>,
    username: Option<String>,
    email: Option<String>,
    #[serde(default, deserialize_with = "bounded_approvals")]
    approvals: Vec<Approval>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeygenParticipant {
    party_id: PartyId,
    device_type: String,
    device_id: Option<String>,
    platform: Option<String>,
}

/// `POST /api/v1/mpc/sign`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignBody {
    account_id: AccountId,
    message_hash: Digest32,
    derivation_path: Option<DerivationPath>,
    intent: Option<Intent>,
    #[serde(default, deserialize_with = "bounded_approvals")]
    approvals: Vec<Approval>,
    participants: Vec<SignParticipant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignParticipant {
    party_id: PartyId,
}

/// `POST /api/v1/mpc/rotate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    account_id: AccountId,
    /// The new committee; without it, the same.
    participants: Option<Vec<RotateParticipant>>,
    threshold_t: Option<u16>,
    auxiliary: Option<Auxiliary>,
    /// The epoch that the approvals are for; without it, the next.
    epoch: Option<u64>,
    #[serde(default, deserialize_with = "bounded_approvals")]
    approvals: Vec<Approval>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateParticipant {
    party_id: PartyId,
    device_type: Option<String>,
    device_id: Option<String>,
    platform: Option<String>,
}

impl TryFrom<RotateBody> for RotateOrder {
    type Error = Failure;

    fn try_from(body: RotateBody) -> Result<Self, Failure> {
        let participant = |p: RotateParticipant| -> Result<(PartyId, Device), Failure> {
            let kind = p.device_type.unwrap_or_else(|| "server".into());
            Ok((p.party_id, device(kind, p.device_id, p.platform)?))
        };
        let committee = body.participants.map(|given| given.into_iter().map(participant).collect()).transpose();
        Ok(Self {
            account_id: body.account_id,
            committee: committee?,
            threshold_t: body.threshold_t,
            auxiliary: body.auxiliary.unwrap_or(Auxiliary::Keep),
            epoch: body.epoch,
            approvals: body.approvals,
        })
    }
}

fn device(kind: String, id: Option<String>, platform: Option<String>) -> Result<Device, Failure> {
    short("participants.device_type", Some(&kind), 64)?;
    short("participants.device_id", id.as_deref(), 128)?;
    short("participants.platform", platform.as_deref(), 64)?;
    Ok(Device { kind, id, platform })
}

impl TryFrom<KeygenBody> for KeygenOrder {
    type Error = Failure;

    fn try_from(body: KeygenBody) -> Result<Self, Failure> {
        let threshold = Threshold::new(body.threshold_t, body.threshold_n)
            .map_err(|e| Failure::bad_request(format!("threshold_t and threshold_n: {e}")))?;
        short("label", body.label.as_deref(), 64)?;
        short("username", body.username.as_deref(), 128)?;
        short("email", body.email.as_deref(), 254)?;
        let participant = |p: KeygenParticipant| Ok((p.party_id, device(p.device_type, p.device_id, p.platform)?));
        Ok(Self {
            threshold,
            participants: body.participants.into_iter().map(participant).collect::<Result<_, Failure>>()?,
            share_type: body.share_type.unwrap_or(ShareType::Wallet),
            label: body.label,
            username: body.username,
            email: body.email,
            approvals: body.approvals,
        })
    }
}

impl From<SignBody> for SignOrder {
    fn from(body: SignBody) -> Self {
        Self {
            account_id: body.account_id,
            message_hash: body.message_hash,
            derivation_path: body.derivation_path,
            intent: body.intent,
            approvals: body.approvals,
            participants: body.participants.into_iter().map(|p| p.party_id).collect(),
        }
    }
}

fn short(field: &str, text: Option<&str>, limit: usize) -> Result<(), Failure> {
    match text {
        Some(text) if text.is_empty() || text.chars().count() > limit || text.chars().any(char::is_control) => {
            let detail =
                format!("{field} is not valid: it must have 1 to {limit} characters, none of them control characters");
            Err(Failure::bad_request(detail))
        }
        _ => Ok(()),
    }
}
