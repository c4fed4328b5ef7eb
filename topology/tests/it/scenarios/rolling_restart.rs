//! Ingest behind two addresses is restarted, one process after the other, while clients post: each request on a connection
//! that a process has taken is answered 200, and each event is landed once. Who is refused a connection tries the other address, as any
//! balancer does; nothing else may go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::client::{LIMIT, basic};
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Role, Stack, WRITE_KEY};

const CLIENTS: usize = 4;
const ROUNDS: usize = 3;

pub fn run() {
    let mut stack = Stack::start(Backbone::Kafka);
    stack.spawn(Role::SecondIngest);
    stack.wait_for(Role::SecondIngest);
    let (accepted, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (ports, accepted, is_over) = (stack.ingest_ports(), Arc::clone(&accepted), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut posted = 0;
                while !is_over.load(Ordering::SeqCst) {
                    post(&ports, &format!("rolling-{client}-{posted}"));
                    posted += 1;
                    accepted.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let more = |count: usize| {
        let target = accepted.load(Ordering::SeqCst) + count;
        wait_until("events are accepted", LIMIT, || Ok(accepted.load(Ordering::SeqCst) >= target)).unwrap();
    };
    more(100);
    for _ in 0..ROUNDS {
        for role in [Role::Ingest, Role::SecondIngest] {
            stack.terminate(role).unwrap();
            more(50);
            stack.spawn(role);
            stack.wait_for(role);
            more(50);
        }
    }
    is_over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    stack.client().wait_for_events(accepted.load(Ordering::SeqCst));
}

/// Until one of the addresses has answered, which must be with 200.
fn post(ports: &[u16; 2], message_id: &str) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let event = json!({ "event": "Order Completed", "userId": message_id, "messageId": message_id }).to_string();
    let answered = wait_until("an address answers", LIMIT, || {
        Ok(ports.iter().any(|port| {
            let request = agent.post(format!("http://127.0.0.1:{port}/v1/track"));
            let request = request.header("authorization", basic(WRITE_KEY)).header("connection", "close");
            match request.send(event.as_bytes()) {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200, "{message_id} at port {port}");
                    true
                }
                Err(error) if is_refused(&error) => false,
                Err(error) => panic!("{message_id} at port {port}: {error}"),
            }
        }))
    });
    answered.unwrap_or_else(|error| panic!("{message_id}: {error}"));
}

/// Nobody listens there, so that nothing was sent.
fn is_refused(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}
