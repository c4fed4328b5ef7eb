//! Pure: no I/O, no clock, no async.
//!
//! What `POST /v1/metrics/query` takes.

use neonhub_schemas::window::Grain;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The length of a row's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryGrain {
    Minute,
    /// A quarter of an hour.
    Quarter,
    /// From where the zone's clock reads hh:00.
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
    /// One row a group for all of `[from, to)`.
    Total,
}

impl QueryGrain {
    /// `None`: the total.
    #[must_use]
    pub fn windows(self) -> Option<Grain> {
        match self {
            Self::Minute => Some(Grain::Minute),
            Self::Quarter => Some(Grain::Quarter),
            Self::Hour => Some(Grain::Hour),
            Self::Day => Some(Grain::Day),
            Self::Week => Some(Grain::Week),
            Self::Month => Some(Grain::Month),
            Self::Total => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    PreviousPeriod,
}

/// How a dimension's value is compared. A value that an event did not have is the empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DimensionOperator {
    Eq,
    Ne,
    In,
    NotIn,
    Contains,
    Prefix,
    Exists,
    NotExists,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DimensionFilter {
    pub dimension: String,
    pub op: DimensionOperator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub value: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub values: Option<Vec<serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    #[default]
    Asc,
    Desc,
}

/// Rows without the number come last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// `window_start`, a dimension of `group_by`, or a metric.
    pub by: String,
    #[serde(default)]
    pub direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "metrics": ["impressions", "clicks", "ctr"], "grain": "day",
    "from": "2019-11-24T00:00:00Z", "to": "2019-12-01T00:00:00Z", "timezone": "Asia/Kathmandu",
    "group_by": ["campaign"], "filters": [{"dimension": "policy", "op": "in", "values": ["bts"]}],
    "compare": "previous_period"
}))]
pub struct MetricQuery {
    /// 1 to 20.
    pub metrics: Vec<String>,
    pub grain: QueryGrain,
    /// RFC 3339; included.
    pub from: String,
    /// RFC 3339; excluded.
    pub to: String,
    /// IANA name; the workspace's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    #[serde(default)]
    pub group_by: Vec<String>,
    /// All must hold.
    #[serde(default)]
    pub filters: Vec<DimensionFilter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// Rows for windows without any event too.
    #[serde(default)]
    pub fill: bool,
    #[serde(default)]
    pub order: Vec<Order>,
    /// Rows at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
