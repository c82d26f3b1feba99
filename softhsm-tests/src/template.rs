//! Labs that are made once for each build of the programs, and copied for each test: tokens and stores are plain files.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use casemate_appliance::lab::{Lab, LabOptions, stop_all};
use rand::Rng;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::programs;

/// Pairs of primes that each appliance of a template holds; each new committee takes one of each.
const PRIMES: u32 = 6;
/// Where the key of the template [`Kind::Keyed`] is described.
pub(crate) const KEY_FILE: &str = "key.json";
/// Below the ports that the kernel hands out for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What a lab starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Three appliances without primes or a key.
    Bare,
    /// Three appliances with primes and no key.
    Empty,
    /// The same with a 2-of-3 wallet key, which the coordinator has an account for.
    Keyed,
    /// Five appliances with primes, of which the first three hold such a key.
    Spare,
}

/// Holds the ports of a lab against other tests; they are free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Ports {
    numbers: Vec<u16>,
    _held: Vec<File>,
}

/// Copies the template into the folder `to`, with ports of its own.
pub(crate) async fn copy(kind: Kind, to: &Path) -> (Lab, Ports) {
    let from = ready(kind).await;
    let old = Lab::open(&from).unwrap();
    copy_folder(&from, to);
    let to = to.canonicalize().unwrap();
    let ports = Ports::take(old.parties.len() + 1);
    let (coordinator, parties) = ports.numbers.split_first().unwrap();
    let moves: Vec<(u16, u16)> = old
        .parties
        .iter()
        .map(|party| party.address.port())
        .zip(parties.iter().copied())
        .chain([(old.coordinator.address.port(), *coordinator)])
        .collect();
    for party in &old.parties {
        let folder = to.join(party.party_id.as_str());
        replace(&folder.join("softhsm2.conf"), &[(text(&from), text(&to))]);
        replace(&folder.join("casemate.toml"), &addresses(&moves));
    }
    replace(&to.join("coordinator/coordinator.toml"), &addresses(&moves));
    let path = to.join("lab.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["coordinator_port"] = json!(coordinator);
    for (entry, port) in manifest["parties"].as_array_mut().unwrap().iter_mut().zip(parties) {
        entry["port"] = json!(port);
    }
    fs::write(&path, manifest.to_string()).unwrap();
    (Lab::open(&to).unwrap(), ports)
}

/// The template's folder, made now if this build of the programs has none.
async fn ready(kind: Kind) -> PathBuf {
    let all = programs::folder().parent().unwrap().join("tmp").join("lab-templates");
    let own = all.join(programs::fingerprint());
    let name = own.join(format!("{kind:?}").to_lowercase());
    fs::create_dir_all(&own).unwrap();
    let lock = File::create(own.join(format!("{kind:?}.lock"))).unwrap();
    let locked = tokio::task::spawn_blocking(move || flock(&lock, FlockOperation::LockExclusive).map(|()| lock));
    let _made_once = locked.await.unwrap().unwrap();
    if Lab::exists(&name) {
        return name;
    }
    let unfinished = own.join(format!("{kind:?}-unfinished"));
    drop(fs::remove_dir_all(&unfinished));
    match kind {
        Kind::Empty => {
            discard_older(&all, &own);
            create(&unfinished, 3, PRIMES);
        }
        Kind::Bare => create(&unfinished, 3, 0),
        Kind::Keyed => {
            let (lab, _ports) = Box::pin(copy(Kind::Empty, &unfinished)).await;
            make_key(&lab).await;
        }
        Kind::Spare => {
            create(&unfinished, 5, 3);
            make_key(&Lab::open(&unfinished).unwrap()).await;
        }
    }
    fs::rename(&unfinished, &name).unwrap();
    let party_folders = Lab::open(&name).unwrap().parties;
    for party in party_folders {
        replace(&party.softhsm_conf, &[(text(&unfinished), text(&name))]);
    }
    name
}

/// Templates of earlier builds, unless they have just been made: another profile's tests may run.
fn discard_older(all: &Path, own: &Path) {
    for entry in fs::read_dir(all).unwrap().map(Result::unwrap) {
        let age = entry.metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default();
        if entry.path() != own && age > Duration::from_secs(3600) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn create(root: &Path, parties: u16, primes: u32) {
    let options = LabOptions { parties, bin_dir: programs::folder().to_owned(), ..LabOptions::default() };
    let lab = Lab::create(root, &options).unwrap();
    for index in 0..lab.parties.len() {
        seed_primes(&lab, index, primes);
    }
}

/// Puts copies of a prepared pair of primes into the pool of a party that does not run.
pub(crate) fn seed_primes(lab: &Lab, index: usize, copies: u32) {
    let party = &lab.parties[index];
    let done = Command::new(programs::folder().join("seed-primes"))
        .arg(&party.config)
        .args([index.to_string(), copies.to_string()])
        .env("SOFTHSM2_CONF", &party.softhsm_conf)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Has the coordinator of a lab make a key for its first three appliances.
async fn make_key(lab: &Lab) {
    let root = &lab.root;
    let running = lab.start_all().unwrap();
    lab.wait_healthy(Duration::from_secs(30)).await.unwrap();
    let holders = &lab.parties[..3];
    let participants: Vec<Value> =
        holders.iter().map(|party| json!({"party_id": party.party_id, "device_type": "server"})).collect();
    let order = json!({"threshold_t": 2, "threshold_n": holders.len(), "participants": participants});
    let wait = Some(Duration::from_secs(240));
    let answer = lab.front_door().unwrap().post("/api/v1/mpc/keygen", &order, wait).await.unwrap();
    assert_eq!(answer.body["status"], "completed", "{}", answer.body);
    let key = json!({"account_id": answer.body["account_id"], "certificate": answer.body["certificate"]});
    fs::write(root.join(KEY_FILE), key.to_string()).unwrap();
    stop_all(running).unwrap();
}

impl Ports {
    fn take(count: usize) -> Self {
        let folder = std::env::temp_dir().join("casemate-test-ports");
        fs::create_dir_all(&folder).unwrap();
        let (mut numbers, mut held) = (Vec::new(), Vec::new());
        while numbers.len() < count {
            let port = rand::thread_rng().gen_range(PORTS);
            let lock = File::create(folder.join(port.to_string())).unwrap();
            let ours = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if ours && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                numbers.push(port);
                held.push(lock);
            }
        }
        Self { numbers, _held: held }
    }
}

/// Copies a folder with all that is in it, and its mode.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn addresses(moves: &[(u16, u16)]) -> Vec<(String, String)> {
    moves.iter().map(|(old, new)| (format!("127.0.0.1:{old}"), format!("127.0.0.1:{new}"))).collect()
}

/// Replaces each of `changes` once through, so that what was put in is not replaced again.
fn replace(path: &Path, changes: &[(String, String)]) {
    let mut rest = fs::read_to_string(path).unwrap();
    let mut done = String::new();
    while let Some((place, (old, new))) =
        changes.iter().filter_map(|change| Some((rest.find(&change.0)?, change))).min_by_key(|(place, _)| *place)
    {
        done += &rest[..place];
        done += new;
        rest = rest[place + old.len()..].to_owned();
    }
    fs::write(path, done + &rest).unwrap();
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
