//! Pure: no I/O, no clock, no async.
//!
//! What tells damage: the witness, and the manifests of key spaces. The first byte says which of them. What was written is
//! whole, and with any one bit turned it is not.

use xxhash_rust::xxh3::xxh3_128;

use crate::embedded::log::integrity::{manifest, witness};

pub fn check(bytes: &[u8]) {
    match bytes {
        [first, rest @ ..] if first % 3 == 0 => check_witness(rest),
        [first, rest @ ..] if first % 3 == 1 => check_current(rest),
        [_, id, at, rest @ ..] => check_tables(u64::from(*id), usize::from(*at), rest),
        _ => {}
    }
}

fn check_witness(bytes: &[u8]) {
    let commits = witness::decode(bytes);
    assert!(commits.is_none_or(|commits| witness::encode(commits) == bytes), "another file than it writes is believed");
    let Some(number) = bytes.first_chunk() else { return };
    let commits = u64::from_be_bytes(*number);
    let written = witness::encode(commits);
    assert_eq!(witness::decode(&written), Some(commits));
    let turned = turn_a_bit(&written, bytes.len());
    assert_eq!(witness::decode(&turned), None, "a bit that is turned is not noticed");
    assert_eq!(witness::decode(&written[..written.len() - 1]), None, "a file that is cut short is believed");
}

/// The file `current`, as it is and as it would be for the rest as a manifest.
fn check_current(bytes: &[u8]) {
    let outcome = |current: &[u8], manifest: &[u8]| {
        manifest::whole_manifest(current, |_| Ok(Some(manifest.to_vec()))).is_ok_and(|outcome| outcome.is_ok())
    };
    let (current, content) = bytes.split_at(25.min(bytes.len()));
    let checksum = xxh3_128(content).to_le_bytes();
    let is_good = current.len() == 25 && current[8..24] == checksum && current[24] == 0;
    assert_eq!(outcome(current, content), is_good);
    let Some(number) = bytes.first_chunk::<8>() else { return };
    let written = [number.as_slice(), &checksum, &[0]].concat();
    let named = manifest::whole_manifest(&written, |name| {
        assert_eq!(name, format!("v{}", u64::from_le_bytes(*number)));
        Ok(None)
    });
    let file = named.ok().and_then(Result::err).map(|(file, _)| file);
    assert_eq!(file.as_deref(), Some("current"), "a manifest that is not there is not missed");
    assert!(outcome(&written, content));
    // The number is not under the checksum, but names another file then.
    let turned = [number.as_slice(), &turn_a_bit(&written[8..], content.len())].concat();
    assert!(!outcome(&turned, content) && !outcome(&[written.as_slice(), &[0]].concat(), content));
    assert!(content.is_empty() || !outcome(&written, &turn_a_bit(content, usize::from(number[0]))));
}

/// A table whose entry stands in a manifest between whatever else is whole with this content alone.
fn check_tables(id: u64, at: usize, bytes: &[u8]) {
    let (table, others) = bytes.split_at(at.min(bytes.len()));
    let _any = manifest::is_damaged(others, id, table);
    let (before, after) = others.split_at(others.len() / 2);
    let checksum = xxh3_128(table).to_le_bytes();
    let listed = [before, &id.to_le_bytes(), &[0], &checksum, after].concat();
    assert!(!manifest::is_damaged(&listed, id, table), "a whole table is called damaged");
    if !table.is_empty() {
        let turned = turn_a_bit(table, others.len());
        // A manifest that lists the turned one as well is what a fuzzer finds, and no disk makes.
        let entry = [id.to_le_bytes().as_slice(), &[0], &xxh3_128(&turned).to_le_bytes()].concat();
        let is_foretold = listed.windows(entry.len()).any(|window| window == entry);
        assert!(is_foretold || manifest::is_damaged(&listed, id, &turned), "a damaged table is called whole");
    }
    assert!(!manifest::is_damaged(&[], id, table), "a table that is not listed is nobody's");
}

/// The bit is chosen by a number.
fn turn_a_bit(bytes: &[u8], number: usize) -> Vec<u8> {
    let mut turned = bytes.to_vec();
    let bit = number % (bytes.len() * 8);
    turned[bit / 8] ^= 1 << (bit % 8);
    turned
}
