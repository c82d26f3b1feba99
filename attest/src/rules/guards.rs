//! Which guards may change in which leaf. A change at another place would be one that no reader of the log looks for.

use std::collections::BTreeSet;

use casemate_wire::Digest32;

use super::only;
use crate::leaf::{Guard, GuardChange, Leaf, Op, Phase, Verdict};

pub(super) fn check(leaf: &Leaf) -> Result<(), String> {
    for change in &leaf.guards {
        match change.guard {
            Guard::Share | Guard::Token | Guard::Session | Guard::AuxInfo => Ok(()),
            Guard::Bundle => bundle(leaf),
            Guard::Spend => spend(leaf, change),
            Guard::Approval => approval(leaf, change),
            Guard::Primes => primes(leaf, change),
            Guard::Peer => peer(leaf, change),
            Guard::Snapshot => snapshot(leaf, change),
        }?;
    }
    only(leaf.guards.iter().all(|change| change.to.is_some()), "what guards is never taken away")?;
    people(leaf)?;
    all_used(leaf)
}

fn bundle(leaf: &Leaf) -> Result<(), String> {
    let loads = leaf.phase == Phase::Genesis || (leaf.phase, leaf.op) == (Phase::Admin, Op::Policy);
    only(loads, "a policy bundle changes in its own admin leaf")
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
    only(uses_approvals(leaf), "an approval is used up by the intent of anything but a signature")?;
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
    leaf.phase == Phase::Intent && leaf.op != Op::Sign
}

/// Policy counts people, so nobody may stand there twice, not even for two organisations.
fn people(leaf: &Leaf) -> Result<(), String> {
    let names: BTreeSet<_> = leaf.approvals.iter().map(|approval| &approval.name).collect();
    only(names.len() == leaf.approvals.len(), "a person approves once")
}

fn to(change: &GuardChange) -> Option<&str> {
    change.to.as_ref().map(crate::text::Text::as_str)
}
