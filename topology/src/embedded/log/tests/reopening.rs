use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use neonhub_schemas::record::{CommittedOffset, NewRecord};
use neonhub_schemas::topics::Topic;

use super::super::{CommitMode, CommitUnit, FjallStore, Log, LogError, LogOptions};
use super::{Home, on_both, place, read_all, record};

const AT: neonhub_schemas::record::TopicPartition = place(Topic::RawBehavior, 0);
const OUT: neonhub_schemas::record::TopicPartition = place(Topic::MetricsWindows, 1);

fn fill(log: &Log, commits: u64) {
    for commit in 0..commits {
        log.commit(CommitUnit {
            records: vec![record(OUT, &format!("k{commit}"), "v", 5), record(AT, "k", "v", 5)],
            offsets: vec![(AT, CommittedOffset { offset: commit + 1, metadata: format!("m{commit}") })],
            group: "merge".into(),
            fence: None,
        })
        .unwrap();
    }
}

fn check(log: &Log, commits: u64) {
    assert_eq!(log.end_offset(OUT).unwrap(), commits);
    assert_eq!(read_all(log, OUT, 0).len() as u64, commits);
    let committed = CommittedOffset { offset: commits, metadata: format!("m{}", commits - 1) };
    assert_eq!(log.committed("merge", &[AT]).unwrap(), [Some(committed)]);
    assert_eq!(log.append(vec![record(OUT, "next", "v", 6)]).unwrap(), [(1, commits)]);
}

#[test]
fn everything_acknowledged_is_there_after_reopening() {
    on_both(|home, log| {
        fill(&log, 30);
        drop(log);
        check(&home.open(LogOptions::for_testing()), 30);
    });
}

#[test]
fn a_copy_of_the_folder_of_a_running_log_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::for_testing()).unwrap();
    fill(&log, 40);
    copy_folder(folder.path(), copy.path());
    check(&Log::open(copy.path(), LogOptions::for_testing()).unwrap(), 40);
}

#[test]
fn a_journal_cut_in_the_middle_of_a_commit_keeps_whole_commits() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::for_testing()).unwrap();
    fill(&log, 10);
    let journal = folder.path().join("0.jnl");
    let length = journal_length(&journal);
    for cut in [1, 40, 90, 150, 400, 700] {
        let copy = tempfile::tempdir().unwrap();
        copy_as_after_a_power_failure(folder.path(), copy.path());
        let cut_journal = std::fs::OpenOptions::new().write(true).open(copy.path().join("0.jnl")).unwrap();
        cut_journal.set_len(length - cut).unwrap();
        let log = Log::open(copy.path(), LogOptions::for_testing()).unwrap();
        let end = log.end_offset(OUT).unwrap();
        assert!(end < 10, "cut by {cut}: {end}");
        check_equal_ends(&log, end);
    }
}

#[test]
fn a_commit_torn_by_a_power_failure_is_dropped_and_damage_elsewhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::for_testing()).unwrap();
    fill(&log, 9);
    // One value over several pages that does not compress: a hole in it is noticed by the checksum alone.
    let noise: Vec<u8> =
        (0..2_500_u64).flat_map(|word| xxhash_rust::xxh3::xxh3_64(&word.to_le_bytes()).to_le_bytes()).collect();
    let large = || vec![NewRecord { value: Some(noise.clone().into()), ..record(OUT, "large", "", 5) }];
    log.append(large()).unwrap();
    let journal = folder.path().join("0.jnl");
    let with_hole_in_last = copy_with_hole(folder.path(), journal_length(&journal) - 10_000);
    log.append(large()).unwrap();
    let with_hole_before = copy_with_hole(folder.path(), journal_length(&journal) - 30_000);

    let store = FjallStore::open(with_hole_in_last.path(), &LogOptions::for_testing()).unwrap();
    assert!(store.dropped_torn_commit());
    let log = Log::over(Arc::new(store), LogOptions::for_testing(), CommitMode::Grouped).unwrap();
    check_equal_ends(&log, 9);
    check(&log, 9);
    drop(log);
    let store = FjallStore::open(with_hole_in_last.path(), &LogOptions::for_testing()).unwrap();
    assert!(!store.dropped_torn_commit(), "repaired for good");

    let damaged = std::fs::read(with_hole_before.path().join("0.jnl")).unwrap();
    assert!(Log::open(with_hole_before.path(), LogOptions::for_testing()).is_err());
    assert!(damaged == std::fs::read(with_hole_before.path().join("0.jnl")).unwrap(), "left as it was found");
}

fn copy_with_hole(folder: &Path, at: u64) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_as_after_a_power_failure(folder, copy.path());
    let mut journal = std::fs::OpenOptions::new().write(true).open(copy.path().join("0.jnl")).unwrap();
    journal.seek(SeekFrom::Start(at)).unwrap();
    journal.write_all(&[0; 4_096]).unwrap();
    copy
}

fn check_equal_ends(log: &Log, end: u64) {
    assert_eq!(log.end_offset(AT).unwrap(), end);
    let committed = log.committed("merge", &[AT]).unwrap();
    assert_eq!(committed[0].as_ref().map_or(0, |committed| committed.offset), end);
    assert_eq!(read_all(log, OUT, 0).len() as u64, end);
}

/// Without the zeros that were allocated in advance.
fn journal_length(journal: &Path) -> u64 {
    let bytes = std::fs::read(journal).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

/// What the witness said of the last commits had not reached the disk; had it, their loss would be damage.
fn copy_as_after_a_power_failure(from: &Path, to: &Path) {
    copy_folder(from, to);
    std::fs::remove_file(to.join("durable")).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_number_of_partitions_is_fixed_when_the_log_is_created() {
    let home = Home::Disk(tempfile::tempdir().unwrap());
    drop(home.open(LogOptions::for_testing()));
    let refused =
        Log::over(home.store(), LogOptions { partitions: 3, ..LogOptions::for_testing() }, CommitMode::Inline);
    assert_eq!(refused.err(), Some(LogError::PartitionCountChanged { topic: "raw.behavior", stored: 2, asked: 3 }));
}
