//! Apps in the database.

use anyhow::{Context as _, bail};
use tokio::runtime::Runtime;

use super::Credentials;
use crate::{
    app::{AppRow, AppTable},
    config::{AppConfig, DatabaseConfig, RowDefaults, ServerConfig},
};

/// The table, and what it takes to wait for it.
pub(super) struct Database {
    runtime: Runtime,
    table: AppTable,
}

impl Database {
    pub(super) fn open(config: &DatabaseConfig) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let table = {
            let _context = runtime.enter();
            AppTable::new(config)?
        };
        Ok(Self { runtime, table })
    }

    /// All apps that can be used.
    pub(super) fn apps(&self) -> anyhow::Result<Vec<AppConfig>> {
        let rows = self.runtime.block_on(self.table.all()).context("the database")?;
        Ok(rows
            .iter()
            .filter_map(|row| AppConfig::from_row(row, &RowDefaults::default(), &ServerConfig::default()).ok())
            .map(|(app, _)| app)
            .collect())
    }

    /// Adds an app, and makes the table if there is none. Where that is.
    pub(super) fn add(&self, id: &str, credentials: &Credentials) -> anyhow::Result<String> {
        let insert = async || {
            if !self.table.find(&[id.to_owned()], &[]).await?.is_empty() {
                bail!("there is an app with the id {id} already");
            }
            Ok(self.table.insert(id, &credentials.key, &credentials.secret).await?)
        };
        let name = self.table.name();
        let done = async {
            if !self.table.exists().await? {
                self.table.create().await?;
                eprintln!("made the table {name}");
            }
            insert().await
        };
        self.runtime.block_on(done).context("the database")?;
        Ok(format!("the table {name} of the database"))
    }

    /// Whether there is such an app.
    pub(super) fn set_enabled(&self, id: &str, enabled: bool) -> anyhow::Result<bool> {
        self.runtime.block_on(self.table.enable(id, enabled)).context("the database")
    }

    pub(super) fn rotate(&self, id: &str, new: &Credentials) -> anyhow::Result<Option<()>> {
        let Some(row) = self.row(id)? else { return Ok(None) };
        if text(&row, "previous_key").is_some() {
            bail!("app {id} has two keys already; end that rotation first: fanfare app rotate-key {id} --finish");
        }
        let (Some(key), Some(secret)) = (text(&row, "key"), text(&row, "secret")) else {
            bail!("the row of app {id} has no key or no secret");
        };
        let columns =
            [("key", &*new.key), ("secret", &*new.secret), ("previous_key", key), ("previous_secret", secret)];
        self.runtime.block_on(self.table.set(id, &columns)).context("the database")?;
        Ok(Some(()))
    }

    pub(super) fn finish(&self, id: &str) -> anyhow::Result<Option<()>> {
        let Some(row) = self.row(id)? else { return Ok(None) };
        if text(&row, "previous_key").is_none() {
            bail!("app {id} has one key only: there is no rotation to end");
        }
        let columns = [("previous_key", ""), ("previous_secret", "")];
        self.runtime.block_on(self.table.set(id, &columns)).context("the database")?;
        Ok(Some(()))
    }

    /// The row of an app, in a table that can hold two keys.
    fn row(&self, id: &str) -> anyhow::Result<Option<AppRow>> {
        let mut rows = self.runtime.block_on(self.table.find(&[id.to_owned()], &[])).context("the database")?;
        let Some(row) = rows.pop() else { return Ok(None) };
        if !row.contains_key("previous_key") || !row.contains_key("previous_secret") {
            bail!("the table has no columns for a second key; add them with\n  {}", self.table.rotation_statement());
        }
        Ok(Some(row))
    }
}

fn text<'r>(row: &'r AppRow, column: &str) -> Option<&'r str> {
    row.get(column).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty())
}
