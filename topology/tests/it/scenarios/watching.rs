//! A Prometheus of the real kind scrapes every role with the project's own rules: each metric has a help text and a unit, is
//! one of the documented, and has few series, whatever clients ask for; each rule can be evaluated. And what the marketing
//! dashboard asks of ClickHouse is answered to a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, LIMIT};
use crate::real_stack::scratch::{ReservedPort, ScratchFolder};
use crate::real_stack::server_process::ServerProcess;
use crate::real_stack::{cache_folder, wait_until};
use crate::stack::{Backbone, Stack, WORKSPACE};

/// Series of one role, after everything below has been tried on it.
const MOST_SERIES: usize = 2_000;
const UNITS: [&str; 10] =
    ["_total", "_seconds", "_bytes", "_records", "_entries", "_clients", "_open", "_parked", "_retries", "_info"];

pub fn run() {
    let stack = Stack::start(Backbone::Kafka);
    let client = stack.client();
    let events: Vec<Value> = (0..100)
        .map(|number| {
            json!({ "type": "page", "userId": "u", "name": "Home", "messageId": format!("w-{number}"),
                    "properties": { "path": "/home" } })
        })
        .collect();
    client.accept("/v1/batch", &events);
    let of_campaign = ["impression", "click", "conversion", "spend", "send", "open"]
        .map(|kind| json!({ "type": kind, "campaign": "spring", "anonymousId": "a", "messageId": kind, "amount": 5 }));
    client.accept("/v1/campaigns/events", &of_campaign);
    client.wait_for_events(events.len() + of_campaign.len());
    assert_everything_is_read(&stack, &client);
    assert_dashboard_is_answered(&client);
    ask_for_what_is_not_there(&client);

    let folder = ScratchFolder::create("prometheus").unwrap();
    let port = ReservedPort::reserve().unwrap();
    let prometheus = Prometheus::start(&stack, folder.path(), &port);
    wait_until("every role is scraped", LIMIT, || Ok(prometheus.roles_that_are_up().len() == 3)).unwrap();

    let metrics = prometheus.metrics();
    assert!(metrics.len() > 30, "{:?}", metrics.keys());
    let documented = documented_metrics();
    for (name, help) in &metrics {
        assert!(!help.is_empty(), "{name} has no help");
        assert!(UNITS.iter().any(|unit| name.ends_with(unit)), "{name} says no unit");
        assert!(documented.contains(name), "{name} is in no README");
    }
    for role in ["ingest", "processors", "api"] {
        let series = prometheus.series(&format!("{{job=\"{role}\",__name__=~\"neonhub_.*\"}}"));
        assert!((10..MOST_SERIES).contains(&series.len()), "{role} has {} series", series.len());
        let with_outside_text = series.iter().find(|series| series.to_string().contains("outside"));
        assert!(with_outside_text.is_none(), "{with_outside_text:?}");
    }
    wait_until("every rule is evaluated", LIMIT, || Ok(prometheus.rules_by_health().contains_key("ok"))).unwrap();
    let health = prometheus.rules_by_health();
    assert!(health.keys().all(|health| health == "ok" || health == "unknown"), "{health:?}");
}

/// Readiness tells the lag of each processor, which goes to nothing when all is read: markers of transactions do not count.
fn assert_everything_is_read(stack: &Stack, client: &Client) {
    let address = stack.setting("NEONHUB_PROCESSORS_ADDR");
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let nothing = json!({ "refine": 0, "metrics.partial": 0, "metrics.merge": 0, "landing": 0 });
    let mut last = Value::Null;
    wait_until("all is read", LIMIT, || {
        last = client.send(port, "GET", "/health/ready", &[], b"").json()["lag_records"].clone();
        Ok(last == nothing)
    })
    .unwrap_or_else(|error| panic!("{error}: {last}"));
}

/// Labels are of our making, not of a client's.
fn ask_for_what_is_not_there(client: &Client) {
    for number in 0..100 {
        let text = format!("outside-{number}");
        for port in [client.ingest_port, client.api_port] {
            client.send(port, "GET", &format!("/{text}"), &[], b"");
            client.send(port, "POST", &format!("/v1/{text}?writeKey={text}"), &[], text.as_bytes());
            client.send(port, "DELETE", &format!("/v1/{text}"), &[], b"");
        }
        client.api("GET", &format!("/v1/metrics/definitions/{text}"), None);
        client.post(&format!("/v1/integrations/{text}/events"), &json!({ "type": text, "payload": { "n": number } }));
        client.post("/v1/track", &json!({ "event": text }));
    }
}

/// Each panel of the marketing dashboard has rows, with Grafana's macros filled in as it fills them.
fn assert_dashboard_is_answered(client: &Client) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("deploy/grafana/dashboards/marketing.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        let sql = panel["targets"][0]["rawSql"].as_str().unwrap();
        let sql = sql.replace("${workspace:sqlstring}", &format!("'{WORKSPACE}'"));
        let sql = ["window_start", "timestamp"].into_iter().fold(sql, |sql, column| {
            sql.replace(
                &format!("$__timeFilter({column})"),
                &format!("({column} >= toDateTime(0) AND {column} <= now())"),
            )
        });
        assert!(!sql.contains('$'), "{sql}");
        let title = &panel["title"];
        let has_rows = || Ok(client.try_sql(&sql).map_err(|error| format!("{title}: {error}"))?.contains(|c| c != '0'));
        wait_until("the panel has rows", LIMIT, has_rows).unwrap_or_else(|error| panic!("{title}: {error}"));
    }
}

/// Those in the READMEs' tables.
fn documented_metrics() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut names = BTreeSet::new();
    for house in ["ingest", "processors", "api", "topology"] {
        let text = std::fs::read_to_string(root.join(house).join("README.md")).unwrap();
        let quoted = text.split('`').filter(|part| part.starts_with("neonhub_"));
        names.extend(quoted.map(str::to_owned));
    }
    names
}

struct Prometheus {
    agent: ureq::Agent,
    url: String,
    _process: ServerProcess,
}

impl Prometheus {
    fn start(stack: &Stack, folder: &Path, port: &ReservedPort) -> Self {
        let program = cache_folder().unwrap().join("prometheus/usr/bin/prometheus");
        assert!(program.is_file(), "{}: run `deploy/fetch-prometheus.sh` once", program.display());
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, configuration(stack)).unwrap();
        let flag = |name: &str, value: String| OsString::from(format!("--{name}={value}"));
        let address = format!("127.0.0.1:{}", port.number());
        let command = [
            program.into_os_string(),
            flag("config.file", config.display().to_string()),
            flag("storage.tsdb.path", folder.join("data").display().to_string()),
            flag("web.listen-address", address.clone()),
        ];
        let mut process = ServerProcess::start("Prometheus", &folder.join("log"), &command).unwrap();
        let url = format!("http://{address}");
        process.wait_until_ready(LIMIT, || Client::answers(&format!("{url}/-/ready"))).unwrap();
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build().into();
        Self { agent, url, _process: process }
    }

    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request =
            query.iter().fold(self.agent.get(format!("{}/api/v1/{path}", self.url)), |request, (name, value)| {
                request.query(*name, *value)
            });
        let answer: Value = request.call().unwrap().body_mut().read_json().unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].clone()
    }

    fn roles_that_are_up(&self) -> BTreeSet<String> {
        let targets = self.ask("targets", &[("state", "active")]);
        let targets = targets["activeTargets"].as_array().cloned().unwrap();
        let up = targets.iter().filter(|target| target["health"] == "up");
        up.map(|target| target["labels"]["job"].as_str().unwrap().to_owned()).collect()
    }

    /// Our metrics and their help texts.
    fn metrics(&self) -> BTreeMap<String, String> {
        let metadata = self.ask("metadata", &[]);
        let metadata = metadata.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("neonhub_"));
        metadata.map(|(name, about)| (name.clone(), about[0]["help"].as_str().unwrap().trim().to_owned())).collect()
    }

    fn series(&self, selector: &str) -> Vec<Value> {
        self.ask("series", &[("match[]", selector)]).as_array().cloned().unwrap()
    }

    fn rules_by_health(&self) -> BTreeMap<String, Vec<String>> {
        let rules = self.ask("rules", &[]);
        let mut by_health: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
            let text = |name: &str| rule[name].as_str().unwrap_or_default().to_owned();
            by_health.entry(text("health")).or_default().push(format!("{} {}", text("name"), text("lastError")));
        }
        by_health
    }
}

/// The project's own, with this stack's addresses, and often.
fn configuration(stack: &Stack) -> String {
    let deploy: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/prometheus");
    let text = std::fs::read_to_string(deploy.join("prometheus.yml")).unwrap();
    let client = stack.client();
    let addresses = [
        ("ingest:7001", format!("127.0.0.1:{}", client.ingest_port)),
        ("processors:7003", stack.setting("NEONHUB_PROCESSORS_ADDR")),
        ("api:7002", format!("127.0.0.1:{}", client.api_port)),
        ("[alerts.yml]", format!("[{}]", deploy.join("alerts.yml").display())),
        (": 10s", ": 1s".to_owned()),
    ];
    addresses.into_iter().fold(text, |text, (named, actual)| {
        assert!(text.contains(named), "deploy/prometheus/prometheus.yml says no {named}");
        text.replace(named, &actual)
    })
}
