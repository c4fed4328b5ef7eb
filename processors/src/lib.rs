#![doc = include_str!("../README.md")]

pub mod engine;
pub mod landing;
pub mod metrics;
pub mod refine;
