//! Intent before outcome: each session has at most one intent, and each intent at most one outcome. What an intent
//! reserved can be released by its own outcome alone, and an approval that was used up counts no more.

use std::collections::{HashMap, HashSet};

use casemate_wire::{PublicKey, SessionId};
use serde::Serialize;

use super::FaultKind;
use crate::leaf::{Guard, Leaf, Op, Phase};
use crate::text::{At, Text};

/// An intent whose outcome the log does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenIntent {
    /// Its place in the log.
    pub seq: u64,
    /// What was intended.
    pub op: Op,
    /// The session that it opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The request that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub req: Option<Text>,
    /// The key that was to act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// When it was written.
    pub at: At,
}

/// What joins an outcome to its intent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Join {
    Session(SessionId),
    Request(Text),
}

impl Join {
    fn of(leaf: &Leaf) -> Option<Self> {
        let session = leaf.session.clone().map(Self::Session);
        session.or_else(|| leaf.req.clone().map(Self::Request))
    }

    fn name(&self) -> String {
        match self {
            Self::Session(session) => format!("session {session}"),
            Self::Request(req) => format!("request {req}"),
        }
    }
}

/// An act that was begun.
#[derive(Debug)]
struct Begun {
    intent: OpenIntent,
    /// Whether its intent reserved spend.
    reserved: bool,
}

/// All acts so far; `None` once the outcome has come. All approvals that were used up, by their statements' digests.
#[derive(Debug, Default)]
pub(super) struct Story {
    acts: HashMap<Join, Option<Begun>>,
    approvals: HashSet<Text>,
}

impl Story {
    pub(super) fn take(&mut self, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        for change in leaf.guards.iter().filter(|change| change.guard == Guard::Approval) {
            if !self.approvals.insert(change.id.clone()) {
                let what = format!("the approval {} was used before; it counts once", change.id);
                return Err((FaultKind::ApprovalUsedTwice, what));
            }
        }
        let Some(join) = Join::of(leaf) else {
            return Ok(());
        };
        match leaf.phase {
            Phase::Intent => self.intent(join, leaf),
            Phase::Outcome => self.outcome(&join, leaf),
            _ => Ok(()),
        }
    }

    pub(super) fn into_open(self) -> Vec<OpenIntent> {
        let mut open: Vec<_> = self.acts.into_values().flatten().map(|begun| begun.intent).collect();
        open.sort_by_key(|intent| intent.seq);
        open
    }

    fn intent(&mut self, join: Join, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        if self.acts.contains_key(&join) {
            let what = format!("{} already has an intent; one session acts once", join.name());
            return Err((FaultKind::SecondIntent, what));
        }
        let intent = OpenIntent {
            seq: leaf.seq,
            op: leaf.op,
            session: leaf.session.clone(),
            req: leaf.req.clone(),
            key: leaf.key,
            at: leaf.at,
        };
        let reserved = spends(leaf);
        self.acts.insert(join, Some(Begun { intent, reserved }));
        Ok(())
    }

    fn outcome(&mut self, join: &Join, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        let name = join.name();
        let act = self.acts.get_mut(join);
        let act =
            act.ok_or_else(|| (FaultKind::OutcomeWithoutIntent, format!("no intent of {name} stands before it")))?;
        let Some(Begun { intent, reserved }) = act else {
            return Err((FaultKind::SecondOutcome, format!("{name} already has an outcome")));
        };
        let other_key = intent.key.is_some() && intent.key != leaf.key;
        if intent.op != leaf.op || other_key {
            let what = format!("{name} was to be a {}, with another key or as another act", intent.op.as_str());
            return Err((FaultKind::OutcomeMismatch, what));
        }
        if spends(leaf) && !*reserved {
            let what = format!("{name} releases spend that its intent did not reserve");
            return Err((FaultKind::ReleaseWithoutReservation, what));
        }
        *act = None;
        Ok(())
    }
}

fn spends(leaf: &Leaf) -> bool {
    leaf.guards.iter().any(|change| change.guard == Guard::Spend)
}
