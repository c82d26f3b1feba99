//! Puts prepared safe primes into the pool of an appliance that does not run: `seed-primes CONFIG INDEX COPIES`.
//!
//! Making them takes a minute of one core each, which no test waits for. Parties of one committee need different
//! pairs, so each party gets copies of one pair, by its index.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;

use casemate_appliance::config::Config;
use casemate_appliance::metrics::Metrics;
use casemate_appliance::primes;
use casemate_appliance::store::{HsmAnchor, Store};
use casemate_appliance::vault::Vault;
use casemate_hsm::Hsm;
use serde::Deserialize;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

const PAIRS: &str = include_str!("../../../mpc/tests/data/safe-primes-1536.json");

#[derive(Deserialize)]
struct Pair {
    p: String,
    q: String,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config = Config::load(Path::new(&arguments[0])).unwrap();
    let pairs: Vec<Pair> = serde_json::from_str(PAIRS).unwrap();
    let pair = &pairs[arguments[1].parse::<usize>().unwrap()];
    let mut stored = Zeroizing::new(vec![1]);
    stored.extend(hex::decode(&pair.p).unwrap());
    stored.extend(hex::decode(&pair.q).unwrap());
    let metrics = Metrics::new();
    let vault = Vault::new(Hsm::open(config.hsm.clone()).await.unwrap(), metrics.hsm());
    let (folder, anchor) = (config.data_dir.clone(), HsmAnchor::new(vault.clone(), Handle::current()));
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder, Box::new(anchor))).await;
    let store = opened.unwrap().unwrap();
    for _ in 0..arguments[2].parse::<u32>().unwrap() {
        primes::add(&vault, &store, &stored).await.unwrap();
    }
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
    vault.shutdown().await.unwrap();
}
