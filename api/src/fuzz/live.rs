//! Pure: no I/O, no clock, no async.
//!
//! What live clients say: event ids, filters, messages over a WebSocket. The first byte says which.

use crate::feed::Bounds;
use crate::feed::filter::LiveFilter;
use crate::feed::position::Position;
use crate::routes::live_ws::is_client_message;

pub(super) fn check(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    if which % 3 == 0 {
        // Reading it must not panic, whatever it says.
        let _is_one = is_client_message(rest);
        return;
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if which % 3 == 1 {
        check_position(text);
    } else {
        let mut lines = text.split('\n').map(str::to_owned);
        let grain = lines.next();
        let metrics: Vec<String> = lines.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        if let Ok(filter) = LiveFilter::read("acme", metrics, grain.as_deref(), lines) {
            assert!(!filter.metrics.contains(""));
        }
    }
}

fn check_position(text: &str) {
    let Ok(position) = text.parse::<Position>() else { return };
    assert_eq!(position.to_string().parse::<Position>().as_ref(), Ok(&position));
    let bounds = [Bounds { start: 10, end: 20 }, Bounds { start: 0, end: 5 }];
    // Wherever a client says that it was, it goes on at a place that is in the log.
    let place = position.corrected(&bounds).unwrap_or(position);
    assert_eq!(place.0.len(), bounds.len());
    assert!(place.0.iter().zip(&bounds).all(|(next, bound)| (bound.start..=bound.end).contains(next)), "{place}");
    assert_eq!(place.corrected(&bounds), None, "a corrected place is corrected again");
}
