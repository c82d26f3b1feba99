//! Every route with the roles that may call it.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use casemate_wire::api::{BASE_PATH, MAX_BODY};
use casemate_wire::{Code, Problem};

use super::reply::{Failed, stamp};
use super::{Connected, attestation, audit, backups, kek, participate, peers, policy, reads, rotation, shares, stream};
use crate::clients::Role;
use crate::daemon::Node;

const COORDINATOR: &[Role] = &[Role::Coordinator];
const READERS: &[Role] = &[Role::Coordinator, Role::Operator, Role::Auditor];
const OPERATOR: &[Role] = &[Role::Operator];
const POLICY_READERS: &[Role] = &[Role::Operator, Role::Auditor];
const EVERYONE: &[Role] = &[Role::Coordinator, Role::Operator, Role::Auditor, Role::Monitor];
const EVIDENCE_READERS: &[Role] = &[Role::Operator, Role::Auditor];
const AUDITOR: &[Role] = &[Role::Auditor];
const METRICS: &[Role] = &[Role::Monitor, Role::Operator];

type Routes = Router<Arc<Node>>;

pub(super) fn router(node: Arc<Node>) -> Router {
    let api = Routes::new()
        .route("/keygen/participate", only(COORDINATOR, post(participate::keygen), &node))
        .route("/keygen/participate-sync", only(COORDINATOR, post(participate::keygen_sync), &node))
        .route("/signing/participate", only(COORDINATOR, post(participate::signing), &node))
        .route("/signing/participate-sync", only(COORDINATOR, post(participate::signing_sync), &node))
        .route("/rotation/participate", only(COORDINATOR, post(participate::rotation), &node))
        .route("/rotation/participate-sync", only(COORDINATOR, post(participate::rotation_sync), &node))
        .route("/rotation/settle", only(COORDINATOR, post(rotation::settle), &node))
        .route("/sessions/{id}", only(READERS, get(reads::session), &node))
        .route("/shares", only(READERS, get(shares::shares), &node))
        .route("/shares/{id}", only(READERS, get(shares::share), &node))
        .route("/shares/{id}/certificate", only(READERS, get(shares::certificate), &node))
        .route("/shares/{id}/revoke", only(OPERATOR, post(shares::revoke), &node))
        .route("/keys/{public_key}/succession", only(READERS, get(rotation::succession), &node))
        .route("/policy", only(POLICY_READERS, get(policy::active), &node))
        .route("/policy/reload", only(OPERATOR, post(policy::reload), &node))
        .route("/kek/rewrap", only(OPERATOR, post(kek::rewrap), &node))
        .route("/backups", only(OPERATOR, post(backups::create), &node).merge(only(READERS, get(backups::list), &node)))
        .route("/backups/{id}/verified", only(OPERATOR, post(backups::verified), &node))
        .route("/attestation", only(READERS, get(attestation::attestation), &node))
        .route("/audit/checkpoint", only(EVIDENCE_READERS, get(audit::checkpoint), &node))
        .route("/audit/entries", only(EVIDENCE_READERS, get(audit::entries), &node))
        .route("/audit/details", only(AUDITOR, get(audit::details), &node))
        .route("/audit/proof/inclusion", only(EVIDENCE_READERS, get(audit::inclusion), &node))
        .route("/audit/proof/consistency", only(EVIDENCE_READERS, get(audit::consistency), &node))
        .route("/peers", only(EVIDENCE_READERS, get(peers::peers), &node))
        .route("/peers/{party}/accept", only(OPERATOR, post(peers::accept), &node))
        .route("/health", only(EVERYONE, get(reads::health), &node))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // A message stream has no end; its frames are bounded one by one.
        .route(
            "/sessions/{id}/messages",
            only(COORDINATOR, post(stream::messages), &node).layer(DefaultBodyLimit::disable()),
        );
    Router::new()
        .nest(BASE_PATH, api)
        .route("/metrics", only(METRICS, get(reads::metrics), &node))
        .fallback(|| async { Failed(Problem::new(Code::NotFound, "there is nothing at this path")) })
        .method_not_allowed_fallback(|| async {
            Failed(Problem::new(Code::MethodNotAllowed, "this path takes another method"))
        })
        .layer(from_fn_with_state(node.clone(), named))
        .layer(axum::middleware::from_fn(stamp))
        .with_state(node)
}

/// A route for some roles only.
fn only(roles: &'static [Role], route: MethodRouter<Arc<Node>>, node: &Arc<Node>) -> MethodRouter<Arc<Node>> {
    route.route_layer(from_fn_with_state((node.clone(), roles), has_role))
}

async fn has_role(
    State((node, roles)): State<(Arc<Node>, &'static [Role])>,
    Extension(client): Extension<crate::clients::Client>,
    request: Request,
    next: Next,
) -> Response {
    if client.has_any(roles) {
        return next.run(request).await;
    }
    node.metrics.auth_failed("forbidden_role");
    let wanted: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let detail = format!("client {:?} has none of the roles that may call this: {}", client.name(), wanted.join(", "));
    Failed(Problem::new(Code::ForbiddenRole, detail)).into_response()
}

/// Whoever is not named in the configuration gets no route at all.
async fn named(
    State(node): State<Arc<Node>>,
    Extension(Connected(client)): Extension<Connected>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(client) = client else {
        node.metrics.auth_failed("unnamed_client");
        let detail = "the client certificate is valid but not named in this appliance's configuration";
        return Failed(Problem::new(Code::ForbiddenRole, detail)).into_response();
    };
    request.extensions_mut().insert(client);
    next.run(request).await
}
