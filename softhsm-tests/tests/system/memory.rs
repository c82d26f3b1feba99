//! What is left of secrets in a daemon's memory once a session has ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, TestLab, programs};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::sandbox::health;

/// What nobody may find after a session, by name: any 16 bytes in a row of it, in either byte order. A shorter rest may be
/// anything; a freed block without wiping loses its first bytes to the allocator's own notes.
struct Secrets(Vec<(&'static str, [u8; 16])>);

#[derive(Deserialize)]
struct Opened {
    share: String,
    dek: String,
}

impl Secrets {
    /// The share of party-1 and what opens it, read with its token while its daemon does not run.
    fn of(lab: &TestLab) -> Self {
        let party = &lab.parties[0];
        let done = lab.program(0, "secrets-of", &[&party.config]);
        let opened: Opened = serde_json::from_slice(&done.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&done.stderr)));
        let pin = fs::read_to_string(&party.pin_file).unwrap().trim_end().as_bytes().to_vec();
        let mut all = Vec::new();
        for (name, bytes) in
            [("share", hex::decode(opened.share).unwrap()), ("DEK", hex::decode(opened.dek).unwrap()), ("PIN", pin)]
        {
            for mut half in bytes.chunks(16).map(<[u8]>::to_vec) {
                all.push((name, half.clone().try_into().unwrap()));
                half.reverse();
                all.push((name, half.try_into().unwrap()));
            }
        }
        Self(all)
    }

    /// How often each is found in the memory of a process, in every mapping that can be read.
    fn in_memory_of(&self, pid: u32) -> BTreeMap<&'static str, Vec<String>> {
        let mut begins = [false; 256];
        self.0.iter().for_each(|(_, half)| begins[usize::from(half[0])] = true);
        // Threads that end meanwhile would take mappings away.
        let process = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        while !fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("State:\tT") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root reads another process's memory");
        let mut found: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut scanned = 0;
        for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (from, to) = fields[0].split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            if !fields[1].starts_with('r') || line.contains("[v") {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory.read_exact_at(&mut bytes, from).unwrap_or_else(|error| panic!("{line}: {error}"));
            scanned += bytes.len();
            for place in (0..bytes.len().saturating_sub(15)).filter(|place| begins[usize::from(bytes[*place])]) {
                for (name, half) in &self.0 {
                    if bytes[place..place + 16] == *half {
                        found.entry(*name).or_default().push(format!("{:x} in {line}", from + place as u64));
                    }
                }
            }
        }
        kill_process(process, Signal::CONT).unwrap();
        assert!(scanned > 10 << 20, "only {scanned} bytes were read");
        found
    }
}

/// Party-1 and party-2 sign once.
async fn sign(lab: &TestLab, key: &Key) {
    let coordinator = lab.lying_coordinator();
    let ends = coordinator.run_honestly(&coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(0))).await;
    ends[0].signature();
    ends[1].signature();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_session_neither_share_nor_dek_nor_pin_is_in_the_daemons_memory() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let (secrets, key) = (Secrets::of(&lab), lab.key());
    lab.start_appliances().await;
    sign(&lab, &key).await;
    let found = secrets.in_memory_of(lab.pid(0));
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_scan_finds_secrets_in_a_daemon_that_does_not_wipe() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let (secrets, key) = (Secrets::of(&lab), lab.key());
    let unwiped = Unwiped::start(&lab);
    lab.start(1).await;
    health(&lab).await;
    sign(&lab, &key).await;
    let found = secrets.in_memory_of(unwiped.0.id());
    assert!(found.contains_key("share") && found.contains_key("DEK"), "{found:#?}");
}

/// Party-1's daemon without the wiping allocator; it is ended when this is dropped.
struct Unwiped(Child);

impl Unwiped {
    fn start(lab: &TestLab) -> Self {
        let mut command = Command::new(programs::folder().join("casemated-unwiped"));
        command.arg("--config").arg(&lab.parties[0].config).env("SOFTHSM2_CONF", &lab.parties[0].softhsm_conf);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Unwiped {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
