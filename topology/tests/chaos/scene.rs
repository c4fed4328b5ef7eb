//! What a fault finds: a stack under load. And how long it takes until nothing lags behind any more.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::plan::{Dice, Plan};
use crate::real_stack::wait_until;
use crate::senders::{Acknowledged, Senders};
use crate::stack::{Backbone, Options, Stack};
use crate::way::Link;

/// Beyond the limit of the plan, so that a slow recovery is measured before it fails the run.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Scene {
    // In the order in which they must go: NeonHub before the way to its broker.
    pub stack: Stack,
    pub client: Client,
    pub senders: Senders,
    pub dice: Dice,
    pub plan: Plan,
    /// The way to the broker.
    pub link: Option<Link>,
}

impl Scene {
    pub fn set(backbone: Backbone, plan: Plan) -> Self {
        let mut options = Options::default();
        // Little, so that windows leave memory and come back.
        options.settings.push(("NEONHUB_STATE_MEMORY_MB", "1".to_owned()));
        let (stack, link) = match backbone {
            Backbone::Embedded => (Stack::start_with(backbone, options, None), None),
            Backbone::Kafka => {
                let (kafka, link) = Link::to_new_broker(&plan.way);
                (Stack::start_with(backbone, options, Some(kafka)), Some(link))
            }
        };
        let client = stack.client();
        let senders = Senders::start(&client, plan.events_per_second);
        Self { stack, client, senders, dice: Dice::new(plan.seed), plan, link }
    }

    /// Waits while the load goes on.
    pub fn let_pass(&self, time: Duration) {
        let _ = wait_until("time has passed", time, || Ok(false));
    }

    pub fn wait_for_sql(&self, sql: &str) {
        wait_until("ClickHouse answers", LIMIT, || Ok(self.client.try_sql(sql).is_ok())).unwrap();
    }

    /// Waits until the senders have caught up, and what is acknowledged by then has landed and is in its windows; returns
    /// when that was.
    pub fn wait_until_lag_is_zero(&self) -> Instant {
        wait_until("the senders have caught up", LIMIT, || Ok(self.senders.have_caught_up())).unwrap();
        let acknowledged = self.senders.acknowledged();
        self.wait_until_landed(acknowledged);
        Instant::now()
    }

    fn wait_until_landed(&self, acknowledged: Acknowledged) {
        let mut last = String::new();
        let outcome = wait_until("what was acknowledged has landed", LIMIT, || {
            last = self.landed().unwrap_or_else(|error| error);
            let numbers: Vec<usize> = last.split('\t').filter_map(|number| number.parse().ok()).collect();
            Ok(matches!(numbers[..], [events, in_windows]
                if events >= acknowledged.total() && in_windows >= acknowledged.campaign))
        });
        assert!(outcome.is_ok(), "{acknowledged:?} were acknowledged; landed: {last}");
    }

    /// Raw events, and campaign events in windows.
    fn landed(&self) -> Result<String, String> {
        self.client.with_patience(Duration::from_secs(5)).try_sql(
            "SELECT (SELECT count() FROM events), (SELECT sum(count) FROM metric_windows FINAL \
             WHERE grain = 'minute' AND metric IN ('impressions', 'clicks'))",
        )
    }
}
