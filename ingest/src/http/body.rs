//! Reading a body within bounds: its own, and those of all bodies together.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use neonhub_schemas::dead_letter::MAX_ORIGINAL_BYTES;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::decompress::{DecompressError, decompress, encodings};
use super::problem::Problem;
use super::state::IngestState;
use crate::accept::{Reason, Refusal};

/// Bytes beyond what is wanted that are read all the same, so that the sender hears why they are not.
const MOST_LET_GO: usize = 4 * 1024 * 1024;

/// How many times what has come of a body is allocated for it, at most, until all that was stated is.
const MOST_AHEAD: usize = 4;

/// Of a request's time that reading may take: the rest is for the log, and for the answer.
const READING_SHARE: f32 = 0.9;

/// A body in plain text; its place among the bytes in flight is free again when it is dropped.
pub(super) struct PlainBody {
    pub(super) bytes: Vec<u8>,
    pub(super) reserved: Reserved,
}

impl PlainBody {
    /// Of a request that needs none.
    pub(super) fn none() -> Self {
        Self { bytes: Vec::new(), reserved: Reserved::default() }
    }
}

/// Bytes in flight; none for an empty body.
#[derive(Default)]
pub(super) struct Reserved(Option<OwnedSemaphorePermit>);

impl Reserved {
    fn add(&mut self, state: &IngestState, bytes: usize) -> Result<(), BodyError> {
        let more = reserve(state, bytes)?;
        match &mut self.0 {
            Some(reserved) => reserved.merge(more),
            None => self.0 = Some(more),
        }
        Ok(())
    }
}

/// Why there is no body.
pub(super) enum BodyError {
    /// The sender's fault: `beginning` is what was read until then.
    Refused {
        refusal: Refusal,
        beginning: Vec<u8>,
    },
    Problem(Box<Problem>),
}

pub(super) async fn read_body(state: &IngestState, headers: &HeaderMap, body: Body) -> Result<PlainBody, BodyError> {
    let cap = state.limits().max_body_bytes;
    let applied = encodings(headers).map_err(|name| {
        let detail = format!("Content-Encoding `{name}`: use gzip, deflate, br or zstd");
        BodyError::Problem(Box::new(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)))
    })?;
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    if stated.is_some_and(|length: usize| length > cap) {
        let _reserved = reserve(state, MAX_ORIGINAL_BYTES)?;
        let mut beginning = BytesMut::new();
        read_rest(body, &mut beginning).await;
        return Err(too_large(cap, "", beginning.into()));
    }
    let time = state.limits().request_timeout.mul_f32(READING_SHARE);
    let Wire { bytes: wire, mut reserved } = match timeout(time, read_wire(state, body, cap, stated.unwrap_or(0))).await
    {
        Ok(read) => read?,
        Err(_) => return Err(too_slow()),
    };
    state.metrics().wire_bytes(wire.len());
    if applied.is_empty() {
        return Ok(PlainBody { bytes: wire, reserved });
    }
    reserved.add(state, cap)?;
    match decompress(&wire, &applied, cap) {
        Ok(bytes) => Ok(PlainBody { bytes, reserved }),
        Err(DecompressError::TooLarge(beginning)) => Err(too_large(cap, " after decompression", beginning)),
        Err(DecompressError::Corrupt(detail)) => {
            let detail = format!("the body is not what its Content-Encoding says: {detail}");
            let refusal = Refusal::new(Reason::InvalidEncoding, detail).at("body");
            Err(BodyError::Refused { refusal, beginning: wire })
        }
    }
}

fn reserve(state: &IngestState, bytes: usize) -> Result<OwnedSemaphorePermit, BodyError> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    state.bytes_in_flight().clone().try_acquire_many_owned(permits).map_err(|_| overloaded())
}

fn overloaded() -> BodyError {
    let detail = "too many requests are being worked on";
    BodyError::Problem(Box::new(Problem::unavailable("overloaded", detail, Duration::from_secs(1))))
}

/// A body as it was sent.
struct Wire {
    bytes: Vec<u8>,
    reserved: Reserved,
}

/// Reserves what has come, and not what was stated: who states much and sends nothing takes nothing from the others.
async fn read_wire(state: &IngestState, mut body: Body, cap: usize, stated: usize) -> Result<Wire, BodyError> {
    if state.bytes_in_flight().available_permits() < stated {
        return Err(overloaded());
    }
    let mut reserved = Reserved::default();
    let mut wire = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| if is_overdue(&error) { too_slow() } else { broken_off(&error) })?;
        let Ok(data) = frame.into_data() else { continue };
        reserved.add(state, data.len())?;
        if wire.len() + data.len() > cap {
            wire.extend_from_slice(&data[..cap - wire.len()]);
            read_rest(body, &mut wire).await;
            return Err(too_large(cap, "", wire.into()));
        }
        let wanted = stated.min(MOST_AHEAD * (wire.len() + data.len()));
        wire.reserve(wanted.saturating_sub(wire.len()).max(data.len()));
        wire.extend_from_slice(&data);
    }
    Ok(Wire { bytes: wire.into(), reserved })
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

fn too_slow() -> BodyError {
    let detail = "the body came too slowly; the request may be sent again with the same messageIds";
    BodyError::Problem(Box::new(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)))
}

/// Nothing to keep and hardly anybody to tell: the connection is gone.
fn broken_off(error: &axum::Error) -> BodyError {
    let detail = format!("the body broke off: {error}");
    BodyError::Problem(Box::new(Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)))
}

/// Reads on in a body that is too large, for a client that is still sending would find the connection broken and not the
/// answer. Fills `beginning` up to what a dead letter keeps, and lets the rest go.
async fn read_rest(mut body: Body, beginning: &mut BytesMut) {
    let mut let_go = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        let kept = data.len().min(MAX_ORIGINAL_BYTES.saturating_sub(beginning.len()));
        beginning.extend_from_slice(&data[..kept]);
        let_go += data.len() - kept;
        if let_go > MOST_LET_GO {
            return;
        }
    }
}

fn too_large(cap: usize, when: &str, beginning: Vec<u8>) -> BodyError {
    let detail = format!("the body is larger than {cap} bytes{when}");
    BodyError::Refused { refusal: Refusal::new(Reason::BodyTooLarge, detail).at("body"), beginning }
}
