//! A disk in trouble under a real daemon: no act without its leaf, the reason within a second, nothing durable lost.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::mount::Mount;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, LyingCoordinator, TestLab};
use casemate_wire::Code;
use casemate_wire::envelope::To;
use casemate_wire::frame::Frame;
use rusqlite::Connection;
use serde_json::Value;

/// Trouble and its end must show within this time, with or without traffic.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// Damage that nobody has run into is found by reading the log again, a little at a time.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// A lab whose party-1 has its data folder on a file system of its own, or where it was.
struct Scene {
    key: Key,
    coordinator: LyingCoordinator,
    /// How many transfers were proposed.
    proposed: std::cell::Cell<u64>,
    /// Taken away before the lab's folder is removed.
    mount: Option<Mount>,
    lab: TestLab,
}

impl Scene {
    async fn new(mount: impl FnOnce(&TestLab) -> Option<Mount>) -> Self {
        let mut lab = TestLab::new(Kind::Keyed).await;
        let mount = mount(&lab);
        lab.start(0).await;
        lab.start(1).await;
        let (key, coordinator) = (lab.key(), lab.lying_coordinator());
        Self { key, coordinator, proposed: std::cell::Cell::new(0), mount, lab }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.parties[0].data_dir.join(name)
    }

    fn next(&self) -> u64 {
        self.proposed.replace(self.proposed.get() + 1)
    }

    /// Waits until party-1's health says `reason`, or nothing, and says how long that took.
    async fn shows(&self, reason: Option<&str>) -> Value {
        self.shows_within(SHOWN_WITHIN, reason).await
    }

    async fn shows_within(&self, limit: Duration, reason: Option<&str>) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.lab.client(0, Role::Monitor).get("health").await;
            let health: Value = serde_json::from_slice(&answer.body).unwrap();
            let audit = &health["checks"]["audit"];
            let fits = match reason {
                None => answer.status == 200 && audit["ok"] == true,
                Some(reason) => {
                    let detail = audit["detail"].as_str().unwrap_or_default();
                    answer.status == 503 && detail.starts_with(reason) && detail.contains(" since 20")
                }
            };
            if fits {
                eprintln!("{reason:?} is shown after {:?}", begun.elapsed());
                return health;
            }
            assert!(begun.elapsed() < limit, "not {reason:?} but {health}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks party-1 to sign; what it answers within a second, and that it is no act.
    async fn denied(&self) {
        let before = self.lab.audit_size(0);
        let proposal = self.coordinator.convener.sign(&self.key, &[0, 1], &Transfer::allowed(self.next()));
        let body = self.coordinator.convener.body(&proposal.invitations[0]);
        let begun = Instant::now();
        let answer = self.coordinator.appliances[0].post("signing/participate", &body).await;
        assert_eq!(answer.problem().code, Code::AuditUnavailable, "{answer}");
        assert!(begun.elapsed() < SHOWN_WITHIN, "it denies in {:?}", begun.elapsed());
        eprintln!("denied after {:?}: {}", begun.elapsed(), answer.problem().detail);
        assert_eq!(self.lab.audit_size(0), before);
    }

    /// Signs, with its leaves.
    async fn signs(&self) {
        let proposal = self.coordinator.convener.sign(&self.key, &[0, 1], &Transfer::allowed(self.next()));
        self.coordinator.run_honestly(&proposal).await[0].signature();
        let (leaves, report) = self.lab.audit(0);
        assert!(report.open_intents.is_empty());
        assert!(leaves.iter().any(|leaf| leaf.session.as_ref() == Some(&proposal.session) && leaf.outcome.is_some()));
    }

    /// How often party-1 has logged this event about this kind of trouble.
    fn logged(&self, event: &str, reason: &str) -> usize {
        let (event, quoted, plain) = (event.to_owned(), format!("reason=\"{reason}\""), format!("reason={reason}"));
        let json = format!("\"reason\":\"{reason}\"");
        let of = |line: &&str| [&quoted, &plain, &json].iter().any(|form| line.contains(form.as_str()));
        let named = |line: &&str| line.contains(&format!("\"{event}\"")) || line.contains(&format!("{event} "));
        self.lab.log(0).lines().filter(of).filter(named).count()
    }

    async fn counted(&self, reason: &str) -> u64 {
        let text = self.lab.client(0, Role::Monitor).get("/metrics").await;
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        let name = format!("mpc_audit_unavailable_total{{reason=\"{reason}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&name))
            .unwrap_or_else(|| panic!("{name} in {text}"))
            .parse()
            .unwrap()
    }
}

fn small(lab: &TestLab) -> Mount {
    Mount::tmpfs(&lab.parties[0].data_dir, 28)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_refusals_but_no_acts_and_acts_go_on_by_themselves() {
    let scene = Scene::new(|lab| Some(small(lab))).await;
    scene.signs().await;
    scene.shows(None).await;
    let filler = scene.mount.as_ref().unwrap().fill();
    scene.shows(Some("disk_full")).await;
    // Somebody else wants every byte that becomes free, and does not get the reserve.
    filler.go_on();
    scene.denied().await;
    for _ in 0..50 {
        let before = scene.lab.audit_size(0);
        let over = scene.coordinator.convener.sign(&scene.key, &[0, 1], &Transfer::over_the_limit(scene.next()));
        let body = scene.coordinator.convener.body(&over.invitations[0]);
        let refused = scene.coordinator.appliances[0].post("signing/participate", &body).await;
        assert_eq!(refused.problem().code, Code::PolicyDenied, "{refused}");
        assert_eq!(scene.lab.audit_size(0), before + 1, "a refusal has its leaf");
        filler.go_on();
    }
    scene.denied().await;
    drop(filler);
    scene.shows(None).await;
    scene.signs().await;
    assert_eq!((scene.logged("store_trouble", "disk_full"), scene.logged("store_trouble_over", "disk_full")), (1, 1));
    assert_eq!(scene.counted("disk_full").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_flight_when_the_disk_fills_gets_its_outcome_on_record() {
    let scene = Scene::new(|lab| Some(small(lab))).await;
    let proposal = scene.coordinator.convener.sign(&scene.key, &[0, 1], &Transfer::allowed(scene.next()));
    let mut filler = None;
    let ends = scene.coordinator.run(&proposal, |_, to, frame: Frame| {
        let message = matches!(&frame, Frame::Message(message) if message.content.to == To::All);
        if message && filler.is_none() {
            filler = scene.mount.as_ref().map(Mount::fill);
        }
        vec![(to, frame)]
    });
    let signature = ends.await[0].signature();
    assert!(filler.is_some());
    let (leaves, report) = scene.lab.audit(0);
    assert!(report.open_intents.is_empty());
    let outcome = leaves.iter().rfind(|leaf| leaf.session.as_ref() == Some(&proposal.session)).unwrap();
    assert_eq!(outcome.outcome.as_ref().unwrap().signature, Some(signature));
    scene.shows(Some("disk_full")).await;
    scene.denied().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_on_a_full_disk_starts_on_it_and_loses_nothing() {
    let mut scene = Scene::new(|lab| Some(small(lab))).await;
    scene.signs().await;
    let _filler = scene.mount.as_ref().unwrap().fill();
    scene.shows(Some("disk_full")).await;
    let before = scene.lab.audit_size(0);
    scene.lab.kill(0);
    // It is failing, and so not healthy, but it serves: it records its boot, and what was cut off.
    let party = scene.lab.parties[0].clone();
    let _again = scene.lab.start_party(&party).unwrap();
    let begun = Instant::now();
    while scene.lab.audit_size(0) == before {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", scene.lab.log(0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while scene.lab.client(0, Role::Monitor).call(hyper::Method::GET, "health", None).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", scene.lab.log(0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.shows(Some("disk_full")).await;
    scene.denied().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_moved_or_replaced_deny_within_a_second_and_are_good_again_when_back() {
    let scene = Scene::new(|_| None).await;
    for name in ["casemate.db", "casemate.db-wal"] {
        scene.shows(None).await;
        fs::rename(scene.path(name), scene.path("aside")).unwrap();
        scene.shows(Some("file_missing")).await;
        fs::copy(scene.path("aside"), scene.path(name)).unwrap();
        scene.shows(Some("file_replaced")).await;
        let proposal = scene.coordinator.convener.sign(&scene.key, &[0, 1], &Transfer::allowed(scene.next()));
        let body = scene.coordinator.convener.body(&proposal.invitations[0]);
        let answer = scene.coordinator.appliances[0].post("signing/participate", &body).await;
        assert_eq!(answer.problem().code, Code::AuditUnavailable, "{answer}");
        fs::rename(scene.path("aside"), scene.path(name)).unwrap();
        scene.shows(None).await;
        scene.signs().await;
    }
    assert_eq!(scene.counted("file_replaced").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_wal_denies_and_costs_nothing_even_if_the_daemon_is_killed_then() {
    let mut scene = Scene::new(|_| None).await;
    scene.signs().await;
    let before = scene.lab.audit_size(0);
    fs::remove_file(scene.path("casemate.db-wal")).unwrap();
    scene.shows(Some("file_missing")).await;
    tokio::time::sleep(SHOWN_WITHIN).await;
    scene.lab.kill(0);
    scene.lab.start(0).await;
    assert!(scene.lab.audit_size(0) > before);
    scene.signs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwritten_pages_are_found_without_traffic_and_deny_until_they_are_put_right() {
    let mut scene = Scene::new(|_| None).await;
    for _ in 0..3 {
        scene.signs().await;
    }
    assert!(scene.lab.stop(0).success());
    // What lies in the write-ahead log hides the page that it will replace.
    let store = Connection::open(scene.path("casemate.db")).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap();
    drop(store);
    let whole = fs::read(scene.path("casemate.db")).unwrap();
    scene.lab.start(0).await;
    scene.shows(None).await;
    let before = scene.lab.audit_size(0);
    let wal = fs::read(scene.path("casemate.db-wal")).unwrap();
    let file = OpenOptions::new().write(true).open(scene.path("casemate.db")).unwrap();
    // The first page stays: a file that is no database at all would be too easy.
    file.write_all_at(&vec![0xa5; whole.len() - 4096], 4096).unwrap();
    let health = scene.shows_within(FOUND_WITHIN, Some("corrupt")).await;
    assert!(health["checks"]["audit"]["detail"].as_str().unwrap().contains("docs/runbook.md"), "{health}");
    let proposal = scene.coordinator.convener.sign(&scene.key, &[0, 1], &Transfer::allowed(scene.next()));
    let body = scene.coordinator.convener.body(&proposal.invitations[0]);
    let answer = scene.coordinator.appliances[0].post("signing/participate", &body).await;
    assert!(matches!(answer.problem().code, Code::AuditUnavailable | Code::Internal), "{answer}");
    scene.lab.kill(0);
    let config = scene.lab.parties[0].config.to_str().unwrap().to_owned();
    let ended = scene.lab.program(0, "casemated", &["--config", &config]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    eprintln!("at the start: {}", said.lines().last().unwrap_or_default());
    file.write_all_at(&whole, 0).unwrap();
    fs::write(scene.path("casemate.db-wal"), wal).unwrap();
    scene.lab.start(0).await;
    assert!(scene.lab.audit_size(0) > before, "what was durable is there");
    scene.signs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_goes_read_only_under_the_daemon_denies_and_loses_nothing() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let mut scene = Scene::new(|lab| Some(Mount::ext4(&lab.parties[0].data_dir, image.path(), 64))).await;
    scene.signs().await;
    // What the kernel does when it finds the file system damaged.
    scene.mount.as_ref().unwrap().remount("abort");
    scene.denied().await;
    scene.shows(Some("read_only")).await;
    scene.denied().await;
    let before = scene.lab.audit_size(0);
    scene.lab.kill(0);
    let data = scene.lab.parties[0].data_dir.clone();
    scene.mount = None;
    scene.mount = Some(Mount::ext4_again(&data, image.path()));
    scene.lab.start(0).await;
    assert!(scene.lab.audit_size(0) > before);
    scene.signs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_read_only_file_system_it_does_not_start_and_says_why() {
    let lab = TestLab::new(Kind::Keyed).await;
    let mount = small(&lab);
    let before = lab.audit_size(0);
    mount.remount("ro");
    let config = lab.parties[0].config.to_str().unwrap();
    let ended = lab.program(0, "casemated", &["--config", config]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().to_lowercase().contains("read-only"), "{said}");
    mount.remount("rw");
    drop(File::open(lab.parties[0].data_dir.join("casemate.db")).unwrap());
    let mut scene = Scene {
        key: lab.key(),
        coordinator: lab.lying_coordinator(),
        proposed: std::cell::Cell::new(0),
        mount: Some(mount),
        lab,
    };
    scene.lab.start(0).await;
    scene.lab.start(1).await;
    assert!(scene.lab.audit_size(0) > before);
    scene.signs().await;
}
