//! What the seen-set knows, forgets, leaves to the local state and counts.

use super::*;
use crate::engine::{MemoryStates, StateStores as _};
use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

fn is_new(seen: &mut SeenSet, hash: u64, received_at_ms: i64) -> bool {
    seen.insert(hash, received_at_ms, None).unwrap()
}

#[test]
fn a_message_is_known_for_the_window_and_forgotten_after_it() {
    let mut seen = SeenSet::new(3_600_000, false);
    let hash = SeenSet::hash(b"acme|anon-1", b"m-1");
    assert!(is_new(&mut seen, hash, 0));
    assert!(!is_new(&mut seen, hash, 0));
    assert!(!is_new(&mut seen, hash, 3_600_000));
    assert!(is_new(&mut seen, hash, 3_600_000 + 450_000));
    assert_eq!(seen.len(), 1);
}

#[test]
fn the_same_id_from_another_actor_is_another_message() {
    let mut seen = SeenSet::new(1_000, false);
    assert!(is_new(&mut seen, SeenSet::hash(b"acme|a", b"m"), 0));
    assert!(is_new(&mut seen, SeenSet::hash(b"acme|b", b"m"), 0));
    // A record with an earlier time than the last does not disturb the order of the buckets.
    assert!(is_new(&mut seen, SeenSet::hash(b"acme|c", b"m"), -500));
    assert!(!is_new(&mut seen, SeenSet::hash(b"acme|c", b"m"), -500));
}

#[test]
fn each_message_is_forgotten_by_its_own_time() {
    let mut seen = SeenSet::new(8_000, false);
    assert!(is_new(&mut seen, 1, 0));
    assert!(is_new(&mut seen, 2, 7_000));
    assert!(is_new(&mut seen, 1, 9_000), "the first is out of the window");
    assert!(!is_new(&mut seen, 2, 12_000), "the second is not");
    // Out of order, or many at a time: no more buckets than the window has.
    (0..100).for_each(|hash| {
        is_new(&mut seen, 100 + hash, 12_000 - i64::try_from(hash).unwrap());
    });
    assert!(seen.buckets.len() <= 9, "{} buckets", seen.buckets.len());
    assert_eq!(seen.len(), 102);
    assert!(seen.heap_size() >= 102 * 8);
}

#[test]
fn hashes_are_spread_over_all_bits() {
    let hashes = (0..1_000_u32).map(|id| SeenSet::hash(b"acme|anon", &id.to_le_bytes()));
    let keys = (0..1_000_u32).map(|id| SeenSet::hash(&id.to_le_bytes(), b"m-1"));
    let all: Vec<u64> = hashes.chain(keys).collect();
    for bit in 0..64 {
        let set = all.iter().filter(|hash| *hash >> bit & 1 == 1).count();
        assert!((700..1_300).contains(&set), "bit {bit} is set in {set} of 2,000");
    }
    let mut hasher = Prehashed::default();
    std::hash::Hasher::write_u64(&mut hasher, all[0]);
    assert_eq!(std::hash::Hasher::finish(&hasher), all[0], "not hashed twice");
    std::hash::Hasher::write(&mut hasher, b"bytes");
    assert_eq!(std::hash::Hasher::finish(&hasher), xxh3_64(b"bytes"));
}
fn local() -> LocalState {
    let place = TopicPartition { topic: Topic::RawCampaign, partition: 0 };
    LocalState::empty(MemoryStates::default().open("refine", place).unwrap()).unwrap()
}

fn hash_of(number: u64) -> u64 {
    xxh3_64(&number.to_le_bytes())
}

#[test]
fn every_list_in_memory_is_counted() {
    let (mut seen, local) = (SeenSet::new(8_000, true), local());
    let counted = |seen: &SeenSet| {
        let Bucket { hashes, unsaved, young, spilled, .. } = &seen.buckets[0];
        let filters: usize = spilled.iter().map(|spilled| spilled.filter.as_ref().map_or(0, Filter::heap_size)).sum();
        let runs = young.capacity() * size_of::<Run>() + spilled.capacity() * size_of::<Spilled>();
        [hashes.allocation_size(), unsaved.capacity() * 8, runs, filters]
    };
    let insert = |seen: &mut SeenSet, numbers: std::ops::Range<u64>| {
        numbers.for_each(|number| assert!(seen.insert(hash_of(number), 0, Some(&local)).unwrap()));
    };
    insert(&mut seen, 0..1_000);
    let [hashes, unsaved, runs, filters] = counted(&seen);
    assert!(hashes > 8_000 && unsaved >= 8_000 && (runs, filters) == (0, 0));
    assert_eq!(seen.heap_size(), hashes + unsaved);
    save(&mut seen, &local, usize::MAX);
    insert(&mut seen, 1_000..1_100);
    let [hashes, unsaved, runs, filters] = counted(&seen);
    assert!(unsaved >= 800 && runs > 0 && filters == 0);
    assert_eq!(seen.heap_size(), hashes + unsaved + runs);
    let too_much = seen.heap_size();
    save(&mut seen, &local, too_much - 1);
    let [hashes, unsaved, runs, filters] = counted(&seen);
    assert!(runs > 0 && filters > 1_000);
    assert_eq!(seen.heap_size(), hashes + unsaved + runs + filters);
}

fn pages(local: &LocalState) -> usize {
    let mut pages = 0;
    local
        .scan(&[0], &[9], |_, _| {
            pages += 1;
            true
        })
        .unwrap();
    pages
}

/// Saves, and leaves to the local state what is beyond so many bytes.
fn save(seen: &mut SeenSet, local: &LocalState, bytes: usize) {
    let mut changes = Vec::new();
    seen.spill(bytes, local, &mut changes).unwrap();
    seen.changes(&mut changes);
    let mut keys: Vec<_> = changes.iter().map(|(key, _)| key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), changes.len(), "one change of a key in a batch");
    local.write(changes).unwrap();
    assert!(seen.is_saved());
}

#[test]
fn spilled_hashes_are_known_and_go_with_their_bucket() {
    let (mut seen, local) = (SeenSet::new(8_000, true), local());
    for number in 0..9_000 {
        let received_ms = i64::try_from(number).unwrap();
        assert!(seen.insert(hash_of(number), received_ms, Some(&local)).unwrap());
        if number % 100 == 99 {
            save(&mut seen, &local, 3_000);
            assert!(seen.heap_size() <= 3_000 || !seen.can_spill(), "{} bytes", seen.heap_size());
        }
    }
    // Each run at least twice as long as the next: few of them, whatever the number of saves, and not all in one, which
    // would be written again each time.
    let runs = seen.buckets.iter().map(|bucket| bucket.spilled.len()).max().unwrap();
    assert!(seen.len() < 200 && (2..=5).contains(&runs), "{:?}", seen.meta());
    for number in 1_000..9_000 {
        assert!(!seen.insert(hash_of(number), 9_000, Some(&local)).unwrap(), "{number}");
    }
    let full = pages(&local);
    assert!(seen.insert(1, 16_999, Some(&local)).unwrap(), "all but the newest bucket is over");
    save(&mut seen, &local, 3_000);
    assert!(pages(&local) < full / 4, "{} of {full} pages are left", pages(&local));
    assert!(seen.insert(hash_of(1_000), 16_999, Some(&local)).unwrap());
}

#[test]
fn without_their_filters_runs_are_asked_themselves() {
    let (mut seen, local) = (SeenSet::new(8_000, true), local());
    (0..100).for_each(|number| assert!(seen.insert(hash_of(number), 0, Some(&local)).unwrap()));
    save(&mut seen, &local, 400);
    assert!(seen.len() == 0 && seen.can_spill(), "the filter is small enough");
    let known = seen.buckets[0].spilled.capacity() * size_of::<Spilled>() + Filter::heap_size_of(100);
    assert_eq!(seen.heap_size(), known);
    save(&mut seen, &local, 0);
    assert!(!seen.can_spill());
    assert!((0..100).all(|number| !seen.insert(hash_of(number), 0, Some(&local)).unwrap()));
    assert!((100..200).all(|number| seen.insert(hash_of(number), 0, Some(&local)).unwrap()));
}

#[test]
fn what_is_restored_is_known_once_and_asks_nothing_of_the_disk() {
    let (mut seen, local) = (SeenSet::new(8_000, true), local());
    (0..100).for_each(|number| seen.restore(hash_of(number), 0));
    save(&mut seen, &local, 0);
    // Read again, as after a crash, and more that no save has.
    (0..150).for_each(|number| seen.restore(hash_of(number), 0));
    (100..150).for_each(|number| seen.restore(hash_of(number), 0));
    assert_eq!(seen.buckets[0].unsaved.len(), 150);
    save(&mut seen, &local, 0);
    assert_eq!(seen.meta().buckets[0].spilled.iter().map(|run| run.count).sum::<u64>(), 150);
    assert!((0..150).all(|number| !seen.insert(hash_of(number), 0, Some(&local)).unwrap()));
    seen.restore(hash_of(200), 10_000);
    assert_eq!(seen.buckets.len(), 1, "it goes on in time");
}

#[test]
fn what_was_saved_is_taken_up_and_many_small_runs_become_one() {
    let (mut seen, local) = (SeenSet::new(8_000, true), local());
    for number in 0..200 {
        assert!(seen.insert(hash_of(number), 500, Some(&local)).unwrap());
        save(&mut seen, &local, usize::MAX);
    }
    assert_eq!((seen.buckets[0].young.len(), seen.len()), (200 % YOUNG_RUNS, 200));
    save(&mut seen, &local, 500);
    (200..300).for_each(|number| assert!(seen.insert(hash_of(number), 1_500, Some(&local)).unwrap()));
    save(&mut seen, &local, usize::MAX);
    let mut again = SeenSet::new(8_000, true);
    again.load(&seen.meta(), Some(1_500), usize::MAX, &local).unwrap();
    assert_eq!((again.meta(), again.len()), (seen.meta(), 100));
    assert!((0..300).all(|number| !again.insert(hash_of(number), 1_500, Some(&local)).unwrap()));
    assert!(again.insert(hash_of(300), 1_500, Some(&local)).unwrap());
    // Filters only as far as there is room: a run that has none is asked itself.
    let mut without = SeenSet::new(8_000, true);
    without.load(&seen.meta(), Some(1_500), 0, &local).unwrap();
    assert!(without.heap_size() < again.heap_size() && without.buckets[0].spilled[0].filter.is_none());
    assert!((0..300).all(|number| !without.insert(hash_of(number), 1_500, Some(&local)).unwrap()));
    // What is over by then is not read, but removed.
    let mut later = SeenSet::new(8_000, true);
    later.load(&seen.meta(), Some(9_500), usize::MAX, &local).unwrap();
    assert!(later.buckets.len() == 1 && !later.is_saved());
    assert!(
        SeenSet::new(16_000, true).load(&seen.meta(), None, usize::MAX, &local).is_err(),
        "buckets of another length"
    );
}
