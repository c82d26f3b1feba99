//! Problems as HTTP answers.

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use casemate_wire::{Code, Problem, problem};

use crate::store::StoreError;

/// Seconds after which an overloaded coordinator may be asked again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// A problem that is the whole answer.
#[derive(Debug)]
pub(super) struct Failure(Box<Problem>);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl Failure {
    /// The body is not what the route takes.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, detail).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
        match self.0.code {
            Code::Overloaded => {
                headers.insert(RETRY_AFTER, RETRY_SECONDS);
            }
            Code::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("X-API-Key"));
            }
            _ => {}
        }
        // A problem is plain data; were it ever not to encode, the status still tells.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, headers, body).into_response()
    }
}
