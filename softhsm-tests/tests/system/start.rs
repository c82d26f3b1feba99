//! What a daemon does not start on, what it says then, and that it talks to nobody of its own accord.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{LyingCoordinator, TestLab};
use casemate_wire::Code;
use rusqlite::Connection;
use serde_json::Value;

/// Starts party-1's daemon, which must end by itself; what it says.
fn refuses_to_start(lab: &TestLab) -> String {
    refuses_with(lab, 1)
}

/// The same with another exit code.
fn refuses_with(lab: &TestLab, code: i32) -> String {
    let config = lab.parties[0].config.to_str().unwrap();
    let Output { status, stderr, .. } = lab.program(0, "casemated", &["--config", config]);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(code), "{said}");
    // The last line is for people; what comes before it is the log.
    said.lines().last().unwrap().to_owned()
}

fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.to_lowercase().contains(&part.to_lowercase()), "{part:?} should stand in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_token_or_with_a_wrong_pin_it_does_not_start() {
    let lab = TestLab::new(Kind::Empty).await;
    let party = &lab.parties[0];
    let pin = fs::read_to_string(&party.pin_file).unwrap();
    fs::write(&party.pin_file, "000000\n").unwrap();
    // systemd does not start it again after this: the PIN would be tried until the token locks itself.
    let said = refuses_with(&lab, 78);
    says(&said, &["PIN"]);
    assert!(!said.contains("000000"), "{said}");
    fs::write(&party.pin_file, &pin).unwrap();

    let (tokens, aside) = (party.folder.join("tokens"), party.folder.join("aside"));
    fs::rename(&tokens, &aside).unwrap();
    fs::create_dir(&tokens).unwrap();
    says(&refuses_to_start(&lab), &["token", "casemate-party-1"]);
    fs::remove_dir_all(&tokens).unwrap();
    // Another party's token, under the label that this party looks for.
    fs::rename(&aside, &tokens).unwrap();
    let size = lab.audit_size(0);
    let text = fs::read_to_string(&party.config).unwrap();
    lab.configure(0, |_| text.replace("casemate-party-1", "casemate-party-7"));
    says(&refuses_to_start(&lab), &["casemate-party-7"]);
    assert_eq!(lab.audit_size(0), size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_start_with_a_peers_identity_in_its_own_token() {
    let lab = TestLab::new(Kind::Empty).await;
    let (own, peer) = (lab.parties[0].identity.to_string(), lab.parties[1].identity.to_string());
    lab.configure(0, |text| text.replace(&peer, &own));
    says(&refuses_to_start(&lab), &["party-2", "own identity"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_share_its_store_or_its_port() {
    let mut lab = TestLab::new(Kind::Empty).await;
    lab.start(0).await;
    says(&refuses_to_start(&lab), &["lock", "data"]);
    assert_eq!(lab.client(0, Role::Monitor).get("health").await.status, 200, "the first one goes on");
    lab.stop(0);

    let taken = std::net::TcpListener::bind(lab.parties[0].address).unwrap();
    says(&refuses_to_start(&lab), &["listen", &lab.parties[0].address.to_string()]);
    drop(taken);
    let data_dir = &lab.parties[0].data_dir;
    fs::set_permissions(data_dir, Permissions::from_mode(0o755)).unwrap();
    says(&refuses_to_start(&lab), &["0755", "chmod 700"]);
    fs::set_permissions(data_dir, Permissions::from_mode(0o700)).unwrap();
    lab.start(0).await;
}

/// Changes the store behind the daemon's back.
fn store(lab: &TestLab, sql: &str) -> usize {
    let store = Connection::open(lab.parties[0].data_dir.join("casemate.db")).unwrap();
    store.execute(sql, []).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_an_altered_audit_log_it_serves_nothing() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.start(0).await;
    lab.stop(0);
    // Alone with its file, SQLite puts everything that is in its log into the database itself.
    store(&lab, "UPDATE leaves SET seq = seq");
    let database = lab.parties[0].data_dir.join("casemate.db");
    let saved = fs::read(&database).unwrap();
    for (what, sql) in [
        (
            "a changed word",
            "UPDATE leaves SET line = replace(line, 'coordinator', 'Coordinator') WHERE line LIKE '%\"intent\"%'",
        ),
        ("a missing leaf", "DELETE FROM leaves WHERE seq = 2"),
        ("a missing beginning", "DELETE FROM leaves WHERE seq = 0"),
        ("a gap before the end", "UPDATE leaves SET seq = 1000 WHERE seq = (SELECT max(seq) FROM leaves)"),
    ] {
        assert_ne!(store(&lab, sql), 0, "{what}: nothing was changed");
        lab.start_in_quarantine(0).await;
        let health = lab.client(0, Role::Monitor).get("health").await.body;
        assert!(String::from_utf8_lossy(&health).contains("log_damaged"), "{what}: {health:?}");
        lab.stop(0);
        fs::write(&database, &saved).unwrap();
    }
    lab.start(0).await;
}

/// Flips a bit in a column of the one share; the place counts from the column's end.
fn flip(lab: &TestLab, column: &str, from_end: usize) {
    let store = Connection::open(lab.parties[0].data_dir.join("casemate.db")).unwrap();
    // Whoever changes rows by hand lifts the rule first.
    store.execute_batch("DROP TRIGGER shares_keep").unwrap();
    let mut bytes: Vec<u8> = store.query_row(&format!("SELECT {column} FROM shares"), [], |row| row.get(0)).unwrap();
    let place = bytes.len() - 1 - from_end;
    bytes[place] ^= 1;
    assert_eq!(store.execute(&format!("UPDATE shares SET {column} = ?1"), [bytes]).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_share_signs_nothing() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    // In the header, the flag `restored` is last: CBOR's false becomes true, and policy would read it.
    for (column, from_end) in [("header", 0), ("deks", 0), ("nonce", 3), ("body", 100)] {
        lab.stop(0);
        flip(&lab, column, from_end);
        lab.start(0).await;
        let ends = coordinator.run_honestly(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0))).await;
        let problem = ends[0].problem();
        assert_eq!(problem.code, Code::Internal, "{column}: {problem}");
        assert!(problem.detail.contains("altered"), "{column}: {problem}");
        assert_eq!(ends[1].code(), Code::TransportFault, "{column}: the other one does not sign alone");
        lab.stop(0);
        flip(&lab, column, from_end);
        lab.start(0).await;
    }
    let ends = coordinator.run_honestly(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0))).await;
    ends[0].signature();
}

/// Local and remote ports of a process's TCP sockets, listeners included. `None` where the system does not show them:
/// the daemon is not dumpable, so only root sees its descriptors.
fn sockets(pid: u32) -> Option<Vec<(u16, u16)>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
        let target = fs::read_link(entry.ok()?.path()).unwrap_or_default();
        let inode =
            target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned));
        inodes.extend(inode);
    }
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for line in fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = |address: &str| u16::from_str_radix(address.rsplit_once(':').unwrap().1, 16).unwrap();
            if inodes.contains(fields[9]) {
                assert!(table.starts_with("tcp"), "it has a UDP socket: {line}");
                found.push((port(fields[1]), port(fields[2])));
            }
        }
    }
    Some(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_opens_no_connection_of_its_own() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let mut looks = 0;
    let mut busy_looks = 0;
    let mut signers = [[0, 1], [0, 2], [1, 2]].into_iter().cycle();
    for nonce in 0..3 {
        let proposal = coordinator.convener.sign(&key, &signers.next().unwrap(), &Transfer::allowed(nonce));
        let ends = coordinator.run(&proposal, |_, to, frame| {
            for (party, at) in lab.parties.iter().enumerate() {
                let Some(sockets) = sockets(lab.pid(party)) else { continue };
                looks += 1;
                busy_looks += usize::from(sockets.iter().any(|(_, remote)| *remote != 0));
                for (local, remote) in sockets {
                    let listens_or_accepted = local == at.address.port();
                    assert!(listens_or_accepted, "party {party} has a connection of its own: {local} to {remote}");
                }
            }
            vec![(to, frame)]
        });
        ends.await[0].signature();
    }
    let shown = sockets(lab.pid(0)).is_some();
    assert!(!shown || busy_looks > 20, "{looks} looks, {busy_looks} of them with the coordinator connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_and_a_crash_both_end_what_was_running_as_interrupted() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    for crash in [false, true] {
        let proposal = waiting(&coordinator, &key).await;
        if crash {
            lab.kill(0);
        } else {
            assert!(lab.stop(0).success());
        }
        lab.start(0).await;
        let view = coordinator.view(0, &proposal.session).await;
        let error = view.error.unwrap();
        assert_eq!((view.status.as_str(), error.code), ("failed", Code::Interrupted), "{error}");
        assert!(lab.audit(0).1.open_intents.is_empty());
        let again = coordinator.convener.body(&proposal.invitations[0]);
        let problem = coordinator.appliances[0].post("signing/participate", &again).await.problem();
        assert_eq!(problem.code, Code::SessionConflict, "its token is new, so it is another body: {problem}");
    }
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!((&health["status"], &health["active_sessions"]), (&"ok".into(), &0.into()), "{health}");
}

async fn waiting(
    coordinator: &LyingCoordinator,
    key: &casemate_softhsm_tests::Key,
) -> casemate_softhsm_tests::Proposal {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(0));
    for answer in coordinator.ask(&proposal).await {
        assert_eq!(answer.status, 202, "{answer}");
    }
    proposal
}
