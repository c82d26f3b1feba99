//! seccomp: the filter on system calls, and how it is put in force.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

use super::SandboxError;
use super::allowed::{Rules, rules};
use crate::config::{Sandbox, SandboxMode};

/// Limits all threads of this process, and all that they start, to the allowed calls.
///
/// An unlisted call fails with EPERM and does not end the process: a library that tries something harmless in a rare case
/// must not cut off a rotation, and a call that is refused does no harm.
pub(super) fn limit(settings: &Sandbox) -> Result<(), SandboxError> {
    let unlisted = match settings.mode {
        SandboxMode::Log => SeccompAction::Log,
        SandboxMode::Enforce | SandboxMode::BestEffort => {
            // Its flags lie in memory, where no filter sees them. libc then takes `clone`.
            let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
            apply(clone3, SeccompAction::Allow, errno(libc::ENOSYS))?;
            errno(libc::EPERM)
        }
    };
    apply(rules(settings)?, unlisted, SeccompAction::Allow)
}

fn apply(rules: Rules, unlisted: SeccompAction, listed: SeccompAction) -> Result<(), SandboxError> {
    // The filter ends the process on a call in another machine's numbers (32-bit calls among them).
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram = SeccompFilter::new(rules, unlisted, listed, machine)?.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}

fn errno(number: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}
