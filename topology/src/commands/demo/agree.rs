//! Waits until every count is visible everywhere.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answers::{Agreement, ApiAnswer, Period, SqlAnswer, agreement};
use super::live::LiveListener;
use super::outcome::Latency;
use super::stack::Questions;
use super::tally::Tally;

const DEADLINE: Duration = Duration::from_secs(120);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);
/// The live push has nothing to prove once the tables agree, so it does not hold the verdict up for long.
const LIVE_GRACE: Duration = Duration::from_secs(6);

/// The last answers and what they are worth.
#[derive(Debug)]
pub struct Settled {
    pub agreement: Agreement,
    pub api: ApiAnswer,
    pub sql: SqlAnswer,
    pub latency: Latency,
    pub troubles: Vec<String>,
}

/// Asks until both sources say what the files say, and live windows too, or the time is up. `sent_at`: ingest's last answer.
pub async fn wait_until_agreed(
    questions: &Questions,
    listener: &LiveListener,
    truth: &Tally,
    period: &Period,
    sent_at: Instant,
) -> Settled {
    let mut settled = Settled {
        agreement: Agreement { api: false, sql: false },
        api: ApiAnswer::default(),
        sql: SqlAnswer::default(),
        latency: Latency::default(),
        troubles: Vec::new(),
    };
    let mut agreed_at = None;
    loop {
        settled.troubles.clear();
        let (api, sql) = tokio::join!(questions.api(period), questions.sql());
        let now = Instant::now();
        match api {
            Ok(answer) => settled.api = answer,
            Err(error) => settled.troubles.push(format!("{error:#}")),
        }
        match sql {
            Ok(answer) => settled.sql = answer,
            Err(error) => settled.troubles.push(format!("{error:#}")),
        }
        settled.agreement = agreement(truth, &settled.api, &settled.sql);
        let since = |at: Instant| at.saturating_duration_since(sent_at).as_secs_f64();
        let Latency { api_seconds, sql_seconds, live_seconds } = &mut settled.latency;
        *api_seconds = settled.agreement.api.then(|| api_seconds.unwrap_or(since(now)));
        *sql_seconds = settled.agreement.sql.then(|| sql_seconds.unwrap_or(since(now)));
        {
            let heard = listener.heard();
            if live_seconds.is_none() && heard.windows.total() == truth.total() {
                *live_seconds = heard.last_at.map(since);
            }
        }
        let is_live = live_seconds.is_some();
        if settled.agreement.api && settled.agreement.sql {
            let agreed_at = *agreed_at.get_or_insert(now);
            if is_live || agreed_at.elapsed() > LIVE_GRACE {
                return settled;
            }
        } else if sent_at.elapsed() > DEADLINE {
            return settled;
        }
        sleep(BETWEEN_QUESTIONS).await;
    }
}
