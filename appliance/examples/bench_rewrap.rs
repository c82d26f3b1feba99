//! Re-wrapping a thousand rows on a fresh SoftHSM token, without and with one recovery HSM:
//! `cargo run --release -p casemate-appliance --example bench_rewrap`.
//!
//! The audit anchor is kept in memory: re-wrapping appends no leaf.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use casemate_appliance::kek::{Plan, Rewrap, needing};
use casemate_appliance::metrics::HsmMetrics;
use casemate_appliance::primes;
use casemate_appliance::store::{Anchor, AnchorError, Store};
use casemate_appliance::vault::Vault;
use casemate_attest::{Anchored, Place};
use casemate_hsm::{
    Hsm, HsmConfig, Pin, PinSource, TokenSelector, WrapMode, init_keys, init_recovery, init_token, new_kek,
};
use casemate_wire::RecoveryKey;
use zeroize::Zeroizing;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const FOLDER: &str = "CASEMATE_BENCH_FOLDER";
const PIN: &str = "bench pin";
const ROWS: u32 = 1000;

#[derive(Default)]
struct InMemory(Option<Place>);

impl Anchor for InMemory {
    fn place(&mut self) -> Result<Anchored, AnchorError> {
        Ok(self.0.clone().map_or(Anchored::Nothing, Anchored::At))
    }

    fn put(&mut self, _expected: Option<&Place>, place: &Place) -> Result<(), AnchorError> {
        self.0 = Some(place.clone());
        Ok(())
    }

    fn replace(&mut self, place: &Place) -> Result<(), AnchorError> {
        self.put(None, place)
    }
}

fn main() {
    match std::env::var_os(FOLDER) {
        Some(folder) => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(measure(Path::new(&folder))),
        None => run_with_fresh_store(),
    }
}

/// SoftHSM reads its store's place from the environment, so a child with that set does the work.
fn run_with_fresh_store() {
    let folder = tempfile::tempdir().unwrap();
    let (tokens, conf) = (folder.path().join("tokens"), folder.path().join("softhsm2.conf"));
    fs::create_dir(&tokens).unwrap();
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display())).unwrap();
    let this = std::env::current_exe().unwrap();
    assert!(Command::new(this).env("SOFTHSM2_CONF", conf).env(FOLDER, folder.path()).status().unwrap().success());
}

async fn measure(folder: &Path) {
    let config = token(folder, "bench");
    init_keys(&config).unwrap();
    let recovery = init_recovery(&token(folder, "recovery")).unwrap();
    let hsm = vault(&config).await;
    let store = sealed(folder, &hsm).await;
    hsm.shutdown().await.unwrap();
    new_kek(&config, 2).unwrap();
    let hsm = vault(&config).await;
    report("re-wrap", run(&store, &hsm, &[]).await);
    report("nothing to do", run(&store, &hsm, &[]).await);
    report("add a recovery HSM", run(&store, &hsm, &[recovery]).await);
    let begun = Instant::now();
    assert!(needing(&store, &hsm, 1).await.unwrap().is_empty());
    report("show an old KEK unneeded", begun.elapsed());
    store.close();
    hsm.shutdown().await.unwrap();
}

async fn vault(config: &HsmConfig) -> Vault {
    Vault::new(Hsm::open(config.clone()).await.unwrap(), HsmMetrics::default())
}

/// A store of rows as large as a share's.
async fn sealed(folder: &Path, hsm: &Vault) -> Store {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    let mut anchor = InMemory::default();
    Store::create(&data, &"casemate/bench/0".parse().unwrap(), &mut anchor).unwrap();
    let opened = tokio::task::spawn_blocking(move || Store::open(&data, Box::new(anchor)));
    let store = opened.await.unwrap().unwrap();
    let secret = Zeroizing::new(vec![7; 2048]);
    for _ in 0..ROWS {
        primes::add(hsm, &store, &secret).await.unwrap();
    }
    store
}

async fn run(store: &Store, hsm: &Vault, recipients: &[RecoveryKey]) -> Duration {
    let begun = Instant::now();
    let plan = Plan::here(hsm, recipients).unwrap();
    let report = Rewrap::new(store, &plan).run(|_| {}).await.unwrap();
    assert_eq!((report.rows, report.unopened), (u64::from(ROWS), 0));
    begun.elapsed()
}

fn report(name: &str, took: Duration) {
    println!("{name:<26} {:>6.2} s for {ROWS} rows", took.as_secs_f64());
}

fn token(folder: &Path, label: &str) -> HsmConfig {
    let pin_file = folder.join("pin");
    fs::write(&pin_file, PIN).unwrap();
    fs::set_permissions(&pin_file, Permissions::from_mode(0o600)).unwrap();
    let pin = Pin::new(PIN).unwrap();
    init_token(Path::new(MODULE), label, &pin, &pin).unwrap();
    HsmConfig {
        module: PathBuf::from(MODULE),
        token: TokenSelector::Label(label.into()),
        pin: PinSource::file(pin_file),
        wrap: WrapMode::Auto,
        threads: 2,
        queue: 64,
        timeout: Duration::from_secs(5),
    }
}
