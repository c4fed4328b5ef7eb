//! Pure: no I/O, no clock, no async.
//!
//! Rates with their intervals, drawn with characters on one scale.

use super::wilson::Interval;

/// `├────●──────┤`, from 0 to `largest` over `width` characters.
#[must_use]
pub fn bar(rate: f64, interval: Interval, largest: f64, width: usize) -> String {
    let place = |value: f64| -> usize {
        let scaled = if largest > 0.0 { value / largest * (width.saturating_sub(1)) as f64 } else { 0.0 };
        (scaled.round().max(0.0) as usize).min(width.saturating_sub(1))
    };
    let (low, middle, high) = (place(interval.low), place(rate), place(interval.high));
    let character = |column: usize| match column {
        column if column == middle => '●',
        column if column == low => '├',
        column if column == high => '┤',
        column if column > low && column < high => '─',
        _ => ' ',
    };
    (0..width).map(character).collect::<String>().trim_end().to_owned()
}

/// The scale under the bars: 0 at the left, `largest` at the right.
#[must_use]
pub fn scale(largest: f64, width: usize) -> String {
    let right = format!("{:.2} %", largest * 100.0);
    let gap = width.saturating_sub(right.chars().count() + 1);
    format!("0{}{right}", " ".repeat(gap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_to_scale() {
        let interval = Interval { low: 0.2, high: 0.8 };
        assert_eq!(bar(0.5, interval, 1.0, 11), "  ├──●──┤");
        assert_eq!(bar(0.5, Interval { low: 0.0, high: 1.0 }, 1.0, 11), "├────●────┤");
        assert_eq!(bar(0.0, Interval { low: 0.0, high: 0.0 }, 0.0, 11), "●");
        assert_eq!(bar(9.0, Interval { low: 0.0, high: 9.9 }, 1.0, 3), "├─●");
        assert_eq!(bar(0.0, interval, 1.0, 0), "");
        assert_eq!(scale(0.0062, 11), "0    0.62 %");
    }
}
