//! kill -9 of a random role, which is started again at once.

use std::time::{Duration, Instant};

use super::Inflicted;
use crate::scene::Scene;
use crate::stack::Role;

pub fn a_role(scene: &mut Scene) -> Inflicted {
    let killed_at = Instant::now();
    let role = kill_one(scene);
    scene.stack.wait_for(role);
    Inflicted {
        detail: format!("{role:?}, ready again after {:.1} s", killed_at.elapsed().as_secs_f64()),
        recovers_from: killed_at,
    }
}

/// Whether the last one is recovered from or not.
pub fn roles_in_a_row(scene: &mut Scene) -> Inflicted {
    let mut roles = Vec::new();
    let mut killed_at = Instant::now();
    for round in 0..if scene.plan.is_long() { 6 } else { 2 } {
        if round > 0 {
            scene.let_pass(Duration::from_secs(5).saturating_sub(killed_at.elapsed()));
        }
        killed_at = Instant::now();
        roles.push(format!("{:?}", kill_one(scene)));
    }
    scene.stack.wait_until_ready();
    Inflicted { detail: roles.join(", "), recovers_from: killed_at }
}

fn kill_one(scene: &mut Scene) -> Role {
    let role = scene.dice.pick(scene.stack.roles());
    scene.stack.kill(role);
    scene.stack.spawn(role);
    role
}
