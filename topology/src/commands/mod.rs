//! What the binary does when it is not a role.

pub mod audit;
