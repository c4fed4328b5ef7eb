use std::time::Duration;

use neonhub_schemas::topics::Topic;

use super::super::{CommitUnit, Log, LogError, LogOptions};
use super::{Home, place, record};

const AT: neonhub_schemas::record::TopicPartition = place(Topic::RawBehavior, 0);
const LONG: Duration = Duration::from_secs(30);

fn on_disk() -> (Home, Log) {
    let home = Home::Disk(tempfile::tempdir().unwrap());
    let log = home.open(LogOptions::for_testing());
    (home, log)
}

#[test]
fn a_waiting_reader_is_woken_by_data() {
    let (_home, log) = on_disk();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| log.wait_for_data(&[(AT, 1)], LONG));
        log.append(vec![record(AT, "k", "0", 1)]).unwrap();
        assert!(!log.wait_for_data(&[(AT, 1)], Duration::from_millis(1)), "nothing past this position yet");
        log.append(vec![record(AT, "k", "1", 1)]).unwrap();
        assert!(waiting.join().unwrap());
    });
    assert!(log.wait_for_data(&[(AT, 0)], Duration::ZERO), "what is there is there at once");
}

#[test]
fn shutdown_wakes_readers_refuses_commits_and_still_reads() {
    let (_home, log) = on_disk();
    log.append(vec![record(AT, "k", "0", 1)]).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| log.wait_for_data(&[(AT, 1)], LONG));
        log.shutdown();
        assert!(!waiting.join().unwrap());
    });
    assert_eq!(log.append(vec![record(AT, "k", "1", 1)]), Err(LogError::Closed));
    assert_eq!(log.read(AT, 0, 10, 100).unwrap().records.len(), 1);
}

#[test]
fn an_inline_log_never_waits() {
    let log = Log::in_memory(LogOptions::for_testing()).unwrap();
    assert!(!log.wait_for_data(&[(AT, 0)], Duration::MAX));
    let answer = log.submit(CommitUnit::of_records(vec![record(AT, "k", "0", 1)])).try_recv();
    assert_eq!(answer.unwrap().unwrap().placements, [(0, 0)], "answered before submit returns");
}

#[tokio::test]
async fn tasks_submit_and_await_changes() {
    let (_home, log) = on_disk();
    let mut changes = log.subscribe();
    let answer = log.submit(CommitUnit::of_records(vec![record(AT, "k", "0", 1)]));
    tokio::time::timeout(LONG, changes.changed()).await.unwrap().unwrap();
    assert_eq!(log.end_offset(AT).unwrap(), 1);
    assert_eq!(answer.await.unwrap().unwrap().placements, [(0, 0)]);
}
