//! `casemate audit export`: a log with all that an auditor needs, in a folder, beside a running daemon.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use casemate_attest::{DisclosedLeaf, Fault, Verifier};
use clap::Args;

use super::super::{CommandResult, exit, say};
use super::mandate::Found;
use super::notes::NoteLine;
use super::plain;
use super::source::{CHECKPOINTS, DETAILS, LINES, LogArguments, SNAPSHOT, Source};

/// The newest checkpoint alone, as a note.
const CHECKPOINT: &str = "checkpoint";
const README: &str = "README.txt";

#[derive(Args)]
pub(in super::super) struct ExportArguments {
    #[command(flatten)]
    log: LogArguments,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The first leaf of a segment.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The end of a segment: the first leaf that is left out.
    #[arg(long)]
    to: Option<u64>,
    /// Leave all details out: amounts, addresses, reasons. Everything else still verifies.
    #[arg(long)]
    redact: bool,
    /// Leave the details of these leaves out.
    #[arg(long, value_name = "SEQ,SEQ...", value_delimiter = ',', conflicts_with = "redact")]
    redact_seq: Vec<u64>,
}

pub(in super::super) fn run(arguments: &ExportArguments) -> CommandResult {
    let source = arguments.log.open()?;
    if arguments.to.is_some_and(|to| to <= arguments.from) {
        return Err("--to is not above --from, so nothing would be exported".into());
    }
    let folder = Folder::make(&arguments.output)?;
    let (count, verdict) = lines(&source, arguments, &folder)?;
    let details = if arguments.redact { 0 } else { details(&source, arguments, &folder)? };
    let checkpoints = checkpoints(&source, &folder)?;
    if arguments.from == 0 {
        snapshot(&source, &folder)?;
        mandate(&source, &folder)?;
    }
    folder.write(README, HOW_TO_VERIFY.as_bytes())?;
    let shown = arguments.output.display();
    say(format!("exported {count} leaves, {details} details and {checkpoints} checkpoints to {shown}"));
    if let Err(fault) = verdict {
        say(format!("NOT VALID, exported all the same: {}", plain(&fault.to_string())));
        return Ok(exit::fails());
    }
    Ok(exit::OK)
}

/// Writes the lines as they are; a log that is not valid is evidence too.
fn lines(
    source: &Source,
    arguments: &ExportArguments,
    folder: &Folder,
) -> Result<(u64, Result<(), Fault>), Box<dyn Error>> {
    let mut output = BufWriter::new(folder.create(LINES)?);
    let mut verifier = match source.snapshot(None)? {
        None => Ok(Verifier::new()),
        Some(snapshot) => Verifier::resume(snapshot),
    };
    let mut next = verifier.as_ref().ok().and_then(Verifier::head).map_or(0, casemate_attest::Head::size);
    let (mut count, mut verdict) = (0, Ok(()));
    let failed = source.each_line(|bytes| {
        if verdict.is_ok() {
            verdict =
                verifier.as_mut().map_err(|fault| fault.clone()).and_then(|verifier| verifier.feed(bytes)).map(drop);
        }
        if next >= arguments.from && arguments.to.is_none_or(|to| next < to) {
            output.write_all(bytes)?;
            output.write_all(b"\n")?;
            count += 1;
        }
        next += 1;
        Ok::<(), std::io::Error>(())
    })?;
    let written = failed.map_or(Ok(()), Err).and_then(|()| output.flush());
    written.map_err(|e| folder.failed(LINES, &e))?;
    if count == 0 {
        return Err(
            format!("the log has {next} leaves, none of them between --from and --to; nothing was exported").into()
        );
    }
    Ok((count, verdict))
}

fn details(source: &Source, arguments: &ExportArguments, folder: &Folder) -> Result<u64, Box<dyn Error>> {
    let redacted: BTreeSet<u64> = arguments.redact_seq.iter().copied().collect();
    let mut stored = source.details(&[])?;
    if !stored.given {
        return Ok(0);
    }
    let mut output = BufWriter::new(folder.create(DETAILS)?);
    let mut count = 0;
    while let Some(detail) = stored.rest()? {
        let DisclosedLeaf { seq, .. } = &detail;
        if *seq < arguments.from || arguments.to.is_some_and(|to| *seq >= to) || redacted.contains(seq) {
            continue;
        }
        let line = serde_json::to_string(&detail)?;
        writeln!(output, "{line}").map_err(|e| folder.failed(DETAILS, &e))?;
        count += 1;
    }
    output.flush().map_err(|e| folder.failed(DETAILS, &e))?;
    Ok(count)
}

fn checkpoints(source: &Source, folder: &Folder) -> Result<usize, Box<dyn Error>> {
    let notes = source.notes()?;
    let mut text = String::new();
    for note in &notes {
        let size = note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or_default();
        text.push_str(&serde_json::to_string(&NoteLine { size, note: note.clone() })?);
        text.push('\n');
    }
    folder.write(CHECKPOINTS, text.as_bytes())?;
    if let Some(newest) = notes.last() {
        folder.write(CHECKPOINT, newest.as_bytes())?;
    }
    Ok(notes.len())
}

fn snapshot(source: &Source, folder: &Folder) -> Result<(), Box<dyn Error>> {
    match source.snapshot(None)? {
        Some(snapshot) => folder.write(SNAPSHOT, snapshot.to_text()?.as_bytes()),
        None => Ok(()),
    }
}

/// By what right the log takes another's place, for auditors who have no access to the archive.
fn mandate(source: &Source, folder: &Folder) -> Result<(), Box<dyn Error>> {
    let found = Found::beside(source)?;
    found.iter().flat_map(Found::files).try_for_each(|(name, bytes)| folder.write(&name, bytes))
}

/// A new folder that only its owner can read: details name amounts and addresses.
struct Folder(PathBuf);

impl Folder {
    fn make(path: &Path) -> Result<Self, Box<dyn Error>> {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(|e| format!("cannot make the folder {}: {e}; give one that is not there yet", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    fn create(&self, name: &str) -> Result<File, Box<dyn Error>> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name));
        made.map_err(|e| self.failed(name, &e))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let mut file = self.create(name)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| self.failed(name, &e))
    }

    fn failed(&self, name: &str, error: &std::io::Error) -> Box<dyn Error> {
        format!(
            "cannot write {}: {error}; check free space, and remove the folder before the next try",
            self.0.join(name).display()
        )
        .into()
    }
}

const HOW_TO_VERIFY: &str = r#"An audit log of a Casemate appliance.

log.jsonl          one leaf a line, each exactly as it was hashed
details.jsonl      what leaves only commit to; absent if it was withheld
checkpoints.jsonl  every signed checkpoint that is kept: {"note": the whole note, "size": leaves}
checkpoint         the newest of them, as a note
snapshot.json      only where the first lines were pruned, or the log takes another's place: what the lines rest on
recovery.json      only where the log takes another's place: the statement that the policy's signers signed; .sig-N: by whom

With the tool, and with the audit key that `casemate hsm status` shows on that host. Take the key from there, from a peer's
configuration or from whoever wrote it down; never from this folder:

    casemate audit verify THIS_FOLDER --audit-key KEY
    casemate audit show THIS_FOLDER
    casemate audit reconcile --party NAME=KEY=FOLDER ... --signature FILE

Without the tool:

1. A leaf's hash is SHA-256 of a zero byte and the line without its newline. It is the `prev` of the next leaf:

    (printf '\0'; sed -n 1p log.jsonl | tr -d '\n') | sha256sum
    sed -n 2p log.jsonl | grep -o '"prev":"[0-9a-f]*"'

2. The root is that of RFC 6962, section 2.1, over these hashes: SHA-256(0x01 || left || right) upwards, where the left
   subtree holds the largest power of two of leaves that leaves some over.

3. A checkpoint is a signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note): log, number of leaves, base64 of the root,
   an empty line, signatures. The signature is base64 of four bytes (the first of SHA-256 of the key in DER) and an ECDSA
   signature in DER over the text up to the empty line, with P-256 and SHA-256:

    sed -n 1,3p checkpoint > text
    tail -n 1 checkpoint | cut -d ' ' -f 3 | base64 -d | tail -c +5 > signature
    openssl dgst -sha256 -verify audit-key.pem -signature signature text

4. A detail belongs to its leaf if the leaf's `detail` is SHA-256 of the text "casemate/audit-detail/v1", a zero byte, the 32
   bytes of the salt, and the detail as canonical JSON (RFC 8785).

docs/audit.md of the project says what each of these proves, and what it does not.
"#;
