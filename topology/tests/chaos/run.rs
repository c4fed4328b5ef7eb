//! One run: load, faults in an order drawn from the seed until the time is over, and the count.

use std::time::{Duration, Instant};

use crate::faults::{self, Fault, Inflicted};
use crate::plan::Plan;
use crate::scene::Scene;
use crate::stack::Backbone;

/// From one fault to the next, if recovery is quicker.
const RHYTHM: Duration = Duration::from_secs(5);

pub fn run(backbone: Backbone) {
    let plan = Plan::from_environment();
    println!("\nchaos, {backbone:?}: seed {}, {:?}, {} events/s", plan.seed, plan.length, plan.events_per_second);
    let mut scene = Scene::set(backbone, plan);
    scene.let_pass(Duration::from_secs(2));
    scene.wait_until_lag_is_zero();
    let began = Instant::now();
    let mut deck = Vec::new();
    let (mut slowest, mut overdue) = (None::<(Duration, &str)>, Vec::new());
    while began.elapsed() < scene.plan.length {
        let fault = next(&mut deck, &mut scene, backbone);
        let fault_began = Instant::now();
        let recovery = inflict(&mut scene, fault, began);
        if slowest.is_none_or(|(longest, _)| recovery > longest) {
            slowest = Some((recovery, fault.name));
        }
        let limit = if fault.is_kill { scene.plan.kill_recovery_limit } else { scene.plan.recovery_limit };
        if recovery > limit {
            overdue.push(format!("{} took {recovery:?} to be recovered from, not {limit:?}", fault.name));
        }
        scene.let_pass(RHYTHM.saturating_sub(fault_began.elapsed()));
    }
    conclude(scene, slowest, began);
    assert!(overdue.is_empty(), "{overdue:?}");
}

/// Every fault has its turn before one comes again; between two others a role is killed.
fn next(deck: &mut Vec<Fault>, scene: &mut Scene, backbone: Backbone) -> Fault {
    if deck.is_empty() {
        let mut others = faults::of(backbone).to_vec();
        others.retain(|other| other.name.contains(&scene.plan.only));
        scene.dice.shuffle(&mut others);
        deck.extend(others.into_iter().flat_map(|other| [other, faults::KILL_A_ROLE]));
    }
    deck.pop().unwrap_or(faults::KILL_A_ROLE)
}

fn inflict(scene: &mut Scene, fault: Fault, began: Instant) -> Duration {
    let (turned_away, unanswered) = (scene.senders.turned_away(), scene.senders.unanswered());
    let at = began.elapsed();
    let Inflicted { detail, recovers_from } = (fault.inflict)(scene);
    let recovery = scene.wait_until_lag_is_zero() - recovers_from;
    println!(
        "{:6.1} s  {:<34} {detail:<44} lag zero after {:5.1} s  ({} acknowledged, {} answers of 503, {} none)",
        at.as_secs_f64(),
        fault.name,
        recovery.as_secs_f64(),
        scene.senders.acknowledged().total(),
        scene.senders.turned_away() - turned_away,
        scene.senders.unanswered() - unanswered,
    );
    recovery
}

/// Everything that was acknowledged is there once, and every window is a recount of it.
fn conclude(scene: Scene, slowest: Option<(Duration, &str)>, began: Instant) {
    let Scene { stack, client, senders, link, .. } = scene;
    let acknowledged = senders.finish().total();
    client.wait_for_at_least(acknowledged);
    let numbers = client.sql("SELECT count(), uniqExact(message_id) FROM events");
    let numbers: Vec<usize> = numbers.split('\t').map(|number| number.parse().unwrap()).collect();
    let (landed, distinct) = (numbers[0], numbers[1]);
    println!(
        "acknowledged {acknowledged}, landed {landed}: {} lost, {} doubled; {:.0} events/s over {:.0} s",
        acknowledged.saturating_sub(distinct),
        landed - distinct,
        acknowledged as f64 / began.elapsed().as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
    let audit_began = Instant::now();
    stack.assert_audit_clean();
    println!("audit: clean after {:.1} s", audit_began.elapsed().as_secs_f64());
    assert_eq!((landed, distinct), (acknowledged, acknowledged), "landed, and distinct among them");
    let (recovery, name) = slowest.unwrap_or_default();
    println!("slowest recovery: {:.1} s ({name})", recovery.as_secs_f64());
    drop(stack);
    drop(link);
}
