//! Files of the embedded log cut short, or with one bit turned, before it is opened. Either everything that was
//! acknowledged is read back as it was, or an error names the damage: never other data in silence.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_topology::embedded::log::{CommitUnit, Log, LogOptions};

use crate::plan::{Dice, Plan};
use crate::real_stack::scratch::ScratchFolder;

const PLACES: [TopicPartition; 2] = [
    TopicPartition { topic: Topic::RawBehavior, partition: 0 },
    TopicPartition { topic: Topic::EventsBehavior, partition: 1 },
];
const GROUP: &str = "refine";
/// Enough for tables, a journal that is full and another one.
const COMMITS: u64 = 1_500;
const RECORDS_PER_COMMIT: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    BitTurned,
    CutShort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Exact,
    /// An error that names the file, or its key space with topic, partition and offset.
    Named,
    Unnamed,
    Silent,
}

/// Opens a log in which one file was damaged, many times over.
pub fn run() {
    let plan = Plan::from_environment();
    let scratch = ScratchFolder::create("damaged").unwrap();
    let whole = scratch.path().join("whole");
    fill(&whole);
    let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files_of(&whole) {
        files.entry(kind(&file)).or_default().push(file);
    }
    let files: Vec<Vec<PathBuf>> = files.into_values().collect();
    let mut dice = Dice::new(plan.seed);
    let mut table: BTreeMap<(String, Damage, Verdict), (u32, String)> = BTreeMap::new();
    for trial in 0..if plan.is_long() { 1_000 } else { 60 } {
        let of_kind = &files[trial % files.len()];
        let file = &of_kind[dice.below(of_kind.len())];
        let damage = dice.pick(&[Damage::BitTurned, Damage::CutShort]);
        let copy = scratch.path().join("copy");
        copy_folder(&whole, &copy);
        let at = inflict(&copy.join(file), damage, &mut dice);
        let (verdict, detail) = verdict(&copy, file);
        let detail = format!("{} at {at}: {detail}", file.display());
        let entry = table.entry((kind(file), damage, verdict)).or_insert((0, detail));
        entry.0 += 1;
        std::fs::remove_dir_all(&copy).unwrap();
    }
    println!("\nchaos, damaged files of the embedded log: seed {}", plan.seed);
    for ((kind, damage, verdict), (count, example)) in &table {
        println!("  {kind:<22} {damage:<10?} {verdict:<8?} {count:>5}   e.g. {example}");
    }
    let has = |wanted: Verdict| table.keys().any(|(_, _, verdict)| *verdict == wanted);
    assert!(!has(Verdict::Silent), "other data in silence");
    assert!(!has(Verdict::Unnamed), "an error that does not say where the damage is");
}

fn value(place: TopicPartition, offset: u64) -> Vec<u8> {
    Dice::new(offset * 8 + u64::from(place.partition)).bytes(1_200)
}

fn fill(folder: &Path) {
    let log = Log::open(folder, LogOptions::for_testing()).unwrap();
    for commit in 0..COMMITS {
        let mut records = Vec::new();
        for place in PLACES {
            for index in 0..RECORDS_PER_COMMIT {
                let offset = commit * RECORDS_PER_COMMIT + index;
                records.push(NewRecord {
                    topic: place.topic,
                    partition: Some(place.partition),
                    key: format!("k{offset}").into(),
                    value: Some(value(place, offset).into()),
                    headers: Headers::new(),
                    timestamp_ms: i64::try_from(offset).unwrap(),
                });
            }
        }
        let committed = CommittedOffset { offset: commit + 1, metadata: format!("m{commit}") };
        log.commit(CommitUnit { records, offsets: vec![(PLACES[0], committed)], group: GROUP.into(), fence: None })
            .unwrap();
    }
}

/// All files but locks, relative to the folder.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().unwrap().len() > 0 {
                found.push(path.strip_prefix(folder).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// Without its numbers: `keyspaces/3/tables/0` is one of `keyspaces/#/tables/#`.
fn kind(file: &Path) -> String {
    let path = file.display().to_string();
    let mut kind = String::new();
    for letter in path.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if !(letter == '#' && kind.ends_with('#')) {
            kind.push(letter);
        }
    }
    kind
}

fn inflict(file: &Path, damage: Damage, dice: &mut Dice) -> u64 {
    let mut file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    // Without the zeros that were allocated in advance.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = dice.below(used);
    match damage {
        Damage::CutShort => file.set_len(at as u64).unwrap(),
        Damage::BitTurned => {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[bytes[at] ^ (1 << dice.below(8))]).unwrap();
        }
    }
    at as u64
}

fn verdict(folder: &Path, damaged: &Path) -> (Verdict, String) {
    let outcome = std::panic::catch_unwind(|| read_back(folder));
    match outcome {
        Ok(Ok(())) => (Verdict::Exact, "all there".to_owned()),
        Ok(Err(Mismatch::Refused(error))) => {
            // A manifest and `current` are checked against each other; a table is read for a key space.
            let folder = damaged.components().take(2).collect::<PathBuf>();
            let names = error.contains(&*folder.to_string_lossy());
            (if names { Verdict::Named } else { Verdict::Unnamed }, error)
        }
        Ok(Err(Mismatch::Wrong(detail))) => (Verdict::Silent, detail),
        Err(_) => (Verdict::Unnamed, "panicked".to_owned()),
    }
}

enum Mismatch {
    Refused(String),
    Wrong(String),
}

fn read_back(folder: &Path) -> Result<(), Mismatch> {
    let refused = |error: neonhub_topology::embedded::log::LogError| Mismatch::Refused(error.to_string());
    let log = Log::open(folder, LogOptions::for_testing()).map_err(refused)?;
    for place in PLACES {
        let mut position = 0;
        while position < COMMITS * RECORDS_PER_COMMIT {
            let fetched = log.read(place, position, 1_000, 1 << 20).map_err(refused)?;
            for record in &fetched.records {
                if record.offset != position || record.value.as_deref() != Some(&value(place, position)[..]) {
                    return Err(Mismatch::Wrong(format!("{place}@{position} is not what it was")));
                }
                position += 1;
            }
            if fetched.records.is_empty() {
                return Err(Mismatch::Wrong(format!("{place} ends at {position}")));
            }
        }
    }
    let committed = log.committed(GROUP, &PLACES[..1]).map_err(refused)?;
    match &committed[0] {
        Some(committed) if committed.offset == COMMITS => Ok(()),
        other => Err(Mismatch::Wrong(format!("committed: {other:?}"))),
    }
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
