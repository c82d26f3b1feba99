//! The active policy: its text, and its reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use casemate_attest::{Origin, Text};
use casemate_policy::bundle::SignedBundle;
use casemate_policy::signers::Principal;
use casemate_wire::{Code, Digest32, Problem};
use serde::{Deserialize, Serialize};

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::policy_slot::{self, ReloadError};

/// A bundle as it is shown: who signed what, and the text itself.
#[derive(Serialize)]
struct PolicyView<'a> {
    name: &'a str,
    version: u64,
    digest: Digest32,
    previous: Option<Digest32>,
    not_before: String,
    signers: Vec<&'a str>,
    /// After this it does not load again: too few of its signers' keys are valid then.
    #[serde(skip_serializing_if = "Option::is_none")]
    good_until: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<&'a str, String>,
}

impl<'a> PolicyView<'a> {
    fn of(signed: &'a SignedBundle) -> Self {
        let bundle = signed.bundle();
        Self {
            name: bundle.name(),
            version: bundle.version(),
            digest: bundle.digest(),
            previous: bundle.previous(),
            not_before: bundle.not_before().to_string(),
            signers: signed.signers().iter().map(Principal::as_str).collect(),
            good_until: signed.good_until().map(|time| time.to_string()),
            files: BTreeMap::new(),
        }
    }

    fn with_files(self, signed: &'a SignedBundle) -> Self {
        let files = signed.files().map(|(path, bytes)| (path, String::from_utf8_lossy(bytes).into()));
        Self { files: files.collect(), ..self }
    }
}

pub(super) async fn active(State(node): State<Arc<Node>>) -> Result<Response, Failed> {
    let Some(bundle) = node.policy.active() else {
        let why = node.policy.problem().unwrap_or_default();
        let detail = format!("no policy bundle is active, so every request is denied: {why}");
        return Err(Failed(Problem::new(Code::NotFound, detail)));
    };
    Ok(ok(StatusCode::OK, &PolicyView::of(&bundle).with_files(&bundle)))
}

/// `POST policy/reload` takes an empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadRequest {}

pub(super) async fn reload(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(request): Extension<RequestId>,
    Json(ReloadRequest {}): Json<ReloadRequest>,
) -> Result<Response, Failed> {
    let origin = Origin { req: Text::fitted(&request.0), actor: Text::fitted(client.name()), session: None };
    match policy_slot::reload(&node, Some(origin)).await {
        Ok(bundle) => Ok(ok(StatusCode::OK, &PolicyView::of(&bundle))),
        Err(ReloadError::Store(error)) => Err(error.into()),
        Err(error @ ReloadError::Refused { .. }) => Err(Failed(Problem::new(Code::PolicyRefused, error.to_string()))),
    }
}
