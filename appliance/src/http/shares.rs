//! Shares: what is known of them, their key certificates, their revocation.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use casemate_attest::life::ShareState;
use casemate_wire::api::{Page, RevokeAnswer, RevokeRequest, ShareView};
use casemate_wire::{Code, Problem, ShareType};
use serde::Deserialize;

use super::reply::{Failed, Json, RequestId, ok};
use crate::clients::Client;
use crate::daemon::Node;
use crate::pipeline::{self, Caller, Revoked};
use crate::sealing::SealError;
use crate::shares::view;
use crate::store::{LastBackups, ShareRow};

type Reply = Result<Response, Failed>;

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
    let (rows, backups, total) = node
        .store
        .read_anchored(move |store| {
            let (rows, total) = ShareRow::page(store, query.status, query.share_type, page, limit)?;
            let backups = LastBackups::of(store, &rows)?;
            Ok((rows, backups, total))
        })
        .await?;
    let items =
        rows.iter().map(|row| view(row, &backups)).collect::<Result<Vec<_>, _>>().map_err(|e| unreadable(&e))?;
    Ok(ok(StatusCode::OK, &Page { items, page, limit, total }))
}

pub(super) async fn share(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Reply {
    Ok(ok(StatusCode::OK, &view_of(&node, find_share(&node, id).await?).await?))
}

/// Withdraws a share, and every other one of its key that is left here.
pub(super) async fn revoke(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(id): Path<String>,
    Json(request): Json<RevokeRequest>,
) -> Reply {
    let Revoked { share, withdrawn: revoked, sessions } =
        pipeline::revoke(&node, Caller { client, request_id }, id, request).await?;
    let sessions_stopped = u32::try_from(sessions).unwrap_or(u32::MAX);
    Ok(ok(StatusCode::OK, &RevokeAnswer { share: view_of(&node, share).await?, revoked, sessions_stopped }))
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

async fn view_of(node: &Node, row: ShareRow) -> Result<ShareView, Failed> {
    let (row, backups) = node
        .store
        .read(move |store| {
            let backups = LastBackups::of(store, std::slice::from_ref(&row))?;
            Ok((row, backups))
        })
        .await?;
    view(&row, &backups).map_err(|e| unreadable(&e))
}

fn unreadable(error: &SealError) -> Failed {
    Failed(Problem::new(Code::Internal, error.to_string()))
}
