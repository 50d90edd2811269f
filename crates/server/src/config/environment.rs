//! `FANFARE__SECTION__KEY` variables: two underscores for each step, numbers for the elements of lists.
//!
//! `FANFARE__APPS__0__ALLOWED_ORIGINS` is `apps[0].allowed_origins`. Values stay text here; the key's type decides later.

use std::{collections::BTreeMap, ffi::OsString, fmt};

use ::config::{Map, Source, Value};

use super::ConfigError;

/// What the name of each variable begins with.
const PREFIX: &str = "FANFARE__";
/// Digits of a list position, so that a variable cannot ask for a list of any length.
const POSITION_DIGITS: usize = 3;

/// The variables of this process that are about the configuration.
///
/// # Errors
/// One of them is not UTF-8.
pub fn process_environment() -> Result<Vec<(String, String)>, ConfigError> {
    std::env::vars_os().filter_map(|(name, value)| utf8(name, value)).collect()
}

/// A pair as text; `None` if it is not about the configuration.
fn utf8(name: OsString, value: OsString) -> Option<Result<(String, String), ConfigError>> {
    let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
    Some(match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(ConfigError::variable(&name, "must be UTF-8")),
    })
}

/// One variable, as a source of the `config` crate.
#[derive(Clone)]
pub(super) struct Variable {
    name: String,
    /// Where it belongs, as the `config` crate writes paths: `apps[0].key`.
    path: String,
    value: String,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source for Variable {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(Map::from_iter([(self.path.clone(), Value::new(Some(&self.name), self.value.as_str()))]))
    }
}

/// The variables of `environment` that are about the configuration.
///
/// # Errors
/// A name that leads nowhere, or two of which one holds what the other is a part of.
pub(super) fn variables(environment: impl IntoIterator<Item = (String, String)>) -> Result<Vec<Variable>, ConfigError> {
    let mut variables: BTreeMap<Vec<String>, Variable> = BTreeMap::new();
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let steps: Vec<String> = rest.to_lowercase().split("__").map(str::to_owned).collect();
        let path = path(&steps).ok_or_else(|| {
            ConfigError::variable(&name, "must be named like FANFARE__SERVER__PORT or FANFARE__APPS__0__KEY")
        })?;
        let other = variables.insert(steps, Variable { name: name.clone(), path, value });
        if let Some(other) = other {
            return Err(ConfigError::variable(&name, format!("the same as {}; set one of them", other.name)));
        }
    }
    for (steps, variable) in &variables {
        if let Some(whole) = (1..steps.len()).find_map(|length| variables.get(&steps[..length])) {
            return Err(ConfigError::variable(&variable.name, format!("a part of {}; set one of them", whole.name)));
        }
    }
    Ok(variables.into_values().collect())
}

fn path(steps: &[String]) -> Option<String> {
    let mut path = String::new();
    for step in steps {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if step.is_empty() || !step.chars().all(allowed) {
            return None;
        }
        if !path.is_empty() && step.chars().all(|c| c.is_ascii_digit()) {
            if step.len() > POSITION_DIGITS {
                return None;
            }
            path += &format!("[{step}]");
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path += step;
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Result<Vec<String>, String> {
        variables(names.iter().map(|name| ((*name).to_owned(), String::new())))
            .map(|variables| variables.into_iter().map(|variable| variable.path).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_become_paths() {
        assert_eq!(
            paths(&["FANFARE__SERVER__PORT", "FANFARE__APPS__0__WEBHOOKS__12__URL", "FANFARE_CONFIG", "PATH"]),
            Ok(vec!["apps[0].webhooks[12].url".to_owned(), "server.port".to_owned()])
        );
    }

    #[test]
    fn names_that_lead_nowhere_are_refused() {
        for name in ["FANFARE__", "FANFARE__SERVER__", "FANFARE____PORT", "FANFARE__A.B", "FANFARE__APPS__1234__KEY"] {
            assert_eq!(
                paths(&[name]),
                Err(format!("{name}: must be named like FANFARE__SERVER__PORT or FANFARE__APPS__0__KEY"))
            );
        }
    }

    #[test]
    fn a_key_is_set_once() {
        assert_eq!(
            paths(&["FANFARE__APPS__0__KEY", "FANFARE__APPS"]),
            Err("FANFARE__APPS__0__KEY: a part of FANFARE__APPS; set one of them".to_owned())
        );
        assert_eq!(
            paths(&["FANFARE__LOG__LEVEL", "FANFARE__log__level"]),
            Err("FANFARE__log__level: the same as FANFARE__LOG__LEVEL; set one of them".to_owned())
        );
    }

    #[test]
    fn values_are_never_part_of_the_debug_text() {
        let variable = Variable {
            name: "FANFARE__APPS__0__SECRET".into(),
            path: "apps[0].secret".into(),
            value: "hunter2".into(),
        };
        assert_eq!(format!("{variable:?}"), "FANFARE__APPS__0__SECRET");
    }
}
