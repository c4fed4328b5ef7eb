//! What must hold for whatever the log finds on its disk.

pub mod integrity;
pub mod journals;
pub mod records;
pub mod recovery;
