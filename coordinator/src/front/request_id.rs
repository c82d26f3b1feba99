//! Names every request, and logs it once it is answered.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Takes the caller's `x-request-id` if it is a sane one, else makes one, and puts it on the answer.
pub(super) async fn request_id(request: Request, next: Next) -> Response {
    let id = request.headers().get(HEADER).filter(|id| is_sane(id)).cloned().unwrap_or_else(random);
    let method = request.method().clone();
    // The pattern, not the path: what a caller writes into a path stays out of the log.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let mut response = next.run(request).await;
    tracing::info!(
        event = "request",
        id = id.to_str().unwrap_or_default(),
        %method,
        route = route.as_ref().map_or("-", MatchedPath::as_str),
        status = response.status().as_u16(),
        ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    );
    response.headers_mut().insert(HEADER, id);
    response
}

fn is_sane(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

fn random() -> HeaderValue {
    HeaderValue::from_str(&Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("unnamed"))
}
