//! `casemate backup`: all shares of an appliance in one file, and back.
//!
//! | command | where it runs | file |
//! |---|---|---|
//! | `create` | anywhere; the daemon makes it | `create.rs` |
//! | `verify`, `record` | on a machine of the custodians; `record` tells the daemon | `verify.rs` |
//! | `piece` | at one custodian's | `piece.rs` |
//! | `restore` | on the new host, with the daemon stopped | `restore.rs` |
//!
//! Exit codes: 0 done, 1 the backup is not complete, 2 it could not be done.

mod create;
mod piece;
mod restore;
mod verify;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_wire::api::BASE_PATH;
use clap::{Args, Subcommand};
use serde_json::Value;
use zeroize::Zeroizing;

use super::CommandResult;
use crate::backup::{Backup, Keyring, MAX_FILE, MAX_PIECE, ShareReport, ShareVerdict};
use crate::lab::Service;

type Failed = Box<dyn std::error::Error>;

/// The longest wait for the daemon to make a backup.
const PATIENCE: Duration = Duration::from_secs(600);
/// The largest identity file, in bytes.
const MAX_IDENTITY: usize = 64 * 1024;

#[derive(Subcommand)]
pub(super) enum BackupCommand {
    /// Have the daemon make a backup, and keep it in a new file. It does not count before it was verified.
    Create(create::Arguments),
    /// Prove with the custodians that a backup is complete and opens; no share is shown. Exit code 1 if one is not complete.
    Verify(verify::Arguments),
    /// Tell the daemon that a backup was verified elsewhere.
    Record(verify::RecordArguments),
    /// Open one custodian's piece, and encrypt it to whoever restores: so no identity changes hands.
    Piece(piece::Arguments),
    /// Bring the shares of a backup back on this host, for its HSM. The daemon must not run.
    Restore(restore::Arguments),
}

pub(super) fn run(command: BackupCommand) -> CommandResult {
    match command {
        BackupCommand::Create(arguments) => create::run(&arguments),
        BackupCommand::Verify(arguments) => verify::run(&arguments),
        BackupCommand::Record(arguments) => verify::record(&arguments),
        BackupCommand::Piece(arguments) => piece::run(&arguments),
        BackupCommand::Restore(arguments) => restore::run(&arguments),
    }
}

/// How a running daemon is called.
#[derive(Args)]
struct Daemon {
    /// The appliance, for example https://party-1.example:7443.
    #[arg(long, value_name = "URL")]
    url: String,
    /// PEM: the CA of the appliance's certificate.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// PEM: the certificate to call with; the appliance must know it as an operator.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// PEM: its private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

impl Daemon {
    fn service(&self) -> Result<Service, Failed> {
        let service = Service::at(&self.url, &self.ca, &self.cert, &self.key)?;
        Ok(service.expecting(MAX_FILE, PATIENCE))
    }

    /// Calls `path` under the appliance's base, and takes nothing but success.
    fn post(&self, path: &str, body: &Value) -> Result<Vec<u8>, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (status, answer) =
            runtime.block_on(self.service()?.post_for_bytes(&format!("{BASE_PATH}/{path}"), body))?;
        self.success(status, answer.into())
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (status, answer) = runtime.block_on(self.service()?.get_bytes(&format!("{BASE_PATH}/{path}")))?;
        self.success(status, answer.into())
    }

    fn success(&self, status: u16, answer: Vec<u8>) -> Result<Vec<u8>, Failed> {
        if status == 200 {
            return Ok(answer);
        }
        let why: String = String::from_utf8_lossy(&answer).chars().filter(|c| !c.is_control()).take(2000).collect();
        Err(format!("{} answered {status}: {why}", self.url).into())
    }
}

/// Who opens a backup.
#[derive(Args)]
struct Custodians {
    /// An age identity file of a custodian, or of whoever pieces were encrypted to. Once for each.
    #[arg(long = "identity", value_name = "FILE", required = true)]
    identities: Vec<PathBuf>,
    /// A piece that a custodian encrypted anew (`casemate backup piece`). Once for each.
    #[arg(long = "piece", value_name = "FILE")]
    pieces: Vec<PathBuf>,
}

impl Custodians {
    fn keyring(&self) -> Result<Keyring, Failed> {
        let mut keyring = Keyring::default();
        for path in &self.identities {
            let bytes = Zeroizing::new(read(path, MAX_IDENTITY)?);
            let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} is not text", path.display()))?;
            keyring.identity(&path.display().to_string(), text)?;
        }
        for path in &self.pieces {
            keyring.piece(&path.display().to_string(), read(path, MAX_PIECE)?)?;
        }
        Ok(keyring)
    }
}

fn backup(path: &Path) -> Result<Backup, Failed> {
    Backup::read(&read(path, MAX_FILE)?).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// A file of at most `limit` bytes.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failed> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let most = u64::try_from(limit)?.saturating_add(1);
    File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(format!("{} has more than {limit} bytes", path.display()).into());
    }
    Ok(bytes)
}

/// A new file that only its owner can read; gone again unless it is kept.
struct NewFile<'a> {
    path: &'a Path,
    file: File,
    kept: bool,
}

impl<'a> NewFile<'a> {
    fn create(path: &'a Path) -> Result<Self, Failed> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.map_err(|error| {
            format!("cannot make {}: {error}; an existing file is never written over", path.display())
        })?;
        Ok(Self { path, file, kept: false })
    }

    /// Writes it; when this returns it is on disk, name and all.
    fn keep(mut self, bytes: &[u8]) -> Result<(), Failed> {
        let failed = |error: std::io::Error| format!("cannot write {}: {error}", self.path.display());
        self.file.write_all(bytes).and_then(|()| self.file.sync_all()).map_err(failed)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // What was not written whole is no backup.
            drop(std::fs::remove_file(self.path));
        }
    }
}

/// One share in words.
fn line(report: &ShareReport) -> String {
    let ShareReport { share, key, label, epoch, state, verdict } = report;
    let label = label.as_deref().map(|label| format!(" {label:?}")).unwrap_or_default();
    let verdict = match verdict {
        ShareVerdict::Complete => "complete".to_owned(),
        ShareVerdict::Incomplete(why) => format!("NOT COMPLETE: {why}"),
    };
    format!("  {verdict}: key {key}{label}, epoch {epoch}, {state}, share {share}")
}
