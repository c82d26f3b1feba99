//! What systemd hears from the daemon, and the socket that it hands over.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::mount::Mount;
use casemate_softhsm_tests::service::{Service, Unit, faulty_module, listening};
use casemate_softhsm_tests::template::Kind;
use rusqlite::Connection;
use rustix::process::Signal;

const WATCHDOG: Duration = Duration::from_secs(4);
const READY: &str = "READY=1";
const ALIVE: &str = "WATCHDOG=1";

fn ready(heard: &[String]) -> usize {
    heard.iter().filter(|message| message.lines().any(|line| line == READY)).count()
}

fn pings(heard: &[String]) -> usize {
    heard.iter().filter(|message| message.lines().any(|line| line == ALIVE)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_systemds_socket_it_is_ready_once_the_policy_is_and_says_when_it_reloads_and_stops() {
    let lab = TestLab::new(Kind::Empty).await;
    let (policy, aside) = (lab.parties[0].policy_dir.clone(), lab.parties[0].folder.join("aside"));
    fs::rename(&policy, &aside).unwrap();
    let inherited = Some(listening(&lab, 0));
    let mut service = Service::start(&lab, 0, Unit { inherited, watchdog: Some(WATCHDOG), ..Unit::default() });
    service.wait_for(&["STATUS=Serving, but not ready: policy: "]);
    // It lives, and asks for more time.
    service.wait_for(&[ALIVE, "EXTEND_TIMEOUT_USEC=8000000"]);
    let health = lab.client(0, Role::Monitor).get("health").await;
    assert_eq!(health.status, 200, "it serves on the socket that it was given: {health}");
    assert_eq!(ready(&service.heard), 0, "{:?}", service.heard);

    fs::rename(&aside, &policy).unwrap();
    service.signal(Signal::HUP);
    service.wait_for(&[READY, "STATUS=Ready"]);
    assert!(!service.heard.iter().any(|message| message.contains("RELOADING")), "{:?}", service.heard);
    assert!(!service.wait_for(&[ALIVE]).contains("EXTEND"), "its start is over");

    service.signal(Signal::HUP);
    service.wait_for(&["RELOADING=1", "MONOTONIC_USEC="]);
    service.wait_for(&[READY]);
    fs::rename(&policy, &aside).unwrap();
    service.signal(Signal::HUP);
    service.wait_for(&["RELOADING=1"]);
    service.wait_for(&[READY]);
    service.wait_for(&["STATUS=In trouble: policy: refused", "stays active"]);

    service.signal(Signal::TERM);
    service.wait_for(&["STOPPING=1"]);
    assert!(service.ended().success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_quarantine_it_lives_and_is_never_ready() {
    let mut lab = TestLab::new(Kind::Empty).await;
    lab.start(0).await;
    lab.stop(0);
    let store = Connection::open(lab.parties[0].data_dir.join("casemate.db")).unwrap();
    assert_eq!(store.execute("DELETE FROM leaves WHERE seq = 1", []).unwrap(), 1);
    drop(store);
    let mut service = Service::start(&lab, 0, Unit { watchdog: Some(WATCHDOG), ..Unit::default() });
    service.wait_for(&["STATUS=Serving, but not ready: ", "audit: ", "log_damaged"]);
    let heard = service.listen(WATCHDOG);
    assert!(pings(heard) > 1, "a restart would change nothing: {heard:?}");
    assert_eq!(ready(&service.heard), 0, "{:?}", service.heard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watchdog_is_not_fed_while_the_hsm_hangs_and_is_fed_while_it_is_away() {
    let lab = TestLab::new(Kind::Empty).await;
    let faults = faulty_module(&lab, 0);
    let mut service =
        Service::start(&lab, 0, Unit { watchdog: Some(WATCHDOG), faults: Some(&faults), ..Unit::default() });
    service.wait_for(&[READY]);
    service.wait_for(&[ALIVE]);

    let away = faults.join("device-removed");
    File::create(&away).unwrap();
    service.wait_for(&["STATUS=In trouble: ", "hsm: unavailable"]);
    let heard = service.listen(WATCHDOG);
    assert!(pings(heard) > 1, "it comes back by itself: {heard:?}");
    fs::remove_file(&away).unwrap();
    service.wait_for(&["STATUS=Ready"]);

    let hang = faults.join("hang");
    File::create(&hang).unwrap();
    // A check that was under way may still end well.
    service.listen(WATCHDOG / 2);
    let heard = service.listen(WATCHDOG);
    assert_eq!(pings(heard), 0, "systemd would not restart it: {heard:?}");
    assert!(service.log().contains("liveness_missing"), "{}", service.log());
    fs::remove_file(&hang).unwrap();
    service.wait_for(&[ALIVE]);
}

/// A file system on which every write waits.
struct Frozen(PathBuf);

impl Frozen {
    fn new(at: PathBuf) -> Self {
        assert!(Command::new("fsfreeze").arg("-f").arg(&at).status().unwrap().success());
        Self(at)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Before anything else: whoever waits cannot even be killed.
        drop(Command::new("fsfreeze").arg("-u").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watchdog_is_not_fed_while_a_write_to_the_store_does_not_end() {
    let lab = TestLab::new(Kind::Empty).await;
    let at = lab.parties[0].data_dir.clone();
    let _mount = Mount::ext4(&at, &lab.root.join("disk.img"), 64);
    let mut service = Service::start(&lab, 0, Unit { watchdog: Some(WATCHDOG), ..Unit::default() });
    service.wait_for(&[READY]);
    service.wait_for(&[ALIVE]);
    let frozen = Frozen::new(at);
    service.listen(WATCHDOG / 2);
    let pinged = pings(service.listen(WATCHDOG));
    let log = service.log();
    drop(frozen);
    assert_eq!(pinged, 0, "systemd would not restart it: {log}");
    assert!(log.contains("liveness_missing"), "{log}");
    service.wait_for(&[ALIVE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_start_on_anything_but_one_listening_socket_of_systemds() {
    let lab = TestLab::new(Kind::Empty).await;
    drop(listening(&lab, 0));
    let says = |inherited: Option<Stdio>, why: &str| {
        let mut service = Service::start(&lab, 0, Unit { inherited, ..Unit::default() });
        let status = service.ended();
        let log = service.log();
        assert_eq!(status.code(), Some(78), "a restart does not help: {log}");
        assert!(log.contains("casemated.socket") && log.contains(why), "{why:?} should stand in: {log}");
        assert_eq!(ready(&service.heard), 0);
    };
    says(None, "0 sockets");
    says(Some(File::open("/dev/null").unwrap().into()), "not a socket");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    says(Some(OwnedFd::from(connected).into()), "does not listen");
}
