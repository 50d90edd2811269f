//! `FANFARE__SECTION__KEY` variables: two underscores for each step, numbers for the elements of lists.
//!
//! `FANFARE__APPS__0__ALLOWED_ORIGINS` is `apps[0].allowed_origins`. Values stay text here; the key's type decides later.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    ConfigError,
    alias::{self, Setting},
    origin::Origin,
};

/// What the name of each variable begins with.
const PREFIX: &str = "FANFARE__";
/// Digits of a list position, so that a variable cannot ask for a list of any length.
const POSITION_DIGITS: usize = 3;

/// The variables of this process. References in `.env` files may be to any of them.
///
/// # Errors
/// One that is about the configuration is not UTF-8.
pub fn process_environment() -> Result<Vec<(String, String)>, ConfigError> {
    std::env::vars_os().filter_map(|(name, value)| utf8(name, value)).collect()
}

/// A pair as text; `None` if it is none, and not about the configuration.
fn utf8(name: OsString, value: OsString) -> Option<Result<(String, String), ConfigError>> {
    let name = name.into_string().ok()?;
    match value.into_string() {
        Ok(value) => Some(Ok((name, value))),
        Err(_) => is_ours(&name).then(|| Err(ConfigError::variable(&name, "must be UTF-8"))),
    }
}

/// Whether a variable is about the configuration.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || alias::is_ours(name)
}

/// The settings that variables of one source are, leaving out those with other names.
///
/// # Errors
/// A name that leads nowhere, or two of which one holds what the other is a part of.
pub(super) fn settings<'v>(
    variables: impl IntoIterator<Item = (&'v Origin, &'v str)>,
) -> Result<Vec<Setting>, ConfigError> {
    let mut settings: BTreeMap<Vec<String>, Setting> = BTreeMap::new();
    for (origin, text) in variables {
        let Some(rest) = origin.name().strip_prefix(PREFIX) else { continue };
        let problem = |problem: String| ConfigError::variable(&origin.to_string(), problem);
        let steps: Vec<String> = rest.to_lowercase().split("__").map(str::to_owned).collect();
        let path = path(&steps)
            .ok_or_else(|| problem("must be named like FANFARE__SERVER__PORT or FANFARE__APPS__0__KEY".to_owned()))?;
        let other = settings.insert(steps, Setting { path, text: text.to_owned(), origin: origin.clone() });
        if let Some(other) = other {
            return Err(problem(format!("the same as {}; set one of them", other.origin)));
        }
    }
    for (steps, setting) in &settings {
        if let Some(whole) = (1..steps.len()).find_map(|length| settings.get(&steps[..length])) {
            let problem = format!("a part of {}; set one of them", whole.origin);
            return Err(ConfigError::variable(&setting.origin.to_string(), problem));
        }
    }
    Ok(settings.into_values().collect())
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
        let origins: Vec<_> = names.iter().map(|name| Origin::Variable((*name).to_owned())).collect();
        settings(origins.iter().map(|origin| (origin, "")))
            .map(|settings| settings.into_iter().map(|setting| setting.path).collect())
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
}
