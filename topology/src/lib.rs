#![doc = include_str!("../README.md")]

pub mod bench;
pub mod clients;
pub mod clock;
pub mod commands;
pub mod embedded;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod graph;
pub mod roles;
pub mod serving;
pub mod settings;
pub mod simulation;
pub mod telemetry;
