//! `casemate audit prove`: proofs that need no log to be checked, only a signed checkpoint.

use std::error::Error;
use std::path::{Path, PathBuf};

use casemate_attest::line::leaf_hash;
use casemate_attest::proof::ProveError;
use casemate_attest::tree::MemoryNodes;
use casemate_attest::{Checkpoint, ConsistencyProof, Fault, InclusionProof, Verifier};
use casemate_wire::Digest32;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{CommandResult, exit, say};
use super::notes::{self, NoteArguments};
use super::source::{LogArguments, Source, read_text};
use super::{Shape, plain};
use crate::store::{StoreError, TreeNodes};

/// The longest proof that is read, in bytes.
const MAX_PROOF: u64 = 64 * 1024;

#[derive(Subcommand)]
pub(in super::super) enum ProveCommand {
    /// Prove that a leaf stands at its place: prints `{size, seq, leaf, path}`.
    Inclusion(InclusionArguments),
    /// Prove that the log begins with an earlier one: prints `{from, to, from_root, to_root, path}`.
    Consistency(ConsistencyArguments),
    /// Check such a proof against signed checkpoints. Exit code 1 if it proves nothing.
    Check(CheckArguments),
}

#[derive(Args)]
pub(in super::super) struct InclusionArguments {
    #[command(flatten)]
    log: LogArguments,
    /// The leaf's place, from 0.
    #[arg(long)]
    seq: u64,
    /// In the log of so many leaves: the size of the checkpoint that it will be checked against. All of them if absent.
    #[arg(long)]
    size: Option<u64>,
}

#[derive(Args)]
pub(in super::super) struct ConsistencyArguments {
    #[command(flatten)]
    log: LogArguments,
    /// The size of the earlier checkpoint.
    #[arg(long)]
    from: u64,
    /// The size of the later checkpoint. All leaves if absent.
    #[arg(long)]
    to: Option<u64>,
}

#[derive(Args)]
pub(in super::super) struct CheckArguments {
    /// The proof, as `inclusion` or `consistency` printed it.
    #[arg(value_name = "PROOF")]
    proof: PathBuf,
    #[command(flatten)]
    notes: NoteArguments,
    /// The earlier checkpoint, for a proof of consistency.
    #[arg(long, value_name = "NOTE_FILE")]
    from_checkpoint: Option<PathBuf>,
    /// A file with the leaf's line: shows that the proof is about this leaf.
    #[arg(long, value_name = "FILE")]
    line: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

pub(in super::super) fn run(command: ProveCommand) -> CommandResult {
    match command {
        ProveCommand::Inclusion(InclusionArguments { log, seq, size }) => {
            print(prove(&log.open()?, size, |end, tree| Proof::inclusion(seq, end, tree))?)
        }
        ProveCommand::Consistency(ConsistencyArguments { log, from, to }) => {
            print(prove(&log.open()?, to, |end, tree| Proof::consistency(from, end, tree))?)
        }
        ProveCommand::Check(arguments) => check(&arguments),
    }
}

fn print(proof: Proof) -> CommandResult {
    say(match proof {
        Proof::Inclusion(proof) => serde_json::to_string(&proof)?,
        Proof::Consistency(proof) => serde_json::to_string(&proof)?,
    });
    Ok(exit::OK)
}

/// Either proof; their JSON tells them apart.
#[derive(Deserialize)]
#[serde(untagged)]
enum Proof {
    Inclusion(InclusionProof),
    Consistency(ConsistencyProof),
}

/// The nodes of a log, wherever they are.
enum Tree<'a> {
    Memory(&'a MemoryNodes),
    Store(TreeNodes<'a>),
}

impl Proof {
    fn inclusion(seq: u64, size: u64, tree: &Tree<'_>) -> Result<Self, String> {
        match tree {
            Tree::Memory(nodes) => InclusionProof::make(seq, size, *nodes).map_err(text),
            Tree::Store(nodes) => InclusionProof::make(seq, size, nodes).map_err(text),
        }
        .map(Self::Inclusion)
    }

    fn consistency(from: u64, to: u64, tree: &Tree<'_>) -> Result<Self, String> {
        match tree {
            Tree::Memory(nodes) => ConsistencyProof::make(from, to, *nodes).map_err(text),
            Tree::Store(nodes) => ConsistencyProof::make(from, to, nodes).map_err(text),
        }
        .map(Self::Consistency)
    }
}

fn text<E: std::fmt::Display>(error: ProveError<E>) -> String {
    match error {
        ProveError::Range(why) => format!("there is nothing to prove: {why}"),
        ProveError::Nodes(error) => error.to_string(),
    }
}

/// Makes a proof in the log of `size` leaves, or of all.
fn prove(
    source: &Source,
    size: Option<u64>,
    make: impl FnOnce(u64, &Tree<'_>) -> Result<Proof, String>,
) -> Result<Proof, Box<dyn Error>> {
    if let Source::Store(connection) = source {
        // The store keeps the tree's nodes, also of lines that were pruned.
        let last = connection.query_row("SELECT coalesce(max(seq) + 1, 0) FROM leaves", [], |row| row.get::<_, i64>(0));
        let all = u64::try_from(last.map_err(StoreError::sqlite("read the audit log"))?)?;
        return Ok(make(within(size, all)?, &Tree::Store(TreeNodes(connection)))?);
    }
    let (mut nodes, mut verifier) = (MemoryNodes::default(), Verifier::new());
    let broken = source.each_line(|bytes| {
        verifier.feed(bytes)?;
        nodes.push(leaf_hash(bytes));
        Ok::<_, Fault>(())
    })?;
    if let Some(fault) = broken {
        let why = "nothing is proven from a log that is not valid; if it begins with a later segment, give all segments before it";
        return Err(format!("{}; {why}", plain(&fault.to_string())).into());
    }
    let all = nodes.frontier().size();
    Ok(make(within(size, all)?, &Tree::Memory(&nodes))?)
}

fn within(size: Option<u64>, all: u64) -> Result<u64, String> {
    match size {
        Some(size) if size > all => Err(format!("the log has {all} leaves, not {size}; give a size up to that")),
        Some(size) => Ok(size),
        None => Ok(all),
    }
}

fn check(arguments: &CheckArguments) -> CommandResult {
    let keys = arguments.notes.keys()?;
    let [path] = arguments.notes.checkpoints.as_slice() else {
        return Err("give one --checkpoint: the note that the proof is checked against".into());
    };
    let later = single(path)?;
    let earlier = arguments.from_checkpoint.as_deref().map(single).transpose()?;
    let leaf = arguments.line.as_deref().map(line_hash).transpose()?;
    let proof: Proof = serde_json::from_str(&read_text("the proof", &arguments.proof, MAX_PROOF)?).map_err(|_| {
        format!("{} holds no proof; give what `casemate audit prove` printed", arguments.proof.display())
    })?;
    let note = |name: &Path, note: &str| notes::verify(&name.display().to_string(), note, &keys);
    let shown = note(path, &later).and_then(|later| {
        let earlier = match (&earlier, &arguments.from_checkpoint) {
            (Some(text), Some(path)) => Some(note(path, text)?),
            _ => None,
        };
        holds(&proof, &later, earlier.as_ref(), leaf)
    });
    match (&shown, arguments.shape.is_json()) {
        (Ok(shown), true) => say(json!({"valid": true, "shown": shown})),
        (Err(why), true) => say(json!({"valid": false, "why": why})),
        (Ok(shown), false) => say(format!("valid: {shown}")),
        (Err(why), false) => say(format!("NOT VALID: {}", plain(why))),
    }
    Ok(if shown.is_ok() { exit::OK } else { exit::fails() })
}

fn single(path: &Path) -> Result<String, Box<dyn Error>> {
    match notes::read(path)?.as_slice() {
        [note] => Ok(note.clone()),
        notes => Err(format!("{} holds {} checkpoints; give a file with one note", path.display(), notes.len()).into()),
    }
}

fn line_hash(path: &Path) -> Result<Digest32, Box<dyn Error>> {
    let line = read_text("the leaf's line", path, MAX_PROOF + 1)?;
    Ok(leaf_hash(line.strip_suffix('\n').unwrap_or(&line).as_bytes()))
}

/// What the proof shows, in words.
fn holds(
    proof: &Proof,
    later: &Checkpoint,
    earlier: Option<&Checkpoint>,
    leaf: Option<Digest32>,
) -> Result<Value, String> {
    match (proof, earlier) {
        (Proof::Inclusion(proof), _) => {
            proof.holds_in(later).map_err(|e| e.to_string())?;
            let about = match leaf {
                Some(leaf) if leaf != proof.leaf => {
                    return Err("the proof is about another leaf than the line that was given".into());
                }
                Some(_) => "that line".to_owned(),
                None => format!("the leaf with the hash {}", proof.leaf),
            };
            Ok(format!("{about} stands at {} in the log {} of {} leaves", proof.seq, later.log, later.size).into())
        }
        (Proof::Consistency(proof), Some(earlier)) => {
            proof.joins(earlier, later).map_err(|e| e.to_string())?;
            Ok(format!("the log {} of {} leaves begins with that of {} leaves", later.log, later.size, earlier.size)
                .into())
        }
        (Proof::Consistency(_), None) => {
            Err("a proof of consistency is between two checkpoints: give --from-checkpoint as well".into())
        }
    }
}
