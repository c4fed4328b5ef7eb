//! The stages, the worker and the landing by themselves, stepped by hand. (`cfg(test)` always holds here; by it clippy
//! knows that these modules may panic.)

#[cfg(test)]
mod bench_log;
#[cfg(test)]
mod fake_ports;
#[cfg(test)]
mod landing;
#[cfg(test)]
mod landing_clickhouse;
#[cfg(test)]
mod landing_flow;
#[cfg(test)]
mod landing_rows;
#[cfg(test)]
mod landing_sizes;
#[cfg(test)]
mod landing_turns;
#[cfg(test)]
mod merge;
#[cfg(test)]
mod merge_rules;
#[cfg(test)]
mod partial;
#[cfg(test)]
mod partial_rules;
#[cfg(test)]
mod refine;
#[cfg(test)]
mod saved_windows;
#[cfg(test)]
mod spilled_refine;
#[cfg(test)]
mod spilled_windows;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod worker;
