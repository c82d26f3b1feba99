//! Takes JSON bodies: bounded in size and time, unknown fields refused, faults named by field.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use casemate_wire::api::MAX_BODY;
use casemate_wire::{Code, Problem};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Failure;

const LIMIT: Duration = Duration::from_secs(20);

/// A JSON body of type `T`.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = "the body must be JSON; send content-type: application/json";
            return Err(Problem::new(Code::UnsupportedMediaType, detail).into());
        }
        let body = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = match timeout(LIMIT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let detail = format!("the body is larger than {MAX_BODY} bytes");
                return Err(Problem::new(Code::PayloadTooLarge, detail).into());
            }
            Ok(Err(error)) => {
                return Err(Failure::bad_request(format!("the body broke off: {error}")));
            }
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", LIMIT.as_secs());
                return Err(Failure::bad_request(detail));
            }
        };
        parse(&body).map(Self)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner();
        Failure::bad_request(match path.as_str() {
            "." | "" => format!("the body is not valid: {why}"),
            path => format!("{path} is not valid: {why}"),
        })
    })?;
    json.end().map_err(|why| Failure::bad_request(format!("the body is not valid: {why}")))?;
    Ok(value)
}
