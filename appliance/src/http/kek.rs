//! Re-wrapping beside running sessions: the rows' wrapped keys come under the current KEK and to the bundle's recovery HSMs.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use casemate_attest::{Origin, Text};
use casemate_wire::api::{Approval, bounded_approvals};
use casemate_wire::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::kek::{KekError, Plan, Report, Rewrap, Step};
use crate::store::StoreError;

/// `POST kek/rewrap` takes an empty object, or one with approvals: policy is not asked, as for making and destroying a KEK. To
/// whom a row may be sealed, the bundle says that its signers have signed. Their number is logged.
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

/// Answers when all rows are done. It goes on if its caller gives up, and the log holds its end. A session that uses a row meanwhile
/// is not disturbed: a row always has a key that opens.
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
    let (by, asked, approvals) = (client.name(), &request.0, approvals.len());
    tracing::info!(event = "rewrap_asked", by, request = %asked, approvals);
    let origin = Origin { req: Text::fitted(asked), actor: Text::fitted(by), session: None };
    let done = tokio::spawn(async move { run(&node, origin).await }).await;
    let done = done.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panicked) => std::panic::resume_unwind(panicked),
        Err(_) => Err(Failed(Problem::new(Code::Interrupted, "the daemon stops; the next run goes on from here"))),
    });
    Ok(ok(StatusCode::OK, &done?))
}

async fn run(node: &Node, origin: Origin) -> Result<Rewrapped, Failed> {
    let busy = || Failed(Problem::new(Code::Overloaded, "all rows are being re-wrapped; ask again when that is done"));
    let _turn = node.rewrapping.try_lock().map_err(|_| busy())?;
    let status = node.hsm.status();
    tracing::info!(event = "rewrap_started", kek = status.kek_id, request = %origin.req);
    let recipients = node.hsm.recipients();
    let plan = Plan::here(&node.hsm, &recipients).map_err(|e| Failed(Problem::new(Code::Internal, e.to_string())))?;
    let watch = |step| {
        if let Step::Durable { done, of } = step {
            tracing::info!(event = "rewrap_progress", done, of);
        }
    };
    let report = Rewrap::new(&node.store, &plan).asked_by(origin).run(watch).await?;
    let Report { rows, current, renewed, gone, unopened, .. } = report;
    tracing::info!(event = "rewrap_ended", kek = status.kek_id, rows, current, renewed, gone, unopened);
    Ok(Rewrapped { kek: status.kek_id, kek_epoch: status.kek_epoch, report })
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
