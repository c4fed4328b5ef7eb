//! A process that is killed while it commits, as `kill -9` does it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use neonhub_schemas::record::{CommittedOffset, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::super::{CommitUnit, Log, LogOptions};
use super::{place, read_all, record};

const RAW: TopicPartition = place(Topic::RawBehavior, 0);
const OUT: TopicPartition = place(Topic::EventsBehavior, 1);
const FOLDER: &str = "log";
/// Where its parent left this, the test is the child.
const MARKER: &str = "crash-child";
const ACKNOWLEDGED: &str = "acknowledged ";
const ROUNDS: u64 = 4;
const TEST: &str = "a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_commit";

#[test]
fn a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_commit() {
    if Path::new(MARKER).exists() {
        return commit_until_killed();
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join(MARKER), "").unwrap();
    let mut acknowledged = 0;
    for round in 1..=ROUNDS {
        acknowledged = run_child_until(home.path(), acknowledged + 20 * round).max(acknowledged);
        let log = Log::open(&home.path().join(FOLDER), LogOptions::for_testing()).unwrap();
        let end = log.end_offset(OUT).unwrap();
        assert!(end >= acknowledged, "{end} of {acknowledged}");
        assert_eq!(log.end_offset(RAW).unwrap(), end, "records of one commit are together");
        let committed = log.committed("g", &[RAW]).unwrap().remove(0).unwrap();
        assert_eq!(committed.offset, end, "and so is the offset");
        let offsets: Vec<u64> = read_all(&log, OUT, 0).iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (0..end).collect::<Vec<_>>());
    }
}

/// Kills the child when it has acknowledged so many commits; returns how many it acknowledged in the end.
fn run_child_until(home: &Path, enough: u64) -> u64 {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("{module}::{TEST}")])
        .current_dir(home)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = 0;
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(count) = line.strip_prefix(ACKNOWLEDGED) else { continue };
        last = count.parse().unwrap();
        if last >= enough && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself after {last}");
    last
}

/// The child: commits in the current folder, far more often than it lives for.
fn commit_until_killed() {
    let log = Log::open(Path::new(FOLDER), LogOptions::for_testing()).unwrap();
    let first = log.end_offset(OUT).unwrap();
    for offset in first..first + 100_000 {
        let value = "v".repeat(usize::try_from(offset % 997).unwrap());
        let metadata = format!("{offset}");
        log.commit(CommitUnit {
            records: vec![record(RAW, "k", &value, 1), record(OUT, "k", &value, 1)],
            offsets: vec![(RAW, CommittedOffset { offset: offset + 1, metadata })],
            group: "g".into(),
            fence: None,
        })
        .unwrap();
        // A line of its own: the test harness prints without a newline before.
        println!("\n{ACKNOWLEDGED}{}", offset + 1);
    }
}
