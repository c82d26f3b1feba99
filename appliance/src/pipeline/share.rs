//! A share's authenticated header, and the facts that policy takes from it.

use casemate_mpc::{Cggmp21, Scheme};
use casemate_policy::{KeyFacts, SlotFacts};
use casemate_wire::{Committee, KeyStatement, PartyId, PublicKey, Roster, ShareType, Threshold};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::till::Inheritance;

/// A share in the clear; it exists in memory only, for one session.
pub(crate) type KeyShare = <Cggmp21 as Scheme>::KeyShare;

/// What stands readable beside a sealed share. Sealing authenticates it: a share with an altered header cannot be
/// opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareHeader {
    /// The version of this form.
    pub version: u16,
    /// The share's id.
    pub share_id: String,
    /// The party that holds it.
    pub party_id: PartyId,
    /// The key.
    pub key: SharedKey,
    /// What the key is for.
    pub share_type: ShareType,
    /// Its label.
    pub label: Option<String>,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// Whether it came out of a backup.
    pub restored: bool,
    /// What is known of the key's spending before it came to this party, if this party was not there from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Inheritance>,
    /// The committee that it was dealt from, if a rotation made it: a later epoch that was dealt from the same one takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dealt_from: Option<Committee>,
}

/// What all parties know of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedKey {
    /// The public key.
    pub public_key: PublicKey,
    /// The scheme.
    pub scheme: String,
    /// t of n.
    pub threshold: Threshold,
    /// 1 for a new key.
    pub epoch: u64,
    /// The whole committee.
    pub roster: Roster,
}

impl ShareHeader {
    /// The version that this release writes.
    pub const VERSION: u16 = 1;

    /// Whether a certificate's statement is about this very key.
    pub fn is_stated_by(&self, statement: &KeyStatement) -> bool {
        let key = &self.key;
        statement.public_key == key.public_key
            && statement.scheme == key.scheme
            && statement.threshold_t == key.threshold.t()
            && statement.threshold_n == key.threshold.n()
            && statement.epoch == key.epoch
            && statement.roster == key.roster
            && statement.share_type == self.share_type
            && statement.label == self.label
    }

    /// Whether an opened share is the one that this header, proven by its opening, and the party's statement are about: the
    /// one that policy judges and the peers agree on.
    pub(crate) fn describes(&self, share: &KeyShare, statement: &KeyStatement) -> bool {
        let key = &self.key;
        let own = key.roster.members().get(usize::from(share.index()));
        &share.public_key() == key.public_key.as_bytes()
            // Policy took the key's children for its own by this chain code.
            && share.chain_code() == statement.chain_code
            && share.t() == key.threshold.t()
            && share.n() == key.threshold.n()
            && own.is_some_and(|member| member.party_id == self.party_id)
            && key.scheme == <Cggmp21 as Scheme>::ID
    }

    /// The committee that it belongs to.
    pub(crate) fn committee(&self) -> Committee {
        let SharedKey { threshold, epoch, roster, .. } = &self.key;
        Committee { epoch: *epoch, threshold: *threshold, roster: roster.clone() }
    }

    /// The committee that it was dealt from, if as many must agree there as in its own: fewer must not decide for more.
    pub(crate) fn parent(&self) -> Option<Committee> {
        self.dealt_from.clone().filter(|parent| parent.threshold.t() >= self.key.threshold.t())
    }

    /// What policy sees of the key.
    pub(super) fn facts(&self, now: Timestamp) -> KeyFacts {
        let age = now.as_second().saturating_sub(self.created).max(0) / (24 * 3600);
        KeyFacts {
            public_key: self.key.public_key,
            slot: SlotFacts {
                kind: self.share_type,
                threshold_t: self.key.threshold.t(),
                threshold_n: self.key.threshold.n(),
                label: self.label.clone(),
            },
            age_days: u32::try_from(age).unwrap_or(u32::MAX),
            restored: self.restored,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use casemate_wire::{IdentityKey, Member};
    use p256::ecdsa::SigningKey;
    use p256::pkcs8::EncodePublicKey;

    /// Two captured parties of a former 2-of-3 must not make a 3-of-5 give way.
    #[test]
    fn the_committee_before_has_a_say_only_where_as_many_had_to_agree() {
        let member = |index: u16| {
            let key = SigningKey::from_slice(&[u8::try_from(index).unwrap() + 1; 32]).unwrap();
            let identity = IdentityKey::from_spki(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap();
            Member { party_id: format!("party-{index}").parse().unwrap(), party_index: index, identity }
        };
        let roster: Roster = (0..3).map(member).collect::<Vec<_>>().try_into().unwrap();
        let threshold = |t, n| Threshold::new(t, n).unwrap();
        let public_key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
        let dealt = |from: Threshold, to: Threshold| ShareHeader {
            version: ShareHeader::VERSION,
            share_id: "a".into(),
            party_id: "party-0".parse().unwrap(),
            key: SharedKey { public_key, scheme: "s".into(), threshold: to, epoch: 2, roster: roster.clone() },
            share_type: ShareType::Wallet,
            label: None,
            created: 0,
            restored: false,
            joined: None,
            dealt_from: Some(Committee { epoch: 1, threshold: from, roster: roster.clone() }),
        };
        assert!(dealt(threshold(2, 3), threshold(3, 5)).parent().is_none());
        for (from, to) in [((2, 3), (2, 3)), ((3, 5), (2, 3)), ((2, 3), (2, 5))] {
            assert!(dealt(threshold(from.0, from.1), threshold(to.0, to.1)).parent().is_some());
        }
    }
}
