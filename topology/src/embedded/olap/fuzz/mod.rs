//! What must hold for whatever is sent to the ClickHouse front, up to the engine's own door.

pub mod bodies;
pub mod requests;
pub mod statements;
