//! Audit keys and signed checkpoints, as arguments give them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_attest::checkpoint::MAX_NOTE;
use casemate_attest::{AuditKey, Checkpoint, SignedCheckpoint};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::source::read_text;

type Failure = Box<dyn Error>;

/// The longest file of checkpoints that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// One line of an export's `checkpoints.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoteLine {
    /// The checkpoint's size.
    pub(super) size: u64,
    /// The whole note.
    pub(super) note: String,
}

/// What was kept elsewhere.
#[derive(Args)]
pub(super) struct NoteArguments {
    /// A signed checkpoint of the log that was kept elsewhere (a note, or an export's checkpoints.jsonl); may be repeated.
    #[arg(long = "checkpoint", value_name = "NOTE_FILE")]
    pub(super) checkpoints: Vec<PathBuf>,
    /// The audit key that signed (hex or a PEM file), as `casemate hsm status` shows it on that host; may be repeated.
    #[arg(long = "audit-key", value_name = "KEY")]
    pub(super) audit_keys: Vec<String>,
}

impl NoteArguments {
    pub(super) fn keys(&self) -> Result<Vec<AuditKey>, Failure> {
        let keys = self.audit_keys.iter().map(|given| key("--audit-key", given));
        let keys: Vec<AuditKey> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() && !self.checkpoints.is_empty() {
            let why = "--checkpoint needs --audit-key: without the key, nobody knows who signed it";
            return Err(format!("{why}; `casemate hsm status` shows it on that host").into());
        }
        Ok(keys)
    }

    /// The notes of all files that were given, each with the file's name.
    pub(super) fn notes(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut notes = Vec::new();
        for path in &self.checkpoints {
            notes.extend(read(path)?.into_iter().map(|note| (path.display().to_string(), note)));
        }
        Ok(notes)
    }
}

/// Reads an audit key: the hex itself, or a file with hex or PEM.
pub(super) fn key(option: &str, given: &str) -> Result<AuditKey, Failure> {
    let path = Path::new(given);
    if !path.is_file() {
        return given.parse().map_err(|e| format!("{option}: {e}; there is no such file either").into());
    }
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read the key {given}: {e}"))?;
    text.parse().map_err(|e| format!("{given}: {e}").into())
}

/// Reads one note, or the notes of an export.
pub(super) fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let text = read_text("the checkpoint", path, MAX_FILE)?;
    if text.starts_with('{') { lines(&text, path) } else { Ok(vec![text]) }
}

/// Reads the notes of an export, of which there may be none.
pub(super) fn read_exported(path: &Path) -> Result<Vec<String>, Failure> {
    lines(&read_text("the checkpoints", path, MAX_FILE)?, path)
}

fn lines(text: &str, path: &Path) -> Result<Vec<String>, Failure> {
    let line = |(place, line): (usize, &str)| {
        let read = serde_json::from_str(line).map(|NoteLine { note, .. }| note);
        read.map_err(|e| format!("line {} of {} is no checkpoint: {e}", place + 1, path.display()).into())
    };
    text.lines().enumerate().map(line).collect()
}

/// Checks a note under the keys that are known, any of which may have signed.
pub(super) fn verify(name: &str, note: &str, keys: &[AuditKey]) -> Result<Checkpoint, String> {
    let mut why = String::from("no audit key is known");
    if note.len() > MAX_NOTE {
        return Err(format!("the checkpoint in {name} is longer than a note can be"));
    }
    for key in keys {
        match SignedCheckpoint::verify(note, key) {
            Ok(signed) => return Ok(signed.checkpoint().clone()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("the checkpoint in {name} proves nothing: {why}"))
}
