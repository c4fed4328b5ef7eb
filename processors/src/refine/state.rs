//! Pure but for the local state: no clock, no async.
//!
//! What refine remembers of one partition, and how it shares its memory: when all together is beyond the budget, each part
//! that has more than its share leaves a part to the local state.

use neonhub_schemas::event::Source;

use super::identity::Identities;
use super::seen::SeenSet;
use super::session::Sessions;
use super::stored::{self, Meta};
use crate::engine::{Change, EngineError, LocalState, Marker};

pub struct State {
    pub local: Option<LocalState>,
    pub seen: SeenSet,
    pub sessions: Sessions,
    pub identities: Identities,
    budget: Budget,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug)]
struct Budget {
    seen: usize,
    sessions: usize,
    identities: usize,
}

impl Budget {
    /// Only behaviour has sessions and identities.
    fn of(source: Source, bytes: usize) -> Self {
        match source {
            Source::Behavior => Self { seen: bytes / 2, sessions: bytes / 8 * 3, identities: bytes / 8 },
            Source::Campaign | Source::Integration => Self { seen: bytes, sessions: 0, identities: 0 },
        }
    }

    fn whole(self) -> usize {
        self.seen.saturating_add(self.sessions).saturating_add(self.identities)
    }
}

/// How long things are remembered, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    pub dedup_ms: i64,
    pub session_gap_ms: i64,
}

impl State {
    /// Takes up what the local state holds. `newest_ms`: the newest time of receipt that is committed.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn open(
        source: Source,
        spans: Spans,
        bytes: usize,
        local: Option<LocalState>,
        newest_ms: Option<i64>,
    ) -> Result<Self, EngineError> {
        let is_kept = local.is_some();
        let mut state = Self {
            seen: SeenSet::new(spans.dedup_ms, is_kept),
            sessions: Sessions::new(spans.session_gap_ms, spans.dedup_ms, is_kept),
            identities: Identities::new(is_kept),
            budget: Budget::of(source, bytes),
            local: None,
        };
        if let Some(local) = local.as_ref().filter(|local| local.is_filled()) {
            let meta = local.get(stored::META_KEY)?;
            let meta: Meta =
                local.trusting(meta.map_or_else(|| Ok(Meta::default()), |bytes| stored::decode(&bytes)))?;
            // Leaves room for what comes.
            state.seen.load(&meta, newest_ms, state.budget.seen / 4 * 3, local)?;
            state.sessions.by_actor.load(state.budget.sessions / 2, local)?;
            state.identities.users.load(state.budget.identities / 2, local)?;
        }
        state.local = local;
        state.stay_within_budget()?;
        Ok(state)
    }

    /// Entries and bytes in memory.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let entries = self.seen.len() + self.sessions.by_actor.len() + self.identities.users.len();
        (entries, self.heap_size())
    }

    fn heap_size(&self) -> usize {
        self.seen.heap_size() + self.sessions.by_actor.heap_size() + self.identities.users.heap_size()
    }

    /// Whether there is anything that the local state lacks.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.local.is_none()
            || self.seen.is_saved() && self.sessions.by_actor.is_saved() && self.identities.users.is_saved()
    }

    /// Whether memory is beyond the budget, and a save would make room.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        let (sessions, users) = (&self.sessions.by_actor, &self.identities.users);
        self.local.is_some()
            && self.heap_size() > self.budget.whole()
            && (self.seen.heap_size() > self.budget.seen && self.seen.can_spill()
                || sessions.heap_size() > self.budget.sessions && sessions.len() > 0
                || users.heap_size() > self.budget.identities && users.len() > 0)
    }

    /// While it is restored: what is beyond the budget goes to the local state, which is newer than its marker then.
    ///
    /// # Errors
    /// The local state cannot be read or written.
    pub fn stay_within_budget(&mut self) -> Result<(), EngineError> {
        if !self.is_over_budget() {
            return Ok(());
        }
        let changes = self.changes()?;
        self.local.as_ref().map_or(Ok(()), |local| local.write(changes))
    }

    /// Saves what the local state lacks, and leaves to it what is beyond the budget.
    ///
    /// # Errors
    /// The local state cannot be read or written.
    pub fn save(&mut self, marker: &Marker) -> Result<(), EngineError> {
        let changes = self.changes()?;
        self.local.as_ref().map_or(Ok(()), |local| local.save(changes, marker))
    }

    /// Each key once: a store need not say which of two changes of one key in a batch is the later.
    fn changes(&mut self) -> Result<Vec<Change>, EngineError> {
        let mut changes = Vec::new();
        let Some(local) = &self.local else { return Ok(changes) };
        let is_over = self.is_over_budget();
        if is_over && self.seen.heap_size() > self.budget.seen {
            self.seen.spill(self.budget.seen / 4 * 3, local, &mut changes)?;
        }
        self.seen.changes(&mut changes);
        self.sessions.by_actor.changes(&mut changes);
        self.identities.users.changes(&mut changes);
        self.sessions.sweep(local, &mut changes)?;
        if is_over && self.sessions.by_actor.heap_size() > self.budget.sessions {
            self.sessions.by_actor.spill(self.budget.sessions / 4 * 3);
        }
        if is_over && self.identities.users.heap_size() > self.budget.identities {
            self.identities.users.spill(self.budget.identities / 4 * 3);
        }
        changes.push((stored::META_KEY.to_vec(), Some(stored::encode(&self.seen.meta()))));
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_of_the_memory_there_is() {
        let behavior = Budget::of(Source::Behavior, 8_000);
        assert_eq!((behavior.seen, behavior.sessions, behavior.identities), (4_000, 3_000, 1_000));
        for source in [Source::Behavior, Source::Campaign, Source::Integration] {
            assert_eq!(Budget::of(source, 8_000).whole(), 8_000);
        }
    }
}
