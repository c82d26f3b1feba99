//! What one log says that others can be compared with.

use std::collections::{BTreeMap, BTreeSet};

use casemate_wire::{Digest32, EcdsaSignature, PartyId, PublicKey, SessionId, Threshold};

use crate::leaf::{Leaf, Op, Outcome, PeerCheckpoint, Phase, Tx, Verdict};
use crate::text::{At, LogId, Text};
use crate::tree::MemoryNodes;
use crate::verify::Audit;

/// Takes a log's leaves while an [`Auditor`](crate::verify::Auditor) judges them.
#[derive(Debug)]
pub struct Recorder {
    party: PartyId,
    sessions: BTreeMap<SessionId, Told>,
    seen: Vec<Seen>,
    nodes: MemoryNodes,
}

/// What a good log says.
#[derive(Debug)]
pub struct Account {
    pub(super) party: PartyId,
    pub(super) log: LogId,
    pub(super) size: u64,
    /// How many checkpoints from elsewhere it was compared with.
    pub(super) checkpoints: u64,
    pub(super) sessions: BTreeMap<SessionId, Told>,
    pub(super) seen: Vec<Seen>,
    pub(super) nodes: MemoryNodes,
}

/// A checkpoint of a peer that this log recorded.
#[derive(Debug)]
pub(super) struct Seen {
    /// The leaf that holds it.
    pub(super) seq: u64,
    pub(super) checkpoint: PeerCheckpoint,
}

/// One session as one log tells it.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) intent: Option<Intent>,
    pub(super) end: Option<End>,
    /// The code of a refusal.
    pub(super) refused: Option<Text>,
}

#[derive(Debug)]
pub(super) struct Intent {
    pub(super) seq: u64,
    pub(super) op: Op,
    pub(super) at: At,
    pub(super) key: Option<PublicKey>,
    pub(super) tx: Option<Tx>,
    pub(super) policies: Vec<Text>,
    pub(super) bundle: Option<Digest32>,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) seq: u64,
    pub(super) at: At,
    pub(super) result: Verdict,
    pub(super) code: Option<Text>,
    pub(super) key: Option<PublicKey>,
    pub(super) signature: Option<EcdsaSignature>,
    pub(super) threshold: Option<Threshold>,
    /// Of a rotation.
    pub(super) epoch: Option<u64>,
    /// The others that took part.
    pub(super) peers: BTreeSet<PartyId>,
}

impl Told {
    pub(super) fn completed(&self) -> Option<&End> {
        self.end.as_ref().filter(|end| end.result == Verdict::Completed)
    }
}

impl Recorder {
    /// Begins with nothing.
    pub fn new(party: PartyId) -> Self {
        Self { party, sessions: BTreeMap::new(), seen: Vec::new(), nodes: MemoryNodes::default() }
    }

    /// Takes the next leaf, which the auditor has found good, and its hash.
    pub fn take(&mut self, leaf: &Leaf, hash: Digest32) {
        self.nodes.push(hash);
        let seq = leaf.seq;
        self.seen.extend(leaf.peers.iter().map(|checkpoint| Seen { seq, checkpoint: checkpoint.clone() }));
        let Some(session) = &leaf.session else { return };
        let told = self.sessions.entry(session.clone()).or_default();
        match (leaf.phase, &leaf.outcome) {
            (Phase::Intent, _) => told.intent = Some(intent(leaf)),
            (Phase::Outcome, Some(outcome)) => told.end = Some(end(leaf, outcome)),
            (Phase::Refusal, Some(outcome)) => told.refused.clone_from(&outcome.code),
            _ => {}
        }
    }

    /// The account of a log that was audited to its end.
    pub fn finish(self, audit: &Audit) -> Account {
        let Self { party, sessions, seen, nodes } = self;
        let (log, size) = (audit.report.log.clone(), audit.report.size);
        Account { party, log, size, checkpoints: audit.report.checkpoints, sessions, seen, nodes }
    }
}

fn intent(leaf: &Leaf) -> Intent {
    let decision = leaf.decision.as_ref();
    Intent {
        seq: leaf.seq,
        op: leaf.op,
        at: leaf.at,
        key: leaf.key,
        tx: leaf.tx.clone(),
        policies: decision.map(|decision| decision.policies.clone()).unwrap_or_default(),
        bundle: decision.and_then(|decision| decision.bundle),
    }
}

fn end(leaf: &Leaf, outcome: &Outcome) -> End {
    End {
        seq: leaf.seq,
        at: leaf.at,
        result: outcome.result,
        code: outcome.code.clone(),
        key: leaf.key,
        signature: outcome.signature,
        threshold: outcome.threshold,
        epoch: outcome.epoch,
        peers: leaf.peers.iter().map(|peer| peer.party.clone()).collect(),
    }
}
