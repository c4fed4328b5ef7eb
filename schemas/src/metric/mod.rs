//! Pure: no I/O, no clock, no async.
//!
//! Metrics: definitions, the built-in ones, expressions over them, and the program that evaluates them on events.

mod aggregation;
mod builtin;
mod condition;
mod definition;
mod expression;
mod key;
mod program;

pub use aggregation::{Aggregation, Number};
pub use builtin::built_in;
pub use condition::{Condition, Operator};
pub use definition::{Definition, DefinitionError, DefinitionText, EventMetric, check_metric_name};
pub use expression::{Expression, ExpressionError};
pub use key::{MetricKey, OTHER};
pub use program::{Hit, Program, ProgramMetric};
