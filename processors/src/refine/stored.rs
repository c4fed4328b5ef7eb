//! Pure: no I/O, no clock, no async.
//!
//! What refine has in its local state. Numbers in keys are big-endian, so that keys are in their order.
//!
//! | key | value |
//! |---|---|
//! | 1, run (8), page (4) | hashes of (actor, message id), in order, 8 bytes each |
//! | 2, hash of the actor (8) | the actor's session |
//! | 3, workspace, `\|`, anonymous id | the user's id |
//! | 4 | [`Meta`] |

use serde::{Deserialize, Serialize};

use super::runs::Run;
pub use crate::engine::local_state::{decode, encode};

const PAGES: u8 = 1;
pub const SESSIONS: u8 = 2;
pub const LINKS: u8 = 3;
const META: u8 = 4;

pub const META_KEY: &[u8] = &[META];

#[must_use]
pub fn page_key(run: u64, page: u32) -> Vec<u8> {
    [&[PAGES], run.to_be_bytes().as_slice(), &page.to_be_bytes()].concat()
}

/// From here to there: the pages of a run.
#[must_use]
pub fn pages_of(run: u64) -> (Vec<u8>, Vec<u8>) {
    (page_key(run, 0), page_key(run + 1, 0))
}

/// Which runs there are: what the seen-set is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Buckets of another length have other numbers.
    pub bucket_ms: i64,
    pub next_run: u64,
    /// Oldest first.
    pub buckets: Vec<StoredBucket>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBucket {
    pub number: i64,
    /// Whose hashes were in memory, too.
    pub young: Vec<Run>,
    /// Whose hashes were here only.
    pub spilled: Vec<Run>,
}
