//! The pool of safe primes: made ahead in the background at low priority, sealed at rest, each pair used once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use casemate_attest::{Entry, Guard, GuardChange, Op, Text};
use casemate_mpc::primes::{PrimeError, PrimePair};
use casemate_wire::Code;
use rand::rngs::OsRng;
use serde::Serialize;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::daemon::Node;
use crate::sealing::{self, SealError};
use crate::session::Failure;
use crate::store::{Store, StoreError, Transaction, Urgency, count_primes, put_primes, take_primes};
use crate::vault::Vault;

/// How much the prime search yields to everything else, as a nice value.
const NICE: i32 = 19;
/// The wait before another try when primes could not be stored.
const RETRY: Duration = Duration::from_secs(10);

/// Wakes and stops the background work.
#[derive(Default)]
pub struct Pool {
    taken: Notify,
    cancel: Arc<AtomicBool>,
}

impl Pool {
    /// Ends the background work soon: a search in progress is abandoned.
    pub fn stop(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.taken.notify_one();
    }

    fn stopped(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// Why the pool could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The HSM did not seal the pair.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The search failed.
    #[error(transparent)]
    Prime(#[from] PrimeError),
    /// The search could not be begun.
    #[error("the thread for the prime search cannot be started: {0}")]
    Thread(std::io::Error),
    /// The search ended in silence.
    #[error("the prime search ended without a result")]
    Ended,
}

/// Keeps the pool full until it is stopped.
pub(crate) async fn keep_full(node: Arc<Node>) {
    let target = node.config.mpc.prime_pool;
    while !node.primes.stopped() {
        match fill_one(&node, target).await {
            Ok(true) => {}
            Ok(false) => node.primes.taken.notified().await,
            Err(_) if node.primes.stopped() => {}
            Err(error) => {
                tracing::warn!(event = "prime_pool_stalled", %error, "trying again in {} s", RETRY.as_secs());
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Adds one pair, unless the pool is full.
async fn fill_one(node: &Node, target: u32) -> Result<bool, FillError> {
    let ready = node.store.read(count_primes).await?;
    node.metrics.primes_ready(ready);
    if ready >= target {
        return Ok(false);
    }
    let begun = std::time::Instant::now();
    let pair = search(node.primes.cancel.clone()).await?;
    add(&node.hsm, &node.store, &pair.to_bytes()).await?;
    tracing::info!(event = "primes_made", seconds = begun.elapsed().as_secs(), ready = ready.saturating_add(1));
    Ok(true)
}

/// Runs the search on a thread of its own, at the lowest priority.
async fn search(cancel: Arc<AtomicBool>) -> Result<PrimePair, FillError> {
    let (done, found) = tokio::sync::oneshot::channel();
    let work = move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(event = "priority_unchanged", %error);
        }
        // Nobody waits any more only when the daemon stops.
        drop(done.send(PrimePair::generate(&mut OsRng, &cancel)));
    };
    std::thread::Builder::new().name("mpc-primes".into()).spawn(work).map_err(FillError::Thread)?;
    Ok(found.await.map_err(|_| FillError::Ended)??)
}

#[derive(Serialize)]
struct Header<'a> {
    version: u16,
    kind: &'static str,
    id: &'a str,
}

/// Seals a pair (as [`PrimePair::to_bytes`] gives it) and stores it, ready to be taken.
///
/// # Errors
/// Says that the HSM or the store refused.
pub async fn add(hsm: &Vault, store: &Store, pair: &Zeroizing<Vec<u8>>) -> Result<(), FillError> {
    let id = uuid::Uuid::new_v4().to_string();
    let sealed = sealing::seal(hsm, &Header { version: 1, kind: "safe-primes", id: &id }, pair).await?;
    let put = move |transaction: &mut Transaction<'_>| {
        put_primes(transaction, &id, &sealed)?;
        logged(transaction, &id, "stored")
    };
    Ok(store.write(Urgency::Act, put).await?)
}

/// Puts what becomes of a pair into the audit log, so that one that is brought back by hand is found.
fn logged(transaction: &mut Transaction<'_>, id: &str, to: &str) -> Result<(), StoreError> {
    let change = GuardChange { guard: Guard::Primes, id: Text::fitted(id), to: Some(Text::fitted(to)) };
    transaction.append(Entry::admin(Op::Primes).guarding(vec![change])).map(|_| ())
}

/// Takes a pair out of the pool for good, before it is used.
pub(crate) async fn take(node: &Arc<Node>) -> Result<PrimePair, Failure> {
    let take = |transaction: &mut Transaction<'_>| {
        let taken = take_primes(transaction)?;
        if let Some((id, _)) = &taken {
            logged(transaction, id, "taken")?;
        }
        Ok(taken)
    };
    let taken = node.store.write(Urgency::Record, take).await?;
    node.primes.taken.notify_one();
    let Some((_, sealed)) = taken else {
        return Err(Failure::new(
            Code::NotReady,
            "no safe primes are ready; they are being made, try again in a minute",
        ));
    };
    let plain = sealing::open(&node.hsm, "pair of primes", &sealed).await?;
    let internal = |why: String| Failure::new(Code::Internal, why);
    let loaded = node.engine.compute().run(move || PrimePair::from_bytes(&plain)).await;
    loaded.map_err(|e| internal(e.to_string()))?.map_err(|e| internal(e.to_string()))
}
