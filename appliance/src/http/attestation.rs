//! `GET attestation?nonce=`: a token of this moment.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use casemate_attest::attestation::{MEDIA_TYPE, Nonce};
use casemate_wire::{Code, Problem};
use serde::Deserialize;

use super::reply::Failed;
use crate::attestation::{AttestError, token};
use crate::daemon::Node;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttestationQuery {
    nonce: String,
}

pub(super) async fn attestation(
    State(node): State<Arc<Node>>,
    query: Result<Query<AttestationQuery>, QueryRejection>,
) -> Result<Response, Failed> {
    let bad = |detail: String| Failed(Problem::new(Code::BadRequest, detail));
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let nonce: Nonce = query.nonce.parse().map_err(|error| bad(format!("{error}")))?;
    let token = token(&node, &[nonce.as_bytes().to_vec()]).await.map_err(|error| Failed(problem(&error)))?;
    // A token is for one question; whoever keeps it between has nothing to give to the next.
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")], token).into_response())
}

fn problem(error: &AttestError) -> Problem {
    let code = match error {
        AttestError::Nonce(_) => Code::BadRequest,
        AttestError::Quarantined => Code::EvidenceRefused,
        AttestError::Hsm(_) => Code::HsmUnavailable,
        AttestError::Tpm(_) | AttestError::TpmLate => Code::NotReady,
        AttestError::Claims(_) | AttestError::Key(_) => Code::Internal,
    };
    tracing::warn!(event = "attestation_failed", %error);
    Problem::new(code, error.to_string())
}
