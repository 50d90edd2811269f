//! Apps in the configuration file. Whatever else is in it stays as it is written, comments included.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::Credentials;
use crate::config::{AppConfig, ConfigError, Sources};

/// The file and what is in it.
pub(super) struct AppFile {
    path: PathBuf,
    document: DocumentMut,
    /// What a changed file has to be good together with.
    sources: Sources,
}

impl AppFile {
    /// Reads a file; one that does not exist is empty.
    pub(super) fn open(path: PathBuf, sources: Sources) -> anyhow::Result<Self> {
        let text = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
        let Ok(document) = text.parse() else {
            // That error could hold a line of it, and so a secret; this one does not.
            sources.load_with(&path, &text)?;
            bail!("{} is not a TOML file", path.display());
        };
        Ok(Self { path, document, sources })
    }

    /// Whether an app stands in it.
    pub(super) fn has(&self, id: &str) -> bool {
        tables(&self.document).any(|table| text(table, "id").as_deref() == Some(id))
    }

    /// The apps as the server understands them.
    pub(super) fn apps(&self) -> Result<Vec<AppConfig>, ConfigError> {
        let ids: Vec<_> = tables(&self.document).filter_map(|table| text(table, "id")).collect();
        let config = self.sources.load_with(&self.path, &self.document.to_string())?;
        Ok(config.apps.into_iter().filter(|app| ids.contains(&app.id.to_string())).collect())
    }

    /// Adds an app behind the others. Returns where that is, for people.
    pub(super) fn add(&mut self, id: &str, credentials: &Credentials) -> anyhow::Result<String> {
        if self.has(id) {
            bail!("there is an app with the id {id} already");
        }
        let fields = [("id", id), ("key", &*credentials.key), ("secret", &*credentials.secret)];
        let apps = self.document.entry("apps").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        match apps {
            Item::ArrayOfTables(tables) => {
                let mut table = Table::new();
                fields.into_iter().for_each(|(name, text)| table[name] = value(text));
                tables.push(table);
            }
            Item::Value(Value::Array(list)) => list.push(InlineTable::from_iter(fields)),
            _ => bail!("{}: apps is not a list of tables", self.path.display()),
        }
        self.save()?;
        Ok(self.path.display().to_string())
    }

    pub(super) fn set_enabled(&mut self, id: &str, enabled: bool) -> anyhow::Result<()> {
        self.known(id)?.insert("enabled", value(enabled));
        self.save()
    }

    /// Puts a new key and secret in the place of the old ones, which become the previous ones.
    pub(super) fn rotate(&mut self, id: &str, credentials: &Credentials) -> anyhow::Result<()> {
        let app = self.known(id)?;
        if text(app, "previous_key").is_some_and(|key| !key.is_empty()) {
            bail!("app {id} has two keys already; end that rotation first: fanfare app rotate-key {id} --finish");
        }
        let (Some(key), Some(secret)) = (text(app, "key"), text(app, "secret")) else {
            bail!("key and secret of app {id} are not both in the file; change them where they are");
        };
        for (name, text) in [
            ("key", &credentials.key),
            ("secret", &credentials.secret),
            ("previous_key", &key),
            ("previous_secret", &secret),
        ] {
            set(app, name, text);
        }
        self.save()
    }

    /// Removes the previous key and secret.
    pub(super) fn finish(&mut self, id: &str) -> anyhow::Result<()> {
        let app = self.known(id)?;
        if text(app, "previous_key").is_none_or(|key| key.is_empty()) {
            bail!("app {id} has one key only: there is no rotation to end");
        }
        app.remove("previous_key");
        app.remove("previous_secret");
        self.save()
    }

    fn known(&mut self, id: &str) -> anyhow::Result<&mut dyn TableLike> {
        self.app(id).with_context(|| format!("there is no app with the id {id}"))
    }

    fn app(&mut self, id: &str) -> Option<&mut dyn TableLike> {
        let is_it = |table: &dyn TableLike| text(table, "id").as_deref() == Some(id);
        match self.document.get_mut("apps")? {
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().find(|table| is_it(*table)).map(|table| table as &mut dyn TableLike)
            }
            Item::Value(Value::Array(list)) => {
                let mut tables = list.iter_mut().filter_map(Value::as_inline_table_mut);
                tables.find(|table| is_it(*table)).map(|table| table as &mut dyn TableLike)
            }
            _ => None,
        }
    }

    /// Replaces the file as a whole, if the server could use it: whoever reads it finds the old one or the new one.
    fn save(&self) -> anyhow::Result<()> {
        let text = self.document.to_string();
        self.sources.load_with(&self.path, &text)?;
        // The file behind a link is replaced, not the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let new = path.with_file_name(format!(
            ".{}.{}",
            path.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        ));
        let saved = write_like(&path, &new, &text).and_then(|()| fs::rename(&new, &path));
        saved.with_context(|| format!("cannot write {}", path.display())).inspect_err(|_| {
            // It may not be there, if making it was what failed.
            let _ = fs::remove_file(&new);
        })
    }
}

/// Writes a file with the owner and mode of another, or for the owner only.
fn write_like(old: &Path, new: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(old) {
        let mine = file.metadata()?;
        if (old.uid(), old.gid()) != (mine.uid(), mine.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.sync_all()
}

fn tables(document: &DocumentMut) -> Box<dyn Iterator<Item = &dyn TableLike> + '_> {
    match document.get("apps") {
        Some(Item::ArrayOfTables(tables)) => Box::new(tables.iter().map(|table| table as &dyn TableLike)),
        Some(Item::Value(Value::Array(list))) => {
            Box::new(list.iter().filter_map(Value::as_inline_table).map(|table| table as &dyn TableLike))
        }
        _ => Box::new(std::iter::empty()),
    }
}

fn text(table: &dyn TableLike, name: &str) -> Option<String> {
    table.get(name)?.as_str().map(str::to_owned)
}

/// Sets a text, and keeps a comment behind the last one.
fn set(table: &mut dyn TableLike, name: &str, text: &str) {
    let mut new = Value::from(text);
    if let Some(old) = table.get(name).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    table.insert(name, Item::Value(new));
}
