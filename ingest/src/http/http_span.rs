//! A traced request's span, named and described as OpenTelemetry's HTTP conventions have it.

use std::time::Duration;

use axum::extract::MatchedPath;
use axum::http::HeaderValue;
use axum::http::request::Parts;
use neonhub_schemas::trace::{AttributeValue, OpenSpan, SpanKind, TraceContext, Tracer};

pub(super) struct HttpSpan {
    span: OpenSpan,
    method: String,
    /// The route's template, so that names stay few.
    route: String,
    start_us: i64,
}

impl HttpSpan {
    /// `None`: the request is not traced.
    pub(super) fn begin(tracer: &Tracer, head: &Parts, received_at_ms: i64) -> Option<Self> {
        if !tracer.is_on() {
            return None;
        }
        // More than one is none (W3C Trace Context, 3.2).
        let mut stated = head.headers.get_all("traceparent").iter();
        let only = stated.next().filter(|_| stated.next().is_none());
        let start_us = received_at_ms.saturating_mul(1_000);
        let span = tracer.begin(only.map(HeaderValue::as_bytes), start_us)?;
        let route = head.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
        Some(Self { span, method: head.method.to_string(), route, start_us })
    }

    /// Whether no sender has asked for it.
    pub(super) fn is_first(&self) -> bool {
        self.span.is_first()
    }

    /// For the records that follow from the request.
    pub(super) fn context(&self) -> TraceContext {
        self.span.context
    }

    pub(super) fn end(
        self,
        tracer: &Tracer,
        took: Duration,
        status: u16,
        request_id: &HeaderValue,
        workspace: Option<&str>,
        events: usize,
    ) {
        let Self { mut span, method, route, start_us } = self;
        let name = format!("{method} {route}");
        let attributes: [(_, AttributeValue); 5] = [
            ("http.request.method", method.into()),
            ("http.route", route.into()),
            ("http.response.status_code", i64::from(status).into()),
            ("neonhub.request_id", String::from_utf8_lossy(request_id.as_bytes()).into_owned().into()),
            ("neonhub.events", (events as u64).into()),
        ];
        span.attributes.extend(attributes);
        if let Some(workspace) = workspace {
            span.attributes.push(("neonhub.workspace", workspace.to_owned().into()));
        }
        // Only what is the server's fault, as the conventions have it.
        let failure = (status >= 500).then(|| format!("answered {status}"));
        let took_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        tracer.end(span, name, SpanKind::Server, start_us.saturating_add(took_us), failure);
    }
}
