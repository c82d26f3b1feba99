//! The daemon closes itself in: which files it can reach, which system calls it can make.
//!
//! It is done in two steps, since they bind different things. [`close_files`] comes first, while there is one thread:
//! Landlock binds the calling thread and those that it starts, so everything after it, the HSM's module included, is
//! loaded and run inside. [`FilesClosed::close_calls`] comes last, when token, store and listener are open: seccomp binds
//! all threads at once, and by then no new socket is needed any more. Neither can be undone, not even by root.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the two steps, and what came of them |
//! | `paths.rs` | the files that the daemon can reach, and why |
//! | `files.rs` | Landlock: those files and ports, and no others |
//! | `calls.rs` | seccomp: the filter and how it is put in force |
//! | `allowed.rs` | the system calls that the daemon can make, and why |
//!
//! What the systemd unit does beside this is its own: each holds without the other.

mod allowed;
mod calls;
mod files;
mod paths;

use std::path::PathBuf;

use crate::config::{Config, SandboxMode};

/// Why the sandbox cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has no Landlock, or it is switched off.
    #[error(
        "cannot close the daemon's files off: {0}; use a kernel from 5.13 on and boot it with landlock among `lsm=`, or \
         accept less with [sandbox] mode = \"best-effort\""
    )]
    NoLandlock(&'static str),
    /// A path that the daemon needs is not there.
    #[error("cannot close the daemon's files off: it needs {}, which cannot be opened: {why}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The kernel refuses the rules.
    #[error("cannot close the daemon's files off: {0}; is this kernel older than its headers say?")]
    Rules(#[from] landlock::RulesetError),
    /// There are other threads already, which Landlock would not bind.
    #[error("cannot close the daemon's files off: {0} threads run already, and only one would be bound")]
    Threads(usize),
    /// The threads of this process cannot be counted.
    #[error("cannot count the daemon's threads: {0}; is /proc mounted?")]
    Uncounted(std::io::Error),
    /// The filter cannot be made or put in force.
    #[error("cannot limit the daemon's system calls: {0}; has this kernel seccomp filters?")]
    Calls(#[from] seccompiler::Error),
    /// The filter cannot be built for this machine.
    #[error("cannot limit the daemon's system calls: {0}; x86_64 and aarch64 are supported")]
    Filter(#[from] seccompiler::BackendError),
}

/// Proof that the files are closed off, as far as the configuration demands it.
#[derive(Debug)]
#[must_use = "the calls are to be limited next"]
pub struct FilesClosed {
    files: Files,
}

/// Proof that files and calls are closed off, as far as the configuration demands it; and what came of it.
#[derive(Debug)]
pub struct Sandboxed {
    verdict: Verdict,
}

/// What Landlock did.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Files {
    /// The files are closed off, by this version of Landlock's interface.
    Closed { abi: i32 },
    /// They are not, because the kernel cannot.
    Open { why: &'static str },
    /// They are not, because the configuration says so.
    NotTried,
}

/// How the daemon is closed in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Files and calls are closed off. Ports are by Landlock from its version 4 on; no call can open a connection anyway.
    Enforced {
        /// The version of Landlock's interface that the kernel has.
        landlock: i32,
    },
    /// Something is missing, which the configuration allows.
    Partial {
        /// What, for people.
        missing: String,
    },
    /// Nothing is refused; the kernel logs the calls that would be.
    LoggedOnly,
}

/// Lets this process, from now on, reach only the files that a daemon with this configuration needs.
///
/// To be called while the process has one thread: those that it starts later are bound, too.
///
/// # Errors
/// The kernel cannot, and the configuration demands it; or a path that is needed is not there.
pub fn close_files(config: &Config) -> Result<FilesClosed, SandboxError> {
    if config.sandbox.mode == SandboxMode::Log {
        return Ok(FilesClosed { files: Files::NotTried });
    }
    single_threaded()?;
    let files = files::close(config)?;
    match (&files, config.sandbox.mode) {
        (Files::Open { why }, SandboxMode::Enforce) => Err(SandboxError::NoLandlock(why)),
        _ => Ok(FilesClosed { files }),
    }
}

impl FilesClosed {
    /// Lets all threads of this process, from now on, make only the system calls that a running daemon needs.
    ///
    /// # Errors
    /// The kernel cannot, and the configuration demands it.
    pub fn close_calls(self, config: &Config) -> Result<Sandboxed, SandboxError> {
        let mode = config.sandbox.mode;
        let limited = calls::limit(&config.sandbox);
        let verdict = match (self.files, limited, mode) {
            (_, Ok(()), SandboxMode::Log) => Verdict::LoggedOnly,
            (Files::Closed { abi }, Ok(()), _) => Verdict::Enforced { landlock: abi },
            (_, Err(error), SandboxMode::Enforce | SandboxMode::Log) => return Err(error),
            (files, limited, SandboxMode::Enforce | SandboxMode::BestEffort) => {
                let open = match files {
                    Files::Closed { .. } => None,
                    Files::Open { why } => Some(format!("files are not closed off: {why}")),
                    Files::NotTried => Some("files are not closed off".into()),
                };
                let missing: Vec<String> = open.into_iter().chain(limited.err().map(|e| e.to_string())).collect();
                Verdict::Partial { missing: missing.join("; ") }
            }
        };
        Ok(Sandboxed { verdict })
    }
}

impl Sandboxed {
    /// How the daemon is closed in.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What is missing of the sandbox, for health; `None` if it is whole.
    pub fn problem(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Enforced { .. } => None,
            Verdict::Partial { missing } => Some(format!("the sandbox is not whole: {missing}")),
            Verdict::LoggedOnly => {
                Some("the sandbox only logs: [sandbox] mode = \"log\" is for trying an HSM module out".into())
            }
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Enforced { landlock } => write!(f, "enforced (Landlock {landlock}, seccomp)"),
            Self::Partial { missing } => write!(f, "partial ({missing})"),
            Self::LoggedOnly => f.write_str("logged only"),
        }
    }
}

fn single_threaded() -> Result<(), SandboxError> {
    match std::fs::read_dir("/proc/self/task").map_err(SandboxError::Uncounted)?.count() {
        1 => Ok(()),
        several => Err(SandboxError::Threads(several)),
    }
}

#[cfg(test)]
mod tests;
