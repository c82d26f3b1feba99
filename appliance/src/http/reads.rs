//! What can be read: sessions, health, metrics.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use casemate_wire::api::SessionView;
use casemate_wire::{Code, Problem, SessionId};
use serde::Serialize;

use super::participate::view_of;
use super::reply::{Failed, ok};
use crate::VERSION;
use crate::clients::{Client, Role};
use crate::daemon::{Condition, Node};
use crate::shares::Figures;
use crate::store::SessionRow;

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

#[derive(Serialize)]
struct Health {
    status: &'static str,
    checks: Checks,
    primes_ready: Option<u32>,
    active_sessions: usize,
    sandbox: String,
    memory: String,
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
    tls: Check,
    sandbox: Check,
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
    let Condition { hsm, store, audit, policy, clock, peers, tls, primes_ready } = Condition::of(&node).await;
    let checks = Checks {
        hsm: Check::of(hsm),
        store: Check::of(store),
        audit: Check::of(audit),
        policy: Check::of(policy),
        clock: Check::of(clock),
        peers: Check::of(peers),
        tls: Check::of(tls),
        sandbox: Check::of(node.sandbox.problem()),
    };
    let status = match &checks {
        Checks { hsm, store, audit, .. } if !(hsm.ok && store.ok && audit.ok) => "failing",
        Checks { policy, clock, peers, tls, sandbox, .. }
            if !(policy.ok && clock.ok && peers.ok && tls.ok && sandbox.ok) =>
        {
            "degraded"
        }
        _ => "ok",
    };
    let code = if status == "failing" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let active_sessions = node.sessions.len();
    let (sandbox, memory) = (node.sandbox.verdict().to_string(), node.memory.to_string());
    ok(code, &Health { status, checks, primes_ready, active_sessions, sandbox, memory, version: VERSION })
}

pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Response {
    node.metrics.writes_refused(&node.store.writes_refused());
    match node.store.read(|store| Figures::of(store, jiff::Timestamp::now())).await {
        Ok(figures) => node.metrics.shares(&figures),
        Err(error) => tracing::warn!(event = "shares_not_counted", %error, "metrics show what was last counted"),
    }
    node.metrics.tls(&node.tls, jiff::Timestamp::now());
    let text = node.metrics.text(node.sessions.len(), node.store.audit_head().size());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
