//! One file a kind of fault. Each inflicts it and undoes it; the run then waits until the lag is zero.

mod broker;
mod clickhouse;
mod freeze;
mod kill;
mod network;
mod scale;

use std::time::Instant;

use crate::scene::Scene;
use crate::stack::Backbone;

#[derive(Clone, Copy)]
pub struct Fault {
    pub name: &'static str,
    /// A process dies at once, and nothing else goes on.
    pub is_kill: bool,
    pub inflict: fn(&mut Scene) -> Inflicted,
}

pub struct Inflicted {
    pub detail: String,
    /// The moment of a kill; the end of a fault that lasts.
    pub recovers_from: Instant,
}

impl Inflicted {
    /// The fault is over now.
    pub fn until_now(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), recovers_from: Instant::now() }
    }
}

pub const KILL_A_ROLE: Fault = Fault { name: "kill -9", is_kill: true, inflict: kill::a_role };

const ON_BOTH: [Fault; 4] = [
    Fault { name: "kill -9 every 5 s", is_kill: true, inflict: kill::roles_in_a_row },
    Fault { name: "SIGSTOP, SIGCONT", is_kill: false, inflict: freeze::processors },
    Fault { name: "ClickHouse killed amid inserts", is_kill: true, inflict: clickhouse::killed_amid_inserts },
    Fault { name: "1, 3, 1 processors", is_kill: false, inflict: scale::out_and_in },
];

const ON_KAFKA: [Fault; 9] = [
    ON_BOTH[0],
    ON_BOTH[1],
    ON_BOTH[2],
    ON_BOTH[3],
    Fault { name: "broker restarted", is_kill: false, inflict: broker::restarted },
    Fault { name: "broker kill -9", is_kill: true, inflict: broker::killed },
    Fault { name: "broker cut off", is_kill: false, inflict: network::cut_off },
    Fault { name: "broker slow", is_kill: false, inflict: network::slow },
    Fault { name: "packets lost, reordered", is_kill: false, inflict: network::lossy },
];

/// All but [`KILL_A_ROLE`].
pub fn of(backbone: Backbone) -> &'static [Fault] {
    match backbone {
        Backbone::Embedded => &ON_BOTH,
        Backbone::Kafka => &ON_KAFKA,
    }
}
