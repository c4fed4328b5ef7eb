#![doc = include_str!("../README.md")]

pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod landing;
pub mod metrics;
pub mod refine;
