//! The log is away for 20 s: ingest answers 503 and resumes by itself; nothing acknowledged is lost. The embedded log
//! lives in the process: there it is the process that is away.

use std::time::Duration;

use crate::poster::Poster;
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Options, Role, Stack};

const AWAY: Duration = Duration::from_secs(20);

pub fn run(backbone: Backbone) {
    let mut stack = match backbone {
        Backbone::Embedded => Stack::start(backbone),
        Backbone::Kafka => Stack::start_on_own_kafka(Options::default()),
    };
    let client = stack.client();
    let poster = Poster::start(client.clone(), "outage");
    poster.wait_for_more(500);
    match backbone {
        Backbone::Embedded => stack.kill(Role::Up),
        Backbone::Kafka => stack.kafka().kill(),
    }
    let before = poster.accepted();
    // The outage itself: a condition that nothing but its own length fulfils.
    assert!(wait_until("20 s of outage are over", AWAY, || Ok(false)).is_err());
    assert!(poster.accepted() <= before + 50, "events were accepted without a log");
    match backbone {
        Backbone::Embedded => {
            stack.spawn(Role::Up);
            stack.wait_until_ready();
        }
        Backbone::Kafka => {
            assert!(poster.turned_away() > 0, "ingest never answered 503");
            stack.kafka().restart().unwrap();
            // And an orderly restart, as in an upgrade.
            poster.wait_for_more(500);
            stack.kafka().stop();
            stack.kafka().restart().unwrap();
        }
    }
    poster.wait_for_more(500);
    let posted = poster.finish();
    client.wait_for_events(posted);
    stack.assert_audit_clean();
}
