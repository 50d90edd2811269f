//! Reads the sources, merges them, and says where a bad value came from.

use std::{fs, net::IpAddr, path::Path};

use ::config::{File, FileFormat, Source as _, Value, ValueKind};
use serde::{Deserialize, de::Error as _};

use super::{
    AppConfig, Config, ConfigError,
    environment::{self, Variable},
    strict::Node,
};

/// What flags set; they win over everything else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// `--host`
    pub host: Option<IpAddr>,
    /// `--port`
    pub port: Option<u16>,
}

impl Config {
    /// Defaults < `file` (TOML) < `environment` (`FANFARE__SECTION__KEY`) < `overrides`, merged key by key and validated.
    ///
    /// Variables with other names are none of ours. A configuration without apps gets the demo app.
    ///
    /// # Errors
    /// The file cannot be read, a key is unknown or a value is bad. The error names the source, the key and what would be
    /// right, and never a secret.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let text = file.map(read).transpose()?;
        Self::merge(file.zip(text.as_deref()), environment, overrides)
    }

    fn merge(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let variables = environment::variables(environment)?;
        let tree = merged(file, variables, overrides)?;
        let path = file.map(|(path, _)| path);

        let mut config = Self::deserialize(Node::root(tree.clone()))
            .map_err(|error| error.with_origin(|key| origin(&tree, key, path)))?;
        if config.apps.is_empty() {
            config.apps.push(AppConfig::demo());
        }
        config.validate().map_err(|error| error.with_origin(|key| origin(&tree, key, path)))?;
        Ok(config)
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file)
        .map_err(|error| ConfigError::file(file, format!("cannot read the configuration file: {error}")))
}

/// All sources in one tree. Only values of the file have no origin.
fn merged(file: Option<(&Path, &str)>, variables: Vec<Variable>, overrides: Overrides) -> Result<Value, ConfigError> {
    let mut builder = ::config::Config::builder();
    if let Some((path, text)) = file {
        let source = File::from_str(text, FileFormat::Toml);
        // Read here, so that an error of `build` cannot be about the file.
        source.collect().map_err(|error| ConfigError::file(path, not_toml(error, text)))?;
        builder = builder.add_source(source);
    }
    for variable in variables {
        builder = builder.add_source(variable);
    }
    let flag = |name: &str, value: String| Value::new(Some(&name.to_owned()), value);
    builder
        .set_override_option("server.host", overrides.host.map(|host| flag("--host", host.to_string())))
        .and_then(|builder| {
            builder.set_override_option("server.port", overrides.port.map(|port| flag("--port", port.to_string())))
        })
        .and_then(|builder| builder.build())
        .map(|config| config.cache)
        .map_err(ConfigError::custom)
}

/// Why `text` is not TOML, without a line of it: there could be a secret in that line.
fn not_toml(error: ::config::ConfigError, text: &str) -> String {
    let ::config::ConfigError::FileParse { cause, .. } = error else {
        return "not a TOML file".to_owned();
    };
    let Some(error) = cause.downcast_ref::<toml::de::Error>() else {
        // A number that TOML allows, but no computer.
        return format!("not a TOML file: {cause}");
    };
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("not a TOML file: line {line}, column {column}: {}", error.message())
}

/// Where the value of `key`, or what there is of it, was set.
fn origin(tree: &Value, key: &str, file: Option<&Path>) -> Option<String> {
    let file = file.map(|file| file.display().to_string());
    let mut value = tree;
    for step in key.split(['.', '[']) {
        let next = match &value.kind {
            ValueKind::Table(table) => table.get(step),
            ValueKind::Array(array) => step.trim_end_matches(']').parse().ok().and_then(|n: usize| array.get(n)),
            _ => None,
        };
        match next {
            // A gap in a list has no origin; what left it has.
            Some(next) if next.kind != ValueKind::Nil => value = next,
            _ => break,
        }
    }
    if std::ptr::eq(value, tree) { file } else { first_origin(value).or(file) }
}

/// The origin of the first value in a table or list, by name.
fn first_origin(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Table(table) => {
            let first = table.iter().min_by_key(|(name, _)| *name);
            first.and_then(|(_, value)| first_origin(value))
        }
        ValueKind::Array(array) => array.iter().find(|value| value.kind != ValueKind::Nil).and_then(first_origin),
        _ => value.origin().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
