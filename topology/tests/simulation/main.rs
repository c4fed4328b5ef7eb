//! The simulation of the topology over many seeds, and over promises broken on purpose, which it has to notice. A failing
//! seed says its number; `neonhub simulate --from N --seeds 1` plays it again and makes it short.
//! (`cfg(test)` always holds here; by it clippy knows that these modules may panic.)

#[cfg(test)]
mod capped_replay;
#[cfg(test)]
mod handover;

use neonhub_topology::simulation::breaks::Break;
use neonhub_topology::simulation::{self, Totals};

const SEEDS: u64 = 2_000;

#[expect(clippy::disallowed_methods, reason = "a knob of this test, not a setting of NeonHub")]
fn seeds() -> u64 {
    std::env::var("NEONHUB_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// Half of the seeds each, so that the two halves run side by side.
fn run_seeds(parity: u64) {
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    for seed in (0..seeds()).filter(|seed| seed % 2 == parity) {
        match simulation::run(seed, None) {
            Ok(one) => totals.add(one),
            Err(error) => failed.push(format!("seed {seed}: {error}")),
        }
    }
    println!("{totals:?}");
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
    assert!(totals.crashes > 0 && totals.evictions > 0 && totals.retries > 0, "the times are too quiet: {totals:?}");
}

#[test]
fn windows_and_rows_are_exact_whatever_happens_even_seeds() {
    run_seeds(0);
}

#[test]
fn windows_and_rows_are_exact_whatever_happens_odd_seeds() {
    run_seeds(1);
}

/// The seed that notices each break.
fn catch(parity: usize) {
    let mut unnoticed = Vec::new();
    for broken in Break::ALL.iter().skip(parity).step_by(2) {
        match (0..SEEDS).find(|seed| simulation::run(*seed, Some(*broken)).is_err()) {
            Some(seed) => println!("{broken:?} is noticed by seed {seed}"),
            None => unnoticed.push(broken),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed in {SEEDS} seeds: {unnoticed:?}");
}

#[test]
fn every_second_break_is_noticed() {
    catch(0);
}

#[test]
fn every_other_break_is_noticed() {
    catch(1);
}

#[test]
fn a_failing_seed_is_made_short_and_fails_the_same_way_again() {
    let broken = Some(Break::OutputLost);
    let seed = (0..SEEDS).find(|seed| simulation::run(*seed, broken).is_err()).unwrap();
    let first = simulation::shrink(seed, broken, 60).unwrap();
    let second = simulation::shrink(seed, broken, 60).unwrap();
    assert_eq!((&first.detail, &first.trace), (&second.detail, &second.trace));
    assert!(first.turns < 100 && !first.trace.is_empty(), "{} turns are left", first.turns);
}
