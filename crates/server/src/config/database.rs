//! `[database]`: apps that are rows of a table.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{duration, redacted};

/// `[database]`: a table of PostgreSQL or MySQL with apps, beside those of the file.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://` or `mysql://`, with user, password, host and name; empty: no database.
    #[serde(serialize_with = "redacted::url")]
    pub url: String,
    /// The table, with its schema if need be.
    pub table: String,
    /// How long what the database said is believed: of apps in use, and of ids and keys there are none of.
    #[serde(with = "duration")]
    pub cache_ttl: Duration,
    /// How long the database may take for an answer.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Connections to the database at a time.
    pub max_connections: u32,
    /// What holds for apps whose row does not say otherwise, where other servers' names set it for all apps.
    #[serde(skip)]
    pub row_defaults: RowDefaults,
}

/// Settings for apps of the database whose row lacks them.
#[derive(Clone, Debug, Default)]
pub struct RowDefaults {
    /// Keys of `[[apps]]`, and their values as text. None of them may be a secret.
    pub(super) settings: BTreeMap<String, String>,
    /// The `authorization_timeout` that `enable_user_authentication` stands for, if not Soketi's.
    pub(super) sign_in_time: Option<String>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            table: "apps".to_owned(),
            cache_ttl: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            max_connections: 2,
            row_defaults: RowDefaults::default(),
        }
    }
}

// By hand, as the URL holds a password.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig").field("table", &self.table).finish_non_exhaustive()
    }
}
