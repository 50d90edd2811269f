//! Apps that are rows of a table in PostgreSQL or MySQL: what is asked of the database, and in its dialect.
//!
//! The table is Soketi's: one row for each app, found by `id` or `key`. Which columns there are is the table's business:
//! whole rows are read, and [`AppConfig::from_row`] makes an app of what it knows.
//!
//! [`AppConfig::from_row`]: crate::config::AppConfig::from_row

use std::{
    fmt,
    str::FromStr as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::{Map, Value};
use sqlx::{
    Column as _, Executor as _, MySql, MySqlPool, PgPool, QueryBuilder, Row as _, TypeInfo as _,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlRow},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{config::DatabaseConfig, tls};

/// A row by its columns.
pub(crate) type AppRow = Map<String, Value>;

/// The database and its table.
pub(crate) struct AppTable {
    pool: Pool,
    /// As it stands in statements.
    name: String,
    /// Host and port, for errors.
    place: String,
    timeout: Duration,
    /// Whether the table has a column for a second key, as far as is known. Asking for a column that is not there would be an error in the
    /// database's log each time.
    has_previous: AtomicBool,
}

enum Pool {
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// What a URL says of how to connect.
enum Options {
    Postgres(PgConnectOptions),
    MySql(MySqlConnectOptions),
}

impl Options {
    fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "postgres" | "postgresql" => PgConnectOptions::from_str(url).ok().map(Self::Postgres),
            "mysql" | "mariadb" => MySqlConnectOptions::from_str(url).ok().map(Self::MySql),
            _ => None,
        }
    }
}

/// Whether a URL is one of a database that apps can be in.
pub(crate) fn is_database_url(url: &str) -> bool {
    Options::of(url).is_some()
}

impl fmt::Debug for AppTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("database.url: not the URL of a database, or one of its options has a value that there is not")]
    Url,
    #[error("no answer from {place} within {timeout:?} (database.timeout)")]
    Timeout { place: String, timeout: Duration },
    /// Its text holds that of its cause, which is therefore not told as well.
    #[error("{0}")]
    Query(sqlx::Error),
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Query(error)
    }
}

impl DatabaseError {
    /// Whether a statement named a column that the table does not have.
    fn is_unknown_column(&self) -> bool {
        let Self::Query(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.code().as_deref(), Some("42703" | "42S22"))
    }
}

/// What Soketi's table has, and the columns of a rotation. Types that both databases know.
const COLUMNS: &str = "\
    {id} VARCHAR(255) NOT NULL PRIMARY KEY, {key} VARCHAR(255) NOT NULL UNIQUE, {secret} VARCHAR(255) NOT NULL, \
    max_connections INTEGER, enabled SMALLINT NOT NULL DEFAULT 1, enable_client_messages SMALLINT, \
    max_backend_events_per_sec INTEGER, max_client_events_per_sec INTEGER, max_read_req_per_sec INTEGER, webhooks JSON, \
    max_presence_members_per_channel INTEGER, max_presence_member_size_in_kb DOUBLE PRECISION, \
    max_channel_name_length INTEGER, max_event_channels_at_once INTEGER, max_event_name_length INTEGER, \
    max_event_payload_in_kb DOUBLE PRECISION, max_event_batch_size INTEGER, enable_user_authentication SMALLINT, \
    previous_key VARCHAR(255) UNIQUE, previous_secret VARCHAR(255)";

/// The columns that a rotation of keys needs, as `ALTER TABLE` takes them.
const ROTATION: &str = "ADD COLUMN previous_key VARCHAR(255), ADD COLUMN previous_secret VARCHAR(255)";

impl AppTable {
    /// Prepares the pool; nothing is connected before the first question.
    ///
    /// # Errors
    /// A URL that cannot be used. It is not told, as it may hold a password.
    pub(crate) fn new(config: &DatabaseConfig) -> Result<Self, DatabaseError> {
        tls::choose_crypto();
        let name = |quote: char| {
            let parts: Vec<_> = config.table.split('.').map(|part| format!("{quote}{part}{quote}")).collect();
            parts.join(".")
        };
        let timeout = config.timeout;
        let (pool, name) = match Options::of(&config.url).ok_or(DatabaseError::Url)? {
            Options::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(config.max_connections).acquire_timeout(timeout);
                (Pool::Postgres(pool.connect_lazy_with(options)), name('"'))
            }
            Options::MySql(options) => {
                let pool = MySqlPoolOptions::new().max_connections(config.max_connections).acquire_timeout(timeout);
                (Pool::MySql(pool.connect_lazy_with(options)), name('`'))
            }
        };
        let url = reqwest::Url::parse(&config.url).ok();
        let place = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or("its host").to_owned();
        let place = url.and_then(|url| url.port()).map_or(place.clone(), |port| format!("{place}:{port}"));
        Ok(Self { pool, name, place, timeout, has_previous: AtomicBool::new(true) })
    }

    /// The rows with one of these ids, and those with one of these keys.
    pub(crate) async fn find(&self, ids: &[String], keys: &[String]) -> Result<Vec<AppRow>, DatabaseError> {
        let previous = self.has_previous.load(Ordering::Relaxed);
        let rows = match self.select(ids, keys, previous).await {
            // Soketi's own table has no columns for a second key: the query is made again without them.
            Err(error) if previous && error.is_unknown_column() => {
                self.has_previous.store(false, Ordering::Relaxed);
                self.select(ids, keys, false).await?
            }
            result => result?,
        };
        // Rows are read with all their columns, so one that is added later is noticed.
        if let Some(row) = rows.first() {
            self.has_previous.store(row.contains_key("previous_key"), Ordering::Relaxed);
        }
        Ok(rows)
    }

    async fn select(&self, ids: &[String], keys: &[String], previous: bool) -> Result<Vec<AppRow>, DatabaseError> {
        let table = &self.name;
        let query = async {
            match &self.pool {
                Pool::Postgres(pool) => {
                    let previous = if previous { r#" OR "previous_key" = ANY($2)"# } else { "" };
                    let sql = format!(
                        r#"SELECT to_jsonb(app)::text FROM {table} AS app WHERE "id" = ANY($1) OR "key" = ANY($2){previous}"#
                    );
                    // Not a named prepared statement: a connection pooler in between may lead to a server that does not know it.
                    let query = sqlx::query_scalar(&sql).persistent(false).bind(ids).bind(keys);
                    let rows: Vec<String> = query.fetch_all(pool).await?;
                    rows.iter().map(|row| serde_json::from_str(row).map_err(decoding)).collect()
                }
                Pool::MySql(pool) => {
                    let mut query = QueryBuilder::<MySql>::new(format!("SELECT * FROM {table} WHERE 1 = 0"));
                    let mut any_of = |column: &str, values: &[String]| {
                        if !values.is_empty() {
                            query.push(format!(" OR {column} IN ("));
                            let mut list = query.separated(", ");
                            values.iter().for_each(|value| {
                                list.push_bind(value.clone());
                            });
                            query.push(")");
                        }
                    };
                    any_of("`id`", ids);
                    any_of("`key`", keys);
                    if previous {
                        any_of("`previous_key`", keys);
                    }
                    let rows = query.build().persistent(false).fetch_all(pool).await?;
                    rows.iter().map(|row| mysql_row(row).map_err(DatabaseError::from)).collect()
                }
            }
        };
        self.in_time(query).await
    }

    /// All rows.
    pub(crate) async fn all(&self) -> Result<Vec<AppRow>, DatabaseError> {
        let table = &self.name;
        let query = async {
            match &self.pool {
                Pool::Postgres(pool) => {
                    let sql = format!(r#"SELECT to_jsonb(app)::text FROM {table} AS app ORDER BY "id""#);
                    let rows: Vec<String> = sqlx::query_scalar(&sql).persistent(false).fetch_all(pool).await?;
                    rows.iter().map(|row| serde_json::from_str(row).map_err(decoding)).collect()
                }
                Pool::MySql(pool) => {
                    let sql = format!("SELECT * FROM {table} ORDER BY `id`");
                    let rows = sqlx::query(&sql).persistent(false).fetch_all(pool).await?;
                    rows.iter().map(|row| mysql_row(row).map_err(DatabaseError::from)).collect()
                }
            }
        };
        self.in_time(query).await
    }

    /// How the table is called in statements.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is such a table.
    pub(crate) async fn exists(&self) -> Result<bool, DatabaseError> {
        match self.select(&[], &[], false).await {
            Ok(_) => Ok(true),
            Err(DatabaseError::Query(sqlx::Error::Database(error)))
                if matches!(error.code().as_deref(), Some("42P01" | "42S02")) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the table, unless there is one.
    pub(crate) async fn create(&self) -> Result<(), DatabaseError> {
        let quote = self.quote();
        let column = |name: &str| format!("{quote}{name}{quote}");
        let columns = ["id", "key", "secret"]
            .into_iter()
            .fold(COLUMNS.to_owned(), |columns, name| columns.replace(&format!("{{{name}}}"), &column(name)));
        self.execute(&format!("CREATE TABLE IF NOT EXISTS {} ({columns})", self.name), &[]).await?;
        Ok(())
    }

    /// Adds an app.
    pub(crate) async fn insert(&self, id: &str, key: &str, secret: &str) -> Result<(), DatabaseError> {
        let (table, q) = (&self.name, self.quote());
        let values = self.placeholders(3).join(", ");
        // In older tables these columns may not be empty; -1 stands for no limit.
        let sql = format!(
            "INSERT INTO {table} ({q}id{q}, {q}key{q}, {q}secret{q}, enabled, enable_client_messages, max_connections, \
             max_backend_events_per_sec, max_client_events_per_sec, max_read_req_per_sec, webhooks) \
             VALUES ({values}, 1, 1, -1, -1, {}, -1, '[]')",
            fanfare_protocol::limits::CLIENT_EVENTS_PER_SECOND
        );
        self.execute(&sql, &[id, key, secret]).await?;
        Ok(())
    }

    /// Sets columns of one app to texts, or to NULL where they are empty. Returns whether there is such an app.
    pub(crate) async fn set(&self, id: &str, columns: &[(&str, &str)]) -> Result<bool, DatabaseError> {
        let (table, q) = (&self.name, self.quote());
        let places = self.placeholders(columns.len() + 1);
        let set: Vec<_> = columns
            .iter()
            .zip(&places)
            .map(|((column, _), place)| format!("{q}{column}{q} = NULLIF({place}, '')"))
            .collect();
        let place = &places[columns.len()];
        let sql = format!("UPDATE {table} SET {} WHERE {q}id{q} = {place}", set.join(", "));
        let values: Vec<_> = columns.iter().map(|(_, value)| *value).chain([id]).collect();
        Ok(self.execute(&sql, &values).await? > 0)
    }

    /// Enables or disables an app. Returns whether there is such an app.
    pub(crate) async fn enable(&self, id: &str, enabled: bool) -> Result<bool, DatabaseError> {
        let (table, q) = (&self.name, self.quote());
        let place = &self.placeholders(1)[0];
        let sql = format!("UPDATE {table} SET enabled = {} WHERE {q}id{q} = {place}", i32::from(enabled));
        Ok(self.execute(&sql, &[id]).await? > 0)
    }

    /// The statement that gives the table the columns of a rotation.
    pub(crate) fn rotation_statement(&self) -> String {
        format!("ALTER TABLE {} {ROTATION};", self.name)
    }

    /// Gives the table the columns of a rotation.
    pub(crate) async fn add_rotation(&self) -> Result<(), DatabaseError> {
        self.execute(&self.rotation_statement(), &[]).await?;
        Ok(())
    }

    fn quote(&self) -> char {
        match self.pool {
            Pool::Postgres(_) => '"',
            Pool::MySql(_) => '`',
        }
    }

    fn placeholders(&self, count: usize) -> Vec<String> {
        match self.pool {
            Pool::Postgres(_) => (1..=count).map(|number| format!("${number}")).collect(),
            Pool::MySql(_) => vec!["?".to_owned(); count],
        }
    }

    /// How many rows a statement has changed, or would have if they were not so already.
    async fn execute(&self, sql: &str, values: &[&str]) -> Result<u64, DatabaseError> {
        let query = async {
            match &self.pool {
                Pool::Postgres(pool) => {
                    let query =
                        values.iter().fold(sqlx::query(sql).persistent(false), |query, value| query.bind(*value));
                    Ok(pool.execute(query).await?.rows_affected())
                }
                Pool::MySql(pool) => {
                    let query =
                        values.iter().fold(sqlx::query(sql).persistent(false), |query, value| query.bind(*value));
                    Ok(pool.execute(query).await?.rows_affected())
                }
            }
        };
        self.in_time(query).await
    }

    async fn in_time<T>(&self, query: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
        match tokio::time::timeout(self.timeout, query).await {
            // Its pool tries again until its time is over where nobody listens.
            Err(_) | Ok(Err(DatabaseError::Query(sqlx::Error::PoolTimedOut))) => {
                Err(DatabaseError::Timeout { place: self.place.clone(), timeout: self.timeout })
            }
            Ok(result) => result,
        }
    }
}

fn decoding(error: serde_json::Error) -> DatabaseError {
    sqlx::Error::Decode(error.into()).into()
}

/// A row of MySQL or MariaDB, whatever the types of its columns.
fn mysql_row(row: &MySqlRow) -> Result<AppRow, sqlx::Error> {
    let mut values = AppRow::new();
    for column in row.columns() {
        let place = column.ordinal();
        let value = if let Ok(number) = row.try_get::<Option<i64>, _>(place) {
            number.map(Value::from)
        } else if let Ok(number) = row.try_get::<Option<u64>, _>(place) {
            number.map(Value::from)
        } else if let Ok(number) = row.try_get::<Option<f64>, _>(place) {
            number.map(Value::from)
        } else {
            // Text, JSON and decimal numbers all come as text; no setting is a date or the like.
            match column.type_info().name() {
                "DATE" | "TIME" | "DATETIME" | "TIMESTAMP" | "YEAR" | "BIT" | "GEOMETRY" => None,
                _ => {
                    let bytes: Option<Vec<u8>> = row.try_get_unchecked(place)?;
                    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into())
                }
            }
        };
        values.insert(column.name().to_lowercase(), value.unwrap_or(Value::Null));
    }
    Ok(values)
}
