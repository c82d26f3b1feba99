//! What a daemon that was taken over could still do: the daemon's sandbox, tried from inside.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::publish;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{TestLab, programs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What the probe says of each try, and its last line: whether another program could take its place.
fn tries(lab: &TestLab, mode: &str) -> (BTreeMap<String, String>, String) {
    let party = &lab.parties[0];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = lab.root.join(format!("{mode}.socket"));
    let _local = UnixListener::bind(&socket).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let forbidden = &lab.parties[1].pin_file;
    let arguments = ["tries", mode, party.config.to_str().unwrap(), forbidden.to_str().unwrap(), &address];
    let done = lab.program(0, "sandbox-probe", &[&arguments[..], &[socket.to_str().unwrap()]].concat());
    let said = String::from_utf8(done.stdout).unwrap();
    let (tries, last) = said.trim_end().split_once('\n').unwrap_or_else(|| panic!("{said}{}", text(&done.stderr)));
    (serde_json::from_str(tries).unwrap(), last.to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const ALLOWED: [&str; 6] = ["HSM", "PIN", "certificate", "own file", "policy", "replaced policy"];

#[tokio::test]
async fn a_foreign_file_a_connection_and_a_program_are_out_of_reach_and_the_hsm_still_signs() {
    let lab = TestLab::new(Kind::Empty).await;
    let (open, replaced) = tries(&lab, "open");
    let failed: Vec<_> = open.iter().filter(|(name, said)| *said != "done" && *name != "sandbox").collect();
    assert!(failed.is_empty(), "without the sandbox everything is possible: {failed:?}");
    assert_eq!(replaced, "replaced");

    let (closed, replaced) = tries(&lab, "closed");
    assert!(closed["sandbox"].starts_with("enforced (Landlock"), "{closed:?}");
    assert_eq!(closed.len(), open.len());
    for (name, said) in closed.iter().filter(|(name, _)| *name != "sandbox") {
        let expected = if ALLOWED.contains(&name.as_str()) { "done" } else { "PermissionDenied" };
        assert_eq!(said, expected, "{name}");
    }
    assert!(replaced.contains("not permitted") || replaced.contains("denied"), "{replaced}");
}

#[tokio::test]
async fn where_files_cannot_be_closed_off_it_starts_only_if_the_configuration_says_so_and_health_shows_it() {
    let lab = TestLab::new(Kind::Empty).await;
    let daemon = programs::folder().join("casemated");
    let config = lab.parties[0].config.clone();
    let arguments = ["without-landlock", daemon.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let refused = lab.program(0, "sandbox-probe", &arguments);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("this kernel has no Landlock") && said.contains("best-effort"), "{said}");

    lab.configure(0, |text| format!("{text}\n[sandbox]\nmode = \"best-effort\"\n"));
    let mut running = Command::new(programs::folder().join("sandbox-probe"))
        .args(arguments)
        .env("SOFTHSM2_CONF", &lab.parties[0].softhsm_conf)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let health = health(&lab).await;
    assert_eq!(
        (&health["status"], &health["checks"]["sandbox"]["ok"]),
        (&json!("degraded"), &json!(false)),
        "{health}"
    );
    assert!(health["checks"]["sandbox"]["detail"].as_str().unwrap().contains("no Landlock"), "{health}");
    kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
    assert!(running.wait().unwrap().success());
}

/// Health of party-1, once its daemon answers.
pub(crate) async fn health(lab: &TestLab) -> Value {
    let begun = Instant::now();
    loop {
        match lab.client(0, Role::Monitor).call(hyper::Method::GET, "health", None).await {
            Ok(answer) => return answer.value(),
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "it does not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_closed_in_unless_told_otherwise_and_one_that_only_logs_says_so() {
    let mut lab = TestLab::new(Kind::Empty).await;
    lab.start(0).await;
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(health["checks"]["sandbox"], json!({"ok": true}), "{health}");
    assert!(health["sandbox"].as_str().unwrap().starts_with("enforced"), "{health}");
    let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(0))).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    lab.stop(0);

    lab.configure(0, |text| format!("{text}\n[sandbox]\nmode = \"log\"\n"));
    lab.start(0).await;
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!((&health["status"], &health["sandbox"]), (&json!("degraded"), &json!("logged only")), "{health}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_folder_that_takes_the_place_of_the_old_one_is_loaded() {
    let (lab, key) = TestLab::keyed().await;
    let (dir, staff) = (lab.parties[0].policy_dir.clone(), lab.staff());
    let next = dir.with_file_name("policy.next");
    fs::create_dir_all(next.join("tests")).unwrap();
    for folder in [dir.clone(), dir.join("tests")] {
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            fs::copy(&file, next.join(file.strip_prefix(&dir).unwrap())).unwrap();
        }
    }
    publish(&staff, &next);
    fs::rename(&dir, dir.with_file_name("policy.old")).unwrap();
    fs::rename(&next, &dir).unwrap();
    let answer = lab.client(0, Role::Operator).post("policy/reload", &json!({})).await;
    assert_eq!(answer.status, 200, "{answer}");
    let coordinator = lab.lying_coordinator();
    let ends = coordinator.run_honestly(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0))).await;
    ends[0].signature();
}
