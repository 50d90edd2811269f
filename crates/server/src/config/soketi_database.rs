//! The database that Soketi's names lead to, where its driver asks for one.

use std::net::Ipv6Addr;

use ::config::{Value, ValueKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    ConfigError,
    alias::{As, Given, Parts},
    follow::Follow,
    origin::{Origin, Origins, child},
    strict::quoted,
};

/// What a host's name is not made of. The path of a socket, which PostgreSQL may have as its host, has slashes.
const NOT_A_HOST: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// A database that Soketi knows.
struct Engine {
    scheme: &'static str,
    /// Host, port, user, password and name, each with Soketi's default.
    parts: [(&'static str, &'static str); 5],
    table: &'static str,
}

const MYSQL: Engine = Engine {
    scheme: "mysql",
    parts: [
        ("SOKETI_DB_MYSQL_HOST", "127.0.0.1"),
        ("SOKETI_DB_MYSQL_PORT", "3306"),
        ("SOKETI_DB_MYSQL_USERNAME", "root"),
        ("SOKETI_DB_MYSQL_PASSWORD", "password"),
        ("SOKETI_DB_MYSQL_DATABASE", "main"),
    ],
    table: "SOKETI_APP_MANAGER_MYSQL_TABLE",
};

const POSTGRES: Engine = Engine {
    scheme: "postgres",
    parts: [
        ("SOKETI_DB_POSTGRES_HOST", "127.0.0.1"),
        ("SOKETI_DB_POSTGRES_PORT", "5432"),
        ("SOKETI_DB_POSTGRES_USERNAME", "postgres"),
        ("SOKETI_DB_POSTGRES_PASSWORD", "password"),
        ("SOKETI_DB_POSTGRES_DATABASE", "main"),
    ],
    table: "SOKETI_APP_MANAGER_POSTGRES_TABLE",
};

impl Engine {
    /// The database's address, and where the first part of it that is set comes from.
    fn url(&self, parts: &Parts) -> Result<(String, Option<Origin>), ConfigError> {
        let [host, port, user, password, name] =
            self.parts.map(|(name, default)| parts.get(name).map_or(default, |given| given.text.as_str()));
        if let Some(given) = parts.get(self.parts[1].0)
            && given.text.parse::<u16>().is_err()
        {
            return Err(bad(given, format!("must be a whole number from 0 to 65535, not {}", quoted(port))));
        }
        let host = match host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => utf8_percent_encode(host, NOT_A_HOST).to_string(),
        };
        let [user, password, name] = [user, password, name].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        let url = format!("{}://{user}:{password}@{host}:{port}/{name}", self.scheme);
        let first = self.parts.iter().find_map(|(name, _)| parts.get(*name));
        Ok((url, first.map(|given| given.origin.clone())))
    }
}

impl Follow<'_> {
    /// Whether apps are in a database.
    pub(super) fn has_database(&self) -> bool {
        let url = child(self.tree, "database").and_then(|section| child(section, "url"));
        url.is_some_and(|url| !matches!(&url.kind, ValueKind::String(text) if text.is_empty()))
    }

    /// Whether they are because Soketi's names say so.
    pub(super) fn is_soketis_database(&self) -> bool {
        self.origins.exact(self.tree, "database.url").is_some_and(Origin::is_soketis)
    }

    /// The database with the apps, how long they are kept, and what else holds where Soketi's driver is one.
    pub(super) fn soketi_database(
        &mut self,
        parts: &Parts,
        notes: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        let Some(driver) = parts.get("SOKETI_APP_MANAGER_DRIVER") else { return Ok(()) };
        let engine = match driver.text.as_str() {
            "mysql" => MYSQL,
            "postgres" => POSTGRES,
            "array" => return Ok(()),
            "dynamodb" => {
                warnings.push(format!(
                    "{} has no effect: apps are in PostgreSQL, MySQL or the configuration: move the table to one of both, or \
                     list them as [[apps]]",
                    driver.origin
                ));
                return Ok(());
            }
            other => {
                let problem = format!("must be array, mysql, postgres or dynamodb, not {}", quoted(other));
                return Err(bad(driver, problem));
            }
        };
        let (url, origin) = engine.url(parts)?;
        self.default_in("database", "url", &url, origin.unwrap_or_else(|| driver.origin.clone()));
        if let Some(table) = parts.get(engine.table) {
            self.default_in("database", "table", &table.text, table.origin.clone());
        }
        self.soketi_cache(parts)?;
        self.soketi_pool(parts)?;
        if self.is_soketis_database() {
            notes.push(format!("apps are looked up in a database: {} is {}", driver.origin, engine.scheme));
            self.soketi_rows_alone(driver, warnings);
        }
        Ok(())
    }

    /// For ever, as there, would be without any change: then the default stays.
    fn soketi_cache(&mut self, parts: &Parts) -> Result<(), ConfigError> {
        let Some(ttl) = parts.get("SOKETI_APP_MANAGER_CACHE_TTL") else { return Ok(()) };
        let seconds = ttl.text.parse::<i64>();
        let seconds =
            seconds.map_err(|_| bad(ttl, format!("must be a whole number of seconds, not {}", quoted(&ttl.text))))?;
        if seconds > 0 && switch("SOKETI_APP_MANAGER_CACHE_ENABLED", parts)? != Some(false) {
            self.default_in("database", "cache_ttl", &format!("{seconds}s"), ttl.origin.clone());
        }
        Ok(())
    }

    fn soketi_pool(&mut self, parts: &Parts) -> Result<(), ConfigError> {
        let pooling = switch("SOKETI_DB_POOLING_ENABLED", parts)?;
        match parts.get("SOKETI_DB_POOLING_MAX").filter(|_| pooling != Some(false)) {
            Some(max) => self.default_in("database", "max_connections", &max.text, max.origin.clone()),
            None if pooling == Some(true) => {
                self.default_in("database", "max_connections", "7", Origin::Because("Soketi's default".to_owned()));
            }
            None => {}
        }
        Ok(())
    }

    /// With a database, Soketi knows no other apps, and its rows answer as its apps do.
    fn soketi_rows_alone(&mut self, driver: &Given, warnings: &mut Vec<String>) {
        if let ValueKind::Table(root) = &mut self.tree.kind
            && let Some(ValueKind::Array(apps)) = root.get_mut("apps").map(|apps| &mut apps.kind)
        {
            let (before, mut dropped) = (apps.len(), None);
            apps.retain(|app| match soketis(app, self.origins) {
                Some(origin) => {
                    dropped.get_or_insert(origin);
                    false
                }
                None => true,
            });
            let kept = apps.len();
            if kept == 0 {
                root.remove("apps");
            }
            if let Some(origin) = dropped {
                let others = if before - kept > 1 { " and the other apps have" } else { " has" };
                warnings.push(format!(
                    "{origin}{others} no effect: apps are in a database, as {} says; set it in their rows",
                    driver.origin
                ));
            }
        }
        let why = || Origin::Because("as Soketi answers, whose names lead to the database".to_owned());
        for key in ["always_counts", "client_events_on_public_channels"] {
            self.row_default(key, "true", why());
        }
    }
}

/// What describes an app under Soketi's names alone, or the first of it.
fn soketis<'o>(app: &Value, origins: &'o Origins) -> Option<&'o Origin> {
    let ValueKind::Table(keys) = &app.kind else { return None };
    let found: Option<Vec<&Origin>> = keys.keys().map(|key| origins.exact(app, key)).collect();
    let found = found.filter(|found| found.iter().all(|origin| origin.is_soketis()))?;
    found.into_iter().min_by_key(|origin| origin.name())
}

fn switch(name: &'static str, parts: &Parts) -> Result<Option<bool>, ConfigError> {
    let Some(given) = parts.get(name) else { return Ok(None) };
    let text = As::Switch.convert("", &given.text).map_err(|problem| bad(given, problem))?;
    Ok(text.map(|text| text == "true"))
}

fn bad(given: &Given, problem: String) -> ConfigError {
    ConfigError::variable(&given.origin.to_string(), problem)
}
