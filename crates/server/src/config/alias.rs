//! Names that people have in their settings already: Laravel's, Reverb's and Soketi's. One table says what each means here.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `table` | every name |
//! | `convert` | how their values differ from ours |

mod convert;
mod table;

use std::collections::HashMap;

pub(super) use self::{
    convert::As,
    table::{ALIASES, APP_FIELDS},
};
use super::{ConfigError, origin::Origin, strict::quoted};

/// A name of another server's, and what it means here.
#[derive(Debug)]
pub(super) struct Alias {
    /// The environment variable; empty where there is an option alone.
    pub(super) name: &'static str,
    /// The option in Soketi's file; empty: none.
    pub(super) option: &'static str,
    pub(super) effect: Effect,
}

/// What a name does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// Sets these keys.
    Sets(&'static [&'static str], As),
    /// Sets these keys of every app that does not set them itself.
    EveryApp(&'static [&'static str], As),
    /// Sets these keys of the app that Laravel's names describe, where the configuration lists none.
    LaravelApp(&'static [&'static str], As),
    /// Read together with others: which key comes of it, and how.
    Part(&'static str, &'static str),
    /// Has no counterpart. These values ask for what is so anyway; for others, what to do instead.
    Without(&'static [&'static str], &'static str),
}

/// A field of an app in Soketi's file or database, in each of its spellings.
#[derive(Debug)]
pub(super) struct AppField {
    pub(super) names: [&'static str; 3],
    /// Keys of our apps.
    pub(super) keys: &'static [&'static str],
    pub(super) kind: As,
}

/// A value under somebody else's name. Without `Debug`, as it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// A value for a key of ours, still as text.
pub(super) struct Setting {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What is read together with other names, by its own.
pub(super) type Parts = HashMap<&'static str, Given>;

/// What aliases come to.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) settings: Vec<Setting>,
    /// Keys of each app, for those that do not set them themselves.
    pub(super) every_app: Vec<Setting>,
    pub(super) parts: Parts,
    pub(super) warnings: Vec<String>,
    /// Names that were taken.
    pub(super) taken: Vec<Origin>,
}

impl Effects {
    /// Takes one value. Empty ones count as not set, as their servers have it.
    ///
    /// # Errors
    /// A value that makes no sense, with its name.
    pub(super) fn take(&mut self, alias: &Alias, given: &Given) -> Result<(), ConfigError> {
        if given.text.is_empty() {
            return Ok(());
        }
        match alias.effect {
            Effect::Sets(keys, kind) => {
                let settings = self.convert(keys, kind, given)?;
                self.settings.extend(settings);
            }
            Effect::EveryApp(keys, kind) => {
                let settings = self.convert(keys, kind, given)?;
                self.every_app.extend(settings);
            }
            Effect::LaravelApp(..) | Effect::Part(..) => {
                self.parts.insert(alias.name, given.clone());
            }
            Effect::Without(harmless, instead) => {
                if !harmless.contains(&given.text.as_str()) {
                    self.warnings.push(format!("{} has no effect: {instead}", given.origin));
                }
            }
        }
        Ok(())
    }

    /// The settings that a value stands for.
    ///
    /// # Errors
    /// A value that makes no sense, with its name.
    pub(super) fn convert(&mut self, keys: &[&str], kind: As, given: &Given) -> Result<Vec<Setting>, ConfigError> {
        self.taken.push(given.origin.clone());
        if matches!(kind, As::Webhooks) && given.text.contains("lambda_function") {
            self.warnings.push(format!(
                "{}: a webhook with a lambda_function has no effect: give the function a URL and set it as url",
                given.origin
            ));
        }
        if matches!(kind, As::Adapter) && matches!(given.text.as_str(), "cluster" | "nats") {
            self.warnings
                .push(format!("{} has no effect: nodes are connected by Redis: set it to redis", given.origin));
        }
        let mut settings = Vec::new();
        for key in keys {
            let text = kind.convert(key, &given.text);
            let text = text.map_err(|problem| ConfigError::variable(&given.origin.to_string(), problem))?;
            if let Some(text) = text {
                settings.push(Setting { path: (*key).to_owned(), text, origin: given.origin.clone() });
            }
        }
        Ok(settings)
    }
}

/// What to say of a `SOKETI_` name, or an option of its file, that Soketi does not have.
pub(super) fn unknown(origin: &Origin, name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let nearest = known.filter(|known| !known.is_empty()).min_by_key(|known| strsim::damerau_levenshtein(name, known));
    match nearest.filter(|known| strsim::damerau_levenshtein(name, known) <= (name.len() / 4).max(1)) {
        Some(nearest) => format!("{origin} has no effect: unknown name; did you mean {}?", quoted(nearest)),
        None => format!("{origin} has no effect: unknown name"),
    }
}

/// The rows of the documentation's tables of names: the variable, Soketi's option, the keys and how the value is written.
pub fn alias_rows() -> Vec<[String; 4]> {
    let code = |text: &str| if text.is_empty() { "–".to_owned() } else { format!("`{text}`") };
    let keys = |keys: &[&str]| keys.iter().map(|key| code(key)).collect::<Vec<_>>().join(", ");
    let of_apps = |keys: &[&str]| keys.iter().map(|key| code(&format!("apps[…].{key}"))).collect::<Vec<_>>().join(", ");
    let row = |alias: &Alias| {
        let (sets, note) = match alias.effect {
            Effect::Sets(names, kind) => (keys(names), kind.note().to_owned()),
            Effect::EveryApp(names, kind) => {
                (of_apps(names), format!("{}; for apps that do not set it themselves", kind.note()))
            }
            Effect::LaravelApp(names, kind) => (keys(names), kind.note().to_owned()),
            Effect::Part(key, note) => (code(key), note.to_owned()),
            Effect::Without(_, instead) => ("–".to_owned(), instead.to_owned()),
        };
        [code(alias.name), code(alias.option), sets, note]
    };
    ALIASES.iter().map(row).collect()
}

/// The rows of the documentation's table of fields of apps: three spellings, the keys, and how the value is written.
pub fn app_field_rows() -> Vec<[String; 5]> {
    let code = |text: &str| format!("`{text}`");
    let row = |field: &AppField| {
        let [file, dynamo, sql] = field.names.map(code);
        let keys = field.keys.iter().map(|key| code(key)).collect::<Vec<_>>().join(", ");
        [file, dynamo, sql, keys, field.kind.note().to_owned()]
    };
    APP_FIELDS.iter().map(row).collect()
}

/// The names of all variables that mean something here, besides `FANFARE__` ones.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("SOKETI_") || ALIASES.iter().any(|alias| alias.name == name)
}

/// A table without doubles, checked where tests load it.
#[cfg(test)]
fn doubles() -> Vec<&'static str> {
    let mut seen = std::collections::HashSet::new();
    let names = ALIASES.iter().flat_map(|alias| [alias.name, alias.option]);
    names.filter(|name| !name.is_empty() && !seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_in_the_table_once() {
        assert_eq!(doubles(), Vec::<&str>::new());
    }

    #[test]
    fn a_misspelt_name_is_told_with_the_one_that_was_meant() {
        let origin = Origin::Variable("SOKETI_DEFAULT_APP_KAY".to_owned());
        let names = ALIASES.iter().map(|alias| alias.name);
        assert_eq!(
            unknown(&origin, "SOKETI_DEFAULT_APP_KAY", names),
            "SOKETI_DEFAULT_APP_KAY has no effect: unknown name; did you mean \"SOKETI_DEFAULT_APP_KEY\"?"
        );
    }
}
