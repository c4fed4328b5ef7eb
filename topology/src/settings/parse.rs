//! From text to values, with errors that help.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::table::{SETTINGS, Setting};

/// A setting that cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("{name} = `{value}` cannot be used: {expected}")]
    Value { name: String, value: String, expected: String },
    #[error("settings file {path}: {detail}")]
    File { path: PathBuf, detail: String },
    #[error("settings file {path}: `{name}` is no setting; see `neonhub settings`")]
    Unknown { path: PathBuf, name: String },
}

/// Raw values by setting name; empty text is no value.
#[derive(Clone, Default)]
pub struct Values {
    values: BTreeMap<String, String>,
}

/// A URL without its credentials.
pub struct Url {
    pub base: String,
    pub user: Option<String>,
    pub password: Option<String>,
}

const PREFIX: &str = "NEONHUB_";

impl Values {
    /// # Errors
    /// The settings file cannot be read, or names something that is no setting.
    pub fn read(environment: impl Iterator<Item = (String, String)>) -> Result<Self, SettingError> {
        let mut from_environment = BTreeMap::new();
        let mut in_files = BTreeMap::new();
        let mut caches = None;
        let mut home_caches = None;
        for (name, value) in environment {
            match name.as_str() {
                "XDG_CACHE_HOME" if !value.is_empty() => caches = Some(value.clone()),
                "HOME" => home_caches = Some(format!("{value}/.cache")),
                _ => {}
            }
            let Some(name) = name.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else { continue };
            if value.is_empty() {
                continue;
            }
            if setting(&name).is_some() {
                from_environment.insert(name, value);
            } else if let Some(secret) = secret_in_file(&name) {
                in_files.insert(secret.name.to_owned(), read_secret(&value)?);
            }
        }
        let named = from_environment.get("config").cloned();
        let path = PathBuf::from(named.as_deref().unwrap_or("neonhub.toml"));
        let mut values = if named.is_some() || path.exists() { read_file(&path)? } else { BTreeMap::new() };
        values.extend(in_files);
        values.extend(from_environment);
        if let Some(caches) = caches.or(home_caches) {
            values.entry("cache_dir".to_owned()).or_insert_with(|| format!("{caches}/neonhub"));
        }
        Ok(Self { values })
    }

    /// The value or the table's default.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        let default = setting(name).map_or("", |setting| setting.default);
        self.values.get(name).map_or(default, String::as_str).to_owned()
    }

    #[must_use]
    pub fn is_default(&self, name: &str) -> bool {
        !self.values.contains_key(name)
    }

    #[must_use]
    pub fn optional(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.optional(name).map(PathBuf::from)
    }

    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn wrong(&self, name: &str, expected: impl Into<String>) -> SettingError {
        let is_secret = setting(name).is_some_and(|setting| setting.is_secret);
        let value = if is_secret { "***".to_owned() } else { self.text(name) };
        SettingError::Value { name: format!("{PREFIX}{}", name.to_ascii_uppercase()), value, expected: expected.into() }
    }

    pub(super) fn checked(
        &self,
        name: &str,
        expected: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<String, SettingError> {
        let text = self.text(name);
        if fits(&text) { Ok(text) } else { Err(self.wrong(name, format!("it must be {expected}"))) }
    }

    pub(super) fn matching(&self, name: &str, expected: &str, fits: fn(u8) -> bool) -> Result<String, SettingError> {
        self.checked(name, &format!("made of {expected}"), |text| text.bytes().all(fits))
    }

    pub(super) fn one_of(&self, name: &str, choices: &[&str]) -> Result<String, SettingError> {
        self.checked(name, &format!("one of {}", choices.join(", ")), |text| choices.contains(&text))
    }

    pub(super) fn address(&self, name: &str) -> Result<SocketAddr, SettingError> {
        let text = self.text(name);
        text.parse().map_err(|_| self.wrong(name, "it must be an address with a port, like 127.0.0.1:7001"))
    }

    pub(super) fn number<N>(&self, name: &str, least: N, most: N) -> Result<N, SettingError>
    where
        N: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let number = self.text(name).parse::<N>().ok().filter(|number| *number >= least && *number <= most);
        number.ok_or_else(|| self.wrong(name, format!("it must be a whole number from {least} to {most}")))
    }

    pub(super) fn ratio(&self, name: &str) -> Result<f64, SettingError> {
        let ratio = self.text(name).parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| self.wrong(name, "it must be a number from 0 to 1, like 0.01"))
    }

    /// A collector's address without credentials or a path.
    pub(super) fn collector(&self, name: &str) -> Result<Option<String>, SettingError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let base = text.trim_end_matches('/');
        let host = base.strip_prefix("http://").filter(|host| !host.is_empty() && !host.contains(['/', '@', '?', '#']));
        match host {
            Some(_) => Ok(Some(base.to_owned())),
            None => {
                Err(self.wrong(name, "it must be like http://collector:4318 (a collector nearby adds TLS and keys)"))
            }
        }
    }

    pub(super) fn secret(&self, name: &str) -> Result<Option<String>, SettingError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let fits = text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if fits {
            Ok(Some(text))
        } else {
            Err(self.wrong(name, "it must be 1 to 512 visible characters without a colon"))
        }
    }

    /// Scheme, host and port, as browsers send them.
    pub(super) fn origins(&self, name: &str) -> Result<Vec<String>, SettingError> {
        let origins = self.list(name);
        let is_origin = |text: &String| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte))
            })
        };
        match origins.iter().all(is_origin) {
            true => Ok(origins),
            false => Err(self.wrong(name, "it must be origins without a path: https://dashboard.example,…")),
        }
    }

    /// An address stands for itself alone.
    pub(super) fn networks(&self, name: &str) -> Result<Vec<IpNet>, SettingError> {
        let network = |text: &String| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let networks: Option<Vec<IpNet>> = self.list(name).iter().map(network).collect();
        networks.ok_or_else(|| self.wrong(name, "it must be networks or addresses: 10.0.0.0/8,fd00::/8,…"))
    }

    pub(super) fn pairs(&self, name: &str) -> Result<BTreeMap<String, String>, SettingError> {
        let text = self.text(name);
        let mut pairs = BTreeMap::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| self.wrong(name, "it must be name=value;name=value"))?;
            pairs.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(pairs)
    }

    pub(super) fn url(&self, name: &str) -> Result<Option<Url>, SettingError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let wrong = || {
            self.wrong(
                name,
                "it must be a URL like http://user:password@host:8123 (https is not built in: end TLS in front of it)",
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        if scheme != "http" || rest.is_empty() {
            return Err(wrong());
        }
        let (credentials, host) = rest.rsplit_once('@').map_or((None, rest), |(front, host)| (Some(front), host));
        let (user, password) = match credentials.map(|front| front.split_once(':').unwrap_or((front, ""))) {
            Some((user, password)) => (Some(decode(user)), Some(decode(password)).filter(|text| !text.is_empty())),
            None => (None, None),
        };
        Ok(Some(Url { base: format!("{scheme}://{}", host.trim_end_matches('/')), user, password }))
    }
}

fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Percent-decoding, without the plus sign's meaning in forms.
fn decode(text: &str) -> String {
    let escaped = text.replace('+', "%2B");
    let pair = format!("x={escaped}");
    form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

/// `NEONHUB_X_FILE` names a file with the secret `x`, as orchestrators mount them.
fn secret_in_file(name: &str) -> Option<&'static Setting> {
    name.strip_suffix("_file").and_then(setting).filter(|setting| setting.is_secret)
}

fn read_secret(path: &str) -> Result<String, SettingError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|error| SettingError::File { path: PathBuf::from(path), detail: error.to_string() })?;
    Ok(text.trim().to_owned())
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, SettingError> {
    let wrong = |detail: String| SettingError::File { path: path.to_owned(), detail };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // Without the line itself, which may be a secret's.
    let line = |at: usize| text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        wrong(format!("line {}: {}", error.span().map_or(1, |span| line(span.start)), error.message()))
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        if name == "config" || setting(&name).is_none() {
            return Err(SettingError::Unknown { path: path.to_owned(), name });
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(value) => value.to_string(),
            other => {
                return Err(wrong(format!(
                    "`{name}` is a {}, not text, a whole number or a boolean",
                    other.type_str()
                )));
            }
        };
        if !text.is_empty() {
            values.insert(name, text);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_the_file_and_typos_in_the_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("neonhub.toml");
        std::fs::write(&path, "partitions = 8\ntopic_prefix = \"a.\"\n").unwrap();
        let environment = || {
            let pairs = [("NEONHUB_CONFIG", path.to_str().unwrap()), ("NEONHUB_TOPIC_PREFIX", "b."), ("HOME", "/h")];
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>().into_iter()
        };
        let values = Values::read(environment()).unwrap();
        assert_eq!((values.text("partitions"), values.text("topic_prefix")), ("8".to_owned(), "b.".to_owned()));
        assert_eq!(values.text("cache_dir"), "/h/.cache/neonhub");
        std::fs::write(&path, "partition = 8\n").unwrap();
        let error = Values::read(environment()).err().unwrap().to_string();
        assert!(error.contains("`partition` is no setting"), "{error}");
    }
}
