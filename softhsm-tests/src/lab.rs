//! One lab of a test: its folder, its processes, its clients, its audit logs.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_appliance::lab::{Lab, Running, stop_all};
use casemate_appliance::store::{audit_details, audit_lines, open_read_only};
use casemate_attest::{Detail, Leaf, Report, Verifier};
use casemate_wire::{KeyCertificate, PublicKey};
use hyper::Method;
use rustls::version::TLS13;
use serde::Deserialize;
use tempfile::TempDir;

use crate::convene::Convener;
use crate::http::{ApplianceClient, Identity, tls};
use crate::programs;
use crate::relay::LyingCoordinator;
use crate::template::{self, KEY_FILE, Kind, Ports};

/// The longest wait for a daemon to be healthy; the machine may be busy with other tests.
const STARTING: Duration = Duration::from_secs(60);

/// The longest that a program may take that must end by itself.
const ENDING: Duration = Duration::from_secs(30);

/// Three appliances and a coordinator, of which some run. What runs is ended, and the folder removed, when this is
/// dropped; after a failure the folder is kept and its place is printed.
pub struct TestLab {
    pub(crate) lab: Lab,
    appliances: Vec<Option<Running>>,
    coordinator: Option<Running>,
    folder: Option<TempDir>,
    _ports: Ports,
}

/// The key that a lab was made with.
#[derive(Debug, Clone, Deserialize)]
pub struct Key {
    /// The coordinator's account.
    pub account_id: String,
    /// All identity signatures over the key.
    pub certificate: KeyCertificate,
}

impl Key {
    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        self.certificate.statement.public_key
    }
}

impl Deref for TestLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl TestLab {
    /// A lab in which nothing runs yet.
    pub async fn new(kind: Kind) -> Self {
        let folder = tempfile::Builder::new().prefix("casemate-test-").tempdir().unwrap();
        let (lab, ports) = template::copy(kind, &folder.path().join("lab")).await;
        let appliances = lab.parties.iter().map(|_| None).collect();
        Self { lab, appliances, coordinator: None, folder: Some(folder), _ports: ports }
    }

    /// A lab without a key whose appliances run; the coordinator does not.
    pub async fn empty() -> Self {
        Self::running(Kind::Empty).await
    }

    /// A lab with a key whose appliances run; the coordinator does not.
    pub async fn keyed() -> (Self, Key) {
        let lab = Self::running(Kind::Keyed).await;
        let key = lab.key();
        (lab, key)
    }

    /// A lab of five appliances that run; the first three hold a key. The coordinator does not run.
    pub async fn spare() -> (Self, Key) {
        let lab = Self::running(Kind::Spare).await;
        let key = lab.key();
        (lab, key)
    }

    async fn running(kind: Kind) -> Self {
        let mut lab = Self::new(kind).await;
        lab.start_appliances().await;
        lab
    }

    /// The key that the lab was made with.
    pub fn key(&self) -> Key {
        serde_json::from_slice(&fs::read(self.lab.root.join(KEY_FILE)).unwrap()).unwrap()
    }

    /// Starts the appliances that do not run, and waits until they answer.
    pub async fn start_appliances(&mut self) {
        for index in 0..self.appliances.len() {
            if self.appliances[index].is_none() {
                self.appliances[index] = Some(self.lab.start_party(&self.lab.parties[index]).unwrap());
            }
        }
        for party in &self.lab.parties {
            self.lab.wait_party_healthy(party, STARTING).await.unwrap();
        }
    }

    /// Starts one appliance and waits until it answers.
    pub async fn start(&mut self, index: usize) {
        let party = &self.lab.parties[index];
        self.appliances[index] = Some(self.lab.start_party(party).unwrap());
        self.lab.wait_party_healthy(party, STARTING).await.unwrap();
    }

    /// Starts one appliance whose evidence is refused, and waits until it says so.
    pub async fn start_in_quarantine(&mut self, index: usize) {
        self.appliances[index] = Some(self.lab.start_party(&self.lab.parties[index]).unwrap());
        let client = self.client(index, Role::Monitor);
        let begun = Instant::now();
        loop {
            match client.call(Method::GET, "health", None).await {
                Ok(answer) if answer.status == 503 => return,
                Ok(answer) => panic!("{answer}"),
                Err(_) => assert!(begun.elapsed() < STARTING, "it does not answer"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the coordinator and waits until it is connected with every appliance.
    pub async fn start_coordinator(&mut self) {
        self.coordinator = Some(self.lab.start_coordinator().unwrap());
        self.lab.wait_coordinator_healthy(STARTING).await.unwrap();
    }

    /// Stops one appliance in order.
    pub fn stop(&mut self, index: usize) -> ExitStatus {
        self.appliances[index].take().expect("it runs").stop().unwrap()
    }

    /// Kills one appliance with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.appliances[index].take().expect("it runs").kill();
    }

    /// Kills the coordinator with SIGKILL.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("it runs").kill();
    }

    /// Stops everything that runs, in order.
    pub fn stop_all(&mut self) {
        let coordinator = self.coordinator.take();
        let running: Vec<Running> =
            coordinator.into_iter().chain(self.appliances.iter_mut().filter_map(Option::take)).collect();
        stop_all(running).unwrap();
    }

    /// The process of an appliance that runs.
    pub fn pid(&self, index: usize) -> u32 {
        self.appliances[index].as_ref().expect("it runs").pid()
    }

    /// Changes an appliance's configuration; it must not run.
    pub fn configure(&self, index: usize, change: impl FnOnce(String) -> String) {
        assert!(self.appliances[index].is_none(), "it runs, and would not notice");
        let path = &self.lab.parties[index].config;
        let text = change(fs::read_to_string(path).unwrap());
        fs::write(path, text).unwrap();
    }

    /// Adds a section at the end of every appliance's configuration; none may run.
    pub fn configure_all(&self, section: &str) {
        for index in 0..self.appliances.len() {
            self.configure(index, |text| format!("{text}\n{section}\n"));
        }
    }

    /// Fills the prime pool of an appliance that does not run.
    pub fn seed_primes(&self, index: usize, copies: u32) {
        template::seed_primes(&self.lab, index, copies);
    }

    /// What the client with this role shows of itself.
    pub fn identity(&self, role: Role) -> Identity {
        let credentials = self.lab.credentials(role);
        Identity::read(&credentials.certificate, &credentials.key)
    }

    /// The lab's CA certificate.
    pub fn ca(&self) -> PathBuf {
        self.lab.credentials(Role::Monitor).ca
    }

    /// An appliance, called as the client with this role.
    pub fn client(&self, index: usize, role: Role) -> ApplianceClient {
        self.client_with(index, Some(&self.identity(role)))
    }

    /// An appliance, called with any certificate or none.
    pub fn client_with(&self, index: usize, identity: Option<&Identity>) -> ApplianceClient {
        ApplianceClient::new(self.lab.parties[index].address, tls(&self.ca(), identity, &[&TLS13]))
    }

    /// A coordinator under the test's control, with the lab's real keys.
    pub fn lying_coordinator(&self) -> LyingCoordinator {
        let appliances = (0..self.lab.parties.len()).map(|index| self.client(index, Role::Coordinator)).collect();
        LyingCoordinator { convener: Convener::new(&self.lab), appliances }
    }

    /// Runs one of the programs to its end, as an operator of this party would.
    pub fn program<S: AsRef<OsStr>>(&self, index: usize, name: &str, arguments: &[S]) -> Output {
        let child = Command::new(programs::folder().join(name))
            .args(arguments)
            .env("SOFTHSM2_CONF", &self.lab.parties[index].softhsm_conf)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let done = finished(child, name);
        self.keep_output(&done);
        done
    }

    /// Adds what a program said to the lab's logs; not what a test opens on purpose.
    fn keep_output(&self, done: &Output) {
        let path = self.lab.root.join("logs").join("programs.log");
        fs::create_dir_all(self.lab.root.join("logs")).unwrap();
        let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
        log.write_all(&[done.stderr.as_slice(), &done.stdout, b"\n"].concat()).unwrap();
    }

    /// The secrets of a key's shares at an appliance that does not run, in hex.
    pub fn secrets(&self, index: usize, key: &PublicKey) -> Vec<String> {
        let party = &self.lab.parties[index];
        let mut program = Command::new(programs::folder().join("open-shares"));
        program.arg(&party.config).arg(key.to_string()).env("SOFTHSM2_CONF", &party.softhsm_conf);
        let done = program.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// A party's audit log, verified line by line, whether its daemon runs or not.
    pub fn audit(&self, index: usize) -> (Vec<Leaf>, Report) {
        let store = open_read_only(&self.lab.parties[index].data_dir).unwrap();
        let mut verifier = Verifier::new();
        let lines = audit_lines(&store, 0, u64::MAX).unwrap();
        let leaves = lines.iter().map(|line| verifier.feed(line.as_bytes()).unwrap_or_else(|fault| panic!("{fault}")));
        (leaves.collect(), verifier.finish().unwrap())
    }

    /// A party's audit log, exactly as hashed.
    pub fn lines(&self, index: usize) -> Vec<String> {
        let store = open_read_only(&self.lab.parties[index].data_dir).unwrap();
        audit_lines(&store, 0, u64::MAX).unwrap()
    }

    /// What a leaf of a party's log only commits to.
    pub fn detail(&self, index: usize, leaf: &Leaf) -> Detail {
        let store = open_read_only(&self.lab.parties[index].data_dir).unwrap();
        let found = audit_details(&store, leaf.seq, 1).unwrap().pop().filter(|found| found.seq == leaf.seq);
        let disclosure = found.unwrap_or_else(|| panic!("leaf {} has no detail", leaf.seq)).disclosure;
        assert_eq!(leaf.detail, Some(disclosure.commitment().unwrap()));
        disclosure.detail
    }

    /// How many leaves a party's audit log has.
    pub fn audit_size(&self, index: usize) -> u64 {
        self.audit(index).1.size
    }

    /// How many sessions a party has on record.
    pub fn sessions(&self, index: usize) -> u64 {
        let store = open_read_only(&self.lab.parties[index].data_dir).unwrap();
        store.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).unwrap()
    }

    /// What an appliance has logged.
    pub fn log(&self, index: usize) -> String {
        let path = self.lab.root.join("logs").join(format!("{}.log", self.lab.parties[index].party_id));
        fs::read_to_string(path).unwrap_or_default()
    }
}

/// Waits for a program that must end by itself.
fn finished(mut child: Child, name: &str) -> Output {
    let (out, err) = (drained(child.stdout.take().unwrap()), drained(child.stderr.take().unwrap()));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > ENDING => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("{name} does not end: {}", String::from_utf8_lossy(&stderr)));
    Output { status, stdout, stderr }
}

fn drained(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the lab is kept; its logs are in {}", folder.keep().join("lab/logs").display());
        }
    }
}
