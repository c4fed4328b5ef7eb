//! The whole processing topology on the in-memory log under a virtual clock: the very workers of production, stepped by
//! a scheduler that crashes them, loses the answers of their commits, and lets others take their places.
//!
//! Each seed is one world. What comes out at its end is compared with plain loops over what was posted. A failing seed
//! says its number; `NEONHUB_SIM_SEED=n` runs just that one, `NEONHUB_SIM_SEEDS=n` so many.
//! (`cfg(test)` always holds here; by it clippy knows that these modules may panic.)

#[cfg(test)]
mod capped_replay;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod civil;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod observer;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod rng;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod world;

use faults::Sabotage;
use world::World;

const SEEDS: u64 = 200;
const EVENTS: usize = 160;

#[derive(Default)]
struct Totals {
    events: u64,
    retries: u64,
    crashes: u64,
    upserts: u64,
    evictions: u64,
}

fn run_seed(seed: u64, sabotage: Sabotage, totals: &mut Totals) -> Result<(), String> {
    let mut world = World::new(seed, sabotage);
    let outcome = world.run(EVENTS).and_then(|()| checks::check(&world));
    totals.events += world.traffic.counted.len() as u64;
    totals.retries += world.traffic.retries;
    totals.crashes += world.crashes;
    totals.upserts += world.observer.upserts;
    totals.evictions += world.observer.tombstones;
    outcome.map_err(|error| format!("seed {seed} {:?}: {error}", world.settings))
}

#[expect(clippy::disallowed_methods, reason = "a knob of this test, not a setting of NeonHub")]
fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Half of the seeds each, so that the two halves run side by side.
fn run_seeds(parity: u64) {
    let one = number_from_environment("NEONHUB_SIM_SEED");
    let count = number_from_environment("NEONHUB_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<u64> = one.map_or_else(|| (0..count).collect(), |seed| vec![seed]);
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    for seed in seeds.into_iter().filter(|seed| seed % 2 == parity) {
        failed.extend(run_seed(seed, Sabotage::None, &mut totals).err());
    }
    println!(
        "events {}, retries {}, crashes {}, upserts {}, evictions {}",
        totals.events, totals.retries, totals.crashes, totals.upserts, totals.evictions
    );
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
    assert!(
        one.is_some() || totals.crashes > 0 && totals.evictions > 0 && totals.retries > 0,
        "the times are too quiet"
    );
}

#[test]
fn windows_and_rows_are_exact_whatever_happens_even_seeds() {
    run_seeds(0);
}

#[test]
fn windows_and_rows_are_exact_whatever_happens_odd_seeds() {
    run_seeds(1);
}

/// The simulation would notice: a broken promise fails within a few seeds.
fn is_caught(sabotage: Sabotage) {
    let caught = (0..30).find_map(|seed| run_seed(seed, sabotage, &mut Totals::default()).err());
    assert!(caught.is_some(), "{sabotage:?} was not noticed in 30 seeds");
}

#[test]
fn forgotten_offsets_are_caught() {
    is_caught(Sabotage::OffsetsForgotten);
}

#[test]
fn offsets_committed_before_their_outputs_are_caught() {
    is_caught(Sabotage::OffsetsBeforeOutputs);
}

#[test]
fn offsets_committed_after_their_outputs_are_caught() {
    is_caught(Sabotage::OutputsBeforeOffsets);
}

#[test]
fn tables_without_tokens_are_caught() {
    is_caught(Sabotage::TokensIgnored);
}

#[test]
fn redelivered_records_are_caught() {
    is_caught(Sabotage::Redelivery);
}

#[test]
fn skipped_records_are_caught() {
    is_caught(Sabotage::RecordSkipped);
}
