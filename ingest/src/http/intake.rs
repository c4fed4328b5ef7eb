//! A request's way from its head to the log and back.

use std::time::{Duration, Instant};

use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use neonhub_schemas::NewRecord;
use neonhub_schemas::over_limit::OverLimit;
use neonhub_schemas::trace::TraceContext;

use super::answer::Accepted;
use super::body::{PlainBody, Reserved, read_body};
use super::door::Door;
use super::http_span::HttpSpan;
use super::judgement::{Judge, Judgement};
use super::pixel;
use super::problem::Problem;
use super::quota::write_over_limit;
use super::request_id::{REQUEST_ID, request_id};
use super::state::IngestState;

/// Headers of an answer: those of all answers, the quota's, and what CORS adds.
const ANSWERS_HEADERS: usize = 12;

/// Answers a request at one of the event doors.
pub(super) async fn answer(state: IngestState, door: Door, request: Request) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let id = request_id(&state, &head.headers);
    let mut judge = Judge { state: &state, received_at_ms: state.now_ms(), quota: None };
    let span = HttpSpan::begin(state.tracer(), &head, judge.received_at_ms);
    let trace = span.as_ref().map(HttpSpan::context);
    let worked = work(&mut judge, &door, &head, body, trace);
    let outcome = match tokio::time::timeout(state.limits().request_timeout, worked).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let detail = "the request took too long; it may be sent again with the same messageIds";
            Err(Box::new(Problem::unavailable("timeout", detail, Duration::from_secs(1))))
        }
    };
    // A stranger cannot ask to be told of.
    if let Some(span) = span.filter(|span| judge.quota.is_some() || span.is_first()) {
        let status = outcome.as_ref().map_or_else(|problem| problem.status, |_| 200);
        let events = outcome.as_ref().map_or(0, |accepted| accepted.accepted);
        let workspace = judge.quota.as_ref().map(|(key, _)| key.workspace.as_str());
        span.end(state.tracer(), started.elapsed(), status, &id, workspace, events);
    }
    let mut response = match outcome {
        Ok(_) if door == Door::Pixel => pixel::image(),
        Ok(accepted) => axum::Json(accepted).into_response(),
        Err(problem) => {
            let request_id = String::from_utf8_lossy(id.as_bytes()).into_owned();
            if problem.status >= 500 {
                tracing::warn!(request_id, status = problem.status, detail = problem.detail, "request failed");
            }
            Problem { request_id, ..*problem }.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.reserve(ANSWERS_HEADERS);
    if let Some((key, verdict)) = judge.quota {
        key.quota.write_headers(verdict, headers);
    }
    if let Some(over) = head.extensions.get::<OverLimit>() {
        write_over_limit(over, headers);
    }
    headers.insert(REQUEST_ID, id);
    state.metrics().request(door.label(), response.status(), started.elapsed());
    response
}

async fn work(
    judge: &mut Judge<'_>,
    door: &Door,
    head: &Parts,
    body: HttpBody,
    trace: Option<TraceContext>,
) -> Result<Accepted, Box<Problem>> {
    let state = judge.state;
    if let Some(over) = head.extensions.get::<OverLimit>() {
        return Err(Box::new(Problem::over_limit(over)));
    }
    let read = if *door == Door::Pixel { Ok(PlainBody::none()) } else { read_body(state, &head.headers, body).await };
    // What was reserved for the body stays so until its records are on the log.
    let (judgement, _reserved) = match read {
        Ok(PlainBody { bytes, reserved }) => (judge.judge(door, head, Ok(&bytes)), reserved),
        Err(error) => (judge.judge(door, head, Err(error)), Reserved::default()),
    };
    match judgement {
        Judgement::Append { mut records, source, answer } => {
            if let Some(trace) = trace {
                for record in &mut records {
                    record.headers = trace.stamp(std::mem::take(&mut record.headers));
                }
            }
            append(state, records).await.map_err(|error| Box::new(Problem::log_failed(&error)))?;
            state.metrics().accepted(source, answer.accepted);
            Ok(answer)
        }
        Judgement::Refuse { problem, dead_letters } => {
            leave(state, dead_letters).await;
            Err(problem)
        }
    }
}

async fn append(state: &IngestState, records: Vec<NewRecord>) -> Result<(), crate::sink::SinkError> {
    let (count, started) = (records.len(), Instant::now());
    let outcome = state.sink().append(records).await;
    state.metrics().append(&outcome, started.elapsed());
    if let Err(error) = &outcome {
        tracing::warn!(%error, records = count, "append failed");
    }
    outcome
}

/// Dead letters of requests whose answer does not depend on them: bad input is bad input, log or no log.
async fn leave(state: &IngestState, dead_letters: Vec<NewRecord>) {
    let count = dead_letters.len();
    if count > 0 && append(state, dead_letters).await.is_err() {
        state.metrics().dead_letters_lost(count);
    }
}
