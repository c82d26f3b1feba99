//! JSON in and out, problems, request ids.

use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use casemate_wire::api::MAX_BODY;
use casemate_wire::{Code, Problem, problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The longest wait for a whole JSON body.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// A problem as a response.
pub(super) struct Failed(pub(super) Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<crate::store::StoreError> for Failed {
    fn from(error: crate::store::StoreError) -> Self {
        Self(crate::pipeline::unavailable(&error))
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let retry = match self.0.code {
            Code::Overloaded | Code::HsmUnavailable | Code::AuditUnavailable => Some("1"),
            Code::NotReady => Some("30"),
            _ => None,
        };
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, problem::CONTENT_TYPE, &self.0);
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}

/// A JSON answer.
pub(super) fn ok<T: Serialize>(status: StatusCode, value: &T) -> Response {
    json(status, "application/json", value)
}

fn json<T: Serialize>(status: StatusCode, kind: &'static str, value: &T) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// A bounded JSON body of exactly one form.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failed> {
        let slow = |_| Failed(Problem::new(Code::BadRequest, "the body did not come in time"));
        let received = timeout(BODY_LIMIT, Bytes::from_request(request, state)).await.map_err(slow)?;
        let body = received.map_err(|rejection| match &rejection {
            BytesRejection::FailedToBufferBody(_) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Failed(Problem::new(Code::PayloadTooLarge, format!("a body may have at most {MAX_BODY} bytes")))
            }
            _ => Failed(Problem::new(Code::BadRequest, "the body broke off")),
        })?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|e| Failed(Problem::new(Code::BadRequest, format!("the body is not what this call takes: {e}"))))
    }
}

/// The id of the request that is being answered.
#[derive(Clone)]
pub(super) struct RequestId(pub(super) String);

/// Gives every request an id, and every response that id.
pub(super) async fn stamp(mut request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
