//! Opens the active share of an appliance and prints, in hex, what must not be found in its daemon's memory:
//! `secrets-of CONFIG` gives `{"share": …, "dek": …}`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use std::path::Path;

use casemate_appliance::config::Config;
use casemate_appliance::entries::DekEntries;
use casemate_appliance::metrics::Metrics;
use casemate_appliance::sealing;
use casemate_appliance::store::{SealedColumns, open_read_only};
use casemate_appliance::vault::Vault;
use casemate_hsm::Hsm;
use ciborium::Value;
use sha2::{Digest, Sha256};

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let config = Config::load(Path::new(&std::env::args().nth(1).unwrap())).unwrap();
    let sealed = open_read_only(&config.data_dir)
        .unwrap()
        .query_row("SELECT header, deks, nonce, body FROM shares WHERE status = 'active'", [], |row| {
            Ok(SealedColumns { header: row.get(0)?, deks: row.get(1)?, nonce: row.get(2)?, body: row.get(3)? })
        })
        .unwrap();
    let vault = Vault::new(Hsm::open(config.hsm.clone()).await.unwrap(), Metrics::new().hsm());
    let entries = DekEntries::read(&sealed.deks).unwrap();
    let dek = vault.unwrap(&Sha256::digest(&sealed.header), entries.keks().next().unwrap()).await.unwrap();
    let body = sealing::open(&vault, "share", &sealed).await.unwrap();
    let dkg = field(&ciborium::from_reader(&body[..]).unwrap(), "dkg").unwrap().into_bytes().unwrap();
    let share = scalar(&field(&ciborium::from_reader(&dkg[..]).unwrap(), "x").unwrap());
    println!("{}", serde_json::json!({ "share": hex::encode(share), "dek": hex::encode(dek.expose()) }));
    vault.shutdown().await.unwrap();
}

/// The value of this name, however deep.
fn field(value: &Value, name: &str) -> Option<Value> {
    let fields = value.as_map()?;
    let here = fields.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value.clone());
    here.or_else(|| fields.iter().find_map(|(_, value)| field(value, name)))
}

/// The 32 bytes of a scalar, big-endian: bare, or named `scalar` beside its curve.
fn scalar(value: &Value) -> [u8; 32] {
    let bytes = value.as_bytes().cloned().or_else(|| field(value, "scalar")?.into_bytes().ok());
    bytes.unwrap_or_else(|| panic!("{value:?}")).try_into().unwrap()
}
