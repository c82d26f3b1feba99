//! The system calls that the daemon can make once it serves, and why. Found by tracing the whole-system tests, by reading,
//! and, for what a libc or a PKCS#11 module may do instead, by what each listed call stands for.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::config::Sandbox;

/// Which calls match: any of the rules; an empty list matches every call of that number.
pub(super) type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Open files. Which files can be opened is Landlock's part.
const FILES: [c_long; 41] = [
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    // SQLite, run by root, gives its files to the owner of the database.
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_getcwd,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
];

/// Memory. Mapping and protecting it is limited below.
const MEMORY: [c_long; 7] = [
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // PKCS#11 modules lock their secrets.
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_membarrier,
];

/// Threads and what they wait for; signals to oneself.
const THREADS: [c_long; 27] = [
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpriority,
    // Protocol threads run below the daemon's own priority.
    libc::SYS_setpriority,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
];

/// What the process asks about itself and the machine.
const QUESTIONS: [c_long; 13] = [
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_capget,
];

/// Connections that came in. Nothing here opens one.
const CONNECTIONS: [c_long; 9] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// Older forms of the same calls, which this machine's libc still uses.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 15] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 0] = [];

/// Everything that is allowed under these settings.
pub(super) fn rules(settings: &Sandbox) -> Result<Rules, BackendError> {
    let mut rules: Rules = [&FILES[..], &MEMORY, &THREADS, &QUESTIONS, &CONNECTIONS, &OLDER]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    // Refused by a filter of its own, so that libc takes `clone`, whose flags can be seen.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_clone, vec![when([has(0, number(libc::CLONE_THREAD))?])?]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, not_written_and_run(call)?);
    }
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when([is(0, own)?])?]);
    // Limits can be asked for, not set, and only one's own.
    rules.insert(libc::SYS_prlimit64, vec![when([is(0, 0)?, whole(2, 0)?])?]);
    rules.insert(libc::SYS_prctl, one_of(0, [libc::PR_SET_NAME, libc::PR_GET_NAME].map(number))?);
    rules.insert(libc::SYS_ioctl, one_of(1, [libc::FIONBIO, libc::FIONREAD, libc::TCGETS])?);
    // TCP Fast Open connects by sending.
    let fast_open = number(libc::MSG_FASTOPEN);
    rules.insert(libc::SYS_sendto, vec![when([lacks(3, fast_open)?])?]);
    rules.insert(libc::SYS_sendmsg, vec![when([lacks(2, fast_open)?])?]);
    let sockets = sockets(settings)?;
    if !sockets.is_empty() {
        rules.insert(libc::SYS_socket, sockets);
    }
    if settings.local_sockets || !settings.connect_ports.is_empty() {
        rules.insert(libc::SYS_connect, Vec::new());
    }
    Ok(rules)
}

/// Memory is written or run, never both, and what was written is not made runnable: libraries that are loaded later are
/// mapped from their files.
fn not_written_and_run(call: c_long) -> Result<Vec<SeccompRule>, BackendError> {
    let harmless = when([lacks(2, number(libc::PROT_EXEC))?])?;
    if call == libc::SYS_mprotect {
        return Ok(vec![harmless]);
    }
    let from_file = when([lacks(2, number(libc::PROT_WRITE))?, lacks(3, number(libc::MAP_ANONYMOUS))?])?;
    Ok(vec![harmless, from_file])
}

/// New sockets: none, but for what the service manager and the settings ask for.
fn sockets(settings: &Sandbox) -> Result<Vec<SeccompRule>, BackendError> {
    // What may stand beside the type of a socket.
    const KIND: u64 = 0xf;
    let socket = |family, kind| when([is(0, number(family))?, masked(1, KIND, number(kind))?]);
    let mut sockets = Vec::new();
    if settings.local_sockets {
        sockets.push(socket(libc::AF_UNIX, libc::SOCK_STREAM)?);
    }
    // systemd is told of the daemon's state by datagrams that name their receiver.
    if settings.local_sockets || std::env::var_os("NOTIFY_SOCKET").is_some() {
        sockets.push(socket(libc::AF_UNIX, libc::SOCK_DGRAM)?);
    }
    if !settings.connect_ports.is_empty() {
        sockets.push(socket(libc::AF_INET, libc::SOCK_STREAM)?);
        sockets.push(socket(libc::AF_INET6, libc::SOCK_STREAM)?);
    }
    Ok(sockets)
}

/// libc's flags and names are not negative.
fn number(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

fn when<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

fn one_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<Vec<SeccompRule>, BackendError> {
    values.into_iter().map(|value| when([is(argument, value)?])).collect()
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn whole(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn has(argument: u8, flag: u64) -> Result<SeccompCondition, BackendError> {
    masked(argument, flag, flag)
}

fn lacks(argument: u8, flag: u64) -> Result<SeccompCondition, BackendError> {
    masked(argument, flag, 0)
}
