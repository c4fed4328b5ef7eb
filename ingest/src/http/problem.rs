//! Errors as RFC 9457 problem documents.

use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use neonhub_schemas::over_limit::OverLimit;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::answer::RejectedEvent;
use super::quota::whole_seconds;
use crate::accept::{Reason, Refusal};
use crate::sink::SinkError;

const BASIC_CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"neonhub\", charset=\"UTF-8\"");
/// No registered scheme fits, but a 401 has to state one (RFC 9110, 15.5.2).
const WEBHOOK_CHALLENGE: HeaderValue = HeaderValue::from_static("Standard-Webhooks realm=\"neonhub\"");

/// An error, as `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:neonhub:problem:` and a stable code.
    #[serde(rename = "type")]
    #[schema(example = "urn:neonhub:problem:missing_field")]
    pub kind: String,
    #[schema(example = "Bad Request")]
    pub title: String,
    #[schema(example = 400)]
    pub status: u16,
    /// For people.
    pub detail: String,
    /// The field at fault, from the body's top.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "batch[3].timestamp")]
    pub field: Option<String>,
    pub request_id: String,
    /// Every event's verdict, where the request was a batch and none of it was valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedEvent>,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
    /// How to prove who is asking, with 401.
    #[serde(skip)]
    pub(super) challenge: Option<HeaderValue>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:neonhub:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            request_id: String::new(),
            rejected: Vec::new(),
            retry_after: None,
            challenge: None,
        }
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        let (status, challenge) = match refusal.reason {
            Reason::UnknownWriteKey => (StatusCode::UNAUTHORIZED, Some(BASIC_CHALLENGE)),
            Reason::InvalidSignature => (StatusCode::UNAUTHORIZED, Some(WEBHOOK_CHALLENGE)),
            reason if reason.is_size() => (StatusCode::PAYLOAD_TOO_LARGE, None),
            _ => (StatusCode::BAD_REQUEST, None),
        };
        let problem = Self::new(status, refusal.reason.code(), &refusal.detail);
        Self { field: refusal.field.clone(), challenge, ..problem }
    }

    pub(super) fn unavailable(code: &str, detail: impl Into<String>, retry_after: Duration) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        Self { retry_after: Some(retry_after), ..problem }
    }

    pub(super) fn over_limit(over: &OverLimit) -> Self {
        let detail = format!("more than {} requests a minute from this address", over.per_minute);
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests_of_address", detail);
        Self { retry_after: Some(over.wait), ..problem }
    }

    pub(super) fn log_failed(error: &SinkError) -> Self {
        match error {
            SinkError::Unavailable { retry_after, .. } => Self::unavailable(
                "log_unavailable",
                "the log is not available; send the same events again with the same messageIds",
                *retry_after,
            ),
            SinkError::QueueFull { retry_after } => {
                Self::unavailable("queue_full", "too many events are waiting for the log", *retry_after)
            }
            SinkError::Rejected { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "log_refused", "the log does not take these events")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let challenge = self.challenge.clone();
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        response
    }
}

/// The problems that any route that takes events may answer with.
#[derive(IntoResponses)]
pub enum EventProblems {
    /// Not JSON, or no valid event in it; `field` names what is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// No write key, or an unknown one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The body came too slowly.
    #[response(status = 408, content_type = "application/problem+json")]
    TooSlow(Problem),
    /// An event, the batch or the body is too large, before or after decompression.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body's `Content-Encoding` is not supported.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedEncoding(Problem),
    /// The quota of the write key or of the address is used up; see `Retry-After` and `RateLimit`.
    #[response(status = 429, content_type = "application/problem+json")]
    TooManyRequests(Problem),
    /// The log does not take these events.
    #[response(status = 500, content_type = "application/problem+json")]
    Refused(Problem),
    /// The log is away, too much is waiting, or time is up; see `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}
