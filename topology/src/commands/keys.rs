//! `neonhub keys`: what people do with keys, over the query API.

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; it is shown once.
    Create {
        /// For people.
        #[arg(long)]
        label: String,
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<KeyScope>,
        /// It signs row-scoped tokens and is never sent itself.
        #[arg(long)]
        token_signing: bool,
        /// Quota of an ingest:write key.
        #[arg(long)]
        events_per_second: Option<u32>,
        /// RFC 3339.
        #[arg(long)]
        expires_at: Option<String>,
    },
    /// List the workspace's keys, newest first.
    List,
    /// Make another key like this one; both are good until the overlap ends.
    Rotate {
        id: String,
        /// A day if absent; at most 90 days.
        #[arg(long)]
        overlap_seconds: Option<u32>,
    },
    /// End a key, everywhere and at once.
    Revoke { id: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyScope {
    #[value(name = "ingest:write")]
    IngestWrite,
    #[value(name = "metrics:read")]
    MetricsRead,
    #[value(name = "events:read")]
    EventsRead,
    #[value(name = "definitions:write")]
    DefinitionsWrite,
    #[value(name = "admin")]
    Admin,
}

impl KeyScope {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Where the query API answers, and with which key.
#[derive(Clone)]
pub struct Target {
    pub client: reqwest::Client,
    pub url: String,
    pub api_key: String,
}

/// # Errors
/// The API does not answer, or says no: its own words.
pub async fn run(command: KeyCommand, target: &Target, as_json: bool) -> anyhow::Result<()> {
    let (method, path, body) = match command {
        KeyCommand::Create { label, scopes, token_signing, events_per_second, expires_at } => {
            let scopes: Vec<String> = scopes.into_iter().map(KeyScope::name).collect();
            let purpose = if token_signing { "token_signing" } else { "bearer" };
            let wish = json!({
                "label": label, "scopes": scopes, "purpose": purpose,
                "events_per_second": events_per_second, "expires_at": expires_at,
            });
            (Method::POST, "/v1/keys".to_owned(), Some(wish))
        }
        KeyCommand::List => (Method::GET, "/v1/keys".to_owned(), None),
        KeyCommand::Rotate { id, overlap_seconds } => {
            (Method::POST, format!("/v1/keys/{id}/rotate"), Some(json!({ "overlap_seconds": overlap_seconds })))
        }
        KeyCommand::Revoke { id } => (Method::DELETE, format!("/v1/keys/{id}"), None),
    };
    let answer = ask(target, method, &path, body).await?;
    if as_json {
        println!("{answer}");
    } else {
        print!("{}", to_text(&answer));
    }
    Ok(())
}

async fn ask(target: &Target, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let url = format!("{}{path}", target.url);
    let mut request = target.client.request(method, &url).bearer_auth(&target.api_key);
    if let Some(body) = &body {
        request = request.json(body);
    }
    let response = request.send().await.with_context(|| format!("the query API at {}", target.url))?;
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    let text = response.text().await?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?;
    if !status.is_success() {
        let detail = answer["detail"].as_str().unwrap_or(&text).to_owned();
        match answer["field"].as_str() {
            Some(field) => bail!("{field}: {detail}"),
            None => bail!("{detail}"),
        }
    }
    Ok(answer)
}

fn to_text(answer: &Value) -> String {
    if answer.is_null() {
        return "revoked\n".to_owned();
    }
    if let Some(secret) = answer["secret"].as_str() {
        return format!("{}{secret}\nIt is not kept: nobody can show it again.\n", line(&answer["key"]));
    }
    answer["keys"].as_array().into_iter().flatten().map(line).collect()
}

fn line(key: &Value) -> String {
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    let scopes: Vec<&str> = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let state = match (key["in_force"] == true, key["revoked_at"].as_str(), key["expires_at"].as_str()) {
        (_, Some(at), _) => format!("revoked {at}"),
        (true, None, None) => "in force".to_owned(),
        (true, None, Some(at)) => format!("until {at}"),
        (false, None, at) => format!("expired {}", at.unwrap_or_default()),
    };
    format!("{}  {:<14} {:<34} {:<36} {}\n", text("id"), text("purpose"), scopes.join(","), state, text("label"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_with_what_it_may_do() {
        let key = json!({
            "id": "00ab", "purpose": "bearer", "scopes": ["metrics:read"], "label": "dashboards", "in_force": true
        });
        let made = to_text(&json!({"secret": "nhk_00ab_x", "key": key}));
        assert!(made.contains("nhk_00ab_x\n") && made.contains("dashboards"), "{made}");
        let list = to_text(&json!({"keys": [key, {"id": "00ac", "revoked_at": "2026-01-01T00:00:00Z"}]}));
        assert_eq!(list.lines().count(), 2);
        assert!(list.contains("metrics:read") && list.contains("revoked 2026"), "{list}");
        assert_eq!(to_text(&Value::Null), "revoked\n");
        assert_eq!(KeyScope::DefinitionsWrite.name(), "definitions:write");
    }
}
