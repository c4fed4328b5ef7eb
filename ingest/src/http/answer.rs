//! What a request that was at least partly accepted is told.

use serde::Serialize;
use utoipa::ToSchema;

use crate::accept::EventRejection;

/// Every accepted event is on the log, durably.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Accepted {
    #[schema(example = true)]
    pub success: bool,
    pub accepted: usize,
    /// Events that are not valid; they are in the dead letters.
    pub rejected: Vec<RejectedEvent>,
}

/// Why one event was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RejectedEvent {
    /// Its place in the batch.
    pub index: usize,
    /// A stable code.
    #[schema(value_type = String, example = "missing_field")]
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "batch[3].event")]
    pub field: Option<String>,
    pub detail: String,
}

impl RejectedEvent {
    pub(super) fn list(rejections: Vec<EventRejection<'_>>) -> Vec<Self> {
        let listed = rejections.into_iter().map(|rejection| Self {
            index: rejection.index,
            reason: rejection.reason.code(),
            field: rejection.field,
            detail: rejection.detail,
        });
        listed.collect()
    }
}
