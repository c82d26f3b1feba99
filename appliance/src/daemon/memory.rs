//! What keeps the daemon's memory to itself: no core dumps, no tracing, no swap. Freed memory is wiped by
//! `casemate_mpc::gmp_wipe`.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::DaemonError;

/// Whether this process's memory may be written to swap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Locked {
    /// It stays in memory, all of it, from now on.
    All,
    /// It may be swapped out.
    Not {
        /// Why, and what to do.
        why: String,
    },
}

impl std::fmt::Display for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("locked"),
            Self::Not { why } => write!(f, "not locked: {why}"),
        }
    }
}

/// No core dumps, and no other process of the same user may read this one's memory.
pub(super) fn keep_private() -> Result<(), DaemonError> {
    let failed = |e: rustix::io::Errno| DaemonError::Other(format!("cannot turn core dumps off: {e}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}

/// Keeps all memory, that of later allocations too, out of swap, where the limits allow it.
///
/// With a limit on locked memory every allocation beyond it would fail in the middle of work, so a limit that is not
/// endless counts as a refusal.
pub(super) fn lock() -> Locked {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let may_lock = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if !unlimited && !may_lock {
        let advice = "the limit on locked memory is not endless (LimitMEMLOCK=infinity, or `ulimit -l unlimited`); \
                      turn swap off or encrypt it";
        return Locked::Not { why: advice.into() };
    }
    // Only pages that are used: a thread's stack is large and mostly empty.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => Locked::All,
        Err(error) => Locked::Not { why: format!("{error}; turn swap off or encrypt it") },
    }
}
