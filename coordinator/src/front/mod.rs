//! The front door: HTTP for business services (API contract, section 2.1).
//!
//! Every request passes `request_id` (names it and logs it), then `authenticate` (X-API-Key), then its handler. Every
//! answer that is not a success is a problem (RFC 9457).

mod accounts;
mod auth;
mod bodies;
mod json;
mod operations;
mod orders;
mod prefer;
mod problem;
mod request_id;
mod sessions;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use casemate_wire::{Code, Problem};

use crate::convene::Coordinator;
use problem::Failure;

/// All routes.
pub(crate) fn router(coordinator: Arc<Coordinator>) -> Router {
    Router::new()
        .route("/api/v1/mpc/keygen", post(sessions::keygen))
        .route("/api/v1/mpc/sign", post(sessions::sign))
        .route("/api/v1/mpc/rotate", post(sessions::rotate))
        .route("/api/v1/mpc/sessions/{id}", get(sessions::show))
        .route("/api/v1/accounts", get(accounts::list))
        .route("/api/v1/accounts/{id}", get(accounts::show))
        .route(operations::HEALTH, get(operations::health))
        .route(operations::METRICS, get(operations::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&coordinator), auth::authenticate))
        .layer(from_fn(request_id::request_id))
        // The bodies have a limit of their own, with a problem as its answer.
        .layer(DefaultBodyLimit::disable())
        .with_state(coordinator)
}

async fn no_route(uri: Uri) -> Failure {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path())).into()
}

async fn no_method(method: Method, uri: Uri) -> Failure {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path())).into()
}
