//! Pure: no I/O but through the local state, no clock, no async.
//!
//! Metric windows in two stages, so that hot keys and scaling are no problem: [`MetricsPartial`] combines the events of any
//! partition by metric key and minute; [`MetricsMerge`] owns each window, adds the deltas up in every grain, and puts
//! the windows out with revisions.

mod definitions;
mod deltas;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keys;
mod merge;
mod merge_windows;
mod partial;
mod stored;
mod table;
mod watermark;
mod windows;

pub use merge::{MergeConfig, MergeTask, MetricsMerge};
pub use partial::{MetricsPartial, PartialConfig, PartialTask};
