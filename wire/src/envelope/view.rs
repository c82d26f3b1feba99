//! What all parties of a session must agree on before the first protocol message.

use serde::{Deserialize, Serialize};

use super::fault::LocalFault;
use crate::ids::{Digest32, PartyId, PublicKey, SessionId, SessionType, ShareType};
use crate::roster::{Member, Roster, Threshold};
use crate::rotation::Rotation;

const MAX_PATH: usize = 256;
pub(super) const MAX_LOG_NAME: usize = 128;
/// The largest integer that canonical JSON, and so an audit log, holds exactly: 2^53 − 1.
pub(super) const MAX_LOG_SIZE: u64 = (1 << 53) - 1;

/// A party's own view of a session: what its hello states, and what every peer's hello must state as well.
///
/// It comes from what this party itself has checked (join token, request, its own share), never from a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionView {
    /// The session.
    pub session_id: SessionId,
    /// What it is for.
    pub session_type: SessionType,
    /// What the key is for; keygen and rotation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_type: Option<ShareType>,
    /// The key's label, if it has one; keygen and rotation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The key that signs or is rotated; absent at keygen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// The key's epoch, from its shares; 0 at keygen; the one that begins at a rotation.
    pub epoch: u64,
    /// The key's threshold: `t` of `n`.
    pub threshold: Threshold,
    /// Who takes part, in order, and by which identity keys: all `n` at keygen, exactly `t` of them when signing, at a
    /// rotation the new committee and then the dealers that leave.
    pub roster: Roster,
    /// The hash to be signed; absent at keygen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<Digest32>,
    /// The path of the child key that signs, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation_path: Option<String>,
    /// From which shares a rotation starts; rotation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

impl SessionView {
    /// The first field in which `other` differs, by its name.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let Self {
            session_id,
            session_type,
            share_type,
            label,
            key,
            epoch,
            threshold,
            roster,
            message_hash,
            derivation_path,
            rotation,
        } = self;
        [
            ("session_id", *session_id == other.session_id),
            ("session_type", *session_type == other.session_type),
            ("share_type", *share_type == other.share_type),
            ("label", *label == other.label),
            ("key", *key == other.key),
            ("epoch", *epoch == other.epoch),
            ("threshold", *threshold == other.threshold),
            ("roster", *roster == other.roster),
            ("message_hash", *message_hash == other.message_hash),
            ("derivation_path", *derivation_path == other.derivation_path),
            ("rotation", *rotation == other.rotation),
        ]
        .into_iter()
        .find_map(|(name, same)| (!same).then_some(name))
    }

    /// Checks that the view is whole for its type, and finds the own party in it.
    pub(super) fn place_of(&self, party: &PartyId) -> Result<(u16, &Member), LocalFault> {
        let incomplete = |why: &'static str| Err(LocalFault::View { why });
        let size = self.roster.size();
        match self.session_type {
            SessionType::Keygen if self.share_type.is_none() => {
                return incomplete("keygen needs a share type");
            }
            SessionType::Keygen if self.key.is_some() || self.message_hash.is_some() => {
                return incomplete("keygen has no key and no message hash yet");
            }
            SessionType::Keygen if size != self.threshold.n() => {
                return incomplete("keygen needs all n parties");
            }
            SessionType::Sign if self.key.is_none() || self.message_hash.is_none() => {
                return incomplete("signing needs a key and a message hash");
            }
            SessionType::Sign if size != self.threshold.t() => {
                return incomplete("signing takes exactly t parties");
            }
            SessionType::Rotate if self.key.is_none() || self.share_type.is_none() => {
                return incomplete("a rotation needs the key and what it is for");
            }
            SessionType::Rotate => {
                let fits = |rotation: &Rotation| {
                    rotation.epoch == self.epoch && rotation.places(self.threshold, &self.roster).is_ok()
                };
                if !self.rotation.as_ref().is_some_and(fits) {
                    return incomplete("the rotation does not fit the parties that take part");
                }
            }
            _ => {}
        }
        if self.derivation_path.as_ref().is_some_and(|path| path.len() > MAX_PATH) {
            return incomplete("the derivation path is longer than 256 characters");
        }
        let position = self.roster.position(party).ok_or(LocalFault::NotInRoster)?;
        let member = self.roster.member(position).ok_or(LocalFault::NotInRoster)?;
        Ok((position, member))
    }
}

/// A party's statement of where its audit log stands: peers keep it and so become witnesses of that log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The log's name, at most 128 bytes.
    pub log: String,
    /// How many leaves it has, below 2^53.
    pub size: u64,
    /// The root of the tree over all of them.
    pub root: Digest32,
}

impl Checkpoint {
    /// Whether an audit log can stand there.
    pub(super) fn is_possible(&self) -> bool {
        !self.log.is_empty() && self.log.len() <= MAX_LOG_NAME && self.size <= MAX_LOG_SIZE
    }
}

/// How many checkpoints of one peer a hello may name: the last, and those that were seen in sessions side by side with it, as
/// many as run at once with the default limits.
pub const MAX_WITNESSED: usize = 65;

/// What a party has seen of a peer's audit log. The peer must prove, before the first protocol message, that its log still
/// begins with that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witnessed {
    /// Whose log.
    pub party: PartyId,
    /// The last checkpoint of it that this party holds.
    pub checkpoint: Checkpoint,
}
