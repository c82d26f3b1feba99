//! Backups of all shares: made by an operator whom policy allows, and noted as verified by whoever shows that one opens.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use casemate_attest::{Entry, Op, Origin, Text};
use casemate_policy::approval::{Act, BackupParameters};
use casemate_policy::bundle::SignedBundle;
use casemate_policy::{Action, Resource, SessionFacts};
use casemate_wire::api::{Approval, bounded_approvals};
use casemate_wire::{Code, Digest32, Problem};
use serde::{Deserialize, Serialize};

use super::reply::{Failed, Json, RequestId, ok};
use crate::backup::{BackupError, BundleName, CustodyError, Made, Proof, Source, make};
use crate::clients::Client;
use crate::daemon::Node;
use crate::pipeline::{Caller, Order, Ordered, Overtaken, order};
use crate::store::{BackupRow, BackupStage, ShareRow, Urgency};

/// Backups that are listed.
const LISTED: u32 = 100;

/// `POST backups` takes an empty object, or one with approvals.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateRequest {
    #[serde(default, deserialize_with = "bounded_approvals")]
    approvals: Vec<Approval>,
}

/// Makes a backup and gives the file out as the body, once its leaf is durable. It does not count before it was verified.
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Json(CreateRequest { approvals }): Json<CreateRequest>,
) -> Result<Response, Failed> {
    let busy = || Failed(Problem::new(Code::Overloaded, "another backup is being made; ask again when it is done"));
    let _turn = node.backing_up.try_lock().map_err(|_| busy())?;
    let bundle = custodians(&node)?;
    let caller = Caller { client, request_id };
    let ordered = order(&node, caller.clone(), backup(&node, &bundle, approvals)).await?;
    if ordered.bundle() != bundle.bundle().digest() {
        // Other people would get the pieces than those whom policy and approvers saw.
        let detail = "another policy became active while the request was being judged; ask again";
        return Err(Failed(Problem::new(Code::Overloaded, detail)));
    }
    let rows = node.store.read_anchored(ShareRow::held).await?;
    let taken = states(&rows);
    let size = node.store.audit_head().size();
    let checkpoint = node.checkpoints.at_least(size).await;
    let checkpoint = checkpoint.map_err(|why| Failed(Problem::new(Code::HsmUnavailable, why.to_string())))?;
    let source = Source {
        party: node.config.party.clone(),
        identity: node.identity.clone(),
        checkpoint: &checkpoint,
        bundle: BundleName { version: bundle.bundle().version(), digest: ordered.bundle() },
        recipients: bundle.bundle().recipients(),
        rows,
    };
    let Made { file, id, digest, shares } = make(&node.hsm, source).await?;
    let row = BackupRow {
        id: id.to_string(),
        stage: BackupStage::Made,
        digest,
        shares,
        made_at: Some(crate::now_text()),
        verified_at: None,
    };
    record(&node, ordered, row, taken).await?;
    tracing::info!(event = "backup_made", backup = %id, %digest, client = caller.client.name(), bytes = file.len());
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, "application/octet-stream")], file).into_response();
    for (name, value) in [("x-backup-id", id.to_string()), ("x-backup-digest", digest.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// The active bundle, if it names custodians.
fn custodians(node: &Node) -> Result<Arc<SignedBundle>, Failed> {
    let refused = |detail: String| Failed(Problem::new(Code::PolicyRefused, detail));
    let inactive = || refused("no policy bundle is active, and it alone says to whom a backup goes".into());
    let bundle = node.policy.active().ok_or_else(inactive)?;
    match bundle.bundle().recipients().threshold() {
        Some(_) => Ok(bundle),
        None => Err(refused(CustodyError::NoCustodians.to_string())),
    }
}

/// What policy is asked, and what people must have approved: this appliance, and everybody who gets a piece.
fn backup(node: &Node, bundle: &SignedBundle, approvals: Vec<Approval>) -> Order {
    let recipients = bundle.bundle().recipients().custodians().values();
    let parameters = BackupParameters {
        party_id: node.config.party.clone(),
        recipients: recipients.map(|recipient| recipient.as_str().to_owned()).collect(),
    };
    let session =
        SessionFacts { participants: BTreeSet::new(), threshold_t: 0, devices: BTreeSet::new(), new_roster: None };
    Order {
        op: Op::Backup,
        action: Action::Backup,
        resource: Resource::Appliance,
        act: Act::Backup { parameters },
        session,
        key: None,
        reason: "a backup of all shares".into(),
        approvals,
    }
}

/// What a backup was made of.
fn states(rows: &[ShareRow]) -> Vec<(String, casemate_attest::ShareState)> {
    rows.iter().map(|row| (row.id.clone(), row.status)).collect()
}

/// The leaf of a backup, which becomes durable before anybody gets the file.
async fn record(
    node: &Arc<Node>,
    ordered: Ordered,
    row: BackupRow,
    taken: Vec<(String, casemate_attest::ShareState)>,
) -> Result<(), Failed> {
    let ordered = Arc::new(ordered);
    let writes = ordered.clone();
    let written = node.store.write(Urgency::Act, move |transaction| {
        // Revoked meanwhile, a share must not live on in a file.
        if states(&ShareRow::held(transaction.sql())?) != taken {
            return Ok(Written::Changed);
        }
        if let Some(overtaken) = writes.overtaken(transaction)? {
            return Ok(Written::Overtaken(overtaken));
        }
        let guards = vec![row.put(transaction)?];
        writes.commit(transaction, guards).map(|()| Written::Made)
    });
    match written.await? {
        Written::Made => Ok(()),
        Written::Changed => {
            let detail = "the shares changed while the backup was being made; ask again";
            Err(Failed(Problem::new(Code::Overloaded, detail)))
        }
        Written::Overtaken(overtaken) => Err(Failed(ordered.give_up(node, overtaken).await)),
    }
}

/// What became of a backup's leaf.
enum Written {
    Made,
    /// Other shares are there than those that the file holds.
    Changed,
    Overtaken(Overtaken),
}

#[derive(Serialize)]
struct Backups {
    backups: Vec<BackupRow>,
    /// What people approve so that the next backup can be made; absent while no custodians are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Act>,
}

/// The newest backups that are on record here, and what the next one would have approved.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Response, Failed> {
    let backups = node.store.read_anchored(|connection| BackupRow::newest(connection, LISTED)).await?;
    let act = custodians(&node).ok().map(|bundle| backup(&node, &bundle, Vec::new()).act);
    Ok(ok(StatusCode::OK, &Backups { backups, act }))
}

/// What `casemate backup verify` found.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifiedRequest {
    /// SHA-256 of the file that was opened.
    digest: Digest32,
    /// Only who has opened it can make this.
    proof: Proof,
}

/// Notes that a backup was opened by its custodians and is complete: from now on it counts.
pub(super) async fn verified(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(id): Path<String>,
    Json(VerifiedRequest { digest, proof }): Json<VerifiedRequest>,
) -> Result<Response, Failed> {
    let bad = |detail: &str| Failed(Problem::new(Code::BadRequest, detail));
    let unknown = || Failed(Problem::new(Code::NotFound, "no backup of that id was made here"));
    let wanted = id.clone();
    let row = node.store.read_anchored(move |connection| BackupRow::find(connection, &wanted)).await?;
    let row = row.ok_or_else(unknown)?;
    if proof.id().as_str() != id || row.digest != digest {
        return Err(bad("the proof or the digest is not of this backup; `casemate backup verify` gives both"));
    }
    match row.stage {
        BackupStage::Made => {}
        // Once is enough: the same call again changes nothing.
        BackupStage::Verified => return Ok(ok(StatusCode::OK, &row)),
        BackupStage::Restored => return Err(bad("that backup was restored here; make another one")),
    }
    let row = BackupRow { stage: BackupStage::Verified, verified_at: Some(crate::now_text()), ..row };
    let origin = Origin { req: Text::fitted(&request_id), actor: Text::fitted(client.name()), session: None };
    let stored = row.clone();
    node.store
        .write(Urgency::Act, move |transaction| {
            let change = stored.put(transaction)?;
            transaction.append(Entry::admin(Op::Backup).asked_by(origin).guarding(vec![change]))
        })
        .await?;
    tracing::info!(event = "backup_verified", backup = id, client = client.name());
    Ok(ok(StatusCode::OK, &row))
}

impl From<BackupError> for Failed {
    fn from(error: BackupError) -> Self {
        let code = match &error {
            BackupError::Hsm(_) => Code::HsmUnavailable,
            BackupError::Nothing => Code::NotFound,
            BackupError::Custody(_) => Code::PolicyRefused,
            BackupError::Format(_) | BackupError::Share { .. } => Code::Internal,
        };
        Self(Problem::new(code, error.to_string()))
    }
}
