//! What is wrong with a configuration, in one line.

use std::{fmt, path::Path};

/// Why a configuration cannot be used: `fanfare.toml: server.prot: unknown key; did you mean "port"?`.
///
/// One line, whatever the input holds. Values of keys that may hold a secret are never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, environment variable or flag the value came from.
    origin: Option<String>,
    /// The key's path, such as `apps[0].max_connections`.
    key: Option<String>,
    /// What is wrong, and what would be right.
    problem: String,
}

impl ConfigError {
    /// A bad value of a key.
    pub(super) fn key(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { origin: None, key: Some(key.into()), problem: problem.into() }
    }

    /// A file that cannot be used as a whole.
    pub(super) fn file(file: &Path, problem: impl Into<String>) -> Self {
        Self { origin: Some(file.display().to_string()), key: None, problem: problem.into() }
    }

    /// An environment variable that says nothing.
    pub(super) fn variable(name: &str, problem: impl Into<String>) -> Self {
        Self { origin: Some(name.to_owned()), key: None, problem: problem.into() }
    }

    /// The same error of the value at `key`, unless it is already known to be of another one.
    pub(super) fn at(mut self, key: &str) -> Self {
        if self.key.is_none() && !key.is_empty() {
            self.key = Some(key.to_owned());
        }
        self
    }

    /// The first step of the key, below that of an app of its own.
    pub(super) fn first_key(&self) -> &str {
        let key = self.key.as_deref().unwrap_or_default();
        key.trim_start_matches("app.").split(['.', '[']).next().unwrap_or_default()
    }

    /// The same error, with the source that `find` names for its key.
    pub(super) fn with_origin(mut self, find: impl FnOnce(&str) -> Option<String>) -> Self {
        if self.origin.is_none() {
            self.origin = find(self.key.as_deref().unwrap_or_default());
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.origin.as_deref(), self.key.as_deref(), Some(self.problem.as_str())];
        for (index, part) in parts.into_iter().flatten().enumerate() {
            if index > 0 {
                f.write_str(": ")?;
            }
            // File names, keys and values are not ours: escaping keeps the error in one line.
            for character in part.chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { origin: None, key: None, problem: message.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_the_input_holds() {
        let error = ConfigError::key("apps\n[0]", "bad\r\nvalue").with_origin(|_| Some("a\nfile".to_owned()));
        assert_eq!(error.to_string(), r"a\nfile: apps\n[0]: bad\r\nvalue");
    }
}
