//! Apps in the database.

use anyhow::{Context as _, bail};
use tokio::runtime::Runtime;

use super::{super::tell, Credentials};
use crate::{
    app::{AppRow, AppTable},
    config::{AppConfig, DatabaseConfig, RowDefaults, ServerConfig},
};

/// The table, and what it takes to wait for it.
pub(in crate::cli) struct Database {
    runtime: Runtime,
    table: AppTable,
}

impl Database {
    pub(in crate::cli) fn open(config: &DatabaseConfig) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let table = {
            let _context = runtime.enter();
            AppTable::new(config)?
        };
        Ok(Self { runtime, table })
    }

    /// All apps that can be used, and what is wrong with the rows of others.
    pub(in crate::cli) fn apps(&self) -> anyhow::Result<(Vec<AppConfig>, Vec<String>)> {
        let rows = self.runtime.block_on(self.table.all()).context("the database")?;
        let (mut apps, mut unusable) = (Vec::new(), Vec::new());
        for row in rows {
            match AppConfig::from_row(&row, &RowDefaults::default(), &ServerConfig::default()) {
                Ok((app, _)) => apps.push(app),
                Err(error) => {
                    let id = row.get("id").cloned().unwrap_or_default();
                    unusable.push(format!("the row with the id {id} cannot be used, {error}"));
                }
            }
        }
        Ok((apps, unusable))
    }

    /// Adds an app, and makes the table if there is none. Returns where that is, for people.
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
                tell(format_args!("made the table {name}"));
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

    /// Puts a new key and secret in the place of the old ones, which become the previous ones. A table without columns for
    /// them gets some, if it may.
    pub(super) fn rotate(&self, id: &str, new: &Credentials, add_columns: bool) -> anyhow::Result<Option<()>> {
        let Some(mut row) = self.row(id)? else { return Ok(None) };
        if add_columns && !can_rotate(&row) {
            self.runtime.block_on(self.table.add_rotation()).context("the database")?;
            tell(format_args!("gave the table {} the columns previous_key and previous_secret", self.table.name()));
            let Some(changed) = self.row(id)? else { return Ok(None) };
            row = changed;
        }
        self.check_columns(&row)?;
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

    /// Removes the previous key and secret.
    pub(super) fn finish(&self, id: &str) -> anyhow::Result<Option<()>> {
        let Some(row) = self.row(id)? else { return Ok(None) };
        self.check_columns(&row)?;
        if text(&row, "previous_key").is_none() {
            bail!("app {id} has one key only: there is no rotation to end");
        }
        let columns = [("previous_key", ""), ("previous_secret", "")];
        self.runtime.block_on(self.table.set(id, &columns)).context("the database")?;
        Ok(Some(()))
    }

    fn row(&self, id: &str) -> anyhow::Result<Option<AppRow>> {
        let mut rows = self.runtime.block_on(self.table.find(&[id.to_owned()], &[])).context("the database")?;
        Ok(rows.pop())
    }

    fn check_columns(&self, row: &AppRow) -> anyhow::Result<()> {
        if !can_rotate(row) {
            bail!(
                "the table has no columns for a second key; rotate-key --add-columns adds them, or you do with\n  {}",
                self.table.rotation_statement()
            );
        }
        Ok(())
    }
}

/// Whether a row is one of a table that can hold two keys.
fn can_rotate(row: &AppRow) -> bool {
    row.contains_key("previous_key") && row.contains_key("previous_secret")
}

fn text<'r>(row: &'r AppRow, column: &str) -> Option<&'r str> {
    row.get(column).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty())
}
