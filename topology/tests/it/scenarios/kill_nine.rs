//! Kill -9 while events flow, five times: everything that was answered with 200 is counted once.

use crate::poster::Poster;
use crate::stack::{Backbone, Stack};

pub fn run(backbone: Backbone) {
    let mut stack = Stack::start(backbone);
    let client = stack.client();
    let poster = Poster::start(client.clone(), "killed");
    for round in 0..5 {
        poster.wait_for_more(300);
        let roles = stack.roles();
        // On Kafka every role has its turn; the processors are killed twice.
        let role = roles[(round + 1) % roles.len()];
        stack.kill(role);
        stack.spawn(role);
        stack.wait_until_ready();
    }
    poster.wait_for_more(300);
    let posted = poster.finish();
    client.wait_for_events(posted);
    stack.assert_audit_clean();
}
