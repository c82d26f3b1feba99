//! What can go wrong with a lab.

use std::io;
use std::path::{Path, PathBuf};

use casemate_policy::BundleError;

use super::client::ClientError;

/// Why a lab could not be made, found, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The folder for a new lab has something in it.
    #[error("cannot make a lab in {}: there is something in it already; name another folder, or remove this one", .0.display())]
    NotEmpty(PathBuf),
    /// The folder holds no lab, or only part of one.
    #[error("{} is not a lab: {why}; `casemate lab up --dir` makes one", root.display())]
    NotALab {
        /// The folder.
        root: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// The number of parties makes no lab.
    #[error("a lab has 2 to 20 parties, not {0}")]
    Parties(u16),
    /// A file or folder cannot be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A key or certificate could not be made.
    #[error("cannot make the lab's {what}: {source}")]
    Certificate {
        /// For what.
        what: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// A key of the lab's people cannot be made, read or used.
    #[error("cannot use the SSH key {}: {source}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        source: ssh_key::Error,
    },
    /// SoftHSM is not installed.
    #[error("the SoftHSM module is at none of {0}; install it (Debian, Ubuntu: apt-get install softhsm2)")]
    NoModule(String),
    /// One of our own programs is not there.
    #[error("there is no program {}; build it with: cargo build --release", .0.display())]
    NoProgram(PathBuf),
    /// No ports were found.
    #[error("no free ports were found on 127.0.0.1 between {0} and {1}; stop what listens there")]
    NoPorts(u16, u16),
    /// One of our own programs failed.
    #[error("{command} failed ({status}): {output}")]
    Program {
        /// The program with its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// The policy bundle cannot be sealed.
    #[error("cannot seal the lab's policy: {0}")]
    Policy(#[from] BundleError),
    /// It runs already.
    #[error("{name} runs already, as process {pid}; stop it with `casemate lab down`")]
    Running {
        /// Which process.
        name: String,
        /// Its id.
        pid: u32,
    },
    /// It ended before it was told to.
    #[error("{name} ended by itself; the end of {} says:\n{tail}", log.display())]
    Ended {
        /// Which process.
        name: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// It does not become healthy.
    #[error("{name} is not healthy after {seconds} s ({why}); see {}", log.display())]
    Unhealthy {
        /// Which process.
        name: String,
        /// How long it was waited for.
        seconds: u64,
        /// What its health says.
        why: String,
        /// Its log.
        log: PathBuf,
    },
    /// It does not stop.
    #[error("cannot stop {name} (process {pid}): {why}")]
    Stop {
        /// Which process.
        name: String,
        /// Its id.
        pid: u32,
        /// Why not.
        why: String,
    },
    /// A service of the lab does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Names the file that an I/O error is about.
pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LabError {
    let path = path.to_owned();
    move |source| LabError::File { doing, path, source }
}
