//! A request's way from its head to the log and back.

use std::time::{Duration, Instant};

use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use neonhub_schemas::{Envelope, NewRecord};

use super::answer::{Accepted, RejectedEvent};
use super::body::{BodyError, PlainBody, read_body};
use super::door::{Door, source_of};
use super::keys::{KnownKey, stated_in_head};
use super::pixel;
use super::problem::Problem;
use super::quota::Verdict;
use super::request_id::{REQUEST_ID, request_id};
use super::state::IngestState;
use super::webhooks;
use crate::accept::{Acceptance, Body, DeadLetters, Reason, Refusal, Route, Sender, accept_body};

/// Bytes of a stranger's request that are kept in its dead letter.
const STRANGERS_EXCERPT: usize = 1_024;

/// Answers a request at one of the event doors.
pub(super) async fn answer(state: IngestState, door: Door, request: Request) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let id = request_id(&state, &head.headers);
    let mut quota_headers = HeaderMap::new();
    let worked = work(&state, &door, &head, body, &mut quota_headers);
    let outcome = match tokio::time::timeout(state.limits().request_timeout, worked).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let detail = "the request took too long; it may be sent again with the same messageIds";
            Err(Problem::unavailable("timeout", detail, Duration::from_secs(1)))
        }
    };
    let mut response = match outcome {
        Ok(_) if door == Door::Pixel => pixel::image(),
        Ok(accepted) => axum::Json(accepted).into_response(),
        Err(problem) => {
            if problem.status >= 500 {
                tracing::warn!(request_id = id, status = problem.status, detail = problem.detail, "request failed");
            }
            Problem { request_id: id.clone(), ..problem }.into_response()
        }
    };
    response.headers_mut().extend(quota_headers);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    state.metrics().request(door.label(), response.status(), started.elapsed());
    response
}

async fn work(
    state: &IngestState,
    door: &Door,
    head: &Parts,
    body: HttpBody,
    quota_headers: &mut HeaderMap,
) -> Result<Accepted, Problem> {
    let received_at_ms = state.now_ms();
    let intake = Intake { state, received_at_ms };
    if let Door::Webhook { platform } = door {
        return webhooks::take_in(&intake, platform, &head.headers, body, quota_headers).await;
    }
    let stated_key = stated_in_head(&head.headers, head.uri.query());
    let known_key = stated_key.as_deref().and_then(|stated| state.keys().find(stated));
    let pixel_call;
    let (route, plain) = match door.route() {
        Some(route) => match read_body(state, &head.headers, body).await {
            Ok(plain) => (route, plain.into()),
            Err(BodyError::Problem(problem)) => return Err(*problem),
            Err(BodyError::Refused { refusal, beginning }) => {
                return Err(intake.refuse(known_key, &refusal, &beginning).await);
            }
        },
        None => {
            let query = head.uri.query().unwrap_or_default();
            match pixel::read(query, head.uri.path()) {
                Ok(call) => pixel_call = call,
                Err(refusal) => return Err(intake.refuse(known_key, &refusal, query.as_bytes()).await),
            }
            (pixel_call.route(), Plain::Made(&pixel_call.body))
        }
    };
    let bytes = plain.bytes();
    state.metrics().plain_bytes(bytes.len());
    if stated_key.is_some() && known_key.is_none() {
        return Err(intake.turn_away(bytes).await);
    }
    let parsed = match Body::parse(route, bytes) {
        Ok(parsed) => parsed,
        Err(refusal) => return Err(intake.refuse(known_key, &refusal, bytes).await),
    };
    let key = match known_key {
        Some(key) => Some(key),
        None => parsed.write_key().and_then(|stated| state.keys().find(&stated)),
    };
    let Some(key) = key else { return Err(intake.turn_away(bytes).await) };
    intake.take_quota(key, parsed.event_count(), quota_headers).map_err(|problem| *problem)?;
    intake.accept(route, &parsed, key, bytes).await
}

/// A body: as it came, or made from a pixel's query.
enum Plain<'a> {
    Read(PlainBody),
    Made(&'a [u8]),
}

impl From<PlainBody> for Plain<'_> {
    fn from(body: PlainBody) -> Self {
        Self::Read(body)
    }
}

impl Plain<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Read(body) => &body.bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

/// One request's share in the state, and its time.
pub(super) struct Intake<'a> {
    pub(super) state: &'a IngestState,
    pub(super) received_at_ms: i64,
}

impl Intake<'_> {
    pub(super) fn take_quota(
        &self,
        key: &KnownKey,
        events: usize,
        headers: &mut HeaderMap,
    ) -> Result<(), Box<Problem>> {
        // More than the limit is refused anyway, and says so better.
        let events = events.min(self.state.limits().max_batch_events);
        let verdict = key.quota.take(events);
        key.quota.write_headers(verdict, headers);
        match verdict {
            Verdict::Granted { .. } => Ok(()),
            Verdict::Later { wait } => {
                let detail = "the quota of events per second is used up";
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail);
                Err(Box::new(Problem { retry_after: Some(wait), ..problem }))
            }
            Verdict::Never { burst, .. } => {
                let detail = format!("{events} events are more than the write key may send at once ({burst})");
                Err(Box::new(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_exceeds_quota", detail)))
            }
        }
    }

    pub(super) async fn accept<'a>(
        &self,
        route: Route<'a>,
        parsed: &Body<'a>,
        key: &'a KnownKey,
        bytes: &[u8],
    ) -> Result<Accepted, Problem> {
        let sender = Sender { workspace: &key.workspace, received_at_ms: self.received_at_ms };
        let random = &mut || self.state.random();
        let Acceptance { events, rejections } = match accept_body(route, parsed, sender, self.state.limits(), random) {
            Ok(acceptance) => acceptance,
            Err(refusal) => return Err(self.refuse(Some(key), &refusal, bytes).await),
        };
        let metrics = self.state.metrics();
        let source = source_of(route);
        let mut records: Vec<NewRecord> = events.iter().map(Envelope::to_raw_record).collect();
        if !rejections.is_empty() {
            let letters = DeadLetters::new(sender, bytes);
            records.extend(rejections.iter().map(|rejection| letters.event(rejection)));
            for rejection in &rejections {
                metrics.rejected(source, rejection.reason);
            }
        }
        if events.is_empty() {
            self.leave(records).await;
            let too_large = rejections.iter().all(|rejection| rejection.reason.is_size());
            let single = parsed.is_single();
            return Err(nothing_valid(RejectedEvent::list(rejections), too_large, single));
        }
        let accepted = events.len();
        let started = Instant::now();
        let outcome = self.state.sink().append(records).await;
        metrics.append(&outcome, started.elapsed());
        if let Err(error) = outcome {
            tracing::warn!(%error, events = accepted, "append failed");
            return Err(Problem::log_failed(&error));
        }
        metrics.accepted(source, accepted);
        Ok(Accepted { success: true, accepted, rejected: RejectedEvent::list(rejections) })
    }

    /// The whole request is bad. A sender that is not known learns only that.
    pub(super) async fn refuse(&self, key: Option<&KnownKey>, refusal: &Refusal, original: &[u8]) -> Problem {
        let Some(key) = key else {
            // Too large is too large, whoever asks.
            let problem = Problem::refused(refusal);
            let too_large = problem.status == StatusCode::PAYLOAD_TOO_LARGE;
            let turned_away = self.turn_away(original).await;
            return if too_large { problem } else { turned_away };
        };
        self.state.metrics().refused(refusal.reason);
        let sender = Sender { workspace: &key.workspace, received_at_ms: self.received_at_ms };
        self.leave(vec![DeadLetters::new(sender, original).whole(refusal)]).await;
        Problem::refused(refusal)
    }

    async fn turn_away(&self, original: &[u8]) -> Problem {
        let detail = "state a known write key: as user of Basic authentication, or as writeKey in query or body";
        let refusal = Refusal::new(Reason::UnknownWriteKey, detail).at("writeKey");
        self.refuse_stranger(&refusal, original).await
    }

    /// The whole request is bad, and nobody knows whose it is.
    pub(super) async fn refuse_stranger(&self, refusal: &Refusal, original: &[u8]) -> Problem {
        self.state.metrics().refused(refusal.reason);
        if self.state.strangers().allows() {
            let sender = Sender { workspace: "", received_at_ms: self.received_at_ms };
            self.leave(vec![DeadLetters::new(sender, original).excerpt(refusal, STRANGERS_EXCERPT)]).await;
        }
        Problem::refused(refusal)
    }

    /// Dead letters of requests whose answer does not depend on them: bad input is bad input, log or no log.
    async fn leave(&self, dead_letters: Vec<NewRecord>) {
        let count = dead_letters.len();
        let started = Instant::now();
        let outcome = self.state.sink().append(dead_letters).await;
        self.state.metrics().append(&outcome, started.elapsed());
        if let Err(error) = outcome {
            self.state.metrics().dead_letters_lost(count);
            tracing::warn!(%error, count, "dead letters were lost");
        }
    }
}

fn nothing_valid(rejected: Vec<RejectedEvent>, too_large: bool, single: bool) -> Problem {
    let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
    let Some(first) = rejected.first() else { return Problem::new(status, "empty_batch", "there is no event") };
    let problem = Problem { field: first.field.clone(), ..Problem::new(status, first.reason, first.detail.clone()) };
    if single {
        return problem;
    }
    Problem { rejected, ..problem }
}
