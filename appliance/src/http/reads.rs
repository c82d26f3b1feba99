//! What can be read: sessions, shares, health, metrics.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use casemate_attest::life::ShareState;
use casemate_hsm::HsmState;
use casemate_wire::api::{Page, SessionView, ShareView};
use casemate_wire::{Code, Problem, SessionId, ShareType};
use serde::{Deserialize, Serialize};

use super::participate::view_of;
use super::reply::{Failed, ok};
use crate::VERSION;
use crate::clients::{Client, Role};
use crate::daemon::Node;
use crate::pipeline::ShareHeader;
use crate::sealing;
use crate::store::{SessionRow, ShareRow};
use crate::witness::Refusal;

type Reply = Result<Response, Failed>;

pub(super) async fn session(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Path(id): Path<String>,
) -> Reply {
    let session = session_id(&id)?;
    Ok(ok(StatusCode::OK, &own_session(&node, &client, &session).await?))
}

pub(super) fn session_id(text: &str) -> Result<SessionId, Failed> {
    text.parse().map_err(|_| Failed(Problem::new(Code::SessionNotFound, "there is no session of that name here")))
}

/// A session that this client may see: a coordinator sees those that it convened.
pub(super) async fn own_session(node: &Node, client: &Client, session: &SessionId) -> Result<SessionView, Failed> {
    let wanted = session.clone();
    let row = node.store.read(move |store| SessionRow::find(store, &wanted)).await?;
    let sees_all = client.has_any(&[Role::Operator, Role::Auditor]);
    match row {
        Some(row) if sees_all || row.actor == client.name() => view_of(node, session).await,
        _ => Err(Failed(Problem::new(Code::SessionNotFound, format!("there is no session {session} here")))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareQuery {
    status: Option<ShareState>,
    share_type: Option<ShareType>,
    #[serde(default = "first_page")]
    page: u32,
    #[serde(default = "page_size")]
    limit: u32,
}

fn first_page() -> u32 {
    1
}
fn page_size() -> u32 {
    50
}

pub(super) async fn shares(State(node): State<Arc<Node>>, query: Result<Query<ShareQuery>, QueryRejection>) -> Reply {
    let bad = |detail: String| Failed(Problem::new(Code::BadRequest, detail));
    let Query(query) = query.map_err(|e| bad(e.body_text()))?;
    if query.page == 0 || query.limit == 0 || query.limit > 200 {
        return Err(bad("page counts from 1, limit is 1 to 200".into()));
    }
    let (page, limit) = (query.page, query.limit);
    let (rows, total) = node
        .store
        .read_anchored(move |store| ShareRow::page(store, query.status, query.share_type, page, limit))
        .await?;
    let items = rows.iter().map(share_view).collect::<Result<Vec<_>, _>>()?;
    Ok(ok(StatusCode::OK, &Page { items, page, limit, total }))
}

pub(super) async fn share(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Reply {
    Ok(ok(StatusCode::OK, &share_view(&find_share(&node, id).await?)?))
}

pub(super) async fn certificate(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Reply {
    let row = find_share(&node, id).await?;
    let missing = || {
        let detail = format!("share {} is {}: its certificate is not complete", row.id, row.status.as_str());
        Failed(Problem::new(Code::ShareNotActive, detail))
    };
    Ok(ok(StatusCode::OK, row.certificate.as_ref().ok_or_else(missing)?))
}

async fn find_share(node: &Node, id: String) -> Result<ShareRow, Failed> {
    let row = node.store.read_anchored(move |store| ShareRow::find(store, &id)).await?;
    row.ok_or_else(|| Failed(Problem::new(Code::ShareNotFound, "there is no share of that id here")))
}

fn share_view(row: &ShareRow) -> Result<ShareView, Failed> {
    let header: ShareHeader = sealing::header("share", row.material.header())
        .map_err(|e| Failed(Problem::new(Code::Internal, e.to_string())))?;
    Ok(ShareView {
        id: row.id.clone(),
        session_id: row.session_id.clone(),
        share_type: header.share_type,
        public_key: row.public_key,
        threshold: header.key.threshold.to_string(),
        participants: header.key.roster.members().iter().map(|member| member.party_id.clone()).collect(),
        party_id: header.party_id,
        status: row.status.as_str().into(),
        epoch: header.key.epoch,
        kek: row.material.held().map(sealing::kek_of).unwrap_or_default(),
        label: header.label,
        created_at: row.created_at.clone(),
        last_used_at: row.last_used_at.clone(),
    })
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    checks: Checks,
    primes_ready: Option<u32>,
    active_sessions: usize,
    version: &'static str,
}

#[derive(Serialize)]
struct Checks {
    hsm: Check,
    store: Check,
    audit: Check,
    policy: Check,
    clock: Check,
    peers: Check,
}

#[derive(Serialize)]
struct Check {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Check {
    fn of(problem: Option<String>) -> Self {
        Self { ok: problem.is_none(), detail: problem }
    }
}

pub(super) async fn health(State(node): State<Arc<Node>>) -> Response {
    let primes = node.store.read(crate::store::count_primes).await;
    let checks = Checks {
        hsm: Check::of(hsm_problem(&node.hsm.state())),
        store: Check::of(primes.as_ref().err().map(ToString::to_string)),
        audit: Check::of(node.store.problem().or_else(|| node.checkpoints.problem())),
        policy: Check::of(node.policy.problem()),
        clock: Check::of(node.clock.check().err()),
        peers: Check::of(refused_peers(&node)),
    };
    let status = match &checks {
        Checks { hsm, store, audit, .. } if !(hsm.ok && store.ok && audit.ok) => "failing",
        Checks { policy, clock, peers, .. } if !(policy.ok && clock.ok && peers.ok) => "degraded",
        _ => "ok",
    };
    let code = if status == "failing" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let active_sessions = node.sessions.len();
    ok(code, &Health { status, checks, primes_ready: primes.ok(), active_sessions, version: VERSION })
}

/// Which peers are refused, why, and since when; and which doubt this appliance's own log. No peer's word alone makes the
/// appliance fail.
fn refused_peers(node: &Node) -> Option<String> {
    let refused = node.witnesses.refusals().into_iter();
    let lines: Vec<String> = refused
        .map(|(party, Refusal { code, why, since })| format!("{party} is refused since {since} ({code}): {why}"))
        .chain(node.witnesses.own_doubts())
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn hsm_problem(state: &HsmState) -> Option<String> {
    let since = |time: &std::time::SystemTime| {
        jiff::Timestamp::try_from(*time).map_or_else(|_| "an unknown time".into(), |time| time.to_string())
    };
    match state {
        HsmState::Ready => None,
        HsmState::Unavailable { since: at, reason } => Some(format!("unavailable since {}: {reason}", since(at))),
        HsmState::PinRefused { since: at, reason } => {
            Some(format!("no login since {}: {reason}; correct the PIN and restart the daemon", since(at)))
        }
        HsmState::Closed => Some("the HSM is closed; the daemon is stopping".into()),
    }
}

pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Response {
    node.metrics.writes_refused(&node.store.writes_refused());
    let text = node.metrics.text(node.sessions.len(), node.store.audit_head().size());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
