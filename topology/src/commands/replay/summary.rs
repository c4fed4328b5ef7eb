//! Pure: no I/O, no clock, no async.
//!
//! What a replay came to.

use std::fmt::Write as _;

use serde::Serialize;

use super::outgoing::Rejection;
use super::poster::BatchReport;

/// Reasons that are shown; all are counted.
const SHOWN_REASONS: usize = 10;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Events that were handed to ingest and answered.
    pub sent: u64,
    /// On the log, durably; repeated ones are counted once downstream.
    pub accepted: u64,
    /// By ingest, or because the line is no event.
    pub rejected: u64,
    /// Of `rejected`: lines that were not sent.
    pub unreadable: u64,
    /// Requests that had to be repeated.
    pub retries: u64,
    pub seconds: f64,
    pub first_reasons: Vec<String>,
    /// Why the replay ended before its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Summary {
    pub fn add_batch(&mut self, report: BatchReport) {
        let rejected = report.rejected.len() as u64;
        self.sent += report.accepted + rejected;
        self.accepted += report.accepted;
        self.retries += report.retries;
        self.rejected += rejected;
        report.rejected.iter().for_each(|rejection| self.remember(rejection));
    }

    pub fn add_unreadable(&mut self, rejection: &Rejection) {
        self.rejected += 1;
        self.unreadable += 1;
        self.remember(rejection);
    }

    fn remember(&mut self, rejection: &Rejection) {
        if self.first_reasons.len() < SHOWN_REASONS {
            self.first_reasons.push(rejection.to_string());
        }
    }

    /// Everything was read and accepted.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rejected == 0 && self.failure.is_none()
    }

    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let rate = if self.seconds > 0.0 { self.sent as f64 / self.seconds } else { 0.0 };
        let mut line = |line: String| {
            // Writing to a String does not fail.
            let _always_ok = writeln!(text, "{line}");
        };
        line(format!("sent      {:>12}   in {:.1} s, {rate:.0} events/s", self.sent, self.seconds));
        line(format!("accepted  {:>12}", self.accepted));
        line(format!("rejected  {:>12}", self.rejected));
        if self.retries > 0 {
            line(format!("retries   {:>12}", self.retries));
        }
        for reason in &self.first_reasons {
            line(format!("  {reason}"));
        }
        let shown = self.first_reasons.len() as u64;
        if self.rejected > shown {
            line(format!("  … and {} more", self.rejected - shown));
        }
        if let Some(failure) = &self.failure {
            line(format!("failed: {failure}"));
            line("Replaying the same files again is safe: within the dedup window each event counts once.".to_owned());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::replay::outgoing::Origin;

    fn rejection(line: u64) -> Rejection {
        Rejection { origin: Origin { file: "a.csv".into(), line }, detail: "type: is missing".to_owned() }
    }

    #[test]
    fn counts_add_up_and_only_the_first_reasons_are_kept() {
        let mut summary = Summary { seconds: 2.0, ..Summary::default() };
        summary.add_batch(BatchReport { accepted: 8, rejected: vec![rejection(2), rejection(3)], retries: 1 });
        (4..20).for_each(|line| summary.add_unreadable(&rejection(line)));
        assert_eq!((summary.sent, summary.accepted, summary.rejected, summary.unreadable), (10, 8, 18, 16));
        let text = summary.to_text();
        assert!(text.contains("in 2.0 s, 5 events/s"), "{text}");
        assert!(text.contains("  a.csv:2: type: is missing\n"), "{text}");
        assert!(text.contains("  … and 8 more\n"), "{text}");
        assert!(!summary.is_clean());
        assert!(Summary::default().is_clean());
    }
}
