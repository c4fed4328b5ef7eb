//! Damage to what was durable is told by file and offset, and the folder is left as it was found.

use std::path::{Path, PathBuf};

use neonhub_schemas::topics::Topic;

use super::super::{Log, LogError, LogOptions};
use super::{place, record};

const AT: neonhub_schemas::record::TopicPartition = place(Topic::RawBehavior, 0);

/// A folder with so many commits, and where each begins in the journal.
fn filled(commits: u64) -> (tempfile::TempDir, PathBuf, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("0.jnl");
    let log = Log::open(folder.path(), LogOptions::for_testing()).unwrap();
    let begins = (0..commits)
        .map(|commit| {
            let begin = used(&journal);
            log.append(vec![record(AT, &format!("k{commit}"), "value", 5)]).unwrap();
            begin
        })
        .collect();
    (folder, journal, begins)
}

/// Without the zeros that were allocated in advance.
fn used(journal: &Path) -> u64 {
    let bytes = std::fs::read(journal).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn change(file: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

fn refusal(folder: &Path) -> (PathBuf, u64) {
    match Log::open(folder, LogOptions::for_testing()).err() {
        Some(LogError::DamagedFile { file, offset, .. }) => (file, offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_turned_bit_in_the_head_of_a_commit_is_told_with_its_place() {
    let (folder, journal, begins) = filled(6);
    let at = begins[3];
    // Tag, number of items, sequence number, tag of the first item, and on into it.
    for byte in 0..40 {
        change(&journal, |bytes| bytes[usize::try_from(at).unwrap() + byte] ^= 0x10);
        let damaged = std::fs::read(&journal).unwrap();
        let (file, offset) = refusal(folder.path());
        assert_eq!(file, Path::new("0.jnl"));
        // A greater sequence number is noticed at the next commit, which does not follow it.
        assert!(offset == at || (5..13).contains(&byte) && offset == begins[4], "byte {byte}: {offset}, not {at}");
        assert!(damaged == std::fs::read(&journal).unwrap(), "left as it was found");
        change(&journal, |bytes| bytes[usize::try_from(at).unwrap() + byte] ^= 0x10);
    }
    assert_eq!(Log::open(folder.path(), LogOptions::for_testing()).unwrap().end_offset(AT).unwrap(), 6);
}

#[test]
fn a_journal_cut_short_by_durable_commits_is_refused_wherever_it_is_cut() {
    for cut_into_commit in [0, 1, 20] {
        let (folder, journal, begins) = filled(6);
        change(&journal, |bytes| bytes.truncate(usize::try_from(begins[4]).unwrap() + cut_into_commit));
        assert_eq!(refusal(folder.path()), (PathBuf::from("0.jnl"), begins[4]), "{cut_into_commit}");
    }
}

#[test]
fn a_commit_that_was_not_durable_may_be_cut_off() {
    let (folder, journal, begins) = filled(6);
    let witness = folder.path().join("durable");
    let durable = std::fs::read(&witness).unwrap();
    {
        let log = Log::open(folder.path(), LogOptions::for_testing()).unwrap();
        log.append(vec![record(AT, "k6", "value", 5)]).unwrap();
    }
    assert_eq!(begins.len(), 6);
    // As if the power had failed before the seventh commit's fsync returned.
    std::fs::write(&witness, durable).unwrap();
    let end = usize::try_from(used(&journal)).unwrap();
    change(&journal, |bytes| bytes.truncate(end - 3));
    assert_eq!(Log::open(folder.path(), LogOptions::for_testing()).unwrap().end_offset(AT).unwrap(), 6);
}

#[test]
fn a_damaged_witness_costs_nothing_but_itself() {
    let (folder, _, _) = filled(3);
    change(&folder.path().join("durable"), |bytes| bytes[7] ^= 4);
    let log = Log::open(folder.path(), LogOptions::for_testing()).unwrap();
    assert_eq!(log.append(vec![record(AT, "next", "v", 6)]).unwrap(), [(0, 3)]);
}
