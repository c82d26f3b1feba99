//! What is asked in a hello, what is answered, and the judgement of all peers.

use std::collections::{BTreeMap, BTreeSet};

use casemate_attest::attestation::AuditClaim;
use casemate_attest::tree::root_at;
use casemate_attest::{AuditKey, Checkpoint, CheckpointError, Claim, Doubt, PeerCheckpoint, SignedCheckpoint};
use casemate_wire::envelope::{Checkpoint as Stated, Introduction, Witnessed};
use casemate_wire::{Digest32, PartyId, Roster};
use rusqlite::Connection;

use super::{Book, Testimony, Unbelieved};
use crate::store::{PeerRow, StoreError, TreeNodes};

/// What this party had seen of its peers' logs when it made its hello.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question(BTreeMap<PartyId, Vec<Checkpoint>>);

impl Question {
    /// Looks up what must be proven by everybody else in the roster.
    pub(crate) fn of(book: &Book, roster: &Roster, own: &PartyId) -> Self {
        let peers = roster.members().iter().map(|member| &member.party_id).filter(|party| *party != own);
        Self(peers.map(|party| (party.clone(), book.known(party))).collect())
    }

    /// As the hello says it.
    pub(crate) fn to_witnessed(&self) -> Vec<Witnessed> {
        let of = |(party, known): (&PartyId, &Vec<Checkpoint>)| {
            let stated =
                |checkpoint: &Checkpoint| Witnessed { party: party.clone(), checkpoint: to_stated(checkpoint) };
            known.iter().map(stated).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    fn known(&self, party: &PartyId) -> &[Checkpoint] {
        self.0.get(party).map_or(&[], Vec::as_slice)
    }
}

/// A checkpoint as hellos state it.
pub(crate) fn to_stated(checkpoint: &Checkpoint) -> Stated {
    Stated { log: checkpoint.log.to_string(), size: checkpoint.size, root: checkpoint.root }
}

/// What the own log has to answer for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hearing {
    /// The sizes from which a proof is owed.
    pub(crate) sizes: BTreeSet<u64>,
    /// Which peers have seen something of this very log, and what of that does not fit to it: in words, `None` where all does.
    pub(crate) seen: BTreeMap<PartyId, Option<String>>,
}

impl Hearing {
    /// Compares what all hellos say of the own log, which stands at `size` at least, with that log.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub(crate) fn of(
        store: &Connection,
        own: &PartyId,
        head: &Checkpoint,
        hellos: &[Introduction],
    ) -> Result<Self, StoreError> {
        let mut hearing = Self::default();
        for hello in hellos {
            if hello.party == *own {
                hearing.sizes.insert(hello.checkpoint.size);
            }
            for seen in hello.witnessed.iter().filter(|seen| seen.party == *own) {
                let Stated { log, size, root } = &seen.checkpoint;
                let whose = &hello.party;
                if log != head.log.as_str() {
                    // That peer refuses this one until its operator accepts the new log.
                    continue;
                }
                let doubt = if *size > head.size {
                    Some(format!("{whose} has seen {size} leaves of this appliance's log, which has {}", head.size))
                } else if *size == 0 || root_at(*size, &TreeNodes(store))? != *root {
                    Some(format!("{whose} has seen another history of this appliance's log, at {size} leaves"))
                } else {
                    hearing.sizes.insert(*size);
                    None
                };
                let before = hearing.seen.entry(whose.clone()).or_default();
                *before = before.take().or(doubt);
            }
        }
        Ok(hearing)
    }

    /// What the first of them has seen that does not fit.
    pub(crate) fn doubted(&self) -> Option<String> {
        self.seen.values().flatten().next().cloned()
    }
}

/// A peer's checkpoint that continues what was seen of it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    party: PartyId,
    signed: SignedCheckpoint,
    attested: Option<Digest32>,
}

impl Seen {
    /// Adds the attestation that came with it; `None` unless that speaks of this very place. Both were made in one message,
    /// so nothing else has a good reason.
    pub(crate) fn attested(mut self, audit: &AuditClaim, token: Digest32) -> Option<Self> {
        let Checkpoint { log, size, root } = self.signed.checkpoint();
        let fits = audit.origin == *log && audit.size == *size && audit.root == *root;
        self.attested = Some(token);
        fits.then_some(self)
    }

    /// For the store.
    pub(crate) fn to_row(&self) -> PeerRow {
        PeerRow::new(self.party.clone(), &self.signed)
    }

    /// For the leaf.
    pub(crate) fn to_logged(&self) -> PeerCheckpoint {
        let Checkpoint { log, size, root } = self.signed.checkpoint().clone();
        PeerCheckpoint { party: self.party.clone(), log, size, root, attested: self.attested }
    }
}

/// Judges what a peer says of its log, by its hello and its testimony; what is good goes into the book.
///
/// # Errors
/// Says why the peer's log is not believed, or cannot be judged now.
pub(crate) fn judge(
    book: &Book,
    question: &Question,
    key: &AuditKey,
    hello: &Introduction,
    testimony: &Testimony,
) -> Result<Seen, Unbelieved> {
    let known = question.known(&hello.party);
    let Stated { log, size, root } = &hello.checkpoint;
    let malformed = |_| CheckpointError::Malformed("its hello names a log as none can be named");
    let stated = Checkpoint { log: log.parse().map_err(malformed).map_err(Doubt::from)?, size: *size, root: *root };
    let claim = Claim { stated: &stated, note: &testimony.note };
    let signed = claim.judge(key, known, |from| testimony.path(from))?;
    book.proven(&hello.party, known, &signed)?;
    Ok(Seen { party: hello.party.clone(), signed, attested: None })
}
