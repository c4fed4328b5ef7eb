//! The id that a request goes by in its answer, in problems and in the log: the client's `X-Request-Id` where it is decent, else
//! a new one.

use std::future::Future;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use neonhub_schemas::ids::is_request_id;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// Answers with the id; what is done for the request can ask for it.
pub async fn identify(request: Request, next: Next) -> Response {
    let stated = request.headers().get(REQUEST_ID).filter(|value| is_request_id(value.as_bytes()));
    let id = stated.cloned().unwrap_or_else(made);
    let mut response = CURRENT.scope(id.clone(), next.run(request)).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Of the request that is being answered; outside of any, a new one.
pub fn current() -> String {
    String::from_utf8_lossy(Current::of_request().0.as_bytes()).into_owned()
}

/// For what goes on for the same request in a task of its own.
pub struct Current(HeaderValue);

impl Current {
    pub fn of_request() -> Self {
        Self(CURRENT.try_with(Clone::clone).unwrap_or_else(|_| made()))
    }

    pub fn scope<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        CURRENT.scope(self.0, work)
    }
}

fn made() -> HeaderValue {
    HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}
