//! The fields of one leaf. Absent fields are left out of the line, and unknown ones are refused.

use casemate_wire::{Digest32, EcdsaSignature, PartyId, PublicKey, SessionId, Threshold};
use serde::{Deserialize, Serialize};

use crate::rewrap::Rewrap;
use crate::text::{At, LogId, Text};

/// The version of the leaf's form.
pub const VERSION: u16 = 1;

/// One leaf. [`crate::Head::append`] makes it, [`crate::Line`] holds its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// The version of this form.
    pub v: u16,
    /// The log that it belongs to.
    pub log: LogId,
    /// Its place in the log, from 0, without gaps.
    pub seq: u64,
    /// The hash of the leaf before; zeros in the first.
    pub prev: Digest32,
    /// When it was written, by the host's wall clock.
    pub at: At,
    /// How many times the daemon had started on this log; 0 until its first start.
    pub boot: u64,
    /// What it is about.
    pub op: Op,
    /// Which stage of that.
    pub phase: Phase,
    /// The request that caused it, as the `x-request-id` of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req: Option<Text>,
    /// The session; it joins an outcome to its intent (else `req` does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Who asked: a client's configured name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Text>,
    /// The key that acts, or that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// What was asked to be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
    /// What policy said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Whose approvals were counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Every guard that changes in the same database transaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardChange>,
    /// Where the peers' logs stood: each is proven to continue what this party had seen of it before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerCheckpoint>,
    /// Commits to what is sensitive about the leaf ([`crate::Disclosure::commitment`]), which is kept beside the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Digest32>,
    /// What a log that was begun anew takes the place of; in a genesis only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// One end of a re-wrapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrap: Option<Rewrap>,
}

/// What a leaf is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The log begins.
    Init,
    /// The daemon starts.
    Boot,
    /// The daemon stops in order.
    Stop,
    /// A key is made.
    Keygen,
    /// A key's shares are made anew, for the same committee or another.
    Rotate,
    /// A hash is signed.
    Sign,
    /// A policy bundle is loaded or refused.
    Policy,
    /// A share changes its state outside an act's own leaves.
    Share,
    /// A pair of safe primes is stored, or taken for use.
    Primes,
    /// An operator accepts another log of a peer.
    Peer,
    /// Lines up to here were exported, and are kept elsewhere from now on.
    Prune,
    /// An operator withdraws shares.
    Revoke,
    /// A backup is made, or verified.
    Backup,
    /// Shares are brought back from a backup.
    Restore,
    /// A KEK is made, takes the place of another, or is destroyed.
    Kek,
    /// The wrapped keys of all rows are brought to another KEK, HSM or recovery HSM.
    Rewrap,
}

impl Op {
    /// Whether it is something done with other parties, which needs an intent before and an outcome after.
    pub fn is_act(self) -> bool {
        matches!(self, Self::Keygen | Self::Rotate | Self::Sign)
    }

    /// Whether it is an operator's act on this appliance alone that policy may have decided.
    pub fn may_be_decided(self) -> bool {
        matches!(self, Self::Revoke | Self::Backup | Self::Restore | Self::Kek)
    }

    /// The word that stands in the leaf.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Boot => "boot",
            Self::Stop => "stop",
            Self::Keygen => "keygen",
            Self::Rotate => "rotate",
            Self::Sign => "sign",
            Self::Policy => "policy",
            Self::Share => "share",
            Self::Primes => "primes",
            Self::Peer => "peer",
            Self::Prune => "prune",
            Self::Revoke => "revoke",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Kek => "kek",
            Self::Rewrap => "rewrap",
        }
    }
}

/// Which stage of an operation a leaf records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The first leaf of a log.
    Genesis,
    /// Before the act: durable before a share is unsealed or a message leaves.
    Intent,
    /// After the act: durable before its result is released.
    Outcome,
    /// What was asked and not done.
    Refusal,
    /// A change by this host's operator or by the daemon itself.
    Admin,
    /// A start of the daemon.
    Boot,
}

impl Phase {
    /// The word that stands in the leaf.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Refusal => "refusal",
            Self::Admin => "admin",
            Self::Boot => "boot",
        }
    }
}

/// What was asked to be signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tx {
    /// The message hash. What was decoded stands in the leaf's detail.
    pub digest: Digest32,
    /// The derivation path of the child that signs, as `m/0/7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// That child's public key: what the signature verifies under. Absent where the key itself signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<PublicKey>,
}

impl Tx {
    /// Of the key itself.
    pub fn of(digest: Digest32) -> Self {
        Self { digest, path: None, child: None }
    }
}

/// Which way policy decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A permit applied and no forbid.
    Allow,
    /// Everything else.
    Deny,
}

/// What policy said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Which way.
    pub effect: Effect,
    /// The policies that decided, sorted.
    pub policies: Vec<Text>,
    /// The digest of the bundle that they stand in; absent when none was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest32>,
}

/// One approval that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who approved.
    pub name: Text,
    /// For which organisation.
    pub org: Text,
    /// The SHA-256 of the statement that was signed.
    pub statement: Digest32,
}

/// How an act ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// In one word.
    pub result: Verdict,
    /// The stable code of a failure or refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Text>,
    /// The failure in words; a refusal's words stand in the leaf's detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Text>,
    /// The peer that is proven to have caused a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<PartyId>,
    /// The signature that was made and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<EcdsaSignature>,
    /// How many parties sign with the key that was made, of how many, as `[t, n]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// The epoch that the key's shares have from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// How an act ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The result was made, and is released after this leaf.
    Completed,
    /// It was begun and ended without a result here.
    Failed,
    /// It was not begun.
    Refused,
}

impl Outcome {
    /// A signature was made.
    pub fn signed(signature: EcdsaSignature) -> Self {
        Self { signature: Some(signature), ..Self::ended(Verdict::Completed) }
    }

    /// A key was made; the leaf's `key` names it.
    pub fn key_made(threshold: Threshold) -> Self {
        Self { threshold: Some(threshold), ..Self::ended(Verdict::Completed) }
    }

    /// A key was rotated; the leaf's `key` names it.
    pub fn rotated(threshold: Threshold, epoch: u64) -> Self {
        Self { epoch: Some(epoch), ..Self::key_made(threshold) }
    }

    /// The act failed.
    pub fn failed(code: Text, detail: Text) -> Self {
        Self { code: Some(code), detail: Some(detail), ..Self::ended(Verdict::Failed) }
    }

    pub(crate) fn refused(code: Text) -> Self {
        Self { code: Some(code), ..Self::ended(Verdict::Refused) }
    }

    /// Names the peer that is proven to have caused it.
    #[must_use]
    pub fn by(mut self, party: PartyId) -> Self {
        self.party = Some(party);
        self
    }

    fn ended(result: Verdict) -> Self {
        Self { result, code: None, detail: None, party: None, signature: None, threshold: None, epoch: None }
    }
}

/// What kind of row keeps the appliance from doing something twice, too often, or with the wrong thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// A share and its [state](crate::ShareState); the id is the share's.
    Share,
    /// A KEK and its [state](crate::KekState); the id is its epoch, a number.
    Kek,
    /// A backup: `made`, `verified` or `restored`, and the SHA-256 of its file; the id is the backup's.
    Backup,
    /// A used join token; the id is its `jti`.
    Token,
    /// A session and its state; the id is the session's.
    Session,
    /// A committee's auxiliary information; the id is the roster's digest.
    AuxInfo,
    /// The active policy bundle and its version; the id is the bundle's name.
    Bundle,
    /// What a session counts in the spend windows; the id is the session's. `reserved …` in its intent; `released` in its
    /// failed outcome, where provably nothing left this party.
    Spend,
    /// An approval of something else than a signature, which counts once; the id is its statement's digest, in hex.
    Approval,
    /// A pair of safe primes, which serves once; the id is the pair's. `stored`, then `taken`.
    Primes,
    /// Another log of a peer that an operator accepted; the id is the party's, the state is `size root log`.
    Peer,
    /// The latest epoch that this party has taken part in bringing a key to, also in vain; the id is the key's.
    Epoch,
    /// The state of all guards at this leaf, for a log that does not begin with what it rests on; the id is `guards`, the
    /// state is the SHA-256 of the [`crate::Snapshot`].
    Snapshot,
}

impl Guard {
    /// The word that stands in the leaf.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Kek => "kek",
            Self::Backup => "backup",
            Self::Token => "token",
            Self::Session => "session",
            Self::AuxInfo => "aux_info",
            Self::Bundle => "bundle",
            Self::Spend => "spend",
            Self::Approval => "approval",
            Self::Primes => "primes",
            Self::Peer => "peer",
            Self::Epoch => "epoch",
            Self::Snapshot => "snapshot",
        }
    }
}

/// One change of a guard, committed to by the leaf of the database transaction that makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardChange {
    /// The kind of row.
    pub guard: Guard,
    /// Which row.
    pub id: Text,
    /// What it says from now on; absent when the row goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Text>,
}

/// Where a peer's log stood, by a checkpoint that its audit key signed and that continues what was seen of it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerCheckpoint {
    /// The peer.
    pub party: PartyId,
    /// Its log.
    pub log: LogId,
    /// How many leaves it had.
    pub size: u64,
    /// The root that commits to them.
    pub root: Digest32,
    /// The SHA-256 of the attestation token that it gave, where policy asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<Digest32>,
}

/// Where a log stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The log.
    pub log: LogId,
    /// How many leaves it had.
    pub size: u64,
    /// The root that commits to them.
    pub root: Digest32,
}

/// Why a log was begun anew in the place of another: after a rollback, a fork or a restore, with the policy quorum's
/// signatures over both heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// What was found at the start, in one word.
    pub verdict: Text,
    /// What the HSM held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchored: Option<Place>,
    /// What the database held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Place>,
    /// The SHA-256 of the statement that the quorum signed; `approvals` of the leaf names its people.
    pub statement: Digest32,
}
