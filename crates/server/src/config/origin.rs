//! Where values come from. The `config` crate carries one text along with each value: the number of an origin in this list.
//! Values of a TOML file have none; their place is looked up in the file.

use std::fmt;

use ::config::{Value, ValueKind};

/// Where a value comes from, if not from a TOML file or the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A variable of the process.
    Variable(String),
    /// A line of a `.env` file.
    EnvFile { file: String, line: usize, name: String },
    /// An option of Soketi's file.
    Option { file: String, option: String },
    /// A flag.
    Flag(&'static str),
    /// Follows from another setting, or is what somebody who comes from another server expects.
    Because(String),
}

impl Origin {
    /// The name under which it was set, without the place.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Variable(name) | Self::EnvFile { name, .. } | Self::Because(name) => name,
            Self::Option { option, .. } => option,
            Self::Flag(name) => name,
        }
    }

    /// Whether it is one of Soketi's names.
    pub(super) fn is_soketis(&self) -> bool {
        matches!(self, Self::Option { .. }) || self.name().starts_with("SOKETI_")
    }

    /// Whether it is a name of another server's, or of Laravel's.
    pub(super) fn is_somebody_elses(&self) -> bool {
        match self {
            Self::Variable(name) | Self::EnvFile { name, .. } => !name.starts_with("FANFARE__"),
            Self::Option { .. } => true,
            Self::Flag(_) | Self::Because(_) => false,
        }
    }

    /// As `check-config` says it behind a value.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Variable(name) => format!("environment {name}"),
            Self::EnvFile { file, line, name } => format!("{file}:{line} {name}"),
            Self::Option { file, option } => format!("{file} {option}"),
            Self::Flag(name) => format!("flag {name}"),
            Self::Because(why) => why.clone(),
        }
    }
}

/// As errors begin.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnvFile { file, line, name } => write!(f, "{file}:{line}: {name}"),
            Self::Option { file, option } => write!(f, "{file}: {option}"),
            Self::Variable(_) | Self::Flag(_) | Self::Because(_) => f.write_str(self.name()),
        }
    }
}

/// The origins of one load.
#[derive(Debug, Default)]
pub(super) struct Origins(Vec<Origin>);

impl Origins {
    /// A value that comes from there.
    pub(super) fn value(&mut self, origin: Origin, kind: impl Into<ValueKind>) -> Value {
        self.0.push(origin);
        Value::new(Some(&(self.0.len() - 1).to_string()), kind)
    }

    fn of(&self, value: &Value) -> Option<&Origin> {
        self.0.get(value.origin()?.parse::<usize>().ok()?)
    }

    /// Where the value of `key`, or what there is of it, was set; `None` if it was not, or in a TOML file.
    pub(super) fn find(&self, tree: &Value, key: &str) -> Option<&Origin> {
        let mut value = tree;
        for step in key.split(['.', '[']) {
            match child(value, step) {
                // A gap in a list has no origin; the list itself has one.
                Some(next) if next.kind != ValueKind::Nil => value = next,
                _ => break,
            }
        }
        if std::ptr::eq(value, tree) { None } else { self.first(value) }
    }

    /// The origin of the value of exactly this key; `None` if it is not set, or in a TOML file.
    pub(super) fn exact(&self, tree: &Value, key: &str) -> Option<&Origin> {
        let mut value = tree;
        for step in key.split(['.', '[']) {
            match child(value, step) {
                Some(next) => value = next,
                // A variable that holds a whole list or table as text is the origin of everything in it.
                None if matches!(value.kind, ValueKind::String(_)) => return self.of(value),
                None => return None,
            }
        }
        self.first(value)
    }

    /// The origin of the first value in a table or list, by name.
    fn first(&self, value: &Value) -> Option<&Origin> {
        let inside = match &value.kind {
            ValueKind::Table(table) => {
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_unstable_by_key(|(name, _)| *name);
                // What follows from other settings says less than they do.
                let origins = entries.into_iter().filter_map(|(_, value)| self.first(value));
                origins.min_by_key(|origin| matches!(origin, Origin::Because(_)))
            }
            ValueKind::Array(array) => {
                array.iter().find(|value| value.kind != ValueKind::Nil).and_then(|value| self.first(value))
            }
            _ => None,
        };
        inside.or_else(|| self.of(value))
    }
}

/// A step of a key: a table's entry, or a list's element, whose bracket may be left.
pub(super) fn child<'t>(value: &'t Value, step: &str) -> Option<&'t Value> {
    match &value.kind {
        ValueKind::Table(table) => table.get(step),
        ValueKind::Array(array) => step.trim_end_matches(']').parse().ok().and_then(|n: usize| array.get(n)),
        _ => None,
    }
}
