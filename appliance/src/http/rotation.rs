//! Rotations: taking part, and settling what a rotation has proven.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use casemate_attest::{Origin, Text};
use casemate_wire::api::SettleRequest;

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::pipeline::unavailable;
use crate::settle;
use crate::store::StoreError;

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
