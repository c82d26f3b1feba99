//! Which guards may change in which leaf. A change at another place would be one that no reader of the log looks for.

use std::collections::BTreeSet;

use casemate_wire::Digest32;

use super::{life, only};
use crate::leaf::{Guard, GuardChange, Leaf, Op, Phase, Verdict};

pub(super) fn check(leaf: &Leaf) -> Result<(), String> {
    only(leaf.guards.iter().all(|change| change.to.is_some()), "what guards is never taken away")?;
    for change in &leaf.guards {
        match change.guard {
            Guard::Share => life::share(leaf, change),
            Guard::Token => token(leaf, change),
            Guard::Session => session(leaf, change),
            Guard::AuxInfo => only(life::key_made(leaf), "auxiliary info changes where a key was made or rotated"),
            Guard::Kek => life::kek(leaf, change),
            Guard::Backup => life::backup(leaf, change),
            Guard::Epoch => life::epoch(leaf, change),
            Guard::Bundle => bundle(leaf, change),
            Guard::Spend => spend(leaf, change),
            Guard::Approval => approval(leaf, change),
            Guard::Primes => primes(leaf, change),
            Guard::Peer => peer(leaf, change),
            Guard::Snapshot => snapshot(leaf, change),
        }?;
    }
    life::once(leaf)?;
    life::purpose(leaf)?;
    people(leaf)?;
    all_used(leaf)
}

/// A request uses its token up where it is taken, or refused for good; it shows one token.
fn token(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let asked = matches!(leaf.phase, Phase::Intent | Phase::Refusal) && leaf.session.is_some();
    only(asked, "a token is used up by the intent or refusal of a session")?;
    only(leaf.guards.iter().filter(|other| other.guard == Guard::Token).count() == 1, "a request shows one token")?;
    only(to(change) == Some("used"), "a token becomes used and nothing else")
}

/// A session is begun by its intent, ended by its outcome as that says, or settled by its refusal: its own, and no other.
fn session(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let own = leaf.session.as_ref().is_some_and(|session| session.as_str() == change.id.as_str());
    only(own, "a session changes in its own leaf")?;
    let result = leaf.outcome.as_ref().map(|outcome| outcome.result);
    match (leaf.phase, result, to(change)) {
        (Phase::Intent, None, Some("accepted"))
        | (Phase::Outcome, Some(Verdict::Completed), Some("completed"))
        | (Phase::Outcome, Some(Verdict::Failed), Some("failed" | "expired"))
        | (Phase::Refusal, Some(Verdict::Refused), Some("failed")) => Ok(()),
        _ => Err("a session is accepted by its intent, and ends as its outcome or refusal says".into()),
    }
}

fn bundle(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let loads = leaf.phase == Phase::Genesis || (leaf.phase, leaf.op) == (Phase::Admin, Op::Policy);
    only(loads, "a policy bundle changes in its own admin leaf")?;
    only(to(change).and_then(life::bundle_version).is_some(), "a policy bundle has a version")
}

fn primes(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    only((leaf.phase, leaf.op) == (Phase::Admin, Op::Primes), "primes change in their own admin leaf")?;
    only(matches!(to(change), Some("stored" | "taken")), "primes are stored, then taken")
}

/// What a session has seen of a peer stands in its `peers`; anything else of a peer is an operator's act.
fn peer(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    only((leaf.phase, leaf.op) == (Phase::Admin, Op::Peer), "a peer's log is accepted in its own admin leaf")?;
    only(leaf.actor.is_some(), "somebody accepts a peer's log")?;
    only(crate::state::peer_place(change).is_some(), "a peer's log is accepted at `size root log`")
}

fn snapshot(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let rests = leaf.recovery.is_some() || (leaf.phase, leaf.op) == (Phase::Admin, Op::Prune);
    only(rests, "a snapshot stands where lines before are not at hand")?;
    let digest = to(change).is_some_and(|digest| digest.parse::<Digest32>().is_ok());
    only(digest && change.id.as_str() == "guards", "a snapshot is named by its SHA-256")
}

/// Spend is reserved by the intent that will spend it, and released only where that act failed.
fn spend(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let own = leaf.session.as_ref().is_some_and(|session| session.as_str() == change.id.as_str());
    only(own && leaf.op == Op::Sign, "spend belongs to the signing session of its leaf")?;
    let failed = leaf.outcome.as_ref().is_some_and(|outcome| outcome.result == Verdict::Failed);
    match (leaf.phase, to(change)) {
        (Phase::Intent, Some(state)) if state.starts_with("reserved") => Ok(()),
        (Phase::Outcome, Some("released")) if failed => Ok(()),
        _ => Err("spend is reserved in an intent, and released in a failed outcome".into()),
    }
}

/// Approvals of signatures may be shown again until they expire; all others are used up by the act that they allowed.
fn approval(leaf: &Leaf, change: &GuardChange) -> Result<(), String> {
    let place = "an approval is used up by the intent of anything but a signature, or by an operator's act";
    only(uses_approvals(leaf), place)?;
    only(to(change) == Some("used"), "an approval becomes used and nothing else")?;
    let counted = leaf.approvals.iter().any(|approval| approval.statement.to_string() == change.id.as_str());
    only(counted, "an approval is used up only where it was counted")
}

fn all_used(leaf: &Leaf) -> Result<(), String> {
    let used = |statement: String| {
        let mut guards = leaf.guards.iter().filter(|change| change.guard == Guard::Approval);
        guards.any(|change| change.id.as_str() == statement)
    };
    let all = leaf.approvals.iter().all(|approval| used(approval.statement.to_string()));
    only(all || !uses_approvals(leaf), "every approval that counted here is used up")
}

fn uses_approvals(leaf: &Leaf) -> bool {
    match leaf.phase {
        Phase::Intent => leaf.op != Op::Sign,
        Phase::Admin => leaf.op.may_be_decided(),
        _ => false,
    }
}

/// Policy counts people, so nobody may stand there twice, not even for two organisations.
fn people(leaf: &Leaf) -> Result<(), String> {
    let names: BTreeSet<_> = leaf.approvals.iter().map(|approval| &approval.name).collect();
    only(names.len() == leaf.approvals.len(), "a person approves once")
}

fn to(change: &GuardChange) -> Option<&str> {
    change.to.as_ref().map(crate::text::Text::as_str)
}
