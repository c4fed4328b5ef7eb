//! SIGTERM under load: every role stops accepting, drains, flushes and exits with 0; nothing acknowledged is lost.

use crate::poster::Poster;
use crate::stack::{Backbone, Role, Stack};

pub fn run(backbone: Backbone) {
    let mut stack = Stack::start(backbone);
    let client = stack.client();
    let poster = Poster::start(client.clone(), "drained");
    poster.wait_for_more(300);
    let roles: &[Role] = match backbone {
        Backbone::Embedded => &[Role::Up],
        Backbone::Kafka => &[Role::Ingest, Role::Processors, Role::Api, Role::Olap],
    };
    for role in roles {
        stack.terminate(*role).unwrap();
    }
    for role in roles.iter().rev() {
        stack.spawn(*role);
    }
    stack.wait_until_ready();
    poster.wait_for_more(100);
    let posted = poster.finish();
    client.wait_for_events(posted);
    stack.assert_audit_clean();
}
