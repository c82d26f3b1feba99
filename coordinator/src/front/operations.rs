//! Health and metrics, open to whoever reaches the address.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::convene::Coordinator;
use crate::metrics;

pub(super) const HEALTH: &str = "/health";
pub(super) const METRICS: &str = "/metrics";

#[derive(Serialize)]
struct Health {
    status: Verdict,
    checks: Checks,
    version: &'static str,
}

#[derive(Serialize)]
struct Checks {
    store: Check,
    appliances: Check,
}

#[derive(Serialize)]
struct Check {
    status: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Degraded,
    Failing,
}

/// `GET /health`: 200 while the coordinator can work, though perhaps not with every appliance; else 503.
pub(super) async fn health(State(coordinator): State<Arc<Coordinator>>) -> Response {
    let store = match coordinator.stage.store.check().await {
        Ok(()) => Check { status: Verdict::Ok, detail: None },
        Err(error) => {
            tracing::error!(event = "store_failed", %error);
            Check { status: Verdict::Failing, detail: Some("the store does not answer; see the log".into()) }
        }
    };
    let down = coordinator.dialer.down();
    let appliances = if down.is_empty() {
        Check { status: Verdict::Ok, detail: None }
    } else {
        let names: Vec<String> = down.iter().map(|(party, since)| format!("{party} since {since:.0}")).collect();
        Check { status: Verdict::Degraded, detail: Some(format!("not connected: {}", names.join(", "))) }
    };
    let status = store.status.max(appliances.status);
    let code = if status == Verdict::Failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = Health { status, checks: Checks { store, appliances }, version: env!("CARGO_PKG_VERSION") };
    (code, axum::Json(body)).into_response()
}

/// `GET /metrics`.
pub(super) async fn metrics(State(coordinator): State<Arc<Coordinator>>) -> Response {
    let text = coordinator.stage.metrics.text(coordinator.table.len());
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}
