//! One, three, one: two processes of processors more, and away again, one of them by kill -9. On the embedded stack the
//! process is ended and started again with three workers of each processor, and back.

use std::time::Duration;

use super::Inflicted;
use crate::scene::Scene;
use crate::stack::{Backbone, Role};

const LIFE: Duration = Duration::from_secs(3);

pub fn out_and_in(scene: &mut Scene) -> Inflicted {
    match scene.stack.backbone {
        Backbone::Embedded => {
            for workers in ["3", "1"] {
                scene.stack.set("NEONHUB_WORKERS", workers);
                scene.stack.terminate(Role::Up).unwrap();
                scene.stack.spawn(Role::Up);
                scene.stack.wait_until_ready();
                scene.let_pass(LIFE);
            }
        }
        Backbone::Kafka => {
            for role in [Role::SecondProcessors, Role::ThirdProcessors] {
                scene.stack.spawn(role);
            }
            for role in [Role::SecondProcessors, Role::ThirdProcessors] {
                scene.stack.wait_for(role);
            }
            scene.let_pass(LIFE);
            scene.stack.terminate(Role::SecondProcessors).unwrap();
            scene.let_pass(LIFE);
            scene.stack.kill(Role::ThirdProcessors);
        }
    }
    Inflicted::until_now("")
}
