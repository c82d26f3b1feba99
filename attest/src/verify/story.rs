//! Intent before outcome: each session has at most one intent, and each intent at most one outcome.

use std::collections::HashMap;

use casemate_wire::{PublicKey, SessionId};
use serde::Serialize;

use super::FaultKind;
use crate::leaf::{Leaf, Op, Phase};
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

/// All acts so far; `None` once the outcome has come.
#[derive(Debug, Default)]
pub(super) struct Story {
    acts: HashMap<Join, Option<OpenIntent>>,
}

impl Story {
    pub(super) fn take(&mut self, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
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
        let mut open: Vec<_> = self.acts.into_values().flatten().collect();
        open.sort_by_key(|intent| intent.seq);
        open
    }

    fn intent(&mut self, join: Join, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        if self.acts.contains_key(&join) {
            let what = format!("{} already has an intent; one session acts once", join.name());
            return Err((FaultKind::SecondIntent, what));
        }
        let open = OpenIntent {
            seq: leaf.seq,
            op: leaf.op,
            session: leaf.session.clone(),
            req: leaf.req.clone(),
            key: leaf.key,
            at: leaf.at,
        };
        self.acts.insert(join, Some(open));
        Ok(())
    }

    fn outcome(&mut self, join: &Join, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        let name = join.name();
        let act = self.acts.get_mut(join);
        let act =
            act.ok_or_else(|| (FaultKind::OutcomeWithoutIntent, format!("no intent of {name} stands before it")))?;
        let Some(intent) = act else {
            return Err((FaultKind::SecondOutcome, format!("{name} already has an outcome")));
        };
        let other_key = intent.key.is_some() && intent.key != leaf.key;
        if intent.op != leaf.op || other_key {
            let what = format!("{name} was to be a {}, with another key or as another act", intent.op.as_str());
            return Err((FaultKind::OutcomeMismatch, what));
        }
        *act = None;
        Ok(())
    }
}
