//! Whether the daemon still works, as opposed to merely running: what the watchdog is fed by.
//!
//! Each part must *answer*, well or not. An HSM that was pulled out, a refused PIN and a full disk are answers: the daemon knows,
//! denies, and comes back by itself, and a restart would only lose sessions or try a PIN again. A call that does not come
//! back is none, and only a new process gets rid of it.

use std::sync::Arc;
use std::time::Duration;

use casemate_hsm::{HsmError, Secret32};
use tokio::time::timeout;

use super::Node;
use crate::store::StoreError;
use crate::vault::Vault;

/// Binds the secret of a check to nothing else.
const CONTEXT: &[u8] = b"casemate liveness check";

/// What came of one check.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Every part has answered.
    Beats,
    /// A part does not answer: which, and for how long it was waited.
    Missing(String),
}

/// Asks HSM, store and runtime; it takes `limit` at most.
///
/// The HSM wraps a random secret under the live KEK and unwraps it. The store's writer makes a durable write that changes nothing.
/// A reader runs on the threads for blocking work. The caller runs on the network threads.
pub(super) async fn check(node: &Arc<Node>, limit: Duration) -> Pulse {
    let parts = async {
        let (hsm, store, reader) = tokio::join!(hsm(&node.hsm), store(node, limit), node.store.read(|_| Ok(())));
        // That it could not read is an answer.
        drop(reader);
        [hsm, store].into_iter().find(|part| *part != Pulse::Beats).unwrap_or(Pulse::Beats)
    };
    match timeout(limit, parts).await {
        Ok(pulse) => pulse,
        Err(_) => match node.hsm.stuck() {
            Some(age) => stuck(age),
            None => Pulse::Missing(format!("HSM and store did not answer within {} s", limit.as_secs_f32())),
        },
    }
}

async fn hsm(vault: &Vault) -> Pulse {
    let round_trip = async {
        let secret = Secret32::random()?;
        let wrapped = vault.wrap(CONTEXT, &secret).await?;
        vault.unwrap(CONTEXT, &wrapped).await.map(drop)
    };
    match (round_trip.await, vault.stuck()) {
        (_, Some(age)) => stuck(age),
        (Err(HsmError::Timeout { limit }), None) => {
            Pulse::Missing(format!("the HSM did not answer within {} s", limit.as_secs_f32()))
        }
        // Whatever else it says, it says something; health shows it.
        (Ok(()) | Err(_), None) => Pulse::Beats,
    }
}

fn stuck(age: Duration) -> Pulse {
    Pulse::Missing(format!("every HSM thread has been inside a call for {} s or longer", age.as_secs()))
}

async fn store(node: &Arc<Node>, limit: Duration) -> Pulse {
    let written = node.store.try_write().await;
    match (written, node.store.writing_for()) {
        (_, Some(age)) if age > limit => {
            Pulse::Missing(format!("the store has been inside one write for {} s", age.as_secs()))
        }
        (Err(StoreError::Closed), _) => Pulse::Missing("the store's writer has ended".into()),
        // A full disk or a quarantine: known, shown, and no better after a restart.
        (Ok(()) | Err(_), _) => Pulse::Beats,
    }
}
