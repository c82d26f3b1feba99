//! The offline verifier: reads a log's lines and says either what the log holds or which line is the first bad one.

mod fault;
mod story;

use std::collections::BTreeMap;
use std::io::BufRead;

use casemate_wire::Digest32;
use serde::Serialize;

pub use fault::{Fault, FaultKind, ReadError};
pub use story::OpenIntent;

use crate::checkpoint::Checkpoint;
use crate::head::Head;
use crate::leaf::{Leaf, Phase};
use crate::line::{Line, MAX_LINE};
use crate::state::{Snapshot, State};
use crate::text::{At, LogId};
use story::Story;

/// What a log holds, once every line of it has been found good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The log.
    pub log: LogId,
    /// How many leaves it has.
    pub size: u64,
    /// The last leaf's hash.
    pub head: Digest32,
    /// The root over all leaves: what a checkpoint of this size signs.
    pub root: Digest32,
    /// Intents.
    pub intents: u64,
    /// Outcomes; each belongs to one of the intents.
    pub outcomes: u64,
    /// Refusals.
    pub refusals: u64,
    /// Changes by the daemon or its operator.
    pub admin: u64,
    /// Starts of the daemon.
    pub boots: u64,
    /// Intents without an outcome, oldest first: still running, or cut off.
    pub open_intents: Vec<OpenIntent>,
    /// The first leaf's time.
    pub first: At,
    /// The last leaf's time.
    pub last: At,
    /// How often a leaf is older than the one before it: the host's clock was set back.
    pub clock_set_back: u64,
    /// How many checkpoints that were kept elsewhere it was compared with; at 0, its end may have been cut off.
    pub checkpoints: u64,
}

/// Verifies one log, line by line, in memory that grows only with the number of sessions and guards.
///
/// # Security
/// Without [`Verifier::against`] a log that was cut off at its end, or written anew from its first line, verifies.
#[derive(Debug, Default)]
pub struct Verifier {
    end: Option<End>,
    story: Story,
    counts: BTreeMap<&'static str, u64>,
    clock_set_back: u64,
    state: State,
    known: BTreeMap<u64, Checkpoint>,
    compared: u64,
    fault: Option<Fault>,
}

/// The end of what has been verified so far.
#[derive(Debug)]
struct End {
    head: Head,
    /// The first leaf's time; none before it.
    first: At,
    last: At,
}

impl Verifier {
    /// A verifier that knows nothing but the lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares the log with what its owner signed before: from peers, from whoever collects checkpoints, or from the HSM.
    /// Of several checkpoints of one size give those that differ to [`Verifier::against`] one after the other: the second
    /// is found to contradict the first.
    ///
    /// # Errors
    /// Two checkpoints of one size contradict each other: whoever signed both runs two logs under one name.
    pub fn against(mut self, checkpoint: Checkpoint) -> Result<Self, Fault> {
        match self.known.get(&checkpoint.size) {
            Some(known) if *known != checkpoint => {
                let what =
                    format!("two checkpoints of {} leaves contradict each other: the log was forked", known.size);
                let seq = checkpoint.size;
                Err(Fault { seq, line: seq.saturating_add(1), kind: FaultKind::Head, what })
            }
            _ => {
                self.known.insert(checkpoint.size, checkpoint);
                Ok(self)
            }
        }
    }

    /// A verifier for the lines after a snapshot, whose digest a leaf of the log must then name.
    ///
    /// # Errors
    /// The snapshot does not fit together.
    pub fn resume(snapshot: Snapshot) -> Result<Self, Fault> {
        let Snapshot { place, last, at, boot, tree, state, open, v: _ } = snapshot;
        let head = Head::of_snapshot(place.log, last, boot, tree);
        let story = Story::resume(open, &state);
        Ok(Self { end: Some(End { head, first: at, last: at }), story, state, ..Self::default() })
    }

    /// Takes the guards over that a log rests on which replaces another: its genesis names their snapshot.
    #[must_use]
    pub fn resting_on(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// What every guard says so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where the log stands so far; `None` before its first line.
    pub fn head(&self) -> Option<&Head> {
        self.end.as_ref().map(|end| &end.head)
    }

    /// All that the log rests on from here, for [`Verifier::resume`]. `None` before the first line.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let End { head, last, .. } = self.end.as_ref()?;
        let mut state = self.state.clone();
        state.forget(*last);
        let place = crate::leaf::Place { log: head.log().clone(), size: head.size(), root: head.root() };
        let (last, at, boot, tree) = (head.hash(), *last, head.boot(), head.tree().clone());
        Some(Snapshot { v: 1, place, last, at, boot, tree, state, open: self.story.open() })
    }

    /// Takes the next line, without its newline.
    ///
    /// # Errors
    /// Names this line and what is wrong with it. The verdict on the log is then final: every later call repeats it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Leaf, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let taken = self.take(bytes);
        taken.map_err(|(kind, what)| self.condemn(kind, what))
    }

    /// Ends the log.
    ///
    /// # Errors
    /// The fault that was found before; or that there was no line at all; or that the log ends before the known head.
    pub fn finish(mut self) -> Result<Report, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let Some(end) = self.end.take() else {
            return Err(self.condemn(FaultKind::Empty, "there is no line; a log has at least its genesis".into()));
        };
        let size = end.head.size();
        if let Some(known) = self.known.keys().next_back().copied().filter(|known| *known > size) {
            let what =
                format!("the log ends after {size} leaves, but it is known to have had {known}: its end was cut off");
            self.end = Some(end);
            return Err(self.condemn(FaultKind::Head, what));
        }
        let count = |phase: Phase| self.counts.get(phase.as_str()).copied().unwrap_or(0);
        Ok(Report {
            log: end.head.log().clone(),
            size,
            head: end.head.hash(),
            root: end.head.root(),
            intents: count(Phase::Intent),
            outcomes: count(Phase::Outcome),
            refusals: count(Phase::Refusal),
            admin: count(Phase::Admin),
            boots: count(Phase::Boot),
            first: end.first,
            last: end.last,
            clock_set_back: self.clock_set_back,
            checkpoints: self.compared,
            open_intents: self.story.open(),
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Leaf, (FaultKind, String)> {
        let line = Line::read(bytes).map_err(|e| (FaultKind::of(&e), e.to_string()))?;
        let leaf = line.leaf();
        self.check_place(leaf)?;
        self.story.take(leaf)?;
        let before = self.end.as_ref().map_or_else(|| Head::before(&line), |end| end.head.clone());
        let (head, _) = before.advance(&line).map_err(|e| (FaultKind::Sequence, e.to_string()))?;
        if let Some(known) = self.known.get(&head.size()) {
            if known.log != *head.log() {
                return Err((FaultKind::Head, format!("a checkpoint of this size is of the log {}", known.log)));
            }
            let root = head.root();
            if known.root != root {
                let what = format!(
                    "the root up to here is {root}, but a checkpoint has {}: the log was rewritten",
                    known.root
                );
                return Err((FaultKind::Head, what));
            }
            self.compared += 1;
        }
        self.state.take(leaf);
        let previous = self.end.as_ref();
        self.clock_set_back += u64::from(previous.is_some_and(|end| leaf.at < end.last));
        let first = previous.map_or(leaf.at, |end| end.first);
        self.end = Some(End { head, first, last: leaf.at });
        *self.counts.entry(leaf.phase.as_str()).or_default() += 1;
        Ok(leaf.clone())
    }

    /// Checks that a leaf is the next one of this log.
    fn check_place(&self, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        let wrong = |kind, what| Err((kind, what));
        let Some(End { head, .. }) = &self.end else {
            return match (leaf.seq, leaf.prev.0) {
                (0, prev) if prev == [0; 32] => Ok(()),
                (0, _) => wrong(FaultKind::Chain, "the first leaf names a leaf before it".into()),
                (seq, _) => wrong(FaultKind::Sequence, format!("it has seq {seq}; the first leaf has seq 0")),
            };
        };
        if leaf.log != *head.log() {
            return wrong(FaultKind::Log, format!("it belongs to the log {}, not to {}", leaf.log, head.log()));
        }
        if leaf.seq != head.size() {
            return wrong(FaultKind::Sequence, format!("it has seq {}, but {} must follow", leaf.seq, head.size()));
        }
        if leaf.prev != head.hash() {
            let what =
                "its prev is not the hash of the line before: that line was changed, or this one belongs elsewhere";
            return wrong(FaultKind::Chain, what.into());
        }
        let boot = head.boot() + u64::from(leaf.phase == Phase::Boot);
        if leaf.boot != boot {
            return wrong(FaultKind::Boot, format!("it counts {} starts, but the log shows {boot}", leaf.boot));
        }
        Ok(())
    }

    fn condemn(&mut self, kind: FaultKind, what: String) -> Fault {
        let seq = self.end.as_ref().map_or(0, |end| end.head.size());
        let fault = Fault { seq, line: seq.saturating_add(1), kind, what };
        self.fault = Some(fault.clone());
        fault
    }
}

/// Verifies a whole log from a reader, showing each good leaf to `each`. Memory is bounded whatever the reader holds.
///
/// # Errors
/// The first [`Fault`], or that the reader failed.
pub fn read(
    mut reader: impl BufRead,
    mut verifier: Verifier,
    mut each: impl FnMut(&Leaf),
) -> Result<Report, ReadError> {
    let limit = MAX_LINE as u64 + 2;
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut reader, limit);
        let read = bounded.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(verifier.finish()?);
        }
        match line.strip_suffix(b"\n") {
            Some(line) => each(&verifier.feed(line)?),
            // Too long to be a line: let the verifier say so.
            None if line.len() > MAX_LINE => each(&verifier.feed(&line)?),
            None => {
                let what = "the file ends inside it: its end is missing, or it was still being written";
                return Err(verifier.condemn(FaultKind::Unterminated, what.into()).into());
            }
        }
    }
}
