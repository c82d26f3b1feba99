//! Shows accounts.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use casemate_wire::api::Page;
use casemate_wire::{Code, Problem};
use serde::Deserialize;

use super::bodies::AccountBody;
use super::problem::Failure;
use crate::convene::Coordinator;

const MAX_LIMIT: u32 = 200;

/// Which part of a list is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    #[serde(default = "first")]
    page: u32,
    #[serde(default = "some")]
    limit: u32,
}

fn first() -> u32 {
    1
}

fn some() -> u32 {
    50
}

/// `GET /api/v1/accounts?page=&limit=`: oldest first, without certificates.
pub(super) async fn list(
    State(coordinator): State<Arc<Coordinator>>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Part { page, limit }) = part.map_err(|e| Failure::bad_request(format!("the query is not valid: {e}")))?;
    if page == 0 || !(1..=MAX_LIMIT).contains(&limit) {
        let detail = format!("page counts from 1, and limit lies between 1 and {MAX_LIMIT}");
        return Err(Failure::bad_request(detail));
    }
    let skip = u64::from(page - 1) * u64::from(limit);
    let (accounts, total) = coordinator.stage.store.accounts(skip, limit).await?;
    let items: Vec<_> = accounts.into_iter().map(AccountBody::listed).collect();
    Ok(axum::Json(Page { items, page, limit, total }).into_response())
}

/// `GET /api/v1/accounts/{id}`: with the key certificate.
pub(super) async fn show(
    State(coordinator): State<Arc<Coordinator>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let id = id.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.ok_or_else(|| Problem::new(Code::AccountNotFound, "account not found: this is no account id"))?;
    let account = coordinator.account(id).await?;
    Ok(axum::Json(AccountBody::whole(account)).into_response())
}
