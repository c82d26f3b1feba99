#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A daemon that runs until it is told to stop.
fn daemon(folder: &Path, name: &str) -> Daemon {
    let program = folder.join("casemated");
    if !program.is_file() {
        fs::write(&program, "#!/bin/sh\necho started\nwhile :; do sleep 0.02; done\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    }
    Daemon {
        name: name.into(),
        program,
        config: folder.join(format!("{name}.toml")),
        softhsm_conf: None,
        log: folder.join(format!("{name}.log")),
        pid_file: folder.join(format!("{name}.pid")),
    }
}

#[test]
fn a_process_runs_once_writes_its_log_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "party-1");
    let running = daemon.start().unwrap();
    assert_eq!(daemon.pid().unwrap(), Some(running.pid()));
    assert!(matches!(daemon.start(), Err(LabError::Running { pid, .. }) if pid == running.pid()));
    let begun = Instant::now();
    while daemon.log_tail() != "started" {
        assert!(begun.elapsed().as_secs() < 10, "the log stays empty");
        thread::sleep(POLL);
    }
    assert!(!running.stop().unwrap().success());
    assert_eq!(daemon.pid().unwrap(), None);
    assert!(!daemon.pid_file.exists());
}

#[test]
fn a_process_is_killed_with_its_handle_unless_it_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "party-1");
    drop(daemon.start().unwrap());
    assert_eq!(daemon.pid().unwrap(), None);

    daemon.start().unwrap().leave();
    let pid = daemon.pid().unwrap().unwrap();
    assert_eq!(daemon.tell_to_stop().unwrap(), Some(pid));
    daemon.wait_stopped(pid).unwrap();
    assert_eq!(daemon.tell_to_stop().unwrap(), None);
}

#[test]
fn a_pid_file_that_names_another_process_ends_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, other) = (daemon(folder.path(), "party-1"), daemon(folder.path(), "party-2"));
    let mut stranger = other.start().unwrap();
    for pid in [stranger.pid(), std::process::id()] {
        fs::write(&mine.pid_file, pid.to_string()).unwrap();
        assert_eq!(mine.tell_to_stop().unwrap(), None);
    }
    for text in ["", "0", "-1", "abc", "99999999999"] {
        fs::write(&mine.pid_file, text).unwrap();
        assert_eq!(mine.tell_to_stop().unwrap(), None, "{text:?}");
    }
    thread::sleep(5 * POLL);
    assert_eq!(stranger.exit_status(), None);
}

#[test]
fn all_are_told_before_any_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let daemons: Vec<Daemon> = ["a", "b", "c"].iter().map(|name| daemon(folder.path(), name)).collect();
    stop_all(daemons.iter().map(|daemon| daemon.start().unwrap()).collect()).unwrap();
    assert!(daemons.iter().all(|daemon| daemon.pid().unwrap().is_none()));
}

#[test]
fn a_command_that_fails_says_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = run(&folder.path().join("nothing"), &["x"], None).unwrap_err();
    assert!(matches!(missing, LabError::NoProgram(_)));
    let error = run(Path::new("/bin/sh"), &["-c", "echo no such token >&2; exit 3"], None).unwrap_err().to_string();
    assert!(error.contains("no such token") && error.contains('3'), "{error}");
    assert_eq!(run(Path::new("/bin/echo"), &["done"], None).unwrap(), "done");
}
