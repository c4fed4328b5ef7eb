//! Pure: no I/O, no clock, no async.
//!
//! Windows: grains and calendars, the aggregate of a window, and the records that carry them.

mod aggregate;
mod calendar;
mod canonical;
mod key;
mod record;

pub use aggregate::{Aggregate, Overflow, Sample};
pub use calendar::{Calendar, CalendarError, Grain, Window};
pub use key::{parse_window_key, window_key};
pub use record::{Delta, Epoch, Partial, PartialHeader, WindowState, WindowUpsert};
