//! Leaves that become durable in a second, alone and grouped:
//! `cargo run --release -p casemate-appliance --example bench_store [FOLDER]`.
//!
//! The folder should lie on the disk that is meant; a temporary one is made in it. The anchor is kept in memory, so that the
//! database is measured and not an HSM: `cargo run --release -p casemate-hsm --example bench_hsm` measures that.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_appliance::store::{Anchor, AnchorError, Store, Urgency};
use casemate_attest::{Anchored, Entry, Op, Place};
use futures::future::join_all;

/// How long each case runs.
const TIME: Duration = Duration::from_secs(3);

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

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let mut anchor = InMemory::default();
    Store::create(folder.path(), &"casemate/bench/0".parse().unwrap(), &mut anchor).unwrap();
    let path = folder.path().to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&path, Box::new(anchor))).await.unwrap().unwrap();
    let alone = leaves_per_second(&store, 1).await;
    println!("one writer:   {alone:>8.0} leaves a second, {:.2} ms each", 1000.0 / alone);
    for writers in [4, 16, 32] {
        let together = leaves_per_second(&store, writers).await;
        println!("{writers:>2} writers:   {together:>8.0} leaves a second, {:.1} times as many", together / alone);
    }
    store.close();
}

/// Writers that each wait for their leaf to be durable and anchored before they write the next.
async fn leaves_per_second(store: &Store, writers: usize) -> f64 {
    let (begun, before) = (Instant::now(), store.audit_head().size());
    join_all((0..writers).map(|_| async {
        while begun.elapsed() < TIME {
            store.write(Urgency::Record, |transaction| transaction.append(Entry::admin(Op::Share))).await.unwrap();
        }
    }))
    .await;
    (store.audit_head().size() - before) as f64 / begun.elapsed().as_secs_f64()
}
