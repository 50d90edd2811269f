//! The SQLite file: opening it, its revision counter, and how times look.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

const READERS: u32 = 4;

/// The connections to the file.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// For everything that only reads.
    pub(crate) reader: SqlitePool,
    /// The one connection that writes: who wants it queues up here, where SQLite would have them try again and again.
    pub(crate) writer: SqlitePool,
}

impl Database {
    /// Opens the file, makes it when it is missing, and brings its tables up to date.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            // Readers do not wait for the writer, nor it for them.
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!().run(&writer).await?;
        let reader = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { reader, writer })
    }
}

/// The revision of the next change.
pub(crate) async fn next_revision(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("UPDATE revision SET value = value + 1 RETURNING value").fetch_one(connection).await
}

/// The revision of the last change.
pub(crate) async fn revision(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT value FROM revision").fetch_one(connection).await
}

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// The latest time that RFC 3339 can write, the end of the year 9999.
const MAX_MS: u64 = 253_402_300_799_999;

/// A time in Unix milliseconds as text.
pub(crate) fn rfc3339(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or_default().min(MAX_MS);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
