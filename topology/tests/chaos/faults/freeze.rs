//! SIGSTOP for longer than any session, then SIGCONT: a zombie that does not know that its place was taken. On the
//! embedded stack, where everything is one process, everything stands still.

use std::time::Duration;

use super::Inflicted;
use crate::scene::Scene;
use crate::stack::{Backbone, Role};

pub fn processors(scene: &mut Scene) -> Inflicted {
    let length = Duration::from_secs(if scene.plan.is_long() { 40 } else { 10 });
    match scene.stack.backbone {
        Backbone::Embedded => {
            scene.stack.freeze(Role::Up);
            scene.let_pass(length);
            scene.stack.thaw(Role::Up);
            Inflicted::until_now(format!("everything for {} s", length.as_secs()))
        }
        Backbone::Kafka => zombie(scene, length),
    }
}

/// Another process takes the partitions over; the frozen one goes on with what it had and must be fenced.
fn zombie(scene: &mut Scene, length: Duration) -> Inflicted {
    scene.stack.spawn(Role::SecondProcessors);
    scene.stack.wait_for(Role::SecondProcessors);
    scene.let_pass(Duration::from_secs(3));
    let fenced = scene.stack.log_lines_with(&FENCED);
    scene.stack.freeze(Role::Processors);
    scene.let_pass(length);
    scene.stack.thaw(Role::Processors);
    let inflicted_until = Inflicted::until_now("");
    scene.wait_until_lag_is_zero();
    let fenced = scene.stack.log_lines_with(&FENCED) - fenced;
    assert!(fenced > 0, "the zombie was not fenced");
    scene.stack.terminate(Role::SecondProcessors).unwrap();
    let detail = format!("processors for {} s, {fenced} workers fenced", length.as_secs());
    Inflicted { detail, ..inflicted_until }
}

/// What a worker says that was fenced.
const FENCED: [&str; 2] = ["worker begins again from what is committed", "fenced: "];
