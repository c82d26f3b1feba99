//! An account: a threshold key, who holds its shares, and who it belongs to.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::Address;
use casemate_wire::{KeyCertificate, Member, PartyId, PublicKey, SessionId, ShareType, Succession, Threshold};
use jiff::Timestamp;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::session::{NewAccount, Participant};

/// Names an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct AccountId(Uuid);

impl AccountId {
    /// A new, random name.
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for AccountId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.parse().map_err(|e| format!("the account id is not a UUID: {e}"))?;
        Ok(Self(id))
    }
}
impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl TryFrom<String> for AccountId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        id.to_string()
    }
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) share_type: ShareType,
    pub(crate) public_key: PublicKey,
    pub(crate) threshold: Threshold,
    pub(crate) status: AccountStatus,
    pub(crate) created_at: Timestamp,
    /// Of the key's present epoch, as far as is known here.
    pub(crate) certificate: KeyCertificate,
    /// The highest epoch that a rotation was tried for, or that a party is known to have taken part in.
    pub(crate) epoch_tried: u64,
    /// A rotation whose end was not seen at every party: one of them may have switched by it.
    pub(crate) doubt: Option<SessionId>,
    /// In roster order.
    pub(crate) shares: Vec<Share>,
}

/// An account's key has moved on to another epoch.
#[derive(Debug, Clone)]
pub(crate) struct Advance {
    pub(crate) account_id: AccountId,
    pub(crate) succession: Succession,
    /// Of the new committee, in roster order.
    pub(crate) shares: Vec<Share>,
}

/// Whether an account may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccountStatus {
    /// It signs.
    Active,
}

/// Where one share of the key lies. The share itself is never here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) party_id: PartyId,
    pub(crate) party_index: u16,
    pub(crate) device: Device,
    pub(crate) is_active: bool,
}

/// What a party runs on, as whoever asked for the key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) platform: Option<String>,
}

impl Account {
    /// The account of a key that has just been made.
    pub(crate) fn open(
        new: &NewAccount,
        certificate: &KeyCertificate,
        threshold: Threshold,
        participants: &[Participant],
        now: Timestamp,
    ) -> Self {
        let share = |participant: &Participant| Share {
            party_id: participant.member.party_id.clone(),
            party_index: participant.member.party_index,
            device: participant.device.clone().unwrap_or_else(Device::server),
            is_active: true,
        };
        Self {
            id: new.account_id,
            username: new.username.clone(),
            email: new.email.clone(),
            label: new.label.clone(),
            share_type: new.share_type,
            public_key: certificate.statement.public_key,
            threshold,
            status: AccountStatus::Active,
            created_at: now,
            certificate: certificate.clone(),
            epoch_tried: certificate.statement.epoch,
            doubt: None,
            shares: participants.iter().map(share).collect(),
        }
    }

    /// The epoch that the key has come to, as far as is known here.
    pub(crate) fn epoch(&self) -> u64 {
        self.certificate.statement.epoch
    }

    /// What a party of this account runs on.
    pub(crate) fn device(&self, party: &PartyId) -> Option<&Device> {
        self.shares.iter().find(|share| &share.party_id == party).map(|share| &share.device)
    }
}

impl Advance {
    /// The account after a rotation; `device` says what a party of the new committee runs on, where that is known.
    pub(crate) fn new(
        account_id: AccountId,
        succession: Succession,
        device: impl Fn(&PartyId) -> Option<Device>,
    ) -> Self {
        let share = |member: &Member| Share {
            party_id: member.party_id.clone(),
            party_index: member.party_index,
            device: device(&member.party_id).unwrap_or_else(Device::server),
            is_active: true,
        };
        let shares = succession.certificate.statement.roster.members().iter().map(share).collect();
        Self { account_id, succession, shares }
    }
}

impl Device {
    fn server() -> Self {
        Self { kind: "server".into(), id: None, platform: None }
    }
}

/// The Ethereum address of a public key, with the checksum of EIP-55.
pub(crate) fn ethereum_address(key: &PublicKey) -> Option<String> {
    let point = k256::PublicKey::from_sec1_bytes(key.as_bytes()).ok()?.to_encoded_point(false);
    let coordinates = point.as_bytes().get(1..).filter(|bytes| bytes.len() == 64)?;
    Some(Address::from_raw_public_key(coordinates).to_checksum(None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_address_of_a_known_key_has_its_checksum() {
        // Private key 1: the generator, and its well-known address.
        let key: PublicKey = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
        assert_eq!(ethereum_address(&key).unwrap(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    }
}
