//! What the sandbox refuses from inside is shown on a real process: `softhsm-tests/tests/system/sandbox.rs`.

#![allow(clippy::unwrap_used)]

use super::allowed::rules;
use super::*;
use crate::config::Sandbox;

#[test]
fn no_call_that_starts_programs_reaches_into_processes_or_opens_connections_is_listed() {
    let listed = rules(&Sandbox::default()).unwrap();
    for call in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_mount,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_open_by_handle_at,
        libc::SYS_memfd_create,
        libc::SYS_init_module,
        libc::SYS_setuid,
        libc::SYS_seccomp,
    ] {
        assert!(!listed.contains_key(&call), "call {call}");
    }
}

#[test]
fn connections_are_made_only_where_the_settings_ask_for_them() {
    for settings in [
        Sandbox { local_sockets: true, ..Sandbox::default() },
        Sandbox { connect_ports: vec![1792], ..Sandbox::default() },
    ] {
        let listed = rules(&settings).unwrap();
        assert!(listed.contains_key(&libc::SYS_connect), "{settings:?}");
        assert!(listed.get(&libc::SYS_socket).is_some_and(|kinds| !kinds.is_empty()), "{settings:?}");
    }
}

#[test]
fn files_are_not_closed_off_while_other_threads_run() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv().is_err());
    assert!(matches!(single_threaded(), Err(SandboxError::Threads(2..))));
    drop(end);
    assert!(other.join().unwrap());
}

#[test]
fn anything_less_than_the_whole_sandbox_shows_in_health() {
    let problem = |verdict| Sandboxed { verdict }.problem();
    assert_eq!(problem(Verdict::Enforced { landlock: 6 }), None);
    assert!(problem(Verdict::Partial { missing: "no Landlock".into() }).unwrap().contains("no Landlock"));
    assert!(problem(Verdict::LoggedOnly).unwrap().contains("only logs"));
}
