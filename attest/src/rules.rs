//! What a leaf must hold by its phase. Writer and verifier use the same rules, so that neither accepts what the other
//! would not.

mod guards;
pub(crate) mod life;

use serde_json::Value;

use crate::leaf::{Decision, Effect, Leaf, Op, Outcome, Phase, Verdict};

/// The largest integer that every JSON reader takes exactly: 2^53 − 1.
pub(crate) const MAX_INTEGER: u64 = (1 << 53) - 1;

const MAX_DEPTH: usize = 16;

/// Checks one leaf by itself; its place in the chain is another matter.
pub(crate) fn check(leaf: &Leaf) -> Result<(), String> {
    integers(leaf)?;
    guards::check(leaf)?;
    crate::rewrap::check(leaf)?;
    only(leaf.recovery.is_none() || leaf.phase == Phase::Genesis, "only a new log takes the place of another")?;
    only(leaf.detail.is_none() || may_have_detail(leaf), "it has a detail where nothing is withheld")?;
    match leaf.phase {
        Phase::Genesis => genesis(leaf),
        _ if leaf.seq == 0 => Err("the first leaf of a log must be its genesis".into()),
        Phase::Boot => boot(leaf),
        Phase::Intent => intent(leaf),
        Phase::Outcome => outcome(leaf),
        Phase::Refusal => refusal(leaf),
        Phase::Admin => admin(leaf),
    }
}

fn genesis(leaf: &Leaf) -> Result<(), String> {
    only(leaf.op == Op::Init, "a genesis is the op init")?;
    only(leaf.seq == 0, "a genesis can only be the first leaf")?;
    only(leaf.boot == 0, "a genesis comes before the first start")?;
    no_request(leaf)?;
    match &leaf.recovery {
        None => only(leaf.approvals.is_empty(), "nobody signs for a log that replaces none")?,
        Some(recovery) => {
            only(!leaf.approvals.is_empty(), "somebody signs for a log that replaces another")?;
            let same = leaf.approvals.iter().all(|approval| approval.statement == recovery.statement);
            only(same, "those who sign for a log sign the statement that it names")?;
        }
    }
    only(leaf.outcome.is_none(), "nothing was begun that could end")?;
    no_fields_of_an_act(leaf)
}

/// Decoded fields, the words of a refusal and an operator's reasons are withheld; a failure's words are the appliance's own.
fn may_have_detail(leaf: &Leaf) -> bool {
    leaf.phase == Phase::Intent
        || (leaf.phase == Phase::Admin && (leaf.op == Op::Peer || leaf.op.may_be_decided()))
        || leaf.outcome.as_ref().is_some_and(is_refused)
}

fn boot(leaf: &Leaf) -> Result<(), String> {
    only(leaf.op == Op::Boot, "a boot leaf is the op boot")?;
    only(leaf.boot > 0, "a boot leaf counts a start")?;
    no_request(leaf)?;
    no_act(leaf)
}

fn intent(leaf: &Leaf) -> Result<(), String> {
    joined_act(leaf)?;
    only(leaf.actor.is_some(), "an intent names who asked")?;
    only(leaf.outcome.is_none(), "an intent has no outcome yet")?;
    only(
        leaf.decision.as_ref().is_some_and(allows),
        "an intent needs an allowing decision with its policies and bundle",
    )?;
    match leaf.op {
        Op::Sign => {
            only(leaf.key.is_some() && leaf.tx.is_some(), "a signing intent names its key and its digest")?;
            let child = leaf.tx.as_ref().is_none_or(|tx| tx.path.is_some() == tx.child.is_some());
            only(child, "a child is named with its path")
        }
        Op::Rotate => only(leaf.key.is_some() && leaf.tx.is_none(), "a rotation's intent names its key and no digest"),
        _ => only(leaf.key.is_none() && leaf.tx.is_none(), "a keygen intent has no key and no digest yet"),
    }
}

fn allows(decision: &Decision) -> bool {
    decision.effect == Effect::Allow && decision.bundle.is_some() && !decision.policies.is_empty()
}

fn outcome(leaf: &Leaf) -> Result<(), String> {
    joined_act(leaf)?;
    only(leaf.decision.is_none() && leaf.approvals.is_empty(), "the decision stands in the intent")?;
    only(leaf.tx.is_none() && leaf.actor.is_none(), "digest and actor stand in the intent")?;
    let outcome = leaf.outcome.as_ref().ok_or("an outcome leaf needs its outcome")?;
    only(outcome.threshold.is_none() || life::key_made(leaf), "a threshold belongs to a key that was made or rotated")?;
    let rotated = life::key_made(leaf) && leaf.op == Op::Rotate;
    only(outcome.epoch.is_some() == rotated, "an epoch belongs to a key that was rotated")?;
    match (outcome.result, leaf.op) {
        (Verdict::Completed, Op::Sign) => {
            only(
                outcome.signature.is_some() && leaf.key.is_some(),
                "a signature and its key belong to a completed signing",
            )?;
            unblamed(outcome)
        }
        (Verdict::Completed, _) => {
            let named = leaf.key.is_some() && outcome.threshold.is_some();
            only(named, "a completed keygen or rotation names its key and how many parties sign with it")?;
            only(outcome.signature.is_none(), "a keygen or rotation makes no signature")?;
            unblamed(outcome)
        }
        (Verdict::Failed, _) => {
            only(outcome.code.is_some(), "a failure has a code")?;
            only(outcome.signature.is_none(), "a failure has no signature")
        }
        (Verdict::Refused, _) => Err("what was begun cannot be refused any more".into()),
    }
}

fn unblamed(outcome: &Outcome) -> Result<(), String> {
    only(outcome.code.is_none() && outcome.party.is_none(), "a success has no code and no culprit")
}

fn refusal(leaf: &Leaf) -> Result<(), String> {
    only(leaf.outcome.as_ref().is_some_and(is_refused), "a refusal needs a refused outcome with its code")?;
    only(leaf.req.is_some() && leaf.actor.is_some(), "a refusal names its request and who asked")?;
    let denies = leaf.decision.as_ref().is_none_or(|decision| decision.effect == Effect::Deny);
    only(denies, "what policy decided in a refusal is a denial")
}

fn admin(leaf: &Leaf) -> Result<(), String> {
    let admin = matches!(leaf.op, Op::Stop | Op::Policy | Op::Share | Op::Primes | Op::Peer | Op::Prune | Op::Rewrap);
    let admin = admin || leaf.op.may_be_decided();
    only(
        admin,
        "an admin leaf is the op stop, policy, share, primes, peer, prune, revoke, backup, restore, kek or rewrap",
    )?;
    only(leaf.session.is_none(), "an admin leaf belongs to no session")?;
    only(
        leaf.req.is_some() == leaf.actor.is_some(),
        "an operator's call has a request, and a request somebody who asked",
    )?;
    decided(leaf)?;
    match &leaf.outcome {
        None => Ok(()),
        Some(outcome) => {
            only(leaf.op == Op::Policy && is_refused(outcome), "only a policy bundle can be refused in an admin leaf")?;
            only(leaf.guards.is_empty(), "what is refused changes nothing")
        }
    }
}

/// What policy allowed an operator, and by whose approvals. A revocation may name the key whose shares it withdraws.
fn decided(leaf: &Leaf) -> Result<(), String> {
    if !leaf.op.may_be_decided() {
        return no_fields_of_an_act(leaf);
    }
    let acts = leaf.tx.is_some() || !leaf.peers.is_empty() || (leaf.key.is_some() && leaf.op != Op::Revoke);
    only(!acts, "it holds fields of an act")?;
    only(leaf.decision.as_ref().is_none_or(allows), "what policy denied stands in a refusal")?;
    // A restore is signed for by the quorum of the policy's signers, which no policy decides.
    let counted = leaf.decision.is_some() || leaf.op == Op::Restore;
    only(counted || leaf.approvals.is_empty(), "approvals count where policy decided")
}

fn is_refused(outcome: &Outcome) -> bool {
    // Its words may name what is sensitive, so they stand in the leaf's detail.
    let bare = outcome.detail.is_none() && outcome.signature.is_none();
    let bare = bare && outcome.threshold.is_none() && outcome.epoch.is_none();
    outcome.result == Verdict::Refused && outcome.code.is_some() && bare
}

/// An act that its outcome can be joined to.
fn joined_act(leaf: &Leaf) -> Result<(), String> {
    only(leaf.op.is_act(), "only keygen, rotate and sign have intents and outcomes")?;
    only(leaf.session.is_some() || leaf.req.is_some(), "a session or request must join intent and outcome")
}

fn no_request(leaf: &Leaf) -> Result<(), String> {
    let asked = leaf.req.is_some() || leaf.session.is_some() || leaf.actor.is_some();
    only(!asked, "nobody asks for a genesis or a start")
}

fn no_act(leaf: &Leaf) -> Result<(), String> {
    only(leaf.outcome.is_none(), "nothing was begun that could end")?;
    no_fields_of_an_act(leaf)
}

fn no_fields_of_an_act(leaf: &Leaf) -> Result<(), String> {
    let acts = leaf.tx.is_some() || leaf.decision.is_some() || leaf.key.is_some();
    let approved = !leaf.approvals.is_empty() && leaf.phase != Phase::Genesis;
    only(!acts && !approved && leaf.peers.is_empty(), "it holds fields of an act")
}

pub(crate) fn only(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// Refuses numbers that canonical JSON cannot carry exactly.
fn integers(leaf: &Leaf) -> Result<(), String> {
    let recovery = leaf.recovery.iter().flat_map(|recovery| [&recovery.anchored, &recovery.found]).flatten();
    let sizes = leaf.peers.iter().map(|peer| peer.size).chain(recovery.map(|place| place.size));
    let epoch = leaf.outcome.as_ref().and_then(|outcome| outcome.epoch);
    if [leaf.seq, leaf.boot].into_iter().chain(sizes).chain(epoch).any(|number| number > MAX_INTEGER) {
        return Err("a number is above 2^53 - 1".into());
    }
    Ok(())
}

/// Whether decoded fields can stand in canonical JSON.
pub(crate) fn decoded(decoded: Option<&Value>) -> Result<(), String> {
    match decoded {
        None => Ok(()),
        Some(decoded @ Value::Object(_)) => exact(decoded, MAX_DEPTH),
        Some(_) => Err("decoded fields must be an object".into()),
    }
}

fn exact(value: &Value, depth: usize) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("decoded fields are nested too deeply")?;
    match value {
        Value::Number(number) => {
            let magnitude = number.as_i64().map(i64::unsigned_abs);
            let fits = magnitude.is_some_and(|magnitude| magnitude <= MAX_INTEGER);
            only(fits, "a number in the decoded fields is no integer within 2^53 - 1; write it as text")
        }
        Value::Array(items) => items.iter().try_for_each(|item| exact(item, depth)),
        Value::Object(fields) => fields.values().try_for_each(|field| exact(field, depth)),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
