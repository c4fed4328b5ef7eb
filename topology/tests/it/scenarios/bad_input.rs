//! Scenario.

use crate::stack::{Backbone, Stack};

pub fn run(backbone: Backbone) {
    drop(Stack::start(backbone));
}
