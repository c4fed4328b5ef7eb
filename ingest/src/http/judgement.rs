//! What is to be done with a request whose body is here: decided at once, so that nothing of the request but its records
//! outlives the decision while the log is waited for.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use neonhub_schemas::{Envelope, NewRecord, Source};

use super::answer::{Accepted, RejectedEvent};
use super::body::BodyError;
use super::door::{Door, source_of};
use super::keys::{KnownKey, NotYet, stated_in_head};
use super::pixel;
use super::problem::Problem;
use super::quota::Verdict;
use super::state::IngestState;
use super::webhooks;
use crate::accept::{Acceptance, Body, DeadLetters, Reason, Refusal, Route, Sender, accept_body};

/// Bytes of a stranger's request that are kept in its dead letter.
const STRANGERS_EXCERPT: usize = 1_024;

pub(super) enum Judgement {
    /// The records go to the log, and when they are there the sender is told so.
    Append { records: Vec<NewRecord>, source: Source, answer: Accepted },
    /// The sender is told what is wrong, whatever becomes of the dead letters.
    Refuse { problem: Box<Problem>, dead_letters: Vec<NewRecord> },
}

impl From<Box<Problem>> for Judgement {
    fn from(problem: Box<Problem>) -> Self {
        Self::Refuse { problem, dead_letters: Vec::new() }
    }
}

/// One request's share in the state, and its time.
pub(super) struct Judge<'a> {
    pub(super) state: &'a IngestState,
    pub(super) received_at_ms: i64,
    /// What a quota said, and whose it is; the answer tells.
    pub(super) quota: Option<(Arc<KnownKey>, Verdict)>,
}

impl<'a> Judge<'a> {
    pub(super) fn judge(&mut self, door: &Door, head: &Parts, body: Result<&[u8], BodyError>) -> Judgement {
        if let Door::Webhook { platform } = door {
            return webhooks::judge(self, platform, &head.headers, body);
        }
        let stated_key = stated_in_head(&head.headers, head.uri.query());
        let known_key = match stated_key.as_deref().map(|stated| self.state.keys().find(stated)).transpose() {
            Ok(found) => found.flatten(),
            Err(NotYet) => return not_yet(),
        };
        let known_key = known_key.as_ref();
        let bytes = match body {
            Ok(bytes) => bytes,
            Err(BodyError::Problem(problem)) => return problem.into(),
            Err(BodyError::Refused { refusal, beginning }) => return self.refuse(known_key, &refusal, &beginning),
        };
        let is_stranger = stated_key.is_some() && known_key.is_none();
        let Some(route) = door.route() else {
            let query = head.uri.query().unwrap_or_default();
            return match pixel::read(query, head.uri.path()) {
                Ok(call) => self.judge_plain(call.route(), &call.body, known_key, is_stranger),
                Err(refusal) => self.refuse(known_key, &refusal, query.as_bytes()),
            };
        };
        self.judge_plain(route, bytes, known_key, is_stranger)
    }

    fn judge_plain(
        &mut self,
        route: Route<'_>,
        bytes: &[u8],
        known_key: Option<&Arc<KnownKey>>,
        is_stranger: bool,
    ) -> Judgement {
        self.state.metrics().plain_bytes(bytes.len());
        if is_stranger {
            return self.turn_away(bytes);
        }
        // It outlives the body, whose events name its workspace.
        let key_in_body;
        let parsed = match Body::parse(route, bytes) {
            Ok(parsed) => parsed,
            Err(refusal) => return self.refuse(known_key, &refusal, bytes),
        };
        if let Some(key) = known_key {
            return self.accept(route, &parsed, key, bytes);
        }
        match parsed.write_key().map(|stated| self.state.keys().find(&stated)).transpose() {
            Ok(found) => key_in_body = found.flatten(),
            Err(NotYet) => return not_yet(),
        }
        match &key_in_body {
            Some(key) => self.accept(route, &parsed, key, bytes),
            None => self.turn_away(bytes),
        }
    }

    /// The events of a known sender, as far as its quota goes.
    pub(super) fn accept<'b>(
        &mut self,
        route: Route<'b>,
        parsed: &Body<'b>,
        key: &'b Arc<KnownKey>,
        bytes: &[u8],
    ) -> Judgement {
        if let Err(problem) = self.take_quota(key, parsed.event_count()) {
            return problem.into();
        }
        let sender = Sender { workspace: &key.workspace, received_at_ms: self.received_at_ms };
        let random = &mut || self.state.random();
        let Acceptance { events, rejections } = match accept_body(route, parsed, sender, self.state.limits(), random) {
            Ok(acceptance) => acceptance,
            Err(refusal) => return self.refuse(Some(key), &refusal, bytes),
        };
        let source = source_of(route);
        let mut records: Vec<NewRecord> = Vec::with_capacity(events.len() + rejections.len());
        records.extend(events.iter().map(Envelope::to_raw_record));
        if !rejections.is_empty() {
            let letters = DeadLetters::new(sender, bytes);
            records.extend(rejections.iter().map(|rejection| letters.event(rejection)));
            for rejection in &rejections {
                self.state.metrics().rejected(source, rejection.reason);
            }
        }
        if events.is_empty() {
            let too_large = rejections.iter().all(|rejection| rejection.reason.is_size());
            let problem = nothing_valid(RejectedEvent::list(rejections), too_large, parsed.is_single());
            return Judgement::Refuse { problem: Box::new(problem), dead_letters: records };
        }
        let answer = Accepted { success: true, accepted: events.len(), rejected: RejectedEvent::list(rejections) };
        Judgement::Append { records, source, answer }
    }

    fn take_quota(&mut self, key: &Arc<KnownKey>, events: usize) -> Result<(), Box<Problem>> {
        // More than the limit is refused anyway, and says so better.
        let events = events.min(self.state.limits().max_batch_events);
        let verdict = key.quota.take(events);
        self.quota = Some((Arc::clone(key), verdict));
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

    /// The whole request is bad. A sender that is not known learns only that.
    pub(super) fn refuse(&self, key: Option<&Arc<KnownKey>>, refusal: &Refusal, original: &[u8]) -> Judgement {
        let Some(key) = key else {
            let turned_away = self.turn_away(original);
            // Too large is too large, whoever asks.
            let own = Problem::refused(refusal);
            return match turned_away {
                Judgement::Refuse { dead_letters, .. } if own.status == StatusCode::PAYLOAD_TOO_LARGE => {
                    Judgement::Refuse { problem: Box::new(own), dead_letters }
                }
                turned_away => turned_away,
            };
        };
        self.state.metrics().refused(refusal.reason);
        let sender = Sender { workspace: &key.workspace, received_at_ms: self.received_at_ms };
        let dead_letters = vec![DeadLetters::new(sender, original).whole(refusal)];
        Judgement::Refuse { problem: Box::new(Problem::refused(refusal)), dead_letters }
    }

    fn turn_away(&self, original: &[u8]) -> Judgement {
        let detail = "state a known write key: as user of Basic authentication, or as writeKey in query or body";
        let refusal = Refusal::new(Reason::UnknownWriteKey, detail).at("writeKey");
        self.refuse_stranger(&refusal, original)
    }

    /// The whole request is bad, and nobody knows whose it is.
    pub(super) fn refuse_stranger(&self, refusal: &Refusal, original: &[u8]) -> Judgement {
        self.state.metrics().refused(refusal.reason);
        let mut dead_letters = Vec::new();
        if self.state.strangers().allows() {
            let sender = Sender { workspace: "", received_at_ms: self.received_at_ms };
            dead_letters.push(DeadLetters::new(sender, original).excerpt(refusal, STRANGERS_EXCERPT));
        }
        Judgement::Refuse { problem: Box::new(Problem::refused(refusal)), dead_letters }
    }
}

/// Not 401: SDKs drop what is answered so.
fn not_yet() -> Judgement {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "keys_not_read", "write keys are still being read");
    Judgement::from(Box::new(Problem { retry_after: Some(Duration::from_secs(1)), ..problem }))
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
