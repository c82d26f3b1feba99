//! The offline verifier: reads a log's lines and says either what the log holds or which line is the first bad one.

mod audit;
mod fault;
mod signatures;
mod story;

use std::collections::BTreeMap;
use std::io::BufRead;

use casemate_wire::Digest32;
use serde::Serialize;

pub use audit::{Audit, Auditor, Withheld};
pub use fault::{Fault, FaultKind, ReadError};
pub use signatures::{ChildKeys, NoChildKeys, Signatures};
pub use story::OpenIntent;

use crate::checkpoint::Checkpoint;
use crate::head::Head;
use crate::leaf::{Guard, Leaf, Op, Phase};
use crate::line::{Line, MAX_LINE};
use crate::rewrap::OpenRewrap;
use crate::state::{Past, Snapshot, State};
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
    /// The last re-wrapping, if it has not ended: it runs still, or was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_rewrap: Option<OpenRewrap>,
    /// The first leaf's time.
    pub first: At,
    /// The last leaf's time.
    pub last: At,
    /// How often a leaf is older than the one before it: the host's clock was set back.
    pub clock_set_back: u64,
    /// How many checkpoints that were kept elsewhere it was compared with; at 0, its end may have been cut off.
    pub checkpoints: u64,
    /// The largest size of those; what comes after it rests on the chain alone.
    pub checkpointed: u64,
    /// How many checkpoints it could not be compared with, because their leaves are not among these lines.
    pub checkpoints_before: u64,
    /// What the lines rest on, where they do not begin with the log's genesis.
    pub rests_on: Option<Rest>,
}

/// A snapshot of all guards in the place of the lines before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// How many leaves it stands for.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Digest32,
    /// The leaf that names it; `None` means that nothing vouches for it.
    pub named_by: Option<u64>,
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
    /// Whether the guards are at hand that a log takes over which replaces another.
    carried: Option<Past>,
    /// Whether all that the guards said before is known.
    past: Past,
    known: BTreeMap<u64, Checkpoint>,
    compared: u64,
    /// What the lines rest on, which the first of them must name.
    rests_on: Option<Rest>,
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
    /// Two checkpoints of one size contradict each other: whoever signed both runs two logs under one name. Or it is not
    /// the snapshot's that the lines rest on.
    pub fn against(mut self, checkpoint: Checkpoint) -> Result<Self, Fault> {
        if checkpoint.size == 0 {
            let what = "a checkpoint of no leaves has another root than no leaves have";
            let empty = checkpoint.root == crate::tree::empty_root();
            return if empty { Ok(self) } else { Err(self.condemn(FaultKind::Head, what.into())) };
        }
        let here = self.end.as_ref().map(|end| &end.head).filter(|head| head.size() == checkpoint.size);
        if let Some(what) = here.and_then(|head| differs(&checkpoint, head)) {
            return Err(self.condemn(FaultKind::Head, what));
        }
        let compared_here = here.is_some() && !self.known.contains_key(&checkpoint.size);
        self.compared += u64::from(compared_here);
        match self.known.get(&checkpoint.size) {
            Some(known) if *known != checkpoint => {
                let what =
                    format!("two checkpoints of {} leaves contradict each other: the log was forked", known.size);
                Err(self.condemn(FaultKind::Head, what))
            }
            _ => {
                self.known.insert(checkpoint.size, checkpoint);
                Ok(self)
            }
        }
    }

    /// A verifier for the lines after a snapshot, whose digest the first of them must name.
    ///
    /// # Errors
    /// The snapshot does not fit together.
    pub fn resume(snapshot: Snapshot) -> Result<Self, Fault> {
        let unfit = |what: String| Fault { seq: snapshot.place.size, line: 1, kind: FaultKind::Snapshot, what };
        let text = snapshot.to_text().map_err(|error| unfit(error.to_string()))?;
        if snapshot.tree.size() != snapshot.place.size || snapshot.tree.root() != snapshot.place.root {
            return Err(unfit("the tree of the snapshot is not the one that it names".into()));
        }
        let rests_on = Some(Rest { size: snapshot.place.size, digest: Snapshot::digest(&text), named_by: None });
        let Snapshot { place, last, at, boot, tree, state, open, v: _ } = snapshot;
        let head = Head::of_snapshot(place.log, last, boot, tree);
        let story = Story::resume(open, &state);
        let end = Some(End { head, first: at, last: at });
        Ok(Self { end, story, state, carried: Some(Past::Known), rests_on, ..Self::default() })
    }

    /// Takes the guards over that a log rests on which replaces another: its genesis names their snapshot.
    #[must_use]
    pub fn resting_on(mut self, state: State) -> Self {
        self.state = state;
        self.carried = Some(Past::Known);
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
            checkpointed: self.checkpointed(size),
            checkpoints_before: (self.known.len() as u64).saturating_sub(self.compared),
            rests_on: self.rests_on.clone(),
            open_intents: self.story.open(),
            open_rewrap: self.state.rewrapping.clone(),
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Leaf, (FaultKind, String)> {
        let line = Line::read(bytes).map_err(|e| (FaultKind::of(&e), e.to_string()))?;
        let leaf = line.leaf();
        self.check_place(leaf)?;
        self.check_snapshot(leaf)?;
        self.story.take(leaf)?;
        let before = self.end.as_ref().map_or_else(|| Head::before(&line), |end| end.head.clone());
        let (head, _) = before.advance(&line).map_err(|e| (FaultKind::Sequence, e.to_string()))?;
        if let Some(known) = self.known.get(&head.size()) {
            if let Some(what) = differs(known, &head) {
                return Err((FaultKind::Head, what));
            }
            self.compared += 1;
        }
        // A log that replaces another rests on that one's guards; without them little is known of what they allow.
        if leaf.recovery.is_some() {
            self.past = self.carried.unwrap_or(Past::Unseen);
        }
        self.state.admit_after(self.past, leaf).map_err(|what| (FaultKind::Guard, what))?;
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

    /// Checks that a leaf which vouches for a snapshot vouches for the right one: the one that these lines rest on, or the
    /// one that follows from all lines before it.
    fn check_snapshot(&mut self, leaf: &Leaf) -> Result<(), (FaultKind, String)> {
        let wrong = |what: &str| Err((FaultKind::Snapshot, what.to_owned()));
        let named = leaf.guards.iter().find(|change| change.guard == Guard::Snapshot);
        let named: Option<Digest32> = named.and_then(|change| change.to.as_ref()?.as_str().parse().ok());
        let rest = self.rests_on.as_mut().filter(|rest| rest.named_by.is_none());
        match (rest, named) {
            (Some(rest), Some(named)) if named == rest.digest => {
                rest.named_by = Some(leaf.seq);
                Ok(())
            }
            (Some(_), _) => wrong("it does not name the snapshot that the lines from here on rest on"),
            (None, Some(named)) if leaf.op == Op::Prune => {
                let snapshot = self.snapshot().and_then(|snapshot| Some((snapshot.to_text().ok()?, snapshot.state)));
                let Some((_, state)) = snapshot.filter(|(text, _)| Snapshot::digest(text) == named) else {
                    return wrong("the snapshot that it names is not what the lines before it lead to");
                };
                // What it has forgotten stays forgotten, as for whoever goes on from the snapshot.
                self.state = state;
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// The largest size that was compared with a checkpoint.
    fn checkpointed(&self, size: u64) -> u64 {
        let rests_on = self.rests_on.as_ref().map_or(0, |rest| rest.size);
        let mut sizes = self.known.keys().rev().copied();
        sizes.find(|known| (rests_on..=size).contains(known)).unwrap_or(0)
    }

    /// Finds fault with the line that was taken last.
    fn condemn_last(&mut self, kind: FaultKind, what: String) -> Fault {
        let size = self.end.as_ref().map_or(0, |end| end.head.size());
        let fault = Fault { seq: size.saturating_sub(1), line: size.max(1), kind, what };
        self.fault = Some(fault.clone());
        fault
    }

    fn condemn(&mut self, kind: FaultKind, what: String) -> Fault {
        let seq = self.end.as_ref().map_or(0, |end| end.head.size());
        let fault = Fault { seq, line: seq.saturating_add(1), kind, what };
        self.fault = Some(fault.clone());
        fault
    }
}

/// What is wrong with a head of a checkpoint's size.
fn differs(known: &Checkpoint, head: &Head) -> Option<String> {
    if known.log != *head.log() {
        return Some(format!("a checkpoint of this size is of the log {}, not of {}", known.log, head.log()));
    }
    let root = head.root();
    let rewritten =
        || format!("the root up to here is {root}, but a checkpoint has {}: the log was rewritten", known.root);
    (known.root != root).then(rewritten)
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
