//! The samples in `config/` and `docs/configuration.md` agree with the code: every key, every default.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use fanfare_server::config::{
    AppConfig, AppRecoveryConfig, Config, Overrides, RecoveryChannelConfig, RecoveryConfig, WebhookConfig, alias_rows,
    app_field_rows,
};
use serde_json::Value;

/// Keys without a default.
const REQUIRED: [&str; 6] = [
    "apps[0].id",
    "apps[0].key",
    "apps[0].secret",
    "apps[0].webhooks[0].url",
    "apps[0].recovery.channels[0].pattern",
    "recovery.channels[0].pattern",
];

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// Every key with its default, derived from the structs. Null: none.
fn keys() -> BTreeMap<String, Value> {
    let channels = vec![RecoveryChannelConfig::default()];
    let recovery = AppRecoveryConfig { channels: channels.clone(), ..AppRecoveryConfig::default() };
    let app = AppConfig { webhooks: vec![WebhookConfig::default()], recovery, ..AppConfig::default() };
    let recovery = RecoveryConfig { channels, ..RecoveryConfig::default() };
    let config = Config { apps: vec![app], recovery, ..Config::default() };
    let mut keys = BTreeMap::new();
    flatten(String::new(), serde_json::to_value(config).unwrap(), &mut keys);
    keys
}

/// Leaves by their path. Other lists than those of tables, and empty tables, are leaves.
fn flatten(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (name, value) in entries {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(path, value, leaves);
            }
        }
        Value::Array(elements) if elements.first().is_some_and(Value::is_object) => {
            for (position, value) in elements.into_iter().enumerate() {
                flatten(format!("{path}[{position}]"), value, leaves);
            }
        }
        value => {
            leaves.insert(path, value);
        }
    }
}

fn variable(key: &str) -> String {
    format!("FANFARE__{}", key.to_uppercase().replace("].", "__").replace(['.', '['], "__"))
}

/// The complete sample, with the settings that it shows as comments (`#key`, without a blank) switched on.
fn complete_sample() -> String {
    let switch_on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    read("config/fanfare.toml").lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_sample_loads() {
    let mut samples = 0;
    for entry in fs::read_dir(repository().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Config::load(Some(&path), [], Overrides::default()).unwrap();
            samples += 1;
        }
    }
    assert!(samples >= 3, "found {samples} samples");
}

#[test]
fn the_complete_sample_has_every_key_with_its_default() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("complete.toml");
    fs::write(&file, complete_sample()).unwrap();
    Config::load(Some(&file), [], Overrides::default()).unwrap();

    let mut sample = BTreeMap::new();
    let table: toml::Table = complete_sample().parse().unwrap();
    flatten(String::new(), serde_json::to_value(table).unwrap(), &mut sample);
    for (key, default) in keys() {
        let value = sample.remove(&key);
        assert!(value.is_some(), "config/fanfare.toml lacks {key}");
        if !REQUIRED.contains(&key.as_str()) && default != Value::Null {
            assert_eq!(value, Some(default), "the default of {key}");
        }
    }
    assert!(sample.is_empty(), "config/fanfare.toml has keys of no struct: {sample:?}");
}

#[test]
fn the_documentation_has_every_key_with_its_default_and_variable() {
    let text = read("docs/configuration.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("| `FANFARE__")).collect();
    let keys = keys();
    for (key, default) in &keys {
        let default = match default {
            _ if REQUIRED.contains(&key.as_str()) => "required".to_owned(),
            Value::Null if key == "tls.plain_port" => "none".to_owned(),
            Value::Null => "the server's".to_owned(),
            value => format!("`{value}`"),
        };
        let row = format!("| `{key}` | {default} | `{}` | ", variable(key));
        assert!(rows.iter().any(|line| line.starts_with(&row)), "docs/configuration.md lacks the row {row}");
    }
    assert_eq!(rows.len(), keys.len(), "docs/configuration.md has rows of keys that do not exist");
}

/// Other servers' names: what is not in the documentation, and what is there alone.
#[test]
fn the_documentation_has_every_name_of_other_servers_and_no_others() {
    let text = read("docs/configuration.md");
    let (_, text) = text.split_once("## Names from Laravel, Reverb and Soketi").unwrap();
    let mut rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `") || line.starts_with("| –")).collect();
    let names = alias_rows().into_iter().map(|row| row.join(" | "));
    let fields = app_field_rows().into_iter().map(|row| row.join(" | "));
    for row in names.chain(fields).map(|row| format!("| {row} |")) {
        let place = rows.iter().position(|line| *line == row);
        rows.remove(place.unwrap_or_else(|| panic!("docs/configuration.md lacks the row {row}")));
    }
    assert!(rows.is_empty(), "docs/configuration.md has rows of names that mean nothing: {rows:#?}");
}

#[test]
fn variables_reach_every_key() {
    let text = |key: &str, default: &Value| match default {
        Value::Null if key == "metrics.port" => "9601".to_owned(),
        Value::Null if key == "tls.plain_port" => "6002".to_owned(),
        Value::Null if key == "tls.plain_host" => "127.0.0.1".to_owned(),
        Value::Null if key.ends_with(".enabled") => "true".to_owned(),
        Value::Null if key.contains(".max_") => "5".to_owned(),
        Value::Null => "5s".to_owned(),
        Value::String(_) if key == "database.url" => "postgres://user@a.test/name".to_owned(),
        Value::String(_) if key.ends_with(".previous_key") => "previous".to_owned(),
        Value::String(_) if key.ends_with("url") => "https://a.test".to_owned(),
        Value::String(text) if text.is_empty() && key != "server.path_prefix" => "text".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let environment = keys().into_iter().map(|(key, default)| (variable(&key), text(&key, &default)));
    let config = Config::load(None, environment, Overrides::default()).unwrap();
    assert_eq!(config.metrics.port, Some(9601));
    assert_eq!(config.apps[0].activity_timeout, Some(Duration::from_secs(5)));
    assert_eq!(config.apps[0].webhooks[0].filter.channel_name_ends_with, "text");
}
