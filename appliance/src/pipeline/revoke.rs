//! Revoke: an operator withdraws this party's shares of a key, for good.
//!
//! Policy decides, as for every act. Then, in one transaction: the leaf, the approvals that it uses up, and the shares' new state, by
//! which their bodies and DEKs are destroyed. Sessions that use or make a share of the key stop at once; none of them can record a good
//! end after that leaf ([`super::record`]).
//!
//! All shares of the key that are left here go together, pending and superseded ones too: any of them could sign with
//! others of its epoch, and whoever fears for one fears for the host.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_attest::life::{ShareState, Transition};
use casemate_attest::{GuardChange, Op};
use casemate_policy::approval::{Act, RevokeParameters};
use casemate_policy::{Action, Resource, SessionFacts};
use casemate_wire::api::RevokeRequest;
use casemate_wire::{Code, Problem, PublicKey};
use jiff::Timestamp;

use super::ask::{Caller, unavailable};
use super::ordered::{self, Order, Ordered, Overtaken};
use super::share::ShareHeader;
use crate::daemon::Node;
use crate::sealing;
use crate::store::{ShareRow, StoreError, Transaction, Urgency};

/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;

/// Shares that are withdrawn.
#[derive(Debug, Clone)]
pub(crate) struct Revoked {
    /// The share that was named, as it is now.
    pub(crate) share: ShareRow,
    /// The shares that this call withdrew; none if it came again.
    pub(crate) withdrawn: Vec<String>,
    /// Sessions that were stopped by it.
    pub(crate) sessions: usize,
}

/// Withdraws the share with this id, and every other one of its key that is left here. A call for a share that was
/// revoked before is answered with its state.
///
/// # Errors
/// The problem to answer with; a denial by policy is recorded by then.
pub(crate) async fn revoke(
    node: &Arc<Node>,
    caller: Caller,
    id: String,
    request: RevokeRequest,
) -> Result<Revoked, Problem> {
    if let Some(quarantine) = node.store.quarantine() {
        return Err(unavailable(&StoreError::Quarantined(quarantine.to_string())));
    }
    let share = named(node, &id).await?;
    if share.status == ShareState::Revoked {
        return Ok(Revoked { share, withdrawn: Vec::new(), sessions: 0 });
    }
    let key = share.public_key;
    let order = order(node, &share, request)?;
    let client = caller.client.name().to_owned();
    let ordered = Arc::new(ordered::decide(node, caller, order).await?);
    let (writes, asked) = (ordered.clone(), id.clone());
    let written = node.store.write(Urgency::Record, move |transaction| write(transaction, &writes, &asked, &key)).await;
    let sessions = match &written {
        // The leaf stands, although its anchor does not: the shares are gone.
        Ok(Written::Revoked(_)) | Err(StoreError::Unanchored(_)) => node.sessions.withdraw(&key),
        Ok(Written::Overtaken(_) | Written::Final) | Err(_) => 0,
    };
    match written.map_err(|e| unavailable(&e))? {
        Written::Revoked(revoked) => {
            tracing::warn!(event = "shares_revoked", %key, client, shares = revoked.len(), sessions, "an operator withdrew shares");
            Ok(Revoked { share: named(node, &id).await?, withdrawn: revoked, sessions })
        }
        Written::Final => Ok(Revoked { share: named(node, &id).await?, withdrawn: Vec::new(), sessions: 0 }),
        Written::Overtaken(overtaken) => Err(ordered.give_up(node, overtaken).await),
    }
}

/// The share that is meant: there, and not destroyed.
async fn named(node: &Node, id: &str) -> Result<ShareRow, Problem> {
    let wanted = id.to_owned();
    let found = node.store.read_anchored(move |store| ShareRow::find(store, &wanted)).await;
    let missing = || Problem::new(Code::ShareNotFound, "there is no share of that id here");
    let share = found.map_err(|e| unavailable(&e))?.ok_or_else(missing)?;
    if share.status == ShareState::Destroyed {
        let detail = format!("share {id} is destroyed already; name the share of the key that signs, or that is kept");
        return Err(Problem::new(Code::ShareNotActive, detail));
    }
    Ok(share)
}

/// The header is read without proof: a share that was damaged must be revocable, and whoever can alter one can destroy it.
fn order(node: &Node, share: &ShareRow, request: RevokeRequest) -> Result<Order, Problem> {
    let RevokeRequest { reason, approvals } = request;
    let reason = reason.trim().to_owned();
    if reason.is_empty() || reason.len() > MAX_REASON {
        let detail = format!("reason says in 1 to {MAX_REASON} bytes why the share is withdrawn");
        return Err(Problem::new(Code::BadRequest, detail));
    }
    let header: ShareHeader = sealing::header("share", share.material.header())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let party_id = node.config.party.clone();
    Ok(Order {
        op: Op::Revoke,
        action: Action::Revoke,
        resource: Resource::Key(header.facts(Timestamp::now())),
        session: SessionFacts {
            participants: BTreeSet::from([party_id.to_string()]),
            threshold_t: header.key.threshold.t(),
            devices: BTreeSet::new(),
            new_roster: None,
        },
        key: Some(share.public_key),
        act: Act::Revoke { key: share.public_key, parameters: RevokeParameters { party_id, reason: reason.clone() } },
        reason,
        approvals,
    })
}

enum Written {
    /// These were withdrawn.
    Revoked(Vec<String>),
    /// Another call has done it meanwhile.
    Final,
    Overtaken(Overtaken),
}

fn write(
    transaction: &mut Transaction<'_>,
    ordered: &Ordered,
    id: &str,
    key: &PublicKey,
) -> Result<Written, StoreError> {
    if ShareRow::find(transaction.sql(), id)?.is_none_or(|share| share.status.is_final()) {
        return Ok(Written::Final);
    }
    if let Some(overtaken) = ordered.overtaken(transaction)? {
        return Ok(Written::Overtaken(overtaken));
    }
    let left = ShareRow::all_of_key(transaction.sql(), key)?.into_iter();
    let left: Vec<(String, Transition)> = left
        .filter_map(|share| Some((share.id, Transition::between(Some(share.status), ShareState::Revoked)?)))
        .collect();
    let changes: Vec<GuardChange> =
        left.iter().map(|(id, change)| ShareRow::shift(transaction, id, *change)).collect::<Result<_, _>>()?;
    ordered.commit(transaction, changes)?;
    Ok(Written::Revoked(left.into_iter().map(|(id, _)| id).collect()))
}
