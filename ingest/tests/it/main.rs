//! Requests against the whole face of ingest, with the sink in memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod answers;
mod bad_input;
mod bodies;
mod browsers;
mod house;
mod managed_keys;
mod overload;
mod properties;
mod shutdown;
mod traces;
mod webhooks;
