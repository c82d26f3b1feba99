//! The peers, and which identity keys stand for which party.

use std::path::PathBuf;

use casemate_attest::AuditKey;
use casemate_attest::attestation::AttestKey;
use casemate_wire::{IdentityKey, Member, PartyId};
use serde::Deserialize;

use super::Config;

/// Another appliance, pinned by the keys in its HSM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub party_id: PartyId,
    /// Its identity key, hex of the SubjectPublicKeyInfo.
    pub identity: IdentityKey,
    /// Identity keys that it had before, in HSMs that it has left: keys that were made with one of them are still its own. It
    /// cannot prove itself by them any more.
    #[serde(default)]
    pub former_identities: Vec<IdentityKey>,
    /// Its audit key, in the same form: what it signs of its audit log is checked with it, in every session.
    pub audit: AuditKey,
    /// Its attest key, in the same form: what its attestations are checked with.
    pub attest: Option<AttestKey>,
    /// A file that says what its attestations should say; it holds the attest key too.
    pub reference: Option<PathBuf>,
}

impl Config {
    /// The peer whose attestations would be checked with this key, if there is one.
    pub fn peer_with_attest_key(&self, key: &AttestKey) -> Option<&PartyId> {
        let by_file = self.attestation.references.values().find(|reference| reference.attest_key == *key);
        let by_pin = self.peers.iter().find(|peer| peer.attest.as_ref() == Some(key));
        by_file.map(|reference| &reference.party).or(by_pin.map(|peer| &peer.party_id))
    }

    /// A pinned peer.
    pub fn peer(&self, party: &PartyId) -> Option<&Peer> {
        self.peers.iter().find(|peer| &peer.party_id == party)
    }

    /// The pinned identity of a party; `own` is what this host's HSM holds.
    pub fn identity_of(&self, party: &PartyId, own: &IdentityKey) -> Option<IdentityKey> {
        if party == &self.party {
            return Some(own.clone());
        }
        self.peer(party).map(|peer| peer.identity.clone())
    }

    /// The identity by which a member of a key's committee is to be verified: the one that it is named with, if that is pinned
    /// for its party as a former one; else the pinned one, which is then another or the same.
    pub fn known_member(&self, member: &Member, own: &IdentityKey) -> Option<IdentityKey> {
        let identity = &member.identity;
        let present = self.identity_of(&member.party_id, own)?;
        let former = if member.party_id == self.party {
            &self.former_identities
        } else {
            &self.peer(&member.party_id)?.former_identities
        };
        Some(if former.contains(identity) { identity.clone() } else { present })
    }

    /// Whether a participant of a session is the member of a key's committee: the same party, and its member's identity is
    /// the participant's or one that it had before.
    pub fn is_same_party(&self, participant: &Member, member: &Member, own: &IdentityKey) -> bool {
        participant.party_id == member.party_id
            && (participant.identity == member.identity
                || self.known_member(member, own).as_ref() == Some(&member.identity))
    }
}

/// Checks that no two parties can be taken for each other.
pub(super) fn check(own: &PartyId, peers: &[Peer]) -> Result<(), String> {
    for (place, peer) in peers.iter().enumerate() {
        let name = &peer.party_id;
        if name == own {
            return Err(format!("{name} is this party itself; list only the others"));
        }
        if peers.iter().any(|other| peer.audit.is(&other.identity)) {
            return Err(format!("the audit key of {name} is an identity key"));
        }
        for earlier in peers.iter().take(place) {
            if &earlier.party_id == name {
                return Err(format!("{name} stands twice"));
            }
            if earlier.identity == peer.identity {
                return Err(format!("{} and {name} have the same identity", earlier.party_id));
            }
            if earlier.audit == peer.audit {
                return Err(format!("{} and {name} have the same audit key", earlier.party_id));
            }
        }
    }
    Ok(())
}
