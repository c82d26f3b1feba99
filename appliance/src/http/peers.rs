//! What is known of the peers' audit logs, and an operator's acceptance of another one.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use casemate_attest::state::accept_peer;
use casemate_attest::{Checkpoint, Detail, Entry, Op, Origin, Place, SignedCheckpoint, Text};
use casemate_wire::{Code, PartyId, Problem};
use serde::{Deserialize, Serialize};

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::config::Peer;
use crate::daemon::Node;
use crate::store::{PeerRow, Urgency};
use crate::witness::Refusal;

/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;

#[derive(Serialize)]
struct PeersView {
    peers: Vec<PeerView>,
}

#[derive(Serialize)]
struct PeerView {
    party: PartyId,
    /// The last checkpoint that was verified; absent before the first contact.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Checkpoint>,
    /// The same, as its audit key signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<RefusalView>,
}

#[derive(Serialize)]
struct RefusalView {
    code: Code,
    why: String,
    since: String,
}

impl PeerView {
    fn of(party: PartyId, row: Option<PeerRow>, refusal: Option<Refusal>) -> Self {
        let refused = refusal.map(|Refusal { code, why, since }| RefusalView { code, why, since });
        let (checkpoint, note, at) = match row {
            Some(PeerRow { checkpoint, note, at, .. }) => (Some(checkpoint), Some(note), Some(at)),
            None => (None, None, None),
        };
        Self { party, checkpoint, note, at, refused }
    }
}

/// Every pinned peer, with what is stored of its log, and whether it is refused.
pub(super) async fn peers(State(node): State<Arc<Node>>) -> Result<Response, Failed> {
    let rows = node.store.read(PeerRow::all).await?;
    let refusals = node.witnesses.refusals();
    let view = |Peer { party_id, .. }: &Peer| {
        let row = rows.iter().find(|row| row.party == *party_id).cloned();
        let refusal = refusals.iter().find(|(party, _)| party == party_id).map(|(_, refusal)| refusal.clone());
        PeerView::of(party_id.clone(), row, refusal)
    };
    Ok(ok(StatusCode::OK, &PeersView { peers: node.config.peers.iter().map(view).collect() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptRequest {
    /// Why this log takes the place of the one that was known.
    reason: String,
    /// The peer's signed checkpoint, as its `GET audit/checkpoint` answers.
    checkpoint: String,
}

/// Puts another checkpoint of a peer in the place of what was known: after a recovery there, or after its log was looked at
/// by people. The acceptance is a leaf with the operator's name.
pub(super) async fn accept(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(request): Extension<RequestId>,
    Path(party): Path<String>,
    Json(asked): Json<AcceptRequest>,
) -> Result<Response, Failed> {
    let bad = |detail: String| Failed(Problem::new(Code::BadRequest, detail));
    let unknown = || Failed(Problem::new(Code::NotFound, "no peer of that name is pinned here"));
    let peer = party.parse().ok().and_then(|party| node.config.peer(&party)).ok_or_else(unknown)?;
    let reason = asked.reason.trim().to_owned();
    if reason.is_empty() || reason.len() > MAX_REASON {
        return Err(bad(format!("reason says in 1 to {MAX_REASON} bytes why this log is accepted")));
    }
    let party = &peer.party_id;
    let signed = SignedCheckpoint::verify(&asked.checkpoint, &peer.audit)
        .map_err(|why| bad(format!("checkpoint is not accepted as that of {party}: {why}; take it from its host")))?;
    let Checkpoint { log, size, root } = signed.checkpoint().clone();
    let origin = Origin { req: Text::fitted(&request.0), actor: Text::fitted(client.name()), session: None };
    let entry = Entry::admin(Op::Peer)
        .asked_by(origin)
        .guarding(vec![accept_peer(party, &Place { log, size, root })])
        .disclosing(crate::disclosure(Detail { decoded: None, reason: Some(Text::fitted(&reason).to_string()) }));
    let row = PeerRow::new(party.clone(), &signed);
    let stored = row.clone();
    node.store
        .write(Urgency::Act, move |transaction| {
            stored.replace(transaction)?;
            transaction.append(entry)
        })
        .await?;
    node.witnesses.accepted(party, signed.checkpoint().clone());
    tracing::warn!(event = "peer_log_accepted", %party, client = client.name(), size, reason, "an operator accepted a peer's log");
    Ok(ok(StatusCode::OK, &PeerView::of(party.clone(), Some(row), None)))
}
