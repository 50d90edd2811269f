//! Soketi's configuration file: JSON with dotted or nested options, and apps in any of three spellings.
//!
//! Every value becomes the text it is written as, so that an id `1e5` stays one; the key it belongs to has the type.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use serde_json::value::RawValue;

use super::{
    ConfigError,
    alias::{self, ALIASES, APP_FIELDS, Effects, Given, Setting},
    origin::Origin,
};

/// Where the list of apps is.
const APPS: &str = "appManager.array.apps";
/// Tables in tables; far beyond what any option needs.
const DEPTH: usize = 32;

/// An option's value, or a table of options.
#[derive(Debug)]
enum Json {
    Table(BTreeMap<String, Json>),
    List(Vec<Json>),
    /// Text, or a number or word as it is written.
    Leaf(String),
    Null,
}

/// What a file sets, and what it gives that has no counterpart. `taken` are its options that count.
///
/// # Errors
/// No JSON, or a value that makes no sense, with its option.
pub(super) fn read(path: &Path, text: &str) -> Result<Effects, ConfigError> {
    let file = path.display().to_string();
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
        // Without what stands there: it could be a secret.
        ConfigError::file(path, format!("not a JSON file: line {}, column {}", error.line(), error.column()))
    })?;
    let mut options = Json::Table(BTreeMap::new());
    let Some(Json::Table(entries)) = parse(raw, DEPTH) else {
        return Err(ConfigError::file(path, "must be a JSON object of Soketi's options"));
    };
    for (name, value) in entries {
        options.set(&name.split('.').collect::<Vec<_>>(), value);
    }
    let mut reader = Reader { file, effects: Effects::default() };
    if let Some(apps) = options.take(&APPS.split('.').collect::<Vec<_>>()) {
        reader.apps(apps)?;
    }
    reader.options("", options)?;
    Ok(reader.effects)
}

fn parse(raw: &RawValue, depth: usize) -> Option<Json> {
    let depth = depth.checked_sub(1)?;
    let text = raw.get();
    Some(match text.as_bytes().first()? {
        b'{' => {
            let entries: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
            let entries = entries.into_iter().map(|(name, value)| Some((name.into_owned(), parse(value, depth)?)));
            Json::Table(entries.collect::<Option<_>>()?)
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Json::List(elements.into_iter().map(|value| parse(value, depth)).collect::<Option<_>>()?)
        }
        b'"' => Json::Leaf(serde_json::from_str(text).ok()?),
        b'n' => Json::Null,
        _ => Json::Leaf(text.to_owned()),
    })
}

impl Json {
    /// Puts a value where the steps lead, into what is there already.
    fn set(&mut self, steps: &[&str], value: Json) {
        let Some((step, rest)) = steps.split_first() else { return self.merge(value) };
        if !matches!(self, Self::Table(_)) {
            *self = Self::Table(BTreeMap::new());
        }
        if let Self::Table(table) = self {
            table.entry((*step).to_owned()).or_insert(Self::Null).set(rest, value);
        }
    }

    fn merge(&mut self, other: Json) {
        match (self, other) {
            (Self::Table(table), Self::Table(entries)) => {
                for (name, value) in entries {
                    table.entry(name).or_insert(Self::Null).merge(value);
                }
            }
            (this, other) => *this = other,
        }
    }

    /// Takes out what stands where the steps lead.
    fn take(&mut self, steps: &[&str]) -> Option<Json> {
        let (Self::Table(table), Some((step, rest))) = (self, steps.split_first()) else { return None };
        if rest.is_empty() { table.remove(*step) } else { table.get_mut(*step)?.take(rest) }
    }

    /// The text an option is given as; tables and lists as JSON again.
    fn text(&self) -> String {
        match self {
            Self::Leaf(text) => text.clone(),
            Self::Null => String::new(),
            Self::Table(_) | Self::List(_) => self.to_json().to_string(),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Table(table) => table.iter().map(|(name, value)| (name.clone(), value.to_json())).collect(),
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Leaf(text) => text.as_str().into(),
            Self::Null => serde_json::Value::Null,
        }
    }
}

struct Reader {
    file: String,
    effects: Effects,
}

impl Reader {
    fn given(&self, option: String, text: String) -> Given {
        Given { text, origin: Origin::Option { file: self.file.clone(), option } }
    }

    /// Options below `path`; a table that is an option itself is one.
    fn options(&mut self, path: &str, options: Json) -> Result<(), ConfigError> {
        if let Some(alias) = ALIASES.iter().find(|alias| !path.is_empty() && alias.option == path) {
            let given = self.given(path.to_owned(), options.text());
            return self.effects.take(alias, &given);
        }
        match options {
            Json::Table(table) => {
                for (name, value) in table {
                    let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                    self.options(&path, value)?;
                }
            }
            Json::Null => {}
            Json::List(_) | Json::Leaf(_) => {
                let origin = Origin::Option { file: self.file.clone(), option: path.to_owned() };
                let known = ALIASES.iter().map(|alias| alias.option);
                self.effects.warnings.push(alias::unknown(&origin, path, known));
            }
        }
        Ok(())
    }

    fn apps(&mut self, apps: Json) -> Result<(), ConfigError> {
        // A list, or, as its variables have it, a table by position.
        let apps = match apps {
            Json::List(list) => list,
            Json::Table(table) => table.into_values().collect(),
            Json::Null => return Ok(()),
            Json::Leaf(_) => {
                return Err(ConfigError::variable(&format!("{}: {APPS}", self.file), "must be a list of apps"));
            }
        };
        for (position, app) in apps.into_iter().enumerate() {
            let path = format!("{APPS}.{position}");
            let Json::Table(fields) = app else {
                return Err(ConfigError::variable(&format!("{}: {path}", self.file), "must be an object"));
            };
            for (name, value) in fields {
                let given = self.given(format!("{path}.{name}"), value.text());
                self.field(position, &name, &given)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, position: usize, name: &str, given: &Given) -> Result<(), ConfigError> {
        let Some(field) = APP_FIELDS.iter().find(|field| field.names.contains(&name)) else {
            let known = APP_FIELDS.iter().flat_map(|field| field.names);
            self.effects.warnings.push(alias::unknown(&given.origin, name, known));
            return Ok(());
        };
        // Empty means that the server's default counts.
        if given.text.is_empty() {
            return Ok(());
        }
        for setting in self.effects.convert(field.keys, field.kind, given)? {
            let path = format!("apps[{position}].{}", setting.path);
            self.effects.settings.push(Setting { path, ..setting });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file sets, and its warnings.
    type Read = (Vec<(String, String)>, Vec<String>);

    fn read(text: &str) -> Result<Read, String> {
        let effects = super::read(Path::new("soketi.json"), text).map_err(|error| error.to_string())?;
        let settings = effects.settings.into_iter().chain(effects.every_app);
        let mut settings: Vec<_> = settings.map(|setting| (setting.path, setting.text)).collect();
        settings.sort();
        Ok((settings, effects.warnings))
    }

    #[track_caller]
    fn sets(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        assert_eq!(read(text), Ok((expected, Vec::new())), "{text}");
    }

    #[test]
    fn dotted_and_nested_options_are_the_same_and_merge() {
        sets(
            r#"{"port": 7001, "ssl.certPath": "c.pem", "ssl": {"keyPath": "k.pem"}}"#,
            &[("server.port", "7001"), ("tls.certificate", "c.pem"), ("tls.key", "k.pem")],
        );
        sets(
            r#"{"eventLimits": {"maxPayloadInKb": "0.5"}, "adapter": {"driver": "local", "redis": {"redisPubOptions": {}}}}"#,
            &[("broker.driver", "local"), ("max_client_event_bytes", "512"), ("max_event_bytes", "512")],
        );
        sets(
            r#"{"database": {"redis": {"sentinels": [{"host": "10.0.0.1", "port": 26379}]}}}"#,
            &[("broker.sentinels", r#"["10.0.0.1:26379"]"#)],
        );
        sets(r#"{"pathPrefix": "", "ssl": {"certPath": null}}"#, &[]);
    }

    #[test]
    fn apps_are_read_in_each_spelling_and_keep_what_they_are_called() {
        let camel = r#"{"id": 1e5, "key": "0123", "secret": true, "maxConnections": -1, "maxBackendEventsPerSecond": 5,
                          "maxReadRequestsPerSecond": -1, "webhooks": []}"#;
        let pascal = r#"{"AppId": "b", "AppKey": "k", "AppSecret": "s", "MaxEventPayloadInKb": "", "Enabled": 0,
                           "MaxBackendEventsPerSecond": 6, "MaxClientEventsPerSecond": 8, "MaxReadRequestsPerSecond": 7}"#;
        let snake = r#"{"id": "c", "key": "l", "secret": "t", "enable_client_messages": "1", "max_presence_member_size_in_kb": 2,
                          "max_backend_events_per_sec": "-1", "max_read_req_per_sec": 9}"#;
        let expected = [
            ("apps[0].id", "1e5"),
            ("apps[0].key", "0123"),
            ("apps[0].max_backend_events_per_second", "5"),
            ("apps[0].max_connections", "0"),
            ("apps[0].max_reads_per_second", "0"),
            ("apps[0].secret", "true"),
            ("apps[0].webhooks", "[]"),
            ("apps[1].enabled", "false"),
            ("apps[1].id", "b"),
            ("apps[1].key", "k"),
            ("apps[1].max_backend_events_per_second", "6"),
            ("apps[1].max_client_events_per_second", "8"),
            ("apps[1].max_reads_per_second", "7"),
            ("apps[1].secret", "s"),
            ("apps[2].client_events", "true"),
            ("apps[2].client_events_on_public_channels", "true"),
            ("apps[2].id", "c"),
            ("apps[2].key", "l"),
            ("apps[2].max_backend_events_per_second", "0"),
            ("apps[2].max_reads_per_second", "9"),
            ("apps[2].max_user_info_bytes", "2048"),
            ("apps[2].secret", "t"),
        ];
        sets(&format!(r#"{{"appManager.array.apps": [{camel}, {pascal}, {snake}]}}"#), &expected);
        sets(&format!(r#"{{"appManager": {{"array": {{"apps": [{camel}, {pascal}, {snake}]}}}}}}"#), &expected);
        sets(r#"{"appManager.array.apps.0.id": 7}"#, &[("apps[0].id", "7")]);
    }

    #[test]
    fn what_has_no_counterpart_is_told_once() {
        let (settings, warnings) = read(
            r#"{"cors": {"credentials": true, "origin": ["*"]}, "adapter.driver": "nats", "prot": 1,
                "appManager.array.apps": [{"id": "a", "maxConection": 1}]}"#,
        )
        .unwrap();
        assert_eq!(settings, [("apps[0].id".to_owned(), "a".to_owned())]);
        let mut warnings = warnings.into_iter().map(|warning| warning.replace("soketi.json: ", "")).collect::<Vec<_>>();
        warnings.sort();
        assert!(warnings[0].starts_with("adapter.driver has no effect: "), "{warnings:?}");
        assert_eq!(
            warnings[1],
            "appManager.array.apps.0.maxConection has no effect: unknown name; did you mean \"maxConnections\"?"
        );
        assert!(warnings[2].starts_with("cors has no effect: "), "{warnings:?}");
        assert_eq!(warnings[3], "prot has no effect: unknown name; did you mean \"port\"?");
        assert_eq!(warnings.len(), 4);
    }

    #[test]
    fn what_is_no_file_of_soketis_is_named_by_its_place_and_never_shown() {
        for (text, expected) in [
            ("{\"port\": hunter2}", "soketi.json: not a JSON file: line 1, column 10"),
            ("[]", "soketi.json: must be a JSON object of Soketi's options"),
            ("{\"appManager.array.apps\": \"hunter2\"}", "soketi.json: appManager.array.apps: must be a list of apps"),
            ("{\"appManager.array.apps\": [1]}", "soketi.json: appManager.array.apps.0: must be an object"),
            ("{\"debug\": \"on\"}", "soketi.json: debug: must be true, false, 1 or 0, not \"on\""),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()));
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(read(&deep).is_err());
    }
}
