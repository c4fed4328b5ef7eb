//! Errors as RFC 9457 `application/problem+json`: one type for every route.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::request_id;

/// What went wrong, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// `urn:neonhub:problem:{kind}`: an identifier, not a page to fetch.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// The part of the request that is wrong, as `metrics[0]` or `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// As the header `X-Request-Id`; stands in the log beside the cause of a 500.
    pub request_id: String,
}

/// A problem on its way out.
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub detail: String,
    pub field: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None, headers: Vec::new() }
    }

    /// 400 that names the field.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// 503: come back in `retry_after_s` seconds.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_s))
    }

    /// 500: logs the cause under the request's id, and tells only the id.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let request_id = request_id::current();
        tracing::error!(%request_id, %cause, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something failed on our side")
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn body(&self) -> ProblemBody {
        let title = self.status.canonical_reason().unwrap_or("Error");
        ProblemBody {
            kind: format!("urn:neonhub:problem:{}", title.to_lowercase().replace([' ', '\''], "-")),
            title: title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            field: self.field.clone(),
            request_id: request_id::current(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.body();
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<neonhub_schemas::metric::DefinitionError> for Problem {
    fn from(error: neonhub_schemas::metric::DefinitionError) -> Self {
        Self::field(error.field, error.reason)
    }
}
