//! The metric stages by themselves, stepped by hand. (`cfg(test)` always holds here; by it clippy knows that these
//! modules may panic.)

#[cfg(test)]
mod bench_log;
#[cfg(test)]
mod landing;
#[cfg(test)]
mod merge;
#[cfg(test)]
mod partial;
