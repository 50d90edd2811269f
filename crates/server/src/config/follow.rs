//! What follows from what the sources say together, for keys that none of them sets: Laravel's app, the fields that Soketi has
//! defaults for, limits of all apps, and what has to carry larger events.

use ::config::{Map, Value, ValueKind};

use super::{
    AppConfig, ConfigError, ServerConfig,
    alias::{ALIASES, As, Effect, Effects, Given, Parts, Setting},
    laravel,
    origin::{Origin, Origins},
};

/// The merged tree, and where its values come from.
pub(super) struct Follow<'m> {
    pub(super) tree: &'m mut Value,
    pub(super) origins: &'m mut Origins,
    /// Keys of apps of the database, for rows that lack them.
    pub(super) of_rows: Vec<Setting>,
}

impl Follow<'_> {
    fn apps(&mut self) -> &mut [Value] {
        let ValueKind::Table(root) = &mut self.tree.kind else { return &mut [] };
        match root.get_mut("apps").map(|apps| &mut apps.kind) {
            Some(ValueKind::Array(apps)) => apps,
            _ => &mut [],
        }
    }

    /// Makes a first app if there is none.
    fn need_app(&mut self) {
        if self.apps().is_empty()
            && let ValueKind::Table(root) = &mut self.tree.kind
        {
            let app = Value::new(None, ValueKind::Table(Map::new()));
            root.insert("apps".to_owned(), Value::new(None, ValueKind::Array(vec![app])));
        }
    }

    /// Sets a key of an app if nothing else does.
    fn app_default(&mut self, position: usize, key: &str, text: &str, origin: Origin) {
        let value = self.origins.value(origin, text);
        if let Some(app) = self.apps().get_mut(position).and_then(table) {
            app.entry(key.to_owned()).or_insert(value);
        }
    }

    /// Sets a key of a section if nothing else does.
    pub(super) fn default_in(&mut self, section: &str, key: &str, text: &str, origin: Origin) {
        let value = self.origins.value(origin, text);
        let ValueKind::Table(root) = &mut self.tree.kind else { return };
        let section = root.entry(section.to_owned()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
        if let Some(section) = table(section) {
            section.entry(key.to_owned()).or_insert(value);
        }
    }

    /// The origin of a key of an app, if it is set, and not in a TOML file.
    fn app_origin(&self, position: usize, key: &str) -> Option<&Origin> {
        self.origins.exact(self.tree, &format!("apps[{position}].{key}"))
    }

    /// Soketi's time-out for those who have to sign in.
    pub(super) fn user_authentication(&mut self, parts: &Parts) -> Result<(), ConfigError> {
        let Some(given) = parts.get("SOKETI_USER_AUTHENTICATION_TIMEOUT") else { return Ok(()) };
        let milliseconds = As::Milliseconds.convert("", &given.text);
        let text = milliseconds.map_err(|problem| ConfigError::variable(&given.origin.to_string(), problem))?;
        for position in 0..self.apps().len() {
            let insists = self.app_origin(position, "authorization_timeout").is_some_and(Origin::is_soketis);
            if insists && let Some(text) = &text {
                let value = self.origins.value(given.origin.clone(), text.as_str());
                if let Some(app) = self.apps().get_mut(position).and_then(table) {
                    app.insert("authorization_timeout".to_owned(), value);
                }
            }
        }
        Ok(())
    }

    /// The app that Laravel's names describe, where no other has credentials, and where clients reach it.
    pub(super) fn laravel(
        &mut self,
        parts: &Parts,
        notes: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        let order = laravel::order(parts);
        if let Some((url, origin)) = order.iter().find_map(|broadcaster| broadcaster.public_url(parts)) {
            self.default_in("server", "public_url", &url, origin);
        }
        if self.is_soketis_database() {
            return Ok(());
        }
        let has_credentials = |app: &mut Value| {
            table(app).is_some_and(|app| ["id", "key", "secret"].iter().any(|key| app.contains_key(*key)))
        };
        if self.apps().iter_mut().any(has_credentials) {
            return Ok(());
        }
        let Some(broadcaster) = order.into_iter().find(|broadcaster| broadcaster.is_complete(parts)) else {
            warnings.extend(order.iter().filter_map(|broadcaster| broadcaster.what_is_missing(parts)));
            return Ok(());
        };
        self.need_app();
        let mut effects = Effects::default();
        for alias in ALIASES.iter().filter(|alias| alias.name.starts_with(broadcaster.app_prefix())) {
            if let (Effect::LaravelApp(keys, kind), Some(given)) = (alias.effect, parts.get(alias.name)) {
                for Setting { path, text, origin } in effects.convert(keys, kind, given)? {
                    self.app_default(0, path.trim_start_matches("apps[0]."), &text, origin);
                }
            }
        }
        notes.push(broadcaster.note(&effects.taken, parts));
        Ok(())
    }

    /// What Soketi has defaults for in its first app, and what its apps answer.
    pub(super) fn soketi_apps(&mut self) {
        let demo = AppConfig::demo();
        for position in 0..self.apps().len() {
            let keys = self.apps()[position].clone().into_table().map(|app| app.into_keys().collect::<Vec<_>>());
            let keys = keys.unwrap_or_default();
            let mut origins = keys.iter().map(|key| self.app_origin(position, key));
            let is_soketis = !keys.is_empty() && origins.all(|origin| origin.is_some_and(Origin::is_soketis));
            if is_soketis && position == 0 {
                let default = || Origin::Because("Soketi's default".to_owned());
                self.app_default(0, "id", demo.id.as_str(), default());
                self.app_default(0, "key", demo.key.as_str(), default());
                self.app_default(0, "secret", AppConfig::DEMO_SECRET, default());
            }
            if self.app_origin(position, "key").is_some_and(|origin| origin.is_soketis() || is_soketis) {
                let why = Origin::Because("as Soketi answers, whose names describe the app".to_owned());
                self.app_default(position, "always_counts", "true", why);
            }
        }
    }

    /// Soketi's metrics have a port of their own and its prefix, unless they are told otherwise.
    pub(super) fn soketi_metrics(&mut self) {
        let enabled = ["metrics.enabled", "metrics.port", "metrics.prefix", "metrics.host"];
        let is_soketis = |key: &str| self.origins.exact(self.tree, key).is_some_and(Origin::is_soketis);
        if enabled.into_iter().any(is_soketis) {
            let default = || Origin::Because("Soketi's default".to_owned());
            self.default_in("metrics", "port", "9601", default());
            self.default_in("metrics", "prefix", "soketi_", default());
        }
    }

    /// Limits that are given for all apps.
    pub(super) fn every_app(&mut self, settings: Vec<Setting>) {
        // The last source comes first, because the first value that is found wins.
        for Setting { path, text, origin } in settings.into_iter().rev() {
            self.default_of_apps(&path, &text, &origin);
        }
    }

    /// Sets a key of all apps for which nothing else does, those of the database included.
    fn default_of_apps(&mut self, key: &str, text: &str, origin: &Origin) {
        self.need_demo_app();
        for position in 0..self.apps().len() {
            self.app_default(position, key, text, origin.clone());
        }
        self.row_default(key, text, origin.clone());
    }

    /// Sets a key of apps of the database if nothing else does.
    pub(super) fn row_default(&mut self, key: &str, text: &str, origin: Origin) {
        if !self.of_rows.iter().any(|setting| setting.path == key) {
            self.of_rows.push(Setting { path: key.to_owned(), text: text.to_owned(), origin });
        }
    }

    /// Makes the demo app if there is no other, and none in a database, so that what is said of all apps holds for it.
    fn need_demo_app(&mut self) {
        if self.apps().is_empty() && !self.has_database() {
            self.need_app();
            let demo = AppConfig::demo();
            for (key, text) in
                [("id", demo.id.as_str()), ("key", demo.key.as_str()), ("secret", AppConfig::DEMO_SECRET)]
            {
                self.app_default(0, key, text, Origin::Because("the demo app".to_owned()));
            }
        }
    }

    /// The Redis that Soketi's or Reverb's names lead to.
    pub(super) fn redis(&mut self, parts: &Parts) -> Result<(), ConfigError> {
        if let Some(scaling) = parts.get("REVERB_SCALING_ENABLED") {
            let scales = As::Switch.convert("", &scaling.text);
            let scales = scales.map_err(|problem| ConfigError::variable(&scaling.origin.to_string(), problem))?;
            if scales.as_deref() == Some("true") {
                self.default_in("broker", "driver", "redis", scaling.origin.clone());
                let url = parts.get("REDIS_URL").map(|url| (url.text.clone(), url.origin.clone()));
                if let Some((url, origin)) = url.or_else(|| laravel::redis_url("REDIS_", parts)) {
                    self.default_in("broker", "url", &url, origin);
                }
            }
        }
        if let Some((url, origin)) = laravel::redis_url("SOKETI_DB_REDIS_", parts) {
            self.default_in("broker", "url", &url, origin);
        }
        Ok(())
    }

    /// Reverb has one size for requests, events included, and one for messages.
    pub(super) fn reverb_sizes(&mut self, parts: &Parts) {
        if let Some(Given { text, origin }) = parts.get("REVERB_MAX_REQUEST_SIZE") {
            self.default_in("server", "max_request_bytes", text, origin.clone());
            self.default_of_apps("max_event_bytes", text, origin);
        }
        let is_reverbs = self.app_origin(0, "id").is_some_and(|origin| origin.name() == "REVERB_APP_ID");
        if let Some(Given { text, origin }) = parts.get("REVERB_APP_MAX_MESSAGE_SIZE").filter(|_| is_reverbs) {
            self.default_in("server", "max_message_bytes", text, origin.clone());
            if text.parse().is_ok_and(|bytes: usize| bytes < AppConfig::default().max_client_event_bytes) {
                self.app_default(0, "max_client_event_bytes", text, origin.clone());
            }
        }
    }

    /// Raises the bounds of what carries events that somebody else's names made larger: twice the size, as JSON escapes it.
    pub(super) fn carriers(&mut self) {
        let defaults = ServerConfig::default();
        for (key, carrier, bound) in [
            ("max_event_bytes", "max_request_bytes", defaults.max_request_bytes),
            ("max_event_bytes", "max_outbox_bytes", defaults.max_outbox_bytes),
            ("max_client_event_bytes", "max_message_bytes", defaults.max_message_bytes),
        ] {
            let of_rows = self.of_rows.iter().filter(|setting| setting.path == key && self.has_database());
            let of_rows = of_rows.map(|setting| (setting.text.parse().unwrap_or(0), setting.origin.clone()));
            let mut largest: Option<(usize, Origin)> = of_rows.max_by_key(|(bytes, _)| *bytes);
            for position in 0..self.apps().len() {
                let Some(origin) = self.app_origin(position, key).filter(|origin| origin.is_somebody_elses()).cloned()
                else {
                    continue;
                };
                let bytes = self.apps()[position].clone().into_table().ok().and_then(|mut app| app.remove(key));
                let bytes = bytes.and_then(|bytes| bytes.into_string().ok()?.parse::<usize>().ok()).unwrap_or(0);
                if largest.as_ref().is_none_or(|(size, _)| bytes > *size) {
                    largest = Some((bytes, origin));
                }
            }
            if let Some((bytes, origin)) = largest.filter(|(bytes, _)| bytes.saturating_mul(2) > bound) {
                let why = Origin::Because(format!("twice {}", origin.name()));
                self.default_in("server", carrier, &bytes.saturating_mul(2).to_string(), why);
            }
        }
    }
}

fn table(value: &mut Value) -> Option<&mut Map<String, Value>> {
    match &mut value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}
