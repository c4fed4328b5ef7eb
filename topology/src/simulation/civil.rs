//! Pure: no I/O, no clock, no async.
//!
//! Windows by plain arithmetic, for zones whose offset has not changed for decades: the oracle's own calendar.

/// A zone with one offset.
#[derive(Clone, Copy, Debug)]
pub struct FixedZone {
    pub name: &'static str,
    pub offset_s: i64,
}

pub const UTC: FixedZone = FixedZone { name: "UTC", offset_s: 0 };
/// Since 1986.
pub const KATHMANDU: FixedZone = FixedZone { name: "Asia/Kathmandu", offset_s: 5 * 3_600 + 45 * 60 };

const DAY: i64 = 86_400;

impl FixedZone {
    /// Start and end of the window of a grain, numbered as in the table (1 minute … 6 month).
    pub fn window(self, grain: i8, at_s: i64) -> (i64, i64) {
        let fixed = |length: i64, offset: i64| {
            let start = (at_s + offset).div_euclid(length) * length - offset;
            (start, start + length)
        };
        match grain {
            1 => fixed(60, 0),
            2 => fixed(900, 0),
            3 => fixed(3_600, self.offset_s),
            4 => fixed(DAY, self.offset_s),
            // Day 0 was a Thursday: three days after a Monday.
            5 => fixed(7 * DAY, self.offset_s + 3 * DAY),
            _ => {
                let (year, month) = year_and_month((at_s + self.offset_s).div_euclid(DAY));
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let first = |(year, month)| days_from_civil(year, month) * DAY - self.offset_s;
                (first((year, month)), first(next))
            }
        }
    }

    pub fn name_for(self, grain: i8) -> &'static str {
        if grain <= 2 { "UTC" } else { self.name }
    }
}

/// Days since 1970-01-01 of a month's first day (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn year_and_month(days: i64) -> (i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_windows() {
        // 2026-03-01T00:10:00Z is already 05:55 on the first in Kathmandu; 2026-02-23 was a Monday.
        let at = 1_772_323_800;
        assert_eq!(UTC.window(6, at), (1_772_323_200, 1_775_001_600));
        assert_eq!(UTC.window(5, at), (1_771_804_800, 1_772_409_600));
        assert_eq!(KATHMANDU.window(3, at).0, at - 55 * 60);
        assert_eq!(KATHMANDU.window(4, at).0, at - (5 * 60 + 55) * 60);
    }
}
