//! Where shares, KEKs and backups may change. What came before is looked at where the whole log is read
//! ([`crate::State::admit`]).

use std::collections::BTreeSet;

use casemate_wire::Digest32;

use super::only;
use crate::leaf::{Guard, GuardChange, Leaf, Op, Phase, Verdict};
use crate::life::{KekState, ShareState};

pub(super) fn share(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let to = share_state(change).ok_or("a share has no such state")?;
    match to {
        ShareState::Pending => {
            only(admin(leaf, Op::Share) || makes_shares(leaf), "a share is made by a keygen or rotation")
        }
        ShareState::Active => only(activates(leaf), "a share becomes active by what all parties confirmed"),
        ShareState::Rotated => {
            // Whoever leaves the committee gets no other share.
            let settled = admin(leaf, Op::Share);
            let replaced = settled || rotation_made(leaf) || another_becomes_active(leaf, change);
            only(replaced, "a share is rotated where another takes its place")
        }
        ShareState::Destroyed => {
            let due = admin(leaf, Op::Share) || another_becomes_active(leaf, change);
            only(due, "a share is destroyed in its own admin leaf, or where another takes its place")
        }
        ShareState::Revoked => only(admin(leaf, Op::Revoke), "a share is revoked in its own admin leaf"),
        ShareState::Restored => only(admin(leaf, Op::Restore), "a share is restored in its own admin leaf"),
    }
}

pub(super) fn kek(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    only(admin(leaf, Op::Kek), "a KEK changes in its own admin leaf")?;
    only(kek_epoch(change).is_some(), "a KEK is named by its epoch")?;
    only(kek_state(change).is_some(), "a KEK is made, current, retired or destroyed")
}

pub(super) fn backup(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let (stage, _) = backup_stage(change).ok_or("a backup is `made`, `verified` or `restored`, with its digest")?;
    let op = if stage == Stage::Restored { Op::Restore } else { Op::Backup };
    only(admin(leaf, op), "a backup changes in its own admin leaf")
}

/// Noted before anything is dealt: a key comes to an epoch once.
pub(super) fn epoch(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    only((leaf.phase, leaf.op) == (Phase::Intent, Op::Rotate), "an epoch is entered by the intent of a rotation")?;
    let own = leaf.key.is_some_and(|key| key.to_string() == change.id.as_str());
    only(own, "a rotation enters an epoch of its own key")?;
    only(entered(change).is_some(), "an epoch is a number")
}

/// The number in its one form.
pub(crate) fn entered(change: &GuardChange) -> Option<u64> {
    let text = change.to.as_ref()?.as_str();
    let epoch: u64 = text.parse().ok()?;
    (epoch.to_string() == text).then_some(epoch)
}

/// What each of these leaves is for must stand in it.
pub(super) fn purpose(leaf: &Leaf) -> Result<(), String> {
    if leaf.phase != Phase::Admin {
        return Ok(());
    }
    let count = |guard: Guard| leaf.guards.iter().filter(|change| change.guard == guard).count();
    match leaf.op {
        Op::Revoke => {
            only(leaf.actor.is_some(), "somebody revokes a share")?;
            only(count(Guard::Share) > 0, "a revocation names its shares")
        }
        Op::Restore => {
            only(count(Guard::Backup) == 1, "a restore names its backup")?;
            only(count(Guard::Share) > 0, "a restore names its shares")
        }
        Op::Backup => only(count(Guard::Backup) == 1, "a backup's leaf names it"),
        Op::Kek => only(count(Guard::Kek) > 0, "a KEK's leaf names it"),
        _ => Ok(()),
    }
}

/// One leaf changes one row once, so that what it leads to does not hang on an order. Approvals have their own rule.
pub(super) fn once(leaf: &Leaf) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut rows = leaf.guards.iter().filter(|change| change.guard != Guard::Approval);
    only(rows.all(|change| seen.insert((change.guard.as_str(), &change.id))), "one leaf changes one row once")
}

fn admin(leaf: &Leaf, op: Op) -> bool {
    (leaf.phase, leaf.op) == (Phase::Admin, op)
}

fn makes_shares(leaf: &Leaf) -> bool {
    matches!((leaf.phase, leaf.op), (Phase::Intent | Phase::Outcome, Op::Keygen | Op::Rotate))
}

/// Whether a keygen or rotation has come to its good end here.
pub(super) fn key_made(leaf: &Leaf) -> bool {
    let completed = leaf.outcome.as_ref().is_some_and(|outcome| outcome.result == Verdict::Completed);
    completed && (leaf.phase, matches!(leaf.op, Op::Keygen | Op::Rotate)) == (Phase::Outcome, true)
}

fn rotation_made(leaf: &Leaf) -> bool {
    key_made(leaf) && leaf.op == Op::Rotate
}

/// At its act's good end, or later by the certificate: by an act with the key, or by itself.
fn activates(leaf: &Leaf) -> bool {
    let adopts = matches!((leaf.phase, leaf.op), (Phase::Intent, Op::Sign | Op::Rotate));
    key_made(leaf) || adopts || admin(leaf, Op::Share)
}

fn another_becomes_active(leaf: &Leaf, change: &GuardChange) -> bool {
    let mut shares = leaf.guards.iter().filter(|other| other.guard == Guard::Share && other.id != change.id);
    activates(leaf) && shares.any(|other| share_state(other) == Some(ShareState::Active))
}

fn share_state(change: &GuardChange) -> Option<ShareState> {
    change.to.as_ref()?.as_str().parse().ok()
}

pub(crate) fn kek_state(change: &GuardChange) -> Option<KekState> {
    change.to.as_ref()?.as_str().parse().ok()
}

/// The epoch in the one form that a number has.
pub(crate) fn kek_epoch(change: &GuardChange) -> Option<u64> {
    let epoch: u64 = change.id.as_str().parse().ok()?;
    (epoch.to_string() == change.id.as_str()).then_some(epoch)
}

/// What was done with a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Made,
    Verified,
    Restored,
}

pub(crate) fn backup_stage(change: &GuardChange) -> Option<(Stage, Digest32)> {
    stage(change.to.as_ref()?.as_str())
}

/// `made DIGEST` and so on; the digest is the backup file's.
pub(crate) fn stage(text: &str) -> Option<(Stage, Digest32)> {
    let (stage, digest) = text.split_once(' ')?;
    let stage = match stage {
        "made" => Stage::Made,
        "verified" => Stage::Verified,
        "restored" => Stage::Restored,
        _ => return None,
    };
    Some((stage, digest.parse().ok()?))
}

/// `version N`, and what else identifies the bundle.
pub(crate) fn bundle_version(text: &str) -> Option<u64> {
    text.strip_prefix("version ")?.split(' ').next()?.parse().ok()
}
