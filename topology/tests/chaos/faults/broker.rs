//! The broker restarted in an orderly way, and killed.

use std::time::{Duration, Instant};

use super::Inflicted;
use crate::scene::Scene;

pub fn restarted(scene: &mut Scene) -> Inflicted {
    let began = Instant::now();
    scene.stack.kafka().stop();
    come_back(scene, began)
}

pub fn killed(scene: &mut Scene) -> Inflicted {
    let began = Instant::now();
    scene.stack.kafka().kill();
    scene.let_pass(Duration::from_secs(2));
    come_back(scene, began)
}

fn come_back(scene: &mut Scene, began: Instant) -> Inflicted {
    scene.stack.kafka().restart().unwrap();
    Inflicted::until_now(format!("away for {:.1} s", began.elapsed().as_secs_f64()))
}
