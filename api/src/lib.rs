#![doc = include_str!("../README.md")]

pub mod administration;
pub mod auth;
pub mod cache;
pub mod catalog;
pub mod config;
pub mod control;
pub mod definitions;
pub mod events;
pub mod extract;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod keys;
pub mod olap;
pub mod problem;
pub mod query;
pub mod routes;
pub mod state;
pub mod store;
pub mod telemetry;

pub use config::{ApiConfig, ApiKey, Origins};
pub use routes::{router, serve};
pub use state::{ApiState, Clock, Elapsed, Parts};
