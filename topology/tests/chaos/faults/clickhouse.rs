//! The ClickHouse process killed while inserts flow, a few times in a row.

use std::process::Command;
use std::time::{Duration, Instant};

use super::Inflicted;
use crate::scene::Scene;
use crate::stack::{Backbone, Role};

const TIMES: u32 = 3;
/// A little life in between, so that inserts begin.
const LIFE: Duration = Duration::from_millis(700);

pub fn killed_amid_inserts(scene: &mut Scene) -> Inflicted {
    let mut killed_at = Instant::now();
    for _ in 0..TIMES {
        wait_for_inserts(scene);
        killed_at = Instant::now();
        match scene.stack.backbone {
            Backbone::Embedded => kill_supervised(scene),
            Backbone::Kafka => {
                scene.stack.kill(Role::Olap);
                scene.stack.spawn(Role::Olap);
            }
        }
    }
    Inflicted { detail: format!("{TIMES} times"), recovers_from: killed_at }
}

fn wait_for_inserts(scene: &mut Scene) {
    if scene.stack.backbone == Backbone::Kafka {
        scene.stack.wait_for(Role::Olap);
    }
    scene.wait_for_sql("SELECT 1");
    scene.let_pass(LIFE);
}

/// `neonhub up` starts it again.
fn kill_supervised(scene: &Scene) {
    for process in scene.stack.supervised_olap_processes() {
        let killed = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        assert!(killed.is_ok());
    }
}
