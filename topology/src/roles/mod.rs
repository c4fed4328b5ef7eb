//! Roles: what a process does. Each is started with its settings and stopped with a [`Stop`].

pub mod access;
pub mod api;
pub mod ingest;
pub mod olap;
mod posts;
pub mod processors;
pub mod stop;
pub mod up;

pub use stop::Stop;
