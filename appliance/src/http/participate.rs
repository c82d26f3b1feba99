//! The participate calls.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use casemate_wire::api::{Accepted, KeygenRequest, RotationRequest, SessionView, SigningRequest};
use casemate_wire::{Code, Problem, SessionId};
use tokio::sync::oneshot;

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::pipeline::{self, Ask, Caller};
use crate::store::SessionRow;

type Reply = Result<Response, Failed>;

pub(super) async fn keygen(
    State(node): State<Arc<Node>>,
    client: Extension<Client>,
    id: Extension<RequestId>,
    Json(request): Json<KeygenRequest>,
) -> Reply {
    accepted(&node, caller(client, id), Ask::Keygen(request)).await
}

pub(super) async fn keygen_sync(
    State(node): State<Arc<Node>>,
    client: Extension<Client>,
    id: Extension<RequestId>,
    Json(request): Json<KeygenRequest>,
) -> Reply {
    finished(&node, caller(client, id), Ask::Keygen(request)).await
}

pub(super) async fn signing(
    State(node): State<Arc<Node>>,
    client: Extension<Client>,
    id: Extension<RequestId>,
    Json(request): Json<SigningRequest>,
) -> Reply {
    accepted(&node, caller(client, id), Ask::Sign(Box::new(request))).await
}

pub(super) async fn signing_sync(
    State(node): State<Arc<Node>>,
    client: Extension<Client>,
    id: Extension<RequestId>,
    Json(request): Json<SigningRequest>,
) -> Reply {
    finished(&node, caller(client, id), Ask::Sign(Box::new(request))).await
}

pub(super) async fn rotation(
    State(node): State<Arc<Node>>,
    client: Extension<Client>,
    id: Extension<RequestId>,
    Json(request): Json<RotationRequest>,
) -> Reply {
    accepted(&node, caller(client, id), Ask::Rotate(request)).await
}

pub(super) async fn rotation_sync(
    State(node): State<Arc<Node>>,
    client: Extension<Client>,
    id: Extension<RequestId>,
    Json(request): Json<RotationRequest>,
) -> Reply {
    finished(&node, caller(client, id), Ask::Rotate(request)).await
}

fn caller(Extension(client): Extension<Client>, Extension(RequestId(request_id)): Extension<RequestId>) -> Caller {
    Caller { client, request_id }
}

/// Answers at once, with where the session stands.
async fn accepted(node: &Arc<Node>, caller: Caller, ask: Ask) -> Reply {
    let view = participate(node, caller, ask).await?;
    let message = if view.status.is_final() {
        format!("the session is {}; GET sessions/{} shows it", view.status.as_str(), view.session_id)
    } else {
        format!(
            "attach the message stream within {} s: POST sessions/{}/messages",
            node.config.limits.attach, view.session_id
        )
    };
    let body =
        Accepted { session_id: view.session_id, party_id: node.config.party.clone(), message, status: view.status };
    Ok(ok(StatusCode::ACCEPTED, &body))
}

/// Answers once the session has ended.
async fn finished(node: &Arc<Node>, caller: Caller, ask: Ask) -> Reply {
    let session = ask.session_id().clone();
    let view = participate(node, caller, ask).await?;
    if view.status.is_final() {
        return Ok(ok(StatusCode::OK, &view));
    }
    node.sessions.ended(&session).await;
    Ok(ok(StatusCode::OK, &view_of(node, &session).await?))
}

/// Runs the pipeline in a task of its own: a caller that goes away in the middle leaves nothing half done.
async fn participate(node: &Arc<Node>, caller: Caller, ask: Ask) -> Result<SessionView, Failed> {
    let (answer, wait) = oneshot::channel();
    let runner = node.clone();
    node.spawn("participate", async move {
        // Whoever asked may have gone; asking again shows the session.
        drop(answer.send(pipeline::participate(&runner, caller, ask).await));
    });
    let ended = wait.await.map_err(|_| Problem::new(Code::Interrupted, "the daemon is stopping; ask again"))?;
    Ok(ended?)
}

/// The session as it stands now.
pub(super) async fn view_of(node: &Node, session: &SessionId) -> Result<SessionView, Failed> {
    let wanted = session.clone();
    let row = node.store.read_anchored(move |store| SessionRow::find(store, &wanted)).await?;
    let row = row.ok_or_else(|| Problem::new(Code::SessionNotFound, format!("there is no session {session} here")))?;
    Ok(row.view(node.sessions.round(session)))
}
