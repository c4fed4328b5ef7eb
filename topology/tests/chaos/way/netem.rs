//! A veth pair, and `tc netem` at both of its ends: what it says is for what leaves by an end, so each has one direction.

use super::namespace::{Namespace, run};
use super::{LATE_BY, LOST, OVERTAKEN, Way};

pub struct Netem(Namespace);

/// # Errors
/// What the kernel says to a netem of no effect.
pub fn check(namespace: &Namespace) -> Result<(), String> {
    run("tc", &["-n", namespace.name(), "qdisc", "add", "dev", "lo", "root", "netem"])?;
    run("tc", &["-n", namespace.name(), "qdisc", "delete", "dev", "lo", "root"])
}

impl Netem {
    /// # Errors
    /// What the kernel says.
    pub fn join(namespace: Namespace) -> Result<Self, String> {
        let [outer, inner] = namespace.ends();
        let pair = ["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", namespace.name()];
        run("ip", &pair)?;
        namespace.bring_up()?;
        let netem = Self(namespace);
        netem.at_both_ends("add", Way::Open)?;
        Ok(netem)
    }

    pub fn namespace(&self) -> &Namespace {
        &self.0
    }

    pub fn set(&self, way: Way) {
        // Not `replace`: that keeps a former way's reordering.
        let outcome = self.at_both_ends("delete", Way::Open).and_then(|()| self.at_both_ends("add", way));
        outcome.unwrap_or_else(|error| panic!("{error}"));
    }

    fn at_both_ends(&self, verb: &str, way: Way) -> Result<(), String> {
        let [outer, inner] = self.0.ends();
        for (place, device) in [(&[][..], outer.as_str()), (&["-n", self.0.name()], inner.as_str())] {
            let effects = effects(way);
            let words = [place, &["qdisc", verb, "dev", device, "root", "netem", "limit", "100000"]].concat();
            let words: Vec<&str> = words.into_iter().chain(effects.split_whitespace()).collect();
            run("tc", &words)?;
        }
        Ok(())
    }
}

fn effects(way: Way) -> String {
    match way {
        Way::Open => String::new(),
        Way::Cut => "loss 100%".to_owned(),
        Way::Slow(delay) => format!("delay {}ms", delay.as_millis()),
        // What is not reordered is late: the others go at once.
        Way::Lossy => format!("delay {}ms reorder {}% loss {LOST}%", LATE_BY.as_millis(), 100 - OVERTAKEN),
    }
}
