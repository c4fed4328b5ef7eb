//! What must hold for whatever the log finds on its disk.

pub mod records;
pub mod recovery;
