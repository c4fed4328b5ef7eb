//! Pure: no I/O, no clock, no async.
//!
//! The event: three families, one envelope.

pub(crate) mod canonical;
mod envelope;
mod fields;
mod kind;

pub use envelope::{DecodeError, Envelope, SCHEMA_VERSION};
pub use fields::{Extracted, FieldPath, FieldPathError, FieldSet, FieldValue};
pub use kind::{Kind, Source};
