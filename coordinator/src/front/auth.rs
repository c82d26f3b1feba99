//! Lets in who holds an API key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use casemate_wire::{Code, Problem};

use super::operations;
use super::problem::Failure;
use crate::api_key::{Rejection, id_of};
use crate::convene::Coordinator;

const HEADER: &str = "x-api-key";

/// Answers 401 to whoever sends no key that is in use; health and metrics are open.
pub(super) async fn authenticate(
    State(coordinator): State<Arc<Coordinator>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if path == operations::HEALTH || path == operations::METRICS {
        return next.run(request).await;
    }
    match check(&coordinator, request.headers()).await {
        Ok(Ok(())) => next.run(request).await,
        Ok(Err(rejection)) => {
            coordinator.stage.metrics.auth_failure(rejection);
            refusal(rejection).into_response()
        }
        Err(problem) => Failure::from(problem).into_response(),
    }
}

async fn check(coordinator: &Coordinator, headers: &HeaderMap) -> Result<Result<(), Rejection>, Problem> {
    let mut sent = headers.get_all(HEADER).iter();
    let text = match (sent.next(), sent.next()) {
        (None, _) => return Ok(Err(Rejection::Missing)),
        (Some(text), None) => text.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => return Ok(Err(Rejection::Malformed)),
    };
    let id = match id_of(text) {
        Ok(id) => id,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let key = coordinator.stage.store.key(id).await?;
    Ok(key.map_or(Err(Rejection::Unknown), |key| key.check(text)))
}

fn refusal(rejection: Rejection) -> Failure {
    let detail = match rejection {
        Rejection::Missing => {
            "no X-API-Key was sent; make one with: casemate-coordinator api-key create --config FILE --name NAME"
        }
        // Which of the three it was is nothing to tell a stranger.
        Rejection::Malformed | Rejection::Unknown | Rejection::Revoked => "the X-API-Key is not valid here",
    };
    Problem::new(Code::Unauthenticated, detail).into()
}
