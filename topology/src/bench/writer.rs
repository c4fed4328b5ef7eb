//! Whoever writes to the ClickHouse front of a bench: the front knows it by its password.

use crate::settings::Settings;

const USER: &str = "neonhub";
const PASSWORD: &str = "bench-clickhouse-password";

/// What the process of the front is told.
pub fn of_front() -> [(&'static str, String); 2] {
    [("NEONHUB_CLICKHOUSE_USER", USER.to_owned()), ("NEONHUB_CLICKHOUSE_PASSWORD", PASSWORD.to_owned())]
}

/// These settings, with the front at `url` in ClickHouse's place.
pub fn settings(settings: &Settings, url: String) -> Settings {
    let mut settings = settings.clone();
    settings.clickhouse.url = Some(url);
    settings.clickhouse.user = Some(USER.to_owned());
    settings.clickhouse.password = Some(PASSWORD.to_owned());
    settings
}

pub fn signed(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.basic_auth(USER, Some(PASSWORD))
}
