//! What must hold for whatever the local state has of windows.

pub(crate) mod records;
pub(crate) mod state;
