//! A second processors process joins and leaves under load: windows stay exact. On the embedded stack two workers of each
//! processor share the partitions, and the process is ended and started again.

use crate::poster::Poster;
use crate::stack::{Backbone, Options, Role, Stack};

pub fn run(backbone: Backbone) {
    let mut options = Options::default();
    if backbone == Backbone::Embedded {
        options.settings.push(("NEONHUB_WORKERS", "2".to_owned()));
    }
    let mut stack = Stack::start_with(backbone, options, None);
    let client = stack.client();
    let poster = Poster::start(client.clone(), "scaled");
    poster.wait_for_more(500);
    match backbone {
        Backbone::Embedded => {
            stack.terminate(Role::Up).unwrap();
            stack.spawn(Role::Up);
            stack.wait_until_ready();
        }
        Backbone::Kafka => {
            stack.spawn(Role::SecondProcessors);
            stack.wait_for(Role::SecondProcessors);
            poster.wait_for_more(1_500);
            stack.terminate(Role::SecondProcessors).unwrap();
            poster.wait_for_more(500);
            // And once more, to be killed this time.
            stack.spawn(Role::SecondProcessors);
            stack.wait_for(Role::SecondProcessors);
            poster.wait_for_more(500);
            stack.kill(Role::SecondProcessors);
        }
    }
    poster.wait_for_more(500);
    let posted = poster.finish();
    client.wait_for_events(posted);
    stack.assert_audit_clean();
}
