//! Pure: no I/O, no clock, no async.
//!
//! What ingest's answer to a batch means for the sender.

use std::time::Duration;

use serde::Deserialize;

/// One event of the batch that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RejectedIndex {
    pub index: usize,
    pub reason: String,
    #[serde(default)]
    pub field: Option<String>,
    #[serde(default)]
    pub detail: String,
}

impl RejectedIndex {
    #[must_use]
    pub fn to_text(&self) -> String {
        // The field counts from the body's top, `batch[3].event`; the batch is ours, not the file's.
        let field = self.field.as_deref().map(|field| field.split_once("].").map_or(field, |(_, inner)| inner));
        match field {
            Some(field) => format!("{field}: {} ({})", self.detail, self.reason),
            None => format!("{} ({})", self.detail, self.reason),
        }
    }
}

/// Named by what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All are durable but those listed.
    Taken { rejected: Vec<RejectedIndex> },
    /// None is, and none will be.
    Refused { detail: String },
    /// Send it in smaller pieces.
    Split { detail: String },
    /// Send the same bytes again, after this long if it says so.
    Again { after: Option<Duration>, detail: String },
    /// Nothing else will be taken either.
    Stop { detail: String },
}

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    accepted: Option<usize>,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    rejected: Vec<RejectedIndex>,
}

const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// `retry_after` is that header's value; `sent` the number of events in the batch.
#[must_use]
pub fn verdict(status: u16, retry_after: Option<&str>, body: &[u8], sent: usize) -> Verdict {
    let answer = serde_json::from_slice::<Answer>(body);
    let detail = match &answer {
        Ok(answer) if !answer.detail.is_empty() => format!("{status}: {}", answer.detail),
        _ => format!("ingest answered {status}"),
    };
    match status {
        200..=299 => match answer {
            Ok(answer) if answer.accepted.is_none_or(|accepted| accepted + answer.rejected.len() == sent) => {
                Verdict::Taken { rejected: answer.rejected }
            }
            _ => Verdict::Stop { detail: format!("the answer {status} does not account for all {sent} events") },
        },
        400 | 404 | 422 => match answer {
            Ok(answer) if answer.rejected.len() == sent => Verdict::Taken { rejected: answer.rejected },
            _ => Verdict::Refused { detail },
        },
        413 => Verdict::Split { detail },
        408 | 429 | 502 | 503 | 504 => {
            let after = retry_after.and_then(|text| text.trim().parse::<u64>().ok()).map(Duration::from_secs);
            Verdict::Again { after: after.map(|wait| wait.min(LONGEST_WAIT)), detail }
        }
        _ => Verdict::Stop { detail },
    }
}

/// The pause before attempt number `attempt` (the first repetition is 1): 100 ms, doubled up to 5 s.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let doubled = 100_u64.saturating_mul(1 << attempt.saturating_sub(1).min(10));
    Duration::from_millis(doubled.min(5_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_taken_names_what_was_not() {
        let body = br#"{"success":true,"accepted":1,"rejected":[
            {"index":1,"reason":"missing_field","field":"batch[1].campaign","detail":"is required"}]}"#;
        let Verdict::Taken { rejected } = verdict(200, None, body, 2) else { panic!("not taken") };
        assert_eq!(rejected[0].index, 1);
        assert_eq!(rejected[0].to_text(), "campaign: is required (missing_field)");
        assert!(matches!(verdict(200, None, body, 3), Verdict::Stop { .. }));
        assert!(matches!(verdict(200, None, b"<html>", 1), Verdict::Stop { .. }));
        assert_eq!(verdict(200, None, br#"{"success":true}"#, 7), Verdict::Taken { rejected: vec![] });
    }

    #[test]
    fn what_to_do_with_each_status() {
        let wait = |text| verdict(503, text, b"{}", 1);
        assert!(matches!(wait(Some("2")), Verdict::Again { after: Some(after), .. } if after.as_secs() == 2));
        assert!(matches!(wait(Some("86400")), Verdict::Again { after: Some(LONGEST_WAIT), .. }));
        assert!(matches!(wait(Some("Wed, 21 Oct 2015 07:28:00 GMT")), Verdict::Again { after: None, .. }));
        assert!(matches!(verdict(429, None, b"", 1), Verdict::Again { .. }));
        assert!(matches!(verdict(413, None, b"{}", 1), Verdict::Split { .. }));
        assert!(matches!(verdict(401, None, b"{}", 1), Verdict::Stop { .. }));
        let refused = verdict(400, None, br#"{"detail":"the body is not JSON"}"#, 2);
        assert_eq!(refused, Verdict::Refused { detail: "400: the body is not JSON".to_owned() });
        let all = br#"{"detail":"none is valid","rejected":[{"index":0,"reason":"x","detail":"y"}]}"#;
        assert!(matches!(verdict(400, None, all, 1), Verdict::Taken { rejected } if rejected.len() == 1));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<u128> = [1, 2, 3, 6, 7, 60].map(|attempt| backoff(attempt).as_millis()).into();
        assert_eq!(pauses, [100, 200, 400, 3_200, 5_000, 5_000]);
    }
}
