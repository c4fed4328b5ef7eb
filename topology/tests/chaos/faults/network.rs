//! The way to the broker cut off, slow, and bad.

use std::time::Duration;

use super::Inflicted;
use crate::scene::Scene;
use crate::way::Way;

const DELAY: Duration = Duration::from_millis(100);

/// Longer than a session, in the long run longer than a transaction may stay open.
pub fn cut_off(scene: &mut Scene) -> Inflicted {
    let length = Duration::from_secs(if scene.plan.is_long() { 30 } else { 10 });
    let _ = on_the_way(scene, Way::Cut, length);
    Inflicted::until_now(format!("for {} s", length.as_secs()))
}

pub fn slow(scene: &mut Scene) -> Inflicted {
    let length = Duration::from_secs(if scene.plan.is_long() { 30 } else { 5 });
    let _ = on_the_way(scene, Way::Slow(DELAY), length);
    Inflicted::until_now(format!("{DELAY:?} each way for {} s", length.as_secs()))
}

/// Both ends send again what is lost, and wait longer each time.
pub fn lossy(scene: &mut Scene) -> Inflicted {
    let length = Duration::from_secs(if scene.plan.is_long() { 30 } else { 5 });
    if on_the_way(scene, Way::Lossy, length) {
        Inflicted::until_now(format!("for {} s", length.as_secs()))
    } else {
        Inflicted::until_now("LEFT OUT, a proxy knows no packets")
    }
}

/// Whether the way is such that it can be done.
fn on_the_way(scene: &Scene, way: Way, length: Duration) -> bool {
    let link = scene.link.as_ref().expect("there is a way to the broker");
    let is_done = link.set(way);
    if is_done {
        scene.let_pass(length);
    }
    link.set(Way::Open) && is_done
}
