//! Measurements, not checks: `cargo test --release -- --ignored --nocapture speed`.

use std::time::Instant;

use neonhub_schemas::topics::Topic;

use super::super::{CommitUnit, Log, LogOptions};
use super::place;
use super::record;

const BATCHES: usize = 500;

#[test]
#[ignore = "a measurement"]
fn speed_of_appending_and_reading() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let value = "v".repeat(200);
    let batches: Vec<_> = (0..BATCHES)
        .map(|batch| {
            let of_one = (0..1_000_u32)
                .map(|index| record(place(Topic::RawBehavior, index % 4), &format!("shop|{batch}-{index}"), &value, 1));
            CommitUnit::of_records(of_one.collect())
        })
        .collect();
    let started = Instant::now();
    let mut pending = std::collections::VecDeque::new();
    for unit in batches {
        pending.push_back(log.submit(unit));
        if pending.len() >= 8 {
            pending.pop_front().unwrap().blocking_recv().unwrap().unwrap();
        }
    }
    for answer in pending {
        answer.blocking_recv().unwrap().unwrap();
    }
    report("appended", started, BATCHES * 1_000);

    let started = Instant::now();
    let mut tail = 0;
    for partition in 0..4 {
        let at = place(Topic::RawBehavior, partition);
        let end = log.end_offset(at).unwrap();
        let mut position = end - 20_000;
        while position < end {
            let fetched = log.read(at, position, 1_000, 1 << 20).unwrap();
            tail += fetched.records.len();
            position = fetched.next_offset;
        }
    }
    report("read from memory", started, tail);

    drop(log);
    let started = Instant::now();
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    report("recovered", started, BATCHES * 1_000);
    for pass in ["read from disk", "read from disk again"] {
        let started = Instant::now();
        let mut read = 0;
        for partition in 0..4 {
            let at = place(Topic::RawBehavior, partition);
            let end = log.end_offset(at).unwrap();
            let mut position = 0;
            while position < end {
                let fetched = log.read(at, position, 5_000, 4 << 20).unwrap();
                read += fetched.records.len();
                position = fetched.next_offset;
            }
        }
        report(pass, started, read);
    }
    drop(log);

    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let started = Instant::now();
    for index in 0..200 {
        log.append(vec![record(place(Topic::RawBehavior, 0), "k", &index.to_string(), 1)]).unwrap();
    }
    println!("one commit at a time: {:?} each", started.elapsed() / 200);
}

fn report(what: &str, started: Instant, records: usize) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {records} records in {seconds:.2} s, {:.0} records/s", records as f64 / seconds);
}
