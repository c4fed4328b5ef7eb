//! Pure: no I/O, no clock, no async.
//!
//! Dead letters for what was refused. Their place is made of the body's own hash, so that a request that is repeated
//! leaves the same letters again, not more of them.

use neonhub_schemas::NewRecord;
use neonhub_schemas::dead_letter::{DeadLetter, MAX_ORIGINAL_BYTES};
use xxhash_rust::xxh3::xxh3_64;

use super::Sender;
use super::rejection::{EventRejection, Refusal};

/// Where dead letters of this crate say they were refused.
pub const STAGE: &str = "ingest";

/// Makes the dead letters of one request.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetters<'a> {
    sender: Sender<'a>,
    body: &'a [u8],
    request: u64,
}

impl<'a> DeadLetters<'a> {
    /// `body` is what the events were read from; its beginning is enough when it was too large to read.
    #[must_use]
    pub fn new(sender: Sender<'a>, body: &'a [u8]) -> Self {
        Self { sender, body, request: xxh3_64(body) }
    }

    /// For the request as a whole.
    #[must_use]
    pub fn whole(&self, refusal: &Refusal) -> NewRecord {
        let letter = self.blank(refusal.reason.code(), &refusal.detail, refusal.field.as_deref());
        DeadLetter { place: format!("{:016x}", self.request), ..letter }.with_original(self.body).to_record()
    }

    /// As [`Self::whole`], with only the first `bytes` of the original: for senders that are not known.
    #[must_use]
    pub fn excerpt(&self, refusal: &Refusal, bytes: usize) -> NewRecord {
        let letter = self.blank(refusal.reason.code(), &refusal.detail, refusal.field.as_deref());
        let kept = &self.body[..self.body.len().min(bytes.min(MAX_ORIGINAL_BYTES))];
        let mut letter = DeadLetter { place: format!("{:016x}", self.request), ..letter }.with_original(kept);
        letter.original_size = self.body.len() as u64;
        letter.to_record()
    }

    /// For one event of the request.
    #[must_use]
    pub fn event(&self, rejection: &EventRejection<'_>) -> NewRecord {
        let letter = self.blank(rejection.reason.code(), &rejection.detail, rejection.field.as_deref());
        let place = format!("{:016x}/{}", self.request, rejection.index);
        DeadLetter { place, ..letter }.with_original(rejection.original.as_bytes()).to_record()
    }

    fn blank(&self, reason: &str, detail: &str, field: Option<&str>) -> DeadLetter {
        DeadLetter {
            workspace: self.sender.workspace.to_owned(),
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            field: field.map(str::to_owned),
            stage: STAGE.to_owned(),
            received_at: self.sender.received_at_ms,
            ..DeadLetter::default()
        }
    }
}
