//! How large batches and pieces become, and what the landing counts as memory.

use neonhub_processors::landing::{BatchLimits, Block, BlockBuilder, PartitionBuffer};
use neonhub_schemas::event::Envelope;
use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::fake_ports::record;

const PLACE: TopicPartition = TopicPartition { topic: Topic::EventsBehavior, partition: 0 };
const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");
const PIECE: usize = 1 << 20;

/// An event of about so many bytes.
fn event(offset: u64, size: usize) -> Record {
    let mut event = Envelope::decode(TRACK.as_bytes()).unwrap();
    event.context = format!("{{\"padding\":\"{}\"}}", "x".repeat(size)).into();
    let raw = event.to_raw_record();
    Record { key: raw.key, value: raw.value, headers: raw.headers, ..record(PLACE, offset, "") }
}

/// What a builder says that it takes, after each of the rows.
fn built(sizes: &[usize]) -> (Block, Vec<usize>) {
    let mut builder = BlockBuilder::new(PLACE);
    let bytes = (0..).zip(sizes).map(|(offset, size)| {
        builder.push(&event(offset, *size)).unwrap();
        builder.bytes()
    });
    let bytes = bytes.collect();
    (builder.finish(), bytes)
}

#[test]
fn a_row_takes_its_bytes_and_its_place() {
    let (block, bytes) = built(&[300_000; 12]);
    let place = bytes[0] - block.rows().next().unwrap().len();
    assert!((24..=48).contains(&place), "{place} bytes for offset, time, piece, start and end");
    let mut expected = 0;
    for (row, bytes) in block.rows().zip(bytes) {
        expected += row.len() + place;
        assert_eq!(bytes, expected, "also when a piece is full");
    }
}

#[test]
fn a_piece_is_full_when_the_next_row_may_not_fit() {
    let (block, _) = built(&[100_000; 40]);
    let value = event(0, 100_000).value.unwrap().len();
    let pieces: Vec<usize> = block.chunks().iter().map(|chunk| chunk.len()).collect();
    let (last, full) = pieces.split_last().unwrap();
    assert!(*last <= PIECE && full.len() >= 3);
    for piece in full {
        // A row may take half a kilobyte beside its value.
        assert!(*piece <= PIECE && piece + value + 512 > PIECE, "{piece} of {PIECE} bytes, {value} were to come");
    }
}

#[test]
fn a_row_goes_into_the_open_piece_up_to_its_last_byte() {
    let value_of = |size: usize| event(0, size).value.unwrap().len();
    let row = built(&[1_000]).0.rows().next().unwrap().len();
    let room = PIECE - row - 512;
    let exact = room - (value_of(2_000) - 2_000);
    assert_eq!(value_of(exact), room);
    assert_eq!(built(&[1_000, exact]).0.chunks().len(), 1, "it may just fit");
    assert_eq!(built(&[1_000, exact + 1]).0.chunks().len(), 2, "it may not");
}

#[test]
fn a_row_larger_than_a_piece_has_one_of_its_own() {
    let (block, _) = built(&[10, 2 * PIECE, 10]);
    assert_eq!(block.chunks().len(), 3);
    assert_eq!(block.chunks().concat(), block.rows().flatten().copied().collect::<Vec<_>>());
}

#[test]
fn a_batch_is_full_by_its_bytes_too() {
    let (_, bytes) = built(&[1_000, 1_000]);
    for (max_bytes, to) in [(bytes[0], 1), (bytes[0] + 1, 2), (bytes[1], 2)] {
        let mut buffer = PartitionBuffer::open(PLACE, None, BatchLimits { max_rows: usize::MAX, max_bytes });
        for offset in 0..2 {
            assert!(buffer.due_since_ms(0, 1_000).is_none(), "{max_bytes}: full before {offset}");
            buffer.push(&event(offset, 1_000), 0);
            if offset + 1 == to {
                break;
            }
        }
        assert_eq!(buffer.due_since_ms(0, 1_000), Some(0), "{max_bytes}");
        assert_eq!(buffer.plan(0).unwrap().metadata, format!("to={to}"));
    }
}

/// Of what is complete, is being inserted, and is still open.
#[test]
fn what_waits_takes_memory_until_it_has_landed() {
    let (_, bytes) = built(&[1_000]);
    let row = bytes[0];
    let mut buffer = PartitionBuffer::open(PLACE, None, BatchLimits { max_rows: 2, max_bytes: usize::MAX });
    assert_eq!(buffer.bytes(), 0);
    for offset in 0..5 {
        buffer.push(&event(offset, 1_000), 0);
        let rows = usize::try_from(offset).unwrap() + 1;
        assert_eq!(buffer.bytes(), rows * row);
    }
    for left in [3, 1, 0] {
        buffer.plan(0);
        buffer.begin().unwrap();
        assert_eq!(buffer.bytes(), if left == 0 { row } else { (left + 2) * row }, "while it is being inserted");
        buffer.landed().unwrap();
        assert_eq!(buffer.bytes(), left * row);
    }
}
