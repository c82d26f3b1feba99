//! Prints the secrets of a key's shares at an appliance that does not run, so that tests can look for them: `open-shares CONFIG KEY`.
//! One a line, in hex: each share's DEK, its secret scalar, and the primes of its auxiliary information.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "test code")]

use std::path::Path;

use casemate_appliance::config::Config;
use casemate_appliance::entries::DekEntries;
use casemate_appliance::metrics::Metrics;
use casemate_appliance::sealing;
use casemate_appliance::store::{ShareRow, open_read_only};
use casemate_appliance::vault::Vault;
use casemate_hsm::Hsm;
use ciborium::Value;
use sha2::{Digest, Sha256};

/// The secret members of a share as it is stored.
const SECRETS: [&str; 3] = ["x", "p", "q"];

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config = Config::load(Path::new(&arguments[0])).unwrap();
    let vault = Vault::new(Hsm::open(config.hsm.clone()).await.unwrap(), Metrics::new().hsm());
    let store = open_read_only(&config.data_dir).unwrap();
    for row in ShareRow::all_of_key(&store, &arguments[1].parse().unwrap()).unwrap() {
        let Some(sealed) = row.material.held() else { continue };
        let context = Sha256::digest(&sealed.header);
        for entry in DekEntries::read(&sealed.deks).unwrap().keks() {
            println!("{}", hex::encode(vault.unwrap(&context, entry).await.unwrap().expose()));
        }
        let plain = sealing::open(&vault, "share", sealed).await.unwrap();
        print(&ciborium::from_reader(plain.as_slice()).unwrap());
    }
    vault.shutdown().await.unwrap();
}

fn print(value: &Value) {
    match value {
        Value::Map(members) => {
            for (name, member) in members {
                match bytes(member).filter(|_| name.as_text().is_some_and(|name| SECRETS.contains(&name))) {
                    Some(secret) => println!("{}", hex::encode(secret)),
                    None => print(member),
                }
            }
        }
        Value::Array(members) => members.iter().for_each(print),
        // A part that is stored as it is stored alone.
        Value::Bytes(inner) => {
            if let Ok(inner) = ciborium::from_reader::<Value, _>(inner.as_slice())
                && inner.is_map()
            {
                print(&inner);
            }
        }
        _ => {}
    }
}

/// A byte string, or a list of bytes.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Array(bytes) => bytes.iter().map(|byte| u8::try_from(byte.as_integer()?).ok()).collect(),
        _ => None,
    }
}
