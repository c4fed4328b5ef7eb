//! Bodies and queries whose rejections are problem+json that names the field.

use std::error::Error;
use std::io;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A JSON body.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let is_json = media_type.eq_ignore_ascii_case("application/json") || media_type.ends_with("+json");
        if !is_json {
            let detail = "send JSON with `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| body_problem(&rejection))?;
        parse(&body).map(Self)
    }
}

fn body_problem(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this server takes");
    }
    if is_overdue(rejection) {
        return Problem::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly");
    }
    Problem::new(rejection.status(), rejection.body_text())
}

/// The server breaks a body off with `TimedOut` when its client stops sending.
fn is_overdue(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// # Errors
/// 400: no JSON, or a field of the wrong shape, by its path.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take a list for the fields in their order; nobody means that.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::field("body", "must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if path == "." => Problem::field("body", inner.to_string()),
            serde_json::error::Category::Data => Problem::field(path, inner.to_string()),
            _ => Problem::field("body", format!("is not JSON: {inner}")),
        }
    })?;
    deserializer.end().map_err(|error| Problem::field("body", format!("is not JSON: {error}")))?;
    Ok(value)
}

/// The query of the address.
pub struct UrlQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for UrlQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|rejection| Problem::field("query", rejection.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default)]
        #[expect(dead_code, reason = "only its shape matters")]
        numbers: Vec<u32>,
    }

    #[tokio::test]
    async fn a_body_that_is_broken_off_for_its_slowness_is_answered_408() {
        let piece = |kind: io::ErrorKind| {
            let pieces = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(io::Error::from(kind))]);
            Request::post("/").header("content-type", "application/json").body(axum::body::Body::from_stream(pieces))
        };
        let status = async |kind| JsonBody::<Body>::from_request(piece(kind).unwrap(), &()).await.err().unwrap().status;
        assert_eq!(status(io::ErrorKind::TimedOut).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(status(io::ErrorKind::BrokenPipe).await, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn the_wrong_field_is_named() {
        let field = |text: &str| parse::<Body>(text.as_bytes()).unwrap_err().field;
        assert_eq!(field(r#"{"numbers":[1,"x"]}"#).as_deref(), Some("numbers[1]"));
        assert_eq!(field(r#"{"other":1}"#).as_deref(), Some("other"));
        assert_eq!(field("{").as_deref(), Some("body"));
        assert_eq!(field("{} {}").as_deref(), Some("body"));
        assert_eq!(field("5").as_deref(), Some("body"));
        assert_eq!(field(" [[1]]").as_deref(), Some("body"));
    }
}
