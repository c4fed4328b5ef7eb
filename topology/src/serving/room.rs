//! Room for connections: how many there are, and which of the idle ones goes when a new one needs its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Counts the open connections and knows the parked ones by age.
pub struct Room {
    most: usize,
    open: AtomicUsize,
    parked: Mutex<Parked>,
}

#[derive(Default)]
struct Parked {
    next_ticket: u64,
    /// The least ticket has been parked for the longest time.
    spots: BTreeMap<u64, Arc<Notify>>,
}

/// Whether a new connection finds room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Free,
    /// There was none, so the connection that was idle for the longest time has been told to go.
    Displacing,
    /// Every connection is busy. Nothing was counted.
    Full,
}

/// Where a connection is parked; it leaves by dropping this.
pub struct Spot<'a> {
    room: &'a Room,
    ticket: u64,
    told_to_go: Arc<Notify>,
}

impl Room {
    pub fn new(most: usize) -> Self {
        Self { most, open: AtomicUsize::new(0), parked: Mutex::default() }
    }

    /// Counts one more, unless the room is full. A displaced one is counted until it has gone, a moment later.
    pub fn enter(&self) -> Entry {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if before < self.most {
            return Entry::Free;
        }
        if self.displace() {
            return Entry::Displacing;
        }
        self.leave();
        Entry::Full
    }

    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Tells the connection that was idle for the longest time to go. False: none is idle.
    pub fn displace(&self) -> bool {
        let longest_idle = self.parked.lock().spots.pop_first();
        longest_idle.map(|(_, told_to_go)| told_to_go.notify_one()).is_some()
    }

    pub fn park(&self) -> Spot<'_> {
        let told_to_go = Arc::new(Notify::new());
        let mut parked = self.parked.lock();
        let ticket = parked.next_ticket;
        parked.next_ticket += 1;
        parked.spots.insert(ticket, Arc::clone(&told_to_go));
        Spot { room: self, ticket, told_to_go }
    }
}

impl Spot<'_> {
    /// Resolves when somebody else needs the place.
    pub async fn told_to_go(&self) {
        self.told_to_go.notified().await;
    }
}

impl Drop for Spot<'_> {
    fn drop(&mut self) {
        self.room.parked.lock().spots.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_goes_first_and_only_when_there_is_no_room() {
        let room = Room::new(3);
        assert_eq!([room.enter(), room.enter(), room.enter()], [Entry::Free; 3]);
        let (first, second) = (room.park(), room.park());
        assert_eq!(room.enter(), Entry::Displacing);
        first.told_to_go().await;
        room.leave();
        drop(first);
        // The second one is at work again.
        drop(second);
        assert_eq!((room.enter(), room.open()), (Entry::Full, 3));
        room.leave();
        assert_eq!(room.enter(), Entry::Free);
    }
}
