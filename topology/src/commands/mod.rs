//! What the binary does when it is not a role.

pub mod audit;
pub mod backup;
pub mod demo;
pub mod demonstration;
pub mod doctor;
pub mod keys;
pub mod replay;
pub mod simulate;
pub mod status;
