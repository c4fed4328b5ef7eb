//! The way to the broker cut off, and slow.

use std::time::Duration;

use super::Inflicted;
use crate::proxy::Way;
use crate::scene::Scene;

const DELAY: Duration = Duration::from_millis(100);

/// Longer than a session, in the long run longer than a transaction may stay open.
pub fn cut_off(scene: &mut Scene) -> Inflicted {
    let length = Duration::from_secs(if scene.plan.is_long() { 30 } else { 10 });
    on_the_way(scene, Way::Cut, length);
    Inflicted::until_now(format!("for {} s", length.as_secs()))
}

pub fn slow(scene: &mut Scene) -> Inflicted {
    let length = Duration::from_secs(if scene.plan.is_long() { 30 } else { 5 });
    on_the_way(scene, Way::Slow(DELAY), length);
    Inflicted::until_now(format!("{DELAY:?} each way for {} s", length.as_secs()))
}

fn on_the_way(scene: &Scene, way: Way, length: Duration) {
    let proxy = scene.proxy.as_ref().expect("there is a proxy before the broker");
    proxy.set(way);
    scene.let_pass(length);
    proxy.set(Way::Open);
}
