//! Intent before outcome: each session has at most one intent, and each intent at most one outcome. What an intent
//! reserved can be released by its own outcome alone, and an approval that was used up counts no more.

use std::collections::{HashMap, HashSet};

use casemate_wire::{PublicKey, SessionId};
use serde::{Deserialize, Serialize};

use super::FaultKind;
use crate::leaf::{Guard, GuardChange, Leaf, Op, Phase};
use crate::state::State;
use crate::text::{At, Text};

/// An intent whose outcome the log does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenIntent {
    /// Its place in the log.
    pub seq: u64,
    /// What was intended.
    pub op: Op,
    /// The session that it opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The request that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req: Option<Text>,
    /// The key that was to act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
            Phase::Refusal => {
                self.refusal(join, leaf);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The story after a snapshot.
    pub(super) fn resume(open: Vec<OpenIntent>, state: &State) -> Self {
        let mut acts: HashMap<Join, Option<Begun>> = HashMap::new();
        for id in state.sessions.keys().filter_map(|id| id.as_str().parse().ok()) {
            acts.insert(Join::Session(id), None);
        }
        for intent in open {
            let session = intent.session.clone();
            let spent = session.as_ref().and_then(|session| state.spend.get(&Text::fitted(session.as_str())));
            let join = session.map(Join::Session).or_else(|| intent.req.clone().map(Join::Request));
            if let Some(join) = join {
                acts.insert(join, Some(Begun { intent, reserved: spent.is_some() }));
            }
        }
        Self { acts, approvals: state.approvals.keys().cloned().collect() }
    }

    pub(super) fn open(&self) -> Vec<OpenIntent> {
        let mut open: Vec<_> = self.acts.values().flatten().map(|begun| begun.intent.clone()).collect();
        open.sort_by_key(|intent| intent.seq);
        open
    }

    fn intent(&mut self, join: Join, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        if self.acts.contains_key(&join) {
            let what = format!("{} was begun or settled before; one session acts once", join.name());
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

    /// A refusal that settles its session ends it: no intent may follow.
    fn refusal(&mut self, join: Join, leaf: &Leaf) {
        let settles = |change: &GuardChange| match &join {
            Join::Session(session) => change.guard == Guard::Session && change.id.as_str() == session.as_str(),
            Join::Request(_) => false,
        };
        if leaf.guards.iter().any(settles) {
            self.acts.entry(join).or_insert(None);
        }
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
