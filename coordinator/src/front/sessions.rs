//! Creates and shows sessions.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use casemate_wire::{Code, Problem};
use tokio::time::timeout;

use super::bodies::SessionBody;
use super::json::Json;
use super::orders::{KeygenBody, RotateBody, SignBody};
use super::prefer;
use super::problem::Failure;
use crate::convene::{Convened, Coordinator};
use crate::session::Session;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `POST /api/v1/mpc/keygen`.
pub(super) async fn keygen(
    State(coordinator): State<Arc<Coordinator>>,
    headers: HeaderMap,
    Json(body): Json<KeygenBody>,
) -> Result<Response, Failure> {
    let convened = coordinator.keygen(body.try_into()?).await?;
    Ok(created(&coordinator, &headers, convened).await)
}

/// `POST /api/v1/mpc/sign`.
pub(super) async fn sign(
    State(coordinator): State<Arc<Coordinator>>,
    headers: HeaderMap,
    Json(body): Json<SignBody>,
) -> Result<Response, Failure> {
    let convened = coordinator.sign(body.into()).await?;
    Ok(created(&coordinator, &headers, convened).await)
}

/// `POST /api/v1/mpc/rotate`: answers when the parties have said whether they take part.
pub(super) async fn rotate(
    State(coordinator): State<Arc<Coordinator>>,
    headers: HeaderMap,
    Json(body): Json<RotateBody>,
) -> Result<Response, Failure> {
    let convened = coordinator.rotate(body.try_into()?).await?;
    Ok(created(&coordinator, &headers, convened).await)
}

/// `GET /api/v1/mpc/sessions/{id}`.
pub(super) async fn show(
    State(coordinator): State<Arc<Coordinator>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let id = id.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.ok_or_else(|| Problem::new(Code::SessionNotFound, "session not found: this is no session id"))?;
    let session = coordinator.find(&id).await?;
    Ok(axum::Json(SessionBody::new(&session, None)).into_response())
}

/// 201 with the session as it was created or, where the caller prefers to wait, as it stands when it ends or the wait
/// is over. The session was created either way, so a failed one is a 201 too, with `status` and `error`.
async fn created(coordinator: &Coordinator, headers: &HeaderMap, convened: Convened) -> Response {
    let Convened { mut session, tokens, mut progress } = convened;
    let location = format!("/api/v1/mpc/sessions/{}", session.id());
    let mut answer = HeaderMap::new();
    if let Ok(location) = location.parse() {
        answer.insert(LOCATION, location);
    }
    if let Some(wait) = prefer::wait(headers) {
        let wait = wait.min(coordinator.stage.config.limits.session_ttl);
        // Over or not, the state then is the answer.
        let _: Result<_, _> = timeout(wait, progress.wait_for(Session::is_over)).await.map(|over| over.is_ok());
        session = progress.borrow().clone();
        if let Ok(applied) = format!("wait={}", wait.as_secs()).parse() {
            answer.insert(PREFERENCE_APPLIED, applied);
        }
    }
    (StatusCode::CREATED, answer, axum::Json(SessionBody::new(&session, Some(tokens)))).into_response()
}
