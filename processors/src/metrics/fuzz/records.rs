//! Pure: no I/O, no clock, no async.
//!
//! Records and keys of the local state. The first byte says which.

use neonhub_schemas::event::Source;
use neonhub_schemas::window::Grain;

use crate::metrics::stored::{self, Meta, Place, StoredWindow};
use crate::metrics::table::LiveWindow;

/// A sketch's registers are the largest thing that a window holds, whatever its bytes say; buckets are no more than bytes.
const LARGEST_SKETCH: usize = 32 << 10;

pub(crate) fn check(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    match which % 3 {
        0 => check_window(rest),
        1 => check_meta(rest),
        _ => check_keys(rest),
    }
}

fn check_window(bytes: &[u8]) {
    let Ok(stored) = stored::decode::<StoredWindow>(bytes) else { return };
    assert!(stored.end_s() >= stored.start_s, "it ends before it begins");
    let Ok(window) = stored.to_window() else { return };
    assert_eq!(stored.end_s() - stored.start_s, i64::from(window.length_s));
    let size = window.aggregate.heap_size();
    assert!(size <= LARGEST_SKETCH + bytes.len() * 32, "{size} bytes of memory out of {}", bytes.len());
    let written =
        stored::encode(&StoredWindow::of(stored.key.clone(), stored.source, stored.grain, stored.start_s, &window));
    let again = stored::decode::<StoredWindow>(&written).ok();
    assert_eq!(again.as_ref().map(stored::encode), Some(written), "encoding is not stable");
    assert_eq!(again.as_ref().map(|again| &again.key), Some(&stored.key));
    let again = again.and_then(|again| again.to_window().ok());
    let of = |window: &LiveWindow| {
        (window.aggregate.clone(), window.epoch, window.last_applied, window.revision, window.is_final, window.length_s)
    };
    assert_eq!(again.as_ref().map(of), Some(of(&window)), "a window is another after a round trip");
}

fn check_meta(bytes: &[u8]) {
    let Ok(meta) = stored::decode::<Meta>(bytes) else { return };
    let Ok(upstreams) = meta.upstreams() else { return };
    let written = stored::encode(&Meta::of(&upstreams, meta.newest_applied));
    let again = stored::decode::<Meta>(&written).ok();
    assert_eq!(again.as_ref().and_then(|again| again.newest_applied), meta.newest_applied);
    assert_eq!(again.and_then(|again| again.upstreams().ok()), Some(upstreams), "watermarks are others");
}

/// Keys lie in the order of time, and those of the indexes lead to their windows.
fn check_keys(bytes: &[u8]) {
    let _short = stored::window_key_of(bytes);
    let Some((place, rest)) = bytes.split_first_chunk::<33>() else { return };
    let place: Place = *place;
    let (Some(first), Some(second)) = (rest.first_chunk(), rest.last_chunk()) else { return };
    let (first, second) = (i64::from_be_bytes(*first), i64::from_be_bytes(*second));
    for grain in [Grain::Minute, Grain::Month] {
        let (earlier, later) = (stored::group(7, grain, first), stored::group(7, grain, second));
        assert_eq!(earlier.cmp(&later), first.cmp(&second), "keys are not in the order of time");
        let (from, to) = stored::group_range(&earlier);
        assert!(from < to && (from..to).contains(&stored::window_key(&[&earlier[..], &place[17..]].concat())));
    }
    let indexes = [
        stored::open_key(Source::Campaign, first, &place),
        stored::final_key(Grain::Day, Source::Campaign, first, &place),
    ];
    for index_key in indexes {
        assert_eq!(stored::window_key_of(&index_key), Some(stored::window_key(&place)));
    }
}
