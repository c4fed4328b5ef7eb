//! ClickHouse is away or dies for 20 s: the pipeline keeps taking events, the landing says so and catches up exactly once.

use std::time::{Duration, Instant};

use crate::client::{Client, LIMIT};
use crate::poster::Poster;
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Role, Stack};

const AWAY: Duration = Duration::from_secs(20);

pub fn run(backbone: Backbone) {
    let mut stack = Stack::start(backbone);
    let client = stack.client();
    let poster = Poster::start(client.clone(), "olap");
    poster.wait_for_more(500);
    let before = poster.accepted();
    let began = Instant::now();
    match backbone {
        // Its supervisor starts it again each time: it dies in the middle of inserts, over and over.
        Backbone::Embedded => {
            let outage = wait_until("20 s of crashes are over", AWAY * 2, || {
                for process in stack.supervised_olap_processes() {
                    let killed = std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status();
                    assert!(killed.is_ok());
                }
                // A little life in between, so that inserts begin.
                std::thread::park_timeout(Duration::from_millis(700));
                Ok(began.elapsed() >= AWAY)
            });
            outage.unwrap();
        }
        Backbone::Kafka => {
            stack.kill(Role::Olap);
            let landing = stack.ready_url(Role::Processors);
            wait_until("the landing says that it fails", LIMIT, || Ok(!Client::answers(&landing))).unwrap();
            assert!(wait_until("20 s of outage are over", AWAY, || Ok(false)).is_err());
            stack.spawn(Role::Olap);
            stack.wait_for(Role::Olap);
        }
    }
    assert!(poster.accepted() > before + 500, "ingest stood still without ClickHouse");
    poster.wait_for_more(200);
    let posted = poster.finish();
    client.wait_for_events(posted);
    stack.assert_audit_clean();
}
