//! What windows take in memory.

use super::*;

#[test]
fn the_size_is_of_windows_lists_counts_and_what_is_to_be_removed() {
    let dimensions = [("campaign".to_owned(), "men".to_owned())].into();
    let key = MetricKey { workspace: "acme".into(), metric: "spend".into(), series: 1, dimensions };
    let mut windows = Windows::new(None, 0, 1);
    let saved = LiveWindow { stored: Stored::Final, ..LiveWindow::default() };
    let ids = [0, 3_600].map(|start_s| windows.put(&key, Source::Campaign, Grain::Hour, start_s, saved.clone()));
    assert_eq!(windows.heap_size(), windows.table.heap_size() + 2 * (6 + 48));
    for id in ids {
        windows.remove(id);
    }
    assert_eq!(windows.heap_size(), 2 * 96);
}
