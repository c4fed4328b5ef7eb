//! Pure: what the URL, the headers and a form say about a statement, sorted into what they mean.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;

use super::encoding::Encoding;
use super::exception::{Exception, INVALID_SESSION_TIMEOUT, UNKNOWN_SETTING};
use super::library::Parameter;

const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_SESSION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Parameters that ClickHouse knows and that change nothing here.
/// Inserts are always synchronous: their answer says that the rows are in the table.
const IGNORED: [&str; 11] = [
    "async_insert",
    "wait_for_async_insert",
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "quota_key",
    "role",
    "stacktrace",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionChoice {
    pub id: String,
    pub timeout: Duration,
    pub must_exist: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RequestParameters {
    pub query: Vec<u8>,
    pub database: Option<String>,
    pub default_format: Option<String>,
    pub query_id: Option<String>,
    pub session: Option<SessionChoice>,
    pub parameters: Vec<Parameter>,
    pub settings: Vec<(String, String)>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// The `readonly` setting: 1 reads only, 2 also allows settings.
    pub readonly: Option<String>,
    pub native_response: bool,
    pub native_request: bool,
    pub encoding: Option<Encoding>,
    pub wait_end_of_query: bool,
}

impl RequestParameters {
    /// `pairs` are the decoded parameters of the URL, then those of a form.
    pub fn parse(pairs: Vec<(String, String)>, headers: &HeaderMap) -> Result<Self, Exception> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut parsed = Self {
            database: header("x-clickhouse-database"),
            default_format: header("x-clickhouse-format"),
            ..Self::default()
        };
        let mut session_id = None;
        let mut session_timeout = DEFAULT_SESSION_TIMEOUT;
        let mut session_check = false;
        let mut compression_allowed = true;
        for (name, value) in pairs {
            match name.as_str() {
                "query" => parsed.query.extend_from_slice(value.as_bytes()),
                "database" => parsed.database = Some(value),
                "default_format" => parsed.default_format = Some(value),
                "query_id" => parsed.query_id = Some(value),
                "user" => parsed.user = Some(value),
                "password" => parsed.password = Some(value),
                "session_id" => session_id = Some(value),
                "session_timeout" => session_timeout = parse_timeout(&value)?,
                "session_check" => session_check = parse_flag(&name, &value)?,
                "compress" => parsed.native_response = parse_flag(&name, &value)?,
                "decompress" => parsed.native_request = parse_flag(&name, &value)?,
                "enable_http_compression" => compression_allowed = parse_flag(&name, &value)?,
                "wait_end_of_query" => parsed.wait_end_of_query = parse_flag(&name, &value)?,
                "readonly" => parsed.readonly = Some(value),
                ignored if IGNORED.contains(&ignored) => {}
                _ => match name.strip_prefix("param_") {
                    Some(parameter) => parsed.parameters.push((parameter.to_owned(), value)),
                    None => parsed.settings.push((checked_setting_name(name)?, value)),
                },
            }
        }
        parsed.database = parsed.database.filter(|database| !database.is_empty());
        parsed.default_format = parsed.default_format.filter(|format| !format.is_empty());
        parsed.session = session_id.filter(|id| !id.is_empty()).map(|id| SessionChoice {
            id,
            timeout: session_timeout,
            must_exist: session_check,
        });
        if compression_allowed && !parsed.native_response {
            parsed.encoding =
                headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).and_then(Encoding::preferred_of);
        }
        Ok(parsed)
    }
}

fn parse_flag(name: &str, value: &str) -> Result<bool, Exception> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(Exception::bad_arguments(format!("the parameter '{name}' must be 0 or 1, not '{value}'"))),
    }
}

fn parse_timeout(value: &str) -> Result<Duration, Exception> {
    let refuse = |reason: &str| {
        let message = format!("session_timeout '{value}' {reason}");
        Exception::new(INVALID_SESSION_TIMEOUT, "INVALID_SESSION_TIMEOUT", message)
    };
    let timeout = value.parse().map(Duration::from_secs).map_err(|_| refuse("is not a number of seconds"))?;
    if timeout > MAX_SESSION_TIMEOUT {
        return Err(refuse("is larger than the maximum of 3600 seconds"));
    }
    Ok(timeout)
}

fn checked_setting_name(name: String) -> Result<String, Exception> {
    let well_formed = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '.'));
    if well_formed {
        return Ok(name);
    }
    Err(Exception::new(UNKNOWN_SETTING, "UNKNOWN_SETTING", format!("Unknown setting '{}'", name.escape_default())))
}

/// `value` as a string literal of SQL.
pub fn quoted(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 2);
    literal.push('\'');
    for character in value.chars() {
        match character {
            '\\' | '\'' => literal.extend(['\\', character]),
            '\0' => literal.push_str("\\0"),
            _ => literal.push(character),
        }
    }
    literal.push('\'');
    literal
}

/// `name` as a quoted identifier of SQL.
pub fn quoted_identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// `SET a = 'x', b = 'y'`, or nothing.
pub fn set_statement(settings: &[(String, String)]) -> Option<String> {
    if settings.is_empty() {
        return None;
    }
    let assignments: Vec<String> = settings.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    Some(format!("SET {}", assignments.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<RequestParameters, Exception> {
        let pairs = form_urlencoded::parse(url.as_bytes()).into_owned().collect();
        RequestParameters::parse(pairs, &HeaderMap::new())
    }

    #[test]
    fn each_parameter_goes_where_it_belongs() {
        let url = "query=select+1&database=d&param_x=%27a%0A&max_threads=2&session_id=s&session_timeout=5&compress=1\
                   &readonly=1&async_insert=1";
        let parsed = parse(url).unwrap();
        assert_eq!(parsed.query, b"select 1");
        assert_eq!(parsed.parameters, [("x".to_owned(), "'a\n".to_owned())]);
        assert_eq!(parsed.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert_eq!(parsed.session.unwrap().timeout, Duration::from_secs(5));
        assert!(parsed.native_response && parsed.readonly.is_some() && parsed.encoding.is_none());
    }

    #[test]
    fn bad_values_are_named() {
        assert_eq!(parse("compress=maybe").unwrap_err().code, 36);
        assert_eq!(parse("session_timeout=99999").unwrap_err().code, INVALID_SESSION_TIMEOUT);
        assert_eq!(parse("a%3B%20drop=1").unwrap_err().code, UNKNOWN_SETTING);
    }

    #[test]
    fn literals_are_escaped() {
        let settings = [("a".to_owned(), "it's \\ \0".to_owned()), ("b".to_owned(), "2".to_owned())];
        assert_eq!(set_statement(&settings).unwrap(), r"SET a = 'it\'s \\ \0', b = '2'");
        assert_eq!(quoted_identifier("a`b"), r"`a\`b`");
    }
}
