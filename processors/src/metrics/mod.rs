//! Pure: no I/O, no clock, no async.
//!
//! Metric windows in two stages, so that hot keys and scaling are no problem: [`MetricsPartial`] combines the events of any
//! partition by metric key and minute; [`MetricsMerge`] owns each window, adds the deltas up in every grain, and puts
//! the windows out with revisions.

mod definitions;
mod deltas;
mod merge;
mod merge_windows;
mod partial;
mod table;
mod watermark;

pub use merge::{MergeConfig, MergeTask, MetricsMerge};
pub use partial::{MetricsPartial, PartialConfig, PartialTask};
