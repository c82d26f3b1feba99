//! The real program: its command line, its configuration, kill -9 and SIGTERM.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use crate::support::appliance::Behaviour;
use crate::support::client::Caller;
use crate::support::{Lab, PROGRAM, Setup, keygen_body};

fn run(lab: &Lab, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).arg("--config").arg(lab.config()).output().unwrap()
}

fn fails_with(output: &Output, code: i32, hints: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for hint in hints {
        assert!(text.contains(hint), "{hint:?} is not in {text:?}");
    }
}

/// Starts the daemon and reads its address from its log.
fn start(lab: &Lab) -> (Child, Caller) {
    let mut daemon = Command::new(PROGRAM).arg("--config").arg(lab.config()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let line = log.find(|line| line.as_ref().unwrap().contains("event=\"started\"")).unwrap().unwrap();
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    let caller =
        Caller { address: address.parse().unwrap(), key: lab.api_key(&format!("test-{}", uuid::Uuid::new_v4())) };
    // The pipe must be read to the end, or the daemon stops at a full one.
    std::thread::spawn(move || log.for_each(drop));
    (daemon, caller)
}

fn signal(daemon: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill {name} {}", daemon.id())]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_runs_the_daemons_own_loader() {
    let lab = Lab::new(Setup::default()).await;
    let good = run(&lab, &["--check-config"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let text = fs::read_to_string(lab.config()).unwrap();
    let key = lab.folder.path().join("token.key");
    for (from, to, hints) in [
        ("issuer", "isuer", &["isuer", "unknown field"][..]),
        ("127.0.0.1:0", "0.0.0.0:0", &["listen.address", "[tls]"][..]),
        ("ca.pem", "missing.pem", &["missing.pem", "CA"][..]),
        ("\"ES256\"", "\"EdDSA\"", &["token.key"][..]),
        ("\"ES256\"", "\"none\"", &["none"][..]),
        ("party-1\"\nurl", "party-0\"\nurl", &["party-0 is configured twice"][..]),
        ("https://", "http://", &["appliance.url"][..]),
        ("[limits]", "[limits]\nsession_ttl = 5", &["limits.session_ttl"][..]),
        ("[limits]", "[log]\nlevel = \"a=b=c\"\n[limits]", &["log.level"][..]),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(lab.config(), text.replacen(from, to, 1)).unwrap();
        fails_with(&run(&lab, &["--check-config"]), 2, hints);
        fails_with(&run(&lab, &[]), 2, hints);
    }
    fs::write(lab.config(), text).unwrap();
    for mode in [0o644, 0o604, 0o620] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        fails_with(&run(&lab, &["--check-config"]), 2, &["token.key", "chmod 600"]);
    }
    assert!(!lab.folder.path().join("data").exists(), "checking must not create anything");
}

#[test]
fn the_sample_configuration_is_printed() {
    let output = Command::new(PROGRAM).arg("--print-config").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("[token]") && text.contains("[[appliance]]"));
    let nothing = Command::new(PROGRAM).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_shown_once_and_stored_as_hashes() {
    let lab = Lab::new(Setup::default()).await;
    let key = lab.api_key("shop");
    fails_with(&run(&lab, &["api-key", "create", "--name", "shop"]), 2, &["in use"]);
    fails_with(&run(&lab, &["api-key", "create", "--name", ""]), 2, &["--name"]);
    fails_with(&run(&lab, &["api-key", "revoke", "--name", "nobody"]), 2, &["nobody"]);
    let list = String::from_utf8(run(&lab, &["api-key", "list"]).stdout).unwrap();
    assert!(list.contains("shop") && list.contains("in use"), "{list}");
    let secret = key.rsplit('_').next().unwrap();
    assert!(!list.contains(secret));
    for file in fs::read_dir(lab.folder.path().join("data")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!holds, "the key itself is on disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_nothing_finished_is_lost_and_what_ran_is_interrupted() {
    let lab = Lab::new(Setup::default()).await;
    let (mut daemon, caller) = start(&lab);
    let key = caller.waiting("/api/v1/mpc/keygen", &keygen_body(2, 3)).await.body;
    assert_eq!(key["status"], "completed", "{key}");
    for appliance in &lab.appliances {
        appliance.behave(Behaviour::Silent);
    }
    let cut = caller.post("/api/v1/mpc/keygen", &keygen_body(2, 3)).await.body;
    caller.session(&cut["session_id"], |session| session["status"] == "in_progress").await;
    fails_with(&run(&lab, &[]), 1, &["another casemate-coordinator"]);
    signal(&daemon, "-KILL");
    daemon.wait().unwrap();

    let (mut daemon, caller) = start(&lab);
    let found = caller.session(&cut["session_id"], |_| true).await;
    assert_eq!((&found["status"], &found["error"]["code"]), (&"failed".into(), &"interrupted".into()));
    let kept = caller.session(&key["session_id"], |_| true).await;
    assert_eq!((&kept["status"], &kept["certificate"]), (&"completed".into(), &key["certificate"]));
    let accounts = caller.get("/api/v1/accounts").await.body;
    assert_eq!((&accounts["total"], &accounts["items"][0]["id"]), (&1.into(), &key["account_id"]));
    let again = caller.waiting("/api/v1/mpc/keygen", &keygen_body(2, 3)).await.body;
    assert_eq!(again["status"], "completed", "{again}");
    signal(&daemon, "-TERM");
    assert!(daemon.wait().unwrap().success());
}
