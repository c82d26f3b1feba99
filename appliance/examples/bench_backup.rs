//! A backup of a thousand real shares on a fresh SoftHSM token, its verification, and its restore on another token:
//! `cargo run --release -p casemate-appliance --example bench_backup [SHARES]`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    dead_code,
    reason = "a bench, and the hosts of the tests"
)]

#[path = "../tests/backup/site.rs"]
mod site;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use casemate_appliance::backup::{Plan, make};
use casemate_attest::ShareState;
use casemate_hsm::{HsmConfig, Pin, PinSource, TokenSelector, WrapMode, init_keys, init_token};
use ciborium::Value;
use k256::elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint};
use k256::elliptic_curve::{Field, PrimeField};
use k256::{EncodedPoint, ProjectivePoint, Scalar};
use rand::rngs::OsRng;
use site::{Custody, Signers, Site, an_hour, party, plain, row_of};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const FOLDER: &str = "CASEMATE_BENCH_FOLDER";
const PIN: &str = "bench pin";

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
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(std::env::args().skip(1)).env("SOFTHSM2_CONF", conf).env(FOLDER, folder.path());
    assert!(this.status().unwrap().success());
}

async fn measure(folder: &Path) {
    let count: usize = std::env::args().nth(1).map_or(1000, |count| count.parse().unwrap());
    let old = Site::begin(folder, "old", token(folder, "old")).await;
    for number in 0..count {
        let row = row_of(&old.hsm, &another(&plain(0)), 1, &format!("key-{number}")).await;
        old.put(row, ShareState::Active).await;
    }
    let (custody, signers) = (Custody::new(2, 3), Signers::new());
    let checkpoint = old.checkpoint().await;
    let begun = Instant::now();
    let made = make(&old.hsm, old.source(&custody.recipients, &checkpoint).await).await.unwrap();
    report("make", begun.elapsed(), count);
    println!("{:<26} {:>8.1} kB a share", "size", made.file.len() as f64 / 1000.0 / count as f64);
    old.close().await;
    let begun = Instant::now();
    let checked = custody.check(&made.file);
    report("verify", begun.elapsed(), count);
    let new = Site::begin(folder, "new", token(folder, "new")).await;
    let party = party();
    let begun = Instant::now();
    let plan = Plan::of(&checked, &party, &new.store).await.unwrap();
    let (created, expires) = an_hour();
    let mandate = signers.mandate(&plan.statement(&new.store, created, expires).unwrap());
    let archive = new.folder.join("archive");
    let restored = plan.carry_out(&mandate, &new.hsm, &new.store, &archive, |_| {}).await.unwrap();
    report("restore", begun.elapsed(), count);
    assert_eq!(restored.shares.len(), count);
    new.close().await;
}

/// A share of another key: a sharing times a number is a sharing.
fn another(plain: &[u8]) -> Vec<u8> {
    let factor = Scalar::random(&mut OsRng);
    let mut stored: Value = ciborium::from_reader(plain).unwrap();
    let dkg = field(&mut stored, "dkg");
    let mut inner: Value = ciborium::from_reader(dkg.as_bytes().unwrap().as_slice()).unwrap();
    let core = field(&mut inner, "core");
    times(field(core, "shared_public_key"), &factor);
    field(core, "public_shares").as_array_mut().unwrap().iter_mut().for_each(|point| times(point, &factor));
    let secret = field(core, "x").as_bytes_mut().unwrap();
    let bytes: [u8; 32] = secret.as_slice().try_into().unwrap();
    *secret = (Scalar::from_repr(bytes.into()).unwrap() * factor).to_bytes().to_vec();
    *dkg = Value::Bytes(encoded(&inner));
    encoded(&stored)
}

fn times(point: &mut Value, factor: &Scalar) {
    let bytes = point.as_bytes_mut().unwrap();
    let read = ProjectivePoint::from_encoded_point(&EncodedPoint::from_bytes(&bytes).unwrap()).unwrap();
    *bytes = (read * factor).to_affine().to_encoded_point(true).as_bytes().to_vec();
}

fn field<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    let fields = value.as_map_mut().unwrap();
    fields.iter_mut().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).unwrap()
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn report(name: &str, took: Duration, count: usize) {
    println!("{name:<26} {:>8.2} s for {count} shares", took.as_secs_f64());
}

fn token(folder: &Path, label: &str) -> HsmConfig {
    let pin_file = folder.join("pin");
    fs::write(&pin_file, PIN).unwrap();
    fs::set_permissions(&pin_file, Permissions::from_mode(0o600)).unwrap();
    let pin = Pin::new(PIN).unwrap();
    init_token(Path::new(MODULE), label, &pin, &pin).unwrap();
    let config = HsmConfig {
        module: PathBuf::from(MODULE),
        token: TokenSelector::Label(label.into()),
        pin: PinSource::file(pin_file),
        wrap: WrapMode::Auto,
        threads: 2,
        queue: 64,
        timeout: Duration::from_secs(5),
    };
    init_keys(&config).unwrap();
    config
}
