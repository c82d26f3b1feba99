//! `casemate audit verify`, `audit export` and `audit verify-receipt`: the log, offline. They need the files and nothing
//! else.

mod init;
mod receipt;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use casemate_attest::describe::describe;
use casemate_attest::{Fault, Leaf, Report, Verifier};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CommandResult, Format, exit, say};
use crate::store::{audit_lines, open_read_only};

/// Lines that are read at a time.
const CHUNK: u64 = 1000;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Begin the audit log of a new appliance: its database, and its anchor in the HSM. Once, and never again.
    Init(init::Arguments),
    /// Check every line: form, order, hashes, and that each outcome has its intent. Exit code 1 if anything is wrong.
    Verify(VerifyArguments),
    /// Write the log's lines, exactly as hashed, to a file.
    Export(ExportArguments),
    /// Check the receipt of a refusal: who signed it, and whether the log bears it out. Exit code 1 if anything is wrong.
    VerifyReceipt(receipt::Arguments),
}

#[derive(Args)]
pub(super) struct VerifyArguments {
    /// A data folder (also of a running daemon), or a file of exported lines.
    #[arg(value_name = "PATH")]
    log: PathBuf,
    /// Print each leaf in plain words.
    #[arg(long)]
    show: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(super) struct ExportArguments {
    /// A data folder, also of a running daemon.
    #[arg(value_name = "DATA_DIR")]
    data_dir: PathBuf,
    /// Where to write; standard output if absent.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(command: AuditCommand) -> CommandResult {
    match command {
        AuditCommand::Init(arguments) => init::run(&arguments),
        AuditCommand::Verify(arguments) => verify(&arguments),
        AuditCommand::Export(arguments) => export(&arguments),
        AuditCommand::VerifyReceipt(arguments) => receipt::verify(&arguments),
    }
}

/// Either a report, or the first fault.
type Verdict = Result<Report, Fault>;

fn verify(arguments: &VerifyArguments) -> CommandResult {
    let mut check = Check { verifier: Verifier::new(), show: arguments.show };
    let broken = each_line(&arguments.log, |line| check.line(line))?;
    let verdict = match broken {
        Some(fault) => Err(fault),
        None => check.verifier.finish(),
    };
    match arguments.format {
        Format::Json => say(to_json(&verdict)),
        Format::Human => tell(&verdict),
    }
    Ok(if verdict.is_ok() { exit::OK } else { exit::fails() })
}

struct Check {
    verifier: Verifier,
    show: bool,
}

impl Check {
    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let leaf: Leaf = self.verifier.feed(line)?;
        if self.show {
            say(describe(&leaf, None));
        }
        Ok(())
    }
}

/// Gives every line of a data folder or an exported file to `each`, until one is refused.
fn each_line<E>(
    log: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Option<E>, Box<dyn std::error::Error>> {
    if !log.is_dir() {
        let file = File::open(log).map_err(|e| format!("cannot read the log {}: {e}", log.display()))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if let Err(refused) = each(text) {
                return Ok(Some(refused));
            }
            line.clear();
        }
        return Ok(None);
    }
    let store = open_read_only(log)?;
    let mut from = 0;
    loop {
        let lines = audit_lines(&store, from, CHUNK)?;
        for line in &lines {
            if let Err(refused) = each(line.as_bytes()) {
                return Ok(Some(refused));
            }
        }
        let read = u64::try_from(lines.len())?;
        if read < CHUNK {
            return Ok(None);
        }
        from += read;
    }
}

fn to_json(verdict: &Verdict) -> Value {
    match verdict {
        Ok(report) => json!({"valid": true, "report": report}),
        Err(fault) => json!({"valid": false, "fault": fault.to_string()}),
    }
}

fn tell(verdict: &Verdict) {
    match verdict {
        Ok(report) => {
            say(format!("valid: {} leaves of {}", report.size, report.log.as_str()));
            say(format!("  {} intents, {} outcomes, {} refusals", report.intents, report.outcomes, report.refusals));
            for open in &report.open_intents {
                let session = open.session.as_ref().map_or("no session", casemate_wire::SessionId::as_str);
                say(format!("  leaf {} ({session}) has no outcome: it runs still, or was cut off", open.seq));
            }
            say(format!("  last leaf hash {}", report.head));
            if report.checkpoints == 0 {
                say("  a cut-off end does not show in the chain alone: compare with a checkpoint kept elsewhere");
            }
        }
        Err(fault) => say(format!("NOT VALID: {fault}")),
    }
}

fn export(arguments: &ExportArguments) -> CommandResult {
    match &arguments.output {
        None => write_lines(&arguments.data_dir, &mut std::io::stdout().lock())?,
        Some(path) => {
            let failed = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
            let mut file = BufWriter::new(File::create(path).map_err(failed)?);
            write_lines(&arguments.data_dir, &mut file)?;
            file.flush().map_err(failed)?;
        }
    }
    Ok(exit::OK)
}

/// Writes the lines of a data folder's log, each with a newline, exactly as hashed.
///
/// # Errors
/// Says what cannot be read or written.
pub(crate) fn write_lines(data_dir: &Path, output: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let failed = each_line(data_dir, |line| output.write_all(line).and_then(|()| output.write_all(b"\n")))?;
    match failed {
        None => Ok(()),
        Some(error) => Err(format!("the log could not be written out: {error}").into()),
    }
}
