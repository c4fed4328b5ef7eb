//! Pure: no I/O, no clock, no async.
//!
//! Journals of the store. The first byte says whether the rest is a journal, or the items of a batch that is then made
//! whole around them, so that the fuzzer comes past the checksum.

use xxhash_rust::xxh3::xxh3_64;

use crate::embedded::log::integrity::journal::whole_batches;

pub fn check(bytes: &[u8]) {
    match bytes {
        [first, rest @ ..] if first % 2 == 0 => check_journal(rest),
        [_, count, items @ ..] => {
            let batch = whole(u32::from(*count), 7, items);
            check_journal(&batch);
            let is_good = whole_batches(&batch).1.is_ok();
            // The same batch again is no progress, and zeros after a batch are nothing.
            assert!(whole_batches(&[batch.as_slice(), batch.as_slice()].concat()).1.is_err());
            assert_eq!(whole_batches(&[batch.as_slice(), &[0; 9]].concat()).1.is_ok(), is_good);
            if is_good {
                let next = whole(u32::from(*count), 8, items);
                check_journal(&[batch.as_slice(), next.as_slice()].concat());
            }
        }
        _ => {}
    }
}

fn check_journal(journal: &[u8]) {
    let (end, outcome) = whole_batches(journal);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    assert!(end <= journal.len(), "{end} of {}", journal.len());
    // What is whole is whole by itself.
    assert_eq!(whole_batches(&journal[..end]), (end as u64, Ok(())));
    if outcome.is_ok() {
        assert!(journal[end..].iter().all(|byte| *byte == 0), "bytes after the end are passed over");
    }
}

fn whole(count: u32, sequence: u64, items: &[u8]) -> Vec<u8> {
    let mut batch = vec![1];
    batch.extend_from_slice(&count.to_le_bytes());
    batch.extend_from_slice(&sequence.to_le_bytes());
    batch.extend_from_slice(items);
    batch.push(3);
    batch.extend_from_slice(&xxh3_64(items).to_le_bytes());
    batch.extend_from_slice(b"FJL\x03");
    batch
}
