//! Rotations: taking part, and settling what a rotation has proven.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use casemate_attest::{Origin, Text};
use casemate_wire::api::{KeyProgress, SettleRequest};
use casemate_wire::{Code, Problem, PublicKey};

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::pipeline::unavailable;
use crate::settle;
use crate::store::{ShareRow, StoreError, newest_epoch};

pub(super) async fn settle(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(RequestId(id)): Extension<RequestId>,
    Json(request): Json<SettleRequest>,
) -> Result<Response, Failed> {
    if let Some(quarantine) = node.store.quarantine() {
        return Err(Failed(unavailable(&StoreError::Quarantined(quarantine.to_string()))));
    }
    let origin = Origin { req: Text::fitted(&id), actor: Text::fitted(client.name()), session: None };
    Ok(ok(StatusCode::OK, &settle::settle(&node, origin, request).await?))
}

/// How far a key has come here: for whoever missed the end of a rotation.
pub(super) async fn succession(State(node): State<Arc<Node>>, Path(key): Path<String>) -> Result<Response, Failed> {
    let unknown =
        || Failed(Problem::new(Code::ShareNotFound, "there is no share of that key here, and there was none"));
    let key: PublicKey = key.parse().map_err(|_| unknown())?;
    let found =
        node.store.read_anchored(move |store| Ok((newest_epoch(store, &key)?, ShareRow::all_of_key(store, &key)?)));
    let (newest_epoch, shares) = found.await?;
    if newest_epoch == 0 {
        return Err(unknown());
    }
    let proven = shares.iter().filter_map(ShareRow::succession);
    let succession = proven.max_by_key(|succession| succession.certificate.statement.epoch);
    let party_id = node.config.party.clone();
    Ok(ok(StatusCode::OK, &KeyProgress { party_id, newest_epoch, succession }))
}
