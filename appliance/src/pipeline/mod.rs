//! A request's whole life, in one function of two halves.
//!
//! ```text
//! request ─ authenticate ─► Authenticated ─ understand ─► Understood ─ decide ─► Authorized | Refused
//!   ─ commit (audit intent + token + session, durable) ─► Committed ─ join ─► Joined ─ witness ─► Witnessed
//!   ─ unseal ─► Opened ─ run ─► Finished
//!   ─ record (audit outcome + share, durable) ─► Recorded ─ answer
//! ```
//!
//! Each arrow takes the value on its left and is the only one that can make the value on its right. Refusals are
//! recorded too; an answer needs a [`Recorded`](record::Recorded).

mod answer;
mod ask;
mod authenticate;
mod commit;
mod decide;
mod join;
mod ordered;
mod receipt;
mod record;
mod refused;
mod revoke;
mod run;
mod share;
mod succeed;
mod understand;
mod unseal;
mod witness;

use std::sync::Arc;

use casemate_wire::Problem;
use casemate_wire::api::SessionView;

use crate::daemon::Node;
use crate::session::Place;
use crate::store::StoreError;

pub use ask::{Ask, Caller};
pub(crate) use share::KeyShare;
pub use share::{ShareHeader, SharedKey};

use answer::answer;
pub(crate) use ask::unavailable;
use ask::{Admission, admit};
use authenticate::authenticate;
use commit::{Committed, commit};
use decide::decide;
pub(crate) use decide::policy_client;
use join::join;
pub(crate) use ordered::{Order, Ordered, Overtaken, decide as order};
use record::record;
use refused::Refused;
pub(crate) use refused::session_guard;
pub(crate) use revoke::{Revoked, revoke};
use run::{Finished, run};
pub(crate) use understand::parse_path;
use understand::understand;
use unseal::unseal;
use witness::witness;

/// Takes a participate call: either it is refused, or the session is committed and goes on by itself.
///
/// A repeated call is answered with the session's present state and starts nothing.
///
/// # Errors
/// The problem to answer with. A refusal is recorded in the audit log by then, unless it says nothing about the request
/// but only about this moment (`overloaded`, `not_ready`, `hsm_unavailable`, `audit_unavailable`) or that the evidence as a whole is
/// refused (`evidence_refused`).
pub async fn participate(node: &Arc<Node>, caller: Caller, ask: Ask) -> Result<SessionView, Problem> {
    if let Some(quarantine) = node.store.quarantine() {
        return Err(unavailable(&StoreError::Quarantined(quarantine.to_string())));
    }
    let (ask, place) = match admit(node, ask).await? {
        Admission::Known(earlier) => return *earlier,
        Admission::New(ask, place) => (*ask, place),
    };
    match accept(node, caller, ask, place).await {
        Ok(committed) => {
            let view = committed.view();
            node.spawn("session", live(node.clone(), committed));
            Ok(view)
        }
        Err(refused) => Err(refused.record(node).await),
    }
}

/// The first half: nothing has been done yet, and nothing will be without a durable intent.
async fn accept(node: &Arc<Node>, caller: Caller, ask: Ask, place: Place) -> Result<Committed, Refused> {
    let authenticated = authenticate(node, caller, ask, place)?;
    let understood = understand(node, authenticated).await?;
    let authorized = decide(node, understood).await?;
    commit(node, authorized).await
}

/// The second half: whatever happens in it, an outcome is recorded before anything is released.
async fn live(node: Arc<Node>, committed: Committed) {
    let finished = work(&node, committed).await.unwrap_or_else(|failed| failed);
    let recorded = record(&node, finished).await;
    answer(recorded).await;
}

/// The act itself; it finishes well, or early.
async fn work(node: &Arc<Node>, committed: Committed) -> Result<Finished, Finished> {
    let joined = join(node, committed).await?;
    let witnessed = witness(node, joined).await?;
    let opened = unseal(node, witnessed).await?;
    Ok(run(node, opened).await)
}
