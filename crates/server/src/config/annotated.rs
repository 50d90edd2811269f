//! The effective configuration as TOML, each value with where it comes from.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use ::config::Value as Tree;
use toml::Value;

use super::{
    Config,
    origin::{Origins, child},
};

/// The column in which origins stand, if a line is not longer.
const COLUMN: usize = 44;

/// A configuration with what there is to say about how it came to be.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What was taken from where, in a line each.
    pub notes: Vec<String>,
    /// What has no effect, or not the one that was meant, in a line each.
    pub warnings: Vec<String>,
    pub(super) tree: Tree,
    pub(super) origins: Origins,
    /// The TOML file with its text.
    pub(super) file: Option<(PathBuf, String)>,
}

// By hand, as the sources hold secrets.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("config", &self.config)
            .field("notes", &self.notes)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Writes notes and warnings to the log, without those of the last time, which are in `said`.
    pub fn log(&self, said: &mut BTreeSet<String>) {
        let now = self.notes.iter().chain(&self.warnings).cloned().collect();
        let last = std::mem::replace(said, now);
        for note in self.notes.iter().filter(|note| !last.contains(*note)) {
            tracing::info!("{note}");
        }
        for warning in self.warnings.iter().filter(|warning| !last.contains(*warning)) {
            tracing::warn!("{warning}");
        }
    }

    /// Adds what people who come from other servers stumble over.
    pub(super) fn with_hints(mut self) -> Self {
        let server = &self.config.server;
        let url = reqwest::Url::parse(&server.public_url).ok();
        let port = url.as_ref().and_then(reqwest::Url::port_or_known_default);
        let here = url
            .as_ref()
            .and_then(reqwest::Url::host_str)
            .is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
        let ports = [Some(server.port), self.config.tls.plain_port];
        let origin = self.origins.exact(&self.tree, "server.public_url").filter(|origin| origin.is_somebody_elses());
        if let (Some(origin), Some(port)) = (origin, port)
            && here
            && server.port != 0
            && !ports.contains(&Some(port))
        {
            let prefix = origin.name().trim_end_matches("_HOST");
            self.warnings.push(format!(
                "{prefix}_PORT sends clients to port {port} of this machine, and Fanfare listens on {}: make them the same \
                 ({prefix}_PORT={} there, or REVERB_SERVER_PORT={port}, server.port or --port here)",
                server.port, server.port
            ));
        }
        let listens_everywhere_there = |name: &str| name.starts_with("SOKETI_") || name.starts_with("REVERB_");
        let host_is_ours = self.origins.exact(&self.tree, "server.host").is_none() && !self.is_in_file("server.host");
        let names = self.notes.iter().any(|note| note.split([' ', ',']).any(listens_everywhere_there));
        if names && host_is_ours {
            self.notes.push(
                "listening for this machine alone, where Soketi and Reverb listen for all: SOKETI_HOST=0.0.0.0, \
                 REVERB_SERVER_HOST=0.0.0.0 or server.host = \"0.0.0.0\" does that here"
                    .to_owned(),
            );
        }
        self
    }

    fn is_in_file(&self, key: &str) -> bool {
        key.split('.').try_fold(&self.tree, child).is_some()
    }

    /// The effective configuration as TOML: `[redacted]` in place of what must not be seen, and behind each value where it
    /// comes from.
    pub fn to_annotated_toml(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        // This cannot fail: there are only strings, numbers up to i64::MAX, and lists of them.
        if let Ok(Value::Table(root)) = Value::try_from(&self.config) {
            let lines = self.file.as_ref().map(|(path, text)| Lines::new(path, text));
            Printer { loaded: self, lines, text: &mut text }.table("", "", &root);
        }
        text
    }
}

struct Printer<'p> {
    loaded: &'p Loaded,
    lines: Option<Lines<'p>>,
    text: &'p mut String,
}

impl Printer<'_> {
    /// The values of a table, then the tables in it. `header` is how TOML calls it, `key` how errors do.
    fn table(&mut self, header: &str, key: &str, table: &toml::Table) {
        let inside =
            |outer: &str, name: &str| if outer.is_empty() { name.to_owned() } else { format!("{outer}.{name}") };
        for (name, value) in table.iter().filter(|(_, value)| !is_section(value)) {
            let setting = format!("{} = {value}", toml_key(name));
            let origin = self.origin(&inside(key, name));
            let _ = writeln!(self.text, "{setting:COLUMN$} # {origin}");
        }
        for (name, value) in table.iter().filter(|(_, value)| is_section(value)) {
            let (header, key) = (inside(header, &toml_key(name)), inside(key, name));
            match value {
                Value::Table(table) => {
                    let _ = writeln!(self.text, "\n[{header}]");
                    self.table(&header, &key, table);
                }
                Value::Array(tables) => {
                    for (position, table) in tables.iter().filter_map(Value::as_table).enumerate() {
                        let _ = writeln!(self.text, "\n[[{header}]]");
                        self.table(&header, &format!("{key}[{position}]"), table);
                    }
                }
                _ => {}
            }
        }
    }

    fn origin(&self, key: &str) -> String {
        let Loaded { tree, origins, .. } = self.loaded;
        match origins.exact(tree, key) {
            Some(origin) => origin.describe(),
            None if key.split(['.', '[']).try_fold(tree, child).is_some() => {
                self.lines.as_ref().map_or_else(String::new, |lines| lines.place(key))
            }
            None => "default".to_owned(),
        }
    }
}

/// Whether a value is printed under a header of its own.
fn is_section(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(elements) => elements.first().is_some_and(Value::is_table),
        _ => false,
    }
}

/// A key as TOML writes it.
fn toml_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_owned() } else { Value::from(name).to_string() }
}

/// Where keys stand in a TOML file.
struct Lines<'f> {
    path: &'f Path,
    text: &'f str,
    root: Option<toml::Spanned<toml::de::DeTable<'f>>>,
}

impl<'f> Lines<'f> {
    fn new(path: &'f Path, text: &'f str) -> Self {
        Self { path, text, root: toml::de::DeTable::parse(text).ok() }
    }

    /// `fanfare.toml:12`
    fn place(&self, key: &str) -> String {
        let path = self.path.display();
        match self.line(key) {
            Some(line) => format!("{path}:{line}"),
            None => path.to_string(),
        }
    }

    fn line(&self, key: &str) -> Option<usize> {
        let mut steps = key.split(['.', '[']);
        let mut value = self.root.as_ref()?.get_ref().get(steps.next()?)?;
        for step in steps {
            value = match value.get_ref() {
                toml::de::DeValue::Table(table) => table.get(step)?,
                toml::de::DeValue::Array(array) => array.get(step.trim_end_matches(']').parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(self.text.get(..value.span().start)?.matches('\n').count() + 1)
    }
}
