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
    use neonhub_schemas::control::IdentityLink;
    use neonhub_schemas::record::TopicPartition;
    use neonhub_schemas::topics::Topic;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::engine::{MemoryStates, StateStores as _};

    #[test]
    fn the_shares_are_all_of_the_memory_there_is() {
        let behavior = Budget::of(Source::Behavior, 8_000);
        assert_eq!((behavior.seen, behavior.sessions, behavior.identities), (4_000, 3_000, 1_000));
        for source in [Source::Behavior, Source::Campaign, Source::Integration] {
            assert_eq!(Budget::of(source, 8_000).whole(), 8_000);
        }
    }

    const EACH: usize = 1_000;

    /// One that is saved whole, or has no local state: hashes in eight buckets, and 100 sessions and 100 links of some
    /// 1,000 bytes each.
    fn filled(local: Option<LocalState>) -> State {
        let spans = Spans { dedup_ms: 8_000, session_gap_ms: 1_000 };
        let mut state = State::open(Source::Behavior, spans, usize::MAX, local, None).unwrap();
        assert!(state.is_saved() && !state.is_over_budget());
        for number in 0..8 * EACH {
            state.seen.restore(xxh3_64(&number.to_le_bytes()), (number / EACH * 1_000).try_into().unwrap());
        }
        for number in 0..100 {
            let actor = format!("actor {number}");
            state.sessions.restore(actor.as_bytes(), &format!("{number:01000}"), 0, 0, None).unwrap();
            state.identities.restore(link(&actor, &format!("{number:01000}")));
        }
        let is_kept = state.local.is_some();
        assert_ne!(state.is_saved(), is_kept);
        state.save(&Marker::detached(0)).unwrap();
        assert!(state.is_saved());
        state
    }

    fn link(anonymous_id: &str, user_id: &str) -> IdentityLink {
        IdentityLink {
            workspace: "acme".to_owned(),
            anonymous_id: anonymous_id.to_owned(),
            user_id: user_id.to_owned(),
        }
    }

    fn local() -> Option<LocalState> {
        let place = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
        Some(LocalState::empty(MemoryStates::default().open("refine", place).unwrap()).unwrap())
    }

    fn sizes(state: &State) -> Budget {
        Budget {
            seen: state.seen.heap_size(),
            sessions: state.sessions.by_actor.heap_size(),
            identities: state.identities.users.heap_size(),
        }
    }

    /// In memory: hashes, sessions, links.
    fn counts(state: &State) -> (usize, usize, usize) {
        (state.seen.len(), state.sessions.by_actor.len(), state.identities.users.len())
    }

    const ALL: (usize, usize, usize) = (8 * EACH, 100, 100);

    fn saved_with(budget: impl Fn(Budget) -> Budget) -> State {
        let mut state = filled(local());
        state.budget = budget(sizes(&state));
        state.save(&Marker::detached(0)).unwrap();
        state
    }

    #[test]
    fn each_part_is_known_to_be_unsaved() {
        let parts: [fn(&mut State); 3] = [
            |state| state.seen.restore(7, 8_000),
            |state| state.sessions.restore(b"another", "s", 0, 0, None).unwrap(),
            |state| state.identities.restore(link("another", "u")),
        ];
        for change in parts {
            let mut state = filled(local());
            change(&mut state);
            assert!(!state.is_saved());
            state.save(&Marker::detached(0)).unwrap();
            assert!(state.is_saved());
            let mut without = filled(None);
            change(&mut without);
            let State { seen, sessions, identities, .. } = &without;
            assert!(
                seen.is_saved() && sessions.by_actor.is_saved() && identities.users.is_saved(),
                "there is nothing to save it to"
            );
        }
    }

    #[test]
    fn memory_is_over_its_budget_when_all_of_it_is_and_a_part_that_has_too_much_can_leave() {
        let mut state = filled(local());
        let now = sizes(&state);
        let mut is_over = |budget: Budget| {
            state.budget = budget;
            state.is_over_budget()
        };
        let less = |bytes: usize| bytes - 10;
        assert!(!is_over(now));
        assert!(is_over(Budget { seen: less(now.seen), ..now }));
        assert!(is_over(Budget { sessions: less(now.sessions), ..now }));
        assert!(is_over(Budget { identities: less(now.identities), ..now }));
        assert!(!is_over(Budget { seen: less(now.seen), sessions: now.sessions + 10, ..now }), "just within it");
        assert!(!is_over(Budget { sessions: less(now.sessions), seen: now.seen + 20, ..now }));
        assert!(!is_over(Budget { identities: less(now.identities), seen: now.seen + 20, ..now }));
        let mut without = filled(None);
        without.budget = Budget::of(Source::Behavior, 0);
        assert!(!without.is_over_budget(), "there is nowhere to go");
    }

    #[test]
    fn what_cannot_leave_does_not_put_memory_over_its_budget() {
        // Room for what waited to be saved is left, and what is to be known of runs; nothing else is.
        let mut state = filled(local());
        for number in 0..1_000 {
            state.sessions.restore(format!("{number}").as_bytes(), "s", 0, 0, None).unwrap();
            state.identities.restore(link(&format!("{number}"), "u"));
        }
        state.sessions.by_actor.retain(|_| false);
        state.identities.users.retain(|_| false);
        let mut changes = Vec::new();
        state.seen.spill(0, state.local.as_ref().unwrap(), &mut changes).unwrap();
        assert_eq!(counts(&state), (0, 0, 0));
        let now = sizes(&state);
        assert!(now.seen > 10 && now.sessions > 10 && now.identities > 10, "{now:?}");
        for budget in [
            Budget { seen: now.seen - 10, ..now },
            Budget { sessions: now.sessions - 10, ..now },
            Budget { identities: now.identities - 10, ..now },
        ] {
            state.budget = budget;
            assert!(!state.is_over_budget(), "{budget:?} of {now:?}");
        }
        // Nor does what is exactly its share, when only another is beyond its own.
        let mut state = filled(local());
        (0..1_000).for_each(|number| state.identities.restore(link(&format!("{number}"), "u")));
        state.identities.users.retain(|_| false);
        let now = sizes(&state);
        state.budget = Budget { identities: now.identities - 10, ..now };
        assert!(!state.is_over_budget());
        let mut state = filled(local());
        for number in 0..1_000 {
            state.sessions.restore(format!("{number}").as_bytes(), "s", 0, 0, None).unwrap();
        }
        state.sessions.by_actor.retain(|_| false);
        let now = sizes(&state);
        state.budget = Budget { sessions: now.sessions - 10, ..now };
        assert!(!state.is_over_budget());
    }

    #[test]
    fn a_quarter_of_the_share_of_a_part_that_has_too_much_leaves() {
        let state = saved_with(|now| Budget { seen: now.seen - 10, ..now });
        let (hashes, sessions, links) = counts(&state);
        assert!((4 * EACH..=6 * EACH).contains(&hashes), "{hashes}");
        assert_eq!((sessions, links), (100, 100));

        let state = saved_with(|now| Budget { sessions: now.sessions - 10, ..now });
        let (hashes, sessions, links) = counts(&state);
        assert!((50..=75).contains(&sessions), "{sessions}");
        assert_eq!((hashes, links), (8 * EACH, 100));

        let state = saved_with(|now| Budget { identities: now.identities - 10, ..now });
        let (hashes, sessions, links) = counts(&state);
        assert!((50..=75).contains(&links), "{links}");
        assert_eq!((hashes, sessions), (8 * EACH, 100));
    }

    #[test]
    fn a_part_may_have_the_share_of_another() {
        assert_eq!(counts(&saved_with(|now| Budget { seen: now.seen / 2, sessions: now.whole(), ..now })), ALL);
        assert_eq!(counts(&saved_with(|now| Budget { sessions: 0, seen: now.whole(), ..now })), ALL);
        assert_eq!(counts(&saved_with(|now| Budget { identities: 0, seen: now.whole(), ..now })), ALL);
    }

    #[test]
    fn what_is_restored_beyond_the_budget_goes_to_the_local_state_at_once() {
        let mut state = filled(local());
        state.identities.restore(link("another", "u"));
        state.stay_within_budget().unwrap();
        assert!(!state.is_saved() && counts(&state).2 == 101, "nothing is over");
        let now = sizes(&state);
        state.budget = Budget { identities: 0, ..now };
        state.stay_within_budget().unwrap();
        assert!(state.is_saved() && counts(&state).2 == 0);
        let State { local, identities, .. } = &mut state;
        assert_eq!(identities.user_of("acme", "another", local.as_ref()).unwrap(), Some("u"));
        assert_eq!(identities.user_of("acme", "actor 7", local.as_ref()).unwrap().map(str::len), Some(1_000));
    }
}
