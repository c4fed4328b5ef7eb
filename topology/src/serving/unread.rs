//! Answers that HTTP/2 clients do not read. Their connection is never blocked as a whole, but an answer waits for as long
//! as its client grants no window, and nobody asks its body for more.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The answers of a connection that wait for their client, and since when.
#[derive(Default)]
pub struct Unread(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next_number: u64,
    since: BTreeMap<u64, Instant>,
}

impl Unread {
    /// A number for an answer, which waits from now on.
    pub fn new_answer(&self) -> u64 {
        let mut waiting = self.0.lock();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.since.insert(number, Instant::now());
        number
    }

    /// More of the answer was handed over.
    pub fn waits(&self, number: u64) {
        self.0.lock().since.insert(number, Instant::now());
    }

    /// The client has room for more of the answer, or its end was handed over.
    pub fn goes_on(&self, number: u64) {
        self.0.lock().since.remove(&number);
    }

    pub fn longest_since(&self) -> Option<Instant> {
        self.0.lock().since.values().min().copied()
    }
}
