//! The configuration as text, without what must not be seen: secrets, header values, passwords in URLs.

use std::collections::BTreeMap;

use fanfare_protocol::AppSecret;
use serde::Serializer;

use super::{BrokerConfig, WebhookConfig};

const REDACTED: &str = "[redacted]";

impl WebhookConfig {
    /// The URL for logs: without user name, password and query, each of which may be a credential.
    pub(super) fn redacted_url(&self) -> String {
        without_credentials(&self.url)
    }
}

impl BrokerConfig {
    /// The URL for logs, as [`WebhookConfig::redacted_url`].
    pub(super) fn redacted_url(&self) -> String {
        without_credentials(&self.url)
    }
}

pub(super) fn secret<S: Serializer>(secret: &AppSecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose().is_empty() { "" } else { REDACTED })
}

pub(super) fn password<S: Serializer>(password: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if password.is_empty() { "" } else { REDACTED })
}

pub(super) fn url<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_credentials(url))
}

pub(super) fn headers<S: Serializer>(headers: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.keys().map(|name| (name, REDACTED)))
}

fn without_credentials(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Some(mut parsed) = reqwest::Url::parse(url).ok().filter(reqwest::Url::has_host) else {
        return REDACTED.to_owned();
    };
    if parsed.query().is_some() {
        parsed.set_query(Some(REDACTED));
    }
    if parsed.username().is_empty() && parsed.password().is_none() {
        return parsed.into();
    }
    match (parsed.set_username(""), parsed.set_password(None)) {
        (Ok(()), Ok(())) => parsed.as_str().replacen("://", &format!("://{REDACTED}@"), 1),
        _ => REDACTED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppConfig, Config};

    fn config() -> Config {
        let webhook = WebhookConfig {
            url: "https://user:hunter2@example.test/hooks?token=hunter2".to_owned(),
            headers: BTreeMap::from([("Authorization".to_owned(), "Bearer hunter2".to_owned())]),
            ..WebhookConfig::default()
        };
        let app = AppConfig { secret: AppSecret::new("hunter2"), webhooks: vec![webhook], ..AppConfig::demo() };
        Config { apps: vec![app], ..Config::default() }
    }

    #[test]
    fn secrets_are_neither_in_the_toml_nor_in_the_debug_text() {
        let toml = toml::to_string(&config()).unwrap();
        assert!(!toml.contains("hunter2"), "{toml}");
        assert!(toml.contains("secret = \"[redacted]\""), "{toml}");
        assert!(toml.contains("url = \"https://[redacted]@example.test/hooks?[redacted]\""), "{toml}");
        assert!(toml.contains("Authorization = \"[redacted]\""), "{toml}");
        assert!(!format!("{:?}", config()).contains("hunter2"));
    }

    #[test]
    fn the_toml_is_a_configuration() {
        let table: toml::Table = toml::from_str(&toml::to_string(&config()).unwrap()).unwrap();
        assert_eq!(table["server"]["keep_alive"].as_str(), Some("75s"));
        assert_eq!(table["apps"][0]["max_connections"].as_integer(), Some(0));
    }

    #[test]
    fn a_url_without_credentials_is_shown_as_it_is() {
        assert_eq!(without_credentials("https://example.test/hooks"), "https://example.test/hooks");
        assert_eq!(without_credentials("hunter2"), "[redacted]");
        assert_eq!(without_credentials("mailto:hunter2"), "[redacted]");
    }
}
