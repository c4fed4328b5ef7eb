//! The whole topology — acceptance, refine, metrics, landing — on the log in memory under a virtual clock: the very workers
//! of production, stepped by a scheduler that crashes them, loses the answers of their calls, and lets others take their
//! places. A seed decides everything; what comes out is compared with plain loops over what was posted.
//!
//! | module | has |
//! |---|---|
//! | `plan`, `settings` | what a seed decides in advance, and how a failing plan is made short |
//! | `world` | the scheduler |
//! | `traffic`, `definitions` | requests, and words on `control` |
//! | `faults`, `tables`, `inserters` | ports and tables that fail as real ones do, inserts that take their time |
//! | `breaks` | promises broken on purpose |
//! | `observer`, `checks` | what must hold at every step, and at the end |
//! | `oracle`, `civil` | the recount, written apart from the stages |

pub mod breaks;
mod checks;
mod civil;
mod definitions;
mod event_time;
mod faults;
mod inserters;
mod observer;
mod oracle;
mod plan;
mod rng;
mod settings;
mod tables;
mod traces;
mod traffic;
mod world;

use breaks::Break;
use plan::Turn;
use world::World;

/// What happened in a world, or in several.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Totals {
    pub seeds: u64,
    pub events: u64,
    pub retries: u64,
    pub crashes: u64,
    pub upserts: u64,
    pub evictions: u64,
}

impl Totals {
    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.retries += other.retries;
        self.crashes += other.crashes;
        self.upserts += other.upserts;
        self.evictions += other.evictions;
    }
}

/// A world in which something did not hold.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Failure {
    pub seed: u64,
    pub detail: String,
    /// Turns of the plan that is left after shrinking.
    pub turns: usize,
    pub trace: Vec<String>,
}

fn play(seed: u64, broken: Option<Break>, plan: &[Turn], is_traced: bool) -> (Result<Totals, String>, Vec<String>) {
    let mut world = match World::new(seed, broken, is_traced) {
        Ok(world) => world,
        Err(error) => return (Err(error), Vec::new()),
    };
    let outcome = world.play(plan).and_then(|()| checks::check(&world));
    let totals = Totals {
        seeds: 1,
        events: world.traffic.counted.len() as u64,
        retries: world.traffic.retries,
        crashes: world.crashes,
        upserts: world.observer.upserts,
        evictions: world.observer.tombstones,
    };
    let settings = world.settings;
    (outcome.map(|()| totals).map_err(|error| format!("{settings:?}: {error}")), world.into_trace())
}

/// Plays the world of a seed.
///
/// # Errors
/// What does not hold.
pub fn run(seed: u64, broken: Option<Break>) -> Result<Totals, String> {
    play(seed, broken, &plan::of(seed), false).0
}

/// What a complaint is about: its words, without the names, places and numbers of this one.
fn kind_of(detail: &str) -> Vec<String> {
    let (_settings, said) = detail.split_once("}: ").unwrap_or(("", detail));
    let words =
        said.split_whitespace().filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b','));
    words.take(4).map(str::to_owned).collect()
}

/// Makes the failing plan of a seed as short as `tries` plays can.
#[must_use]
pub fn shrink(seed: u64, broken: Option<Break>, tries: usize) -> Option<Failure> {
    let complaint = |plan: &[Turn]| play(seed, broken, plan, false).0.err().map(|detail| kind_of(&detail));
    let whole = plan::of(seed);
    let of_whole = complaint(&whole)?;
    // Another fault of a shorter plan is not this one.
    let fails = |plan: &[Turn]| complaint(plan).as_ref() == Some(&of_whole);
    let settled = |plan: &[Turn]| plan.iter().copied().chain([Turn::Settle]).collect::<Vec<_>>();
    let short = plan::shrink(whole, tries, |plan| fails(&settled(plan)));
    let (outcome, trace) = play(seed, broken, &settled(&short), true);
    let (outcome, trace, turns) = match outcome {
        Ok(_) => {
            // Whatever the end adds hides it: the plan as it was.
            let whole = plan::of(seed);
            let (outcome, trace) = play(seed, broken, &whole, true);
            (outcome, trace, whole.len())
        }
        failed => (failed, trace, short.len()),
    };
    Some(Failure { seed, detail: outcome.err()?, turns, trace })
}
