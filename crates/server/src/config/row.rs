//! An app out of a row of a database: Soketi's columns, and any other that is named like a key of `[[apps]]`.
//!
//! Absent columns, NULL and empty texts mean the default, and so do values that cannot be used: a mistake in one column
//! shall not keep an app's clients out. A default is ours, unless other servers' names set one for all apps.

use std::{collections::BTreeSet, sync::LazyLock};

use ::config::{Value as Setting, ValueKind};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{AppConfig, ConfigError, ServerConfig, WebhookConfig, database::RowDefaults, strict::Node};

/// What Soketi gives clients to sign in where its `enable_user_authentication` asks for that.
const SIGN_IN_TIME: &str = "30s";

/// Soketi's columns that limit how many there may be.
const LIMITS: [&str; 4] =
    ["max_connections", "max_backend_events_per_sec", "max_client_events_per_sec", "max_read_req_per_sec"];

/// The keys of `[[apps]]`.
static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| match serde_json::to_value(AppConfig::default()) {
    Ok(Value::Object(keys)) => keys.into_iter().map(|(key, _)| key).collect(),
    _ => BTreeSet::new(),
});

impl AppConfig {
    /// The app of a row, and what was wrong with some of its columns. Secrets are in no error.
    ///
    /// # Errors
    /// Id, key or secret cannot be used.
    pub(crate) fn from_row(
        row: &Map<String, Value>,
        defaults: &RowDefaults,
        server: &ServerConfig,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut problems = Vec::new();
        let mut settings = Map::new();
        let mut webhooks = Vec::new();
        for (column, value) in row {
            if matches!(value, Value::Null) || value.as_str().is_some_and(|text| text.trim().is_empty()) {
                continue;
            }
            if column == "webhooks" {
                webhooks = endpoints(value, &mut problems);
                continue;
            }
            match setting(column, value, defaults) {
                Ok(Some((key, text))) => {
                    settings.insert(key, text.into());
                }
                Ok(None) => {}
                Err(problem) => problems.push(format!("{column}: {problem}")),
            }
        }
        // Soketi's limit is for events of the HTTP API and of clients alike.
        if let Some(bytes) = settings.get("max_event_bytes").cloned() {
            settings.entry("max_client_event_bytes").or_insert(bytes);
        }
        for (key, text) in &defaults.settings {
            settings.entry(key.as_str()).or_insert_with(|| text.as_str().into());
        }
        let mut app = loop {
            let read = app_of(&settings).and_then(|app| {
                app.validate_keys("app")?;
                app.validate_secret("app", server.host)?;
                app.validate("app").map(|()| app)
            });
            let error = match read {
                Ok(app) => break app,
                Err(error) => error,
            };
            let key = error.first_key().to_owned();
            let known = match &*key {
                "id" | "key" | "secret" => false,
                // A key without its secret is useless, and the other way round: both go.
                "previous_key" | "previous_secret" => {
                    settings.remove("previous_key").is_some() | settings.remove("previous_secret").is_some()
                }
                key => {
                    let removed = settings.remove(key);
                    if let Some(default) = defaults.settings.get(key)
                        && removed.as_ref().is_some_and(|removed| removed != default.as_str())
                    {
                        settings.insert(key.to_owned(), default.as_str().into());
                    }
                    removed.is_some()
                }
            };
            if !known {
                return Err(error);
            }
            problems.push(error.to_string());
        };
        app.webhooks = webhooks;
        for (name, bytes, most) in [
            ("max_event_bytes", &mut app.max_event_bytes, server.max_request_bytes.min(server.max_outbox_bytes)),
            ("max_client_event_bytes", &mut app.max_client_event_bytes, server.max_message_bytes),
        ] {
            if *bytes > most {
                // Only this one is a column of the table. The limit of client events follows it, so no warning is due.
                if name == "max_event_bytes" {
                    problems.push(format!("{name}: {bytes} are more than the server takes; {most} it is"));
                }
                *bytes = most;
            }
        }
        Ok((app, problems))
    }
}

fn app_of(settings: &Map<String, Value>) -> Result<AppConfig, ConfigError> {
    let origin = "the row".to_owned();
    let setting = |text: &Value| Setting::new(Some(&origin), text.as_str().unwrap_or_default());
    let table = settings.iter().map(|(key, text)| (key.clone(), setting(text))).collect();
    AppConfig::deserialize(Node::root(Setting::new(None, ValueKind::Table(table))))
}

/// What a column sets, as text; `None` if it is none of ours.
fn setting(column: &str, value: &Value, defaults: &RowDefaults) -> Result<Option<(String, String)>, String> {
    let text = || match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let key = match column {
        "enable_client_messages" => "client_events",
        "max_backend_events_per_sec" => "max_backend_events_per_second",
        "max_client_events_per_sec" => "max_client_events_per_second",
        "max_read_req_per_sec" => "max_reads_per_second",
        "max_presence_members_per_channel" => "max_presence_members",
        "max_event_channels_at_once" => "max_channels_per_trigger",
        "max_event_batch_size" => "max_batch_events",
        "max_presence_member_size_in_kb" => return Ok(Some(("max_user_info_bytes".to_owned(), bytes(&text())?))),
        "max_event_payload_in_kb" => return Ok(Some(("max_event_bytes".to_owned(), bytes(&text())?))),
        "enable_user_authentication" => {
            let time = defaults.sign_in_time.as_deref().unwrap_or(SIGN_IN_TIME);
            return Ok(switch(&text())?.then(|| ("authorization_timeout".to_owned(), time.to_owned())));
        }
        other if KEYS.contains(other) => other,
        _ => return Ok(None),
    };
    let text = text();
    match text.trim() {
        // In Soketi's columns -1 is no limit.
        "-1" => Ok(Some((key.to_owned(), "0".to_owned()))),
        // And 0 lets nobody do it, which is the opposite of what it means here.
        "0" if LIMITS.contains(&column) => {
            Err("0 would let nobody with Soketi, and everybody here: -1 is no limit, enabled = 0 keeps all out"
                .to_owned())
        }
        _ => Ok(Some((key.to_owned(), text))),
    }
}

impl RowDefaults {
    /// Checks the values, as rows would have to have them.
    ///
    /// # Errors
    /// The first bad one, with its key.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let credentials = ["id", "key", "secret"].map(|key| (key.to_owned(), key.into()));
        let settings = self.settings.iter().map(|(key, text)| (key.clone(), text.as_str().into()));
        app_of(&credentials.into_iter().chain(settings).collect())?.validate("app")
    }
}

fn bytes(kb: &str) -> Result<String, String> {
    let kb = kb.trim().parse::<f64>().ok().filter(|kb| *kb > 0.0 && *kb <= 1_000_000.0);
    let bytes = kb.map(|kb| (kb * 1024.0).round()).ok_or("must be a number of KB, more than 0")?;
    Ok(format!("{bytes}"))
}

fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("must be 1 or 0".to_owned()),
    }
}

/// The endpoints of a column that holds a list, or the text of one, with what others know and we do not left out.
fn endpoints(value: &Value, problems: &mut Vec<String>) -> Vec<WebhookConfig> {
    let parsed = value.as_str().map(serde_json::from_str::<Value>);
    let list = match &parsed {
        None => value.as_array(),
        Some(Ok(value)) => value.as_array(),
        Some(Err(_)) => None,
    };
    let Some(list) = list else {
        problems.push("webhooks: must be a JSON list; there are none".to_owned());
        return Vec::new();
    };
    let mut endpoints = Vec::new();
    for (place, entry) in list.iter().enumerate() {
        match endpoint(entry).and_then(|endpoint| {
            let checked = endpoint.validate(&format!("webhooks[{place}]"));
            checked.map(|()| endpoint).map_err(|error| error.to_string())
        }) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(problem) => problems.push(format!("webhooks[{place}] is left out: {problem}")),
        }
    }
    endpoints
}

fn endpoint(entry: &Value) -> Result<WebhookConfig, String> {
    if entry.get("url").is_none() && entry.get("lambda_function").is_some() {
        return Err("Lambda functions cannot be called, only URLs".to_owned());
    }
    let set = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
    let mut known = Map::new();
    for key in ["url", "event_types", "headers"] {
        known.extend(set(entry.get(key)).map(|value| (key.to_owned(), value)));
    }
    let mut filter = Map::new();
    for key in ["channel_name_starts_with", "channel_name_ends_with"] {
        let value = entry.get("filter").and_then(|filter| filter.get(key));
        filter.extend(set(value).map(|value| (key.to_owned(), value)));
    }
    known.insert("filter".to_owned(), filter.into());
    // Without the value: a header may be a secret.
    serde_json::from_value(known.into())
        .map_err(|_| "url, event_types, headers or filter is not as documented".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(row: &Value) -> (AppConfig, Vec<String>) {
        let mut columns = json!({"id": "1", "key": "k", "secret": "hunter2"});
        columns.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
        AppConfig::from_row(columns.as_object().unwrap(), &RowDefaults::default(), &ServerConfig::default()).unwrap()
    }

    fn defaults() -> AppConfig {
        app(&json!({})).0
    }

    #[test]
    fn soketis_columns_are_understood() {
        let (app, problems) = app(&json!({
            "max_connections": -1, "enabled": 1, "enable_client_messages": 0, "max_backend_events_per_sec": "7",
            "max_client_events_per_sec": -1, "max_read_req_per_sec": 9, "max_presence_members_per_channel": 5,
            "max_presence_member_size_in_kb": 0.5, "max_channel_name_length": 50, "max_event_channels_at_once": 3,
            "max_event_name_length": 40, "max_event_payload_in_kb": "20", "max_event_batch_size": 4,
            "enable_user_authentication": true, "created_at": "2024-01-01", "team": {"a": [1]},
            "webhooks": [{"url": "https://a.test/", "event_types": ["member_added"], "lambda": {},
                "filter": {"channel_name_starts_with": "orders"}, "headers": {"X-Team": "till"}}],
        }));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!((app.max_connections, app.enabled, app.client_events), (0, true, false));
        assert_eq!((app.max_backend_events_per_second, app.max_reads_per_second), (7, 9));
        assert_eq!((app.max_client_events_per_second, app.max_presence_members), (0, 5));
        assert_eq!((app.max_user_info_bytes, app.max_event_bytes, app.max_client_event_bytes), (512, 20480, 20480));
        assert_eq!((app.max_channel_name_length, app.max_event_name_length), (50, 40));
        assert_eq!((app.max_channels_per_trigger, app.max_batch_events), (3, 4));
        assert_eq!(app.authorization_timeout.as_secs(), 30);
        assert_eq!(app.webhooks[0].filter.channel_name_starts_with, "orders");
    }

    #[test]
    fn absent_columns_null_and_nothing_mean_the_default() {
        assert_eq!(
            app(&json!({"max_connections": null, "webhooks": "", "max_event_payload_in_kb": " "})).0,
            defaults()
        );
    }

    #[test]
    fn what_is_set_for_all_apps_holds_for_rows_that_do_not_say_otherwise() {
        let settings = [("max_event_name_length", "50"), ("max_presence_members", "7"), ("max_event_bytes", "2048")];
        let defaults = RowDefaults {
            settings: settings.map(|(key, text)| (key.to_owned(), text.to_owned())).into(),
            sign_in_time: Some("5s".to_owned()),
        };
        defaults.validate().unwrap();
        let row = json!({"id": "1", "key": "k", "secret": "s", "max_event_name_length": "long", "max_presence_members": "9",
            "max_event_payload_in_kb": null, "enable_user_authentication": 1});
        let (app, problems) =
            AppConfig::from_row(row.as_object().unwrap(), &defaults, &ServerConfig::default()).unwrap();
        assert_eq!((app.max_event_name_length, app.max_presence_members, app.max_event_bytes), (50, 9, 2048));
        assert_eq!((app.authorization_timeout.as_secs(), problems.len()), (5, 1));
        let bad = RowDefaults { settings: [("max_presence_members".to_owned(), "many".to_owned())].into(), ..defaults };
        assert!(bad.validate().unwrap_err().to_string().contains("max_presence_members: must be a whole number"));
    }

    #[test]
    fn our_own_keys_may_be_columns_too() {
        let (app, problems) = app(&json!({
            "allowed_origins": "a.test,b.test", "cache_ttl": "5m", "watchlist": "false",
            "previous_key": "old", "previous_secret": "hunter1",
        }));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(app.allowed_origins, ["a.test", "b.test"]);
        assert_eq!((app.cache_ttl.as_secs(), app.watchlist, app.keys().count()), (300, false, 2));
    }

    #[test]
    fn a_mistake_costs_its_own_column_and_is_told_without_secrets() {
        let (app, problems) = app(&json!({
            "max_connections": "many", "enabled": 0, "max_event_payload_in_kb": -3, "previous_key": "old",
            "enable_user_authentication": "hunter2",
            "webhooks": r#"[{"lambda_function": "f"}, {"url": "hunter2"}, {"url": "https://a.test/"}, 5]"#,
        }));
        assert_eq!((app.max_connections, app.enabled, app.keys().count()), (0, false, 1));
        assert_eq!(app.webhooks.len(), 1);
        assert_eq!(problems.len(), 7, "{problems:#?}");
        assert!(problems.iter().any(|problem| problem.contains("max_connections: must be a whole number")));
        assert!(!problems.concat().contains("hunter2"), "{problems:#?}");
        let (_, problems) = self::app(&json!({"webhooks": "[{"}));
        assert_eq!(problems, ["webhooks: must be a JSON list; there are none"]);
    }

    #[test]
    fn a_limit_of_0_is_named_as_it_means_the_opposite_elsewhere() {
        for column in LIMITS {
            let (app, problems) = app(&json!({column: 0}));
            assert_eq!(app, defaults(), "{column}");
            assert!(
                problems.len() == 1 && problems[0].starts_with(&format!("{column}: 0 would let nobody")),
                "{problems:?}"
            );
        }
        let (app, problems) = app(&json!({"max_reads_per_second": 0, "max_connections": -1}));
        assert_eq!((app.max_connections, problems.len()), (0, 0));
    }

    #[test]
    fn what_the_server_cannot_carry_is_cut() {
        let (app, problems) = app(&json!({"max_event_payload_in_kb": 100}));
        assert_eq!((app.max_event_bytes, app.max_client_event_bytes, problems.len()), (102_400, 65_536, 0));
        let (app, problems) = self::app(&json!({"max_event_payload_in_kb": 10_000}));
        assert_eq!((app.max_event_bytes, problems.len()), (1_048_576, 1));
    }

    #[test]
    fn without_id_key_and_secret_it_is_no_app() {
        for row in [
            json!({"id": "1", "key": "k"}),
            json!({"id": "1", "key": "a b", "secret": "hunter2"}),
            json!({"key": "k", "secret": "hunter2"}),
        ] {
            let (row, defaults) = (row.as_object().unwrap(), RowDefaults::default());
            let error = AppConfig::from_row(row, &defaults, &ServerConfig::default()).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        // The secret that everybody knows, where others can reach the server.
        let mut server = ServerConfig::default();
        let row = json!({"id": "1", "key": "k", "secret": AppConfig::DEMO_SECRET});
        let from_row =
            |server: &ServerConfig| AppConfig::from_row(row.as_object().unwrap(), &RowDefaults::default(), server);
        assert!(from_row(&server).is_ok());
        server.host = std::net::Ipv4Addr::UNSPECIFIED.into();
        let error = from_row(&server).unwrap_err();
        assert!(error.to_string().contains("everybody knows the demo secret"), "{error}");
    }
}
