//! How long, how fast, and in which order: read from the environment, the order drawn from a seed that is printed.

use std::time::Duration;

/// The load and the lengths of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    pub events_per_second: u32,
    /// The longest that any fault may take to be recovered from, and a kill.
    pub recovery_limit: Duration,
    pub kill_recovery_limit: Duration,
    /// Only faults with this in their name, to look into one.
    pub only: String,
    /// `netem`, `tun` or `proxy`: what the way to the broker leads through; empty: the best that there is.
    pub way: String,
}

impl Plan {
    pub fn from_environment() -> Self {
        let minutes: f64 = knob("NEONHUB_CHAOS_MINUTES").unwrap_or(1.0);
        Self {
            seed: knob("NEONHUB_CHAOS_SEED").unwrap_or_else(any_seed),
            length: Duration::from_secs_f64(minutes * 60.0),
            events_per_second: knob("NEONHUB_CHAOS_RATE").unwrap_or(1_000),
            recovery_limit: Duration::from_secs(knob("NEONHUB_CHAOS_RECOVERY_LIMIT_SECONDS").unwrap_or(120)),
            kill_recovery_limit: Duration::from_secs(knob("NEONHUB_CHAOS_KILL_RECOVERY_LIMIT_SECONDS").unwrap_or(120)),
            only: knob("NEONHUB_CHAOS_ONLY").unwrap_or_default(),
            way: knob("NEONHUB_CHAOS_WAY").unwrap_or_default(),
        }
    }

    /// Ten minutes have room for faults of full length; one minute for short ones.
    pub fn is_long(&self) -> bool {
        self.length > Duration::from_secs(180)
    }
}

#[expect(clippy::disallowed_methods, reason = "knobs of this test, not settings of NeonHub")]
fn knob<Value: std::str::FromStr>(name: &str) -> Option<Value> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} = `{text}` is none")))
}

/// Small, so that it is easily typed.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("seed") % 1_000_000
}

/// splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }

    pub fn pick<Item: Copy>(&mut self, list: &[Item]) -> Item {
        list[self.below(list.len())]
    }

    pub fn shuffle<Item>(&mut self, list: &mut [Item]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}
