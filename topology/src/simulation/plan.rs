//! Pure: no I/O, no clock, no async.
//!
//! What a seed decides in advance. Each turn has a seed of its own, so that a plan with turns left out plays the others as
//! they were: that is how a failing plan is made short.

use super::rng::Rng;

const MINUTE_MS: i64 = 60_000;

/// How many turns of busy times bring requests.
pub const POSTS_PER_MILLE: u64 = 150;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Somebody works, something may go wrong, and requests may come.
    Busy(u64),
    /// The same without requests.
    Idle(u64),
    /// Nothing goes wrong until everything is done.
    Settle,
    /// Time goes by with nobody at work.
    Jump(i64),
}

/// Troubled times, then quiet ones, a few times over.
#[must_use]
pub fn of(seed: u64) -> Vec<Turn> {
    let mut rng = Rng::new(seed ^ 0x0070_1a11);
    let phases = rng.between(2, 3);
    let mut turns = Vec::new();
    for phase in 1..=phases {
        turns.extend((0..rng.between(150, 450) / phases).map(|_| Turn::Busy(rng.next())));
        turns.extend((0..rng.below(60)).map(|_| Turn::Idle(rng.next())));
        turns.push(Turn::Settle);
        if phase < phases {
            turns.push(Turn::Jump(*rng.pick(&[1, 20, 90, 300, 30 * 60, 8 * 24 * 60]) * MINUTE_MS));
        }
    }
    turns
}

/// Leaves out turns as long as `fails` says that the rest still fails (Zeller and Hildebrandt, "Simplifying and Isolating
/// Failure-Inducing Input", 2002, without its search for complements); at most `tries` plays.
pub fn shrink(plan: Vec<Turn>, tries: usize, mut fails: impl FnMut(&[Turn]) -> bool) -> Vec<Turn> {
    let (mut plan, mut length, mut left) = (plan.clone(), plan.len().div_ceil(2), tries);
    while length > 0 && left > 0 {
        let mut start = 0;
        let before = plan.len();
        while start < plan.len() && left > 0 {
            let end = (start + length).min(plan.len());
            let without: Vec<Turn> = plan[..start].iter().chain(&plan[end..]).copied().collect();
            left -= 1;
            if fails(&without) {
                plan = without;
            } else {
                start = end;
            }
        }
        if length > 1 || plan.len() == before {
            length /= 2;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_plan_each_time_and_ends_settled() {
        for seed in 0..50 {
            let plan = of(seed);
            assert_eq!(plan, of(seed));
            assert_eq!(plan.last(), Some(&Turn::Settle));
        }
    }

    #[test]
    fn shrinking_keeps_what_the_failure_needs() {
        let plan: Vec<Turn> = (0..300).map(Turn::Busy).collect();
        let needed = [Turn::Busy(17), Turn::Busy(211)];
        let short = shrink(plan, 1_000, |plan| needed.iter().all(|turn| plan.contains(turn)));
        assert_eq!(short, needed);
    }
}
