//! Re-wrapping beside running sessions: the rows' wrapped keys come under the current KEK and to the bundle's recovery HSMs.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use casemate_wire::api::{Approval, bounded_approvals};
use casemate_wire::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::kek::{KekError, Plan, Report, Rewrap, Step};
use crate::store::StoreError;

/// `POST kek/rewrap` takes an empty object, or one with approvals: policy is not asked, since nothing becomes possible that
/// was not before, and their number is logged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RewrapRequest {
    #[serde(default, deserialize_with = "bounded_approvals")]
    approvals: Vec<Approval>,
}

#[derive(Serialize)]
struct Rewrapped {
    kek: String,
    kek_epoch: u32,
    #[serde(flatten)]
    report: Report,
}

/// Answers when all rows are done. A caller that gives up before ends the work between two rows; the next call goes on. A
/// session that uses a row meanwhile is not disturbed: a row always has a key that opens.
pub(super) async fn rewrap(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(request): Extension<RequestId>,
    Json(RewrapRequest { approvals }): Json<RewrapRequest>,
) -> Result<Response, Failed> {
    if let Some(quarantine) = node.store.quarantine() {
        return Err(StoreError::Quarantined(quarantine.to_string()).into());
    }
    if node.policy.active().is_none() {
        let detail = "no policy bundle is active, and it alone says to which recovery HSMs shares are sealed";
        return Err(Failed(Problem::new(Code::PolicyRefused, detail)));
    }
    let status = node.hsm.status();
    let (by, asked, approvals) = (client.name(), &request.0, approvals.len());
    tracing::info!(event = "rewrap_started", kek = status.kek_id, by, request = %asked, approvals);
    let recipients = node.hsm.recipients();
    let plan = Plan::here(&node.hsm, &recipients).map_err(|e| Failed(Problem::new(Code::Internal, e.to_string())))?;
    let watch = |step| {
        if let Step::Durable { done, of } = step {
            tracing::info!(event = "rewrap_progress", done, of);
        }
    };
    let report = Rewrap::new(&node.store, &plan).run(watch).await?;
    let Report { rows, current, renewed, gone, unopened, .. } = report;
    tracing::info!(event = "rewrap_ended", kek = status.kek_id, rows, current, renewed, gone, unopened);
    Ok(ok(StatusCode::OK, &Rewrapped { kek: status.kek_id, kek_epoch: status.kek_epoch, report }))
}

impl From<KekError> for Failed {
    fn from(error: KekError) -> Self {
        match error {
            KekError::Store(error) => error.into(),
            KekError::Hsm(error) => Self(Problem::new(Code::HsmUnavailable, error.to_string())),
            KekError::Encoding(_) => Self(Problem::new(Code::Internal, error.to_string())),
        }
    }
}
