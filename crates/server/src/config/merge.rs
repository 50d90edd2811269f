//! All sources in one tree, and what follows from what they say together.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use ::config::{ConfigBuilder, File, FileFormat, Map, Source, Value, builder::DefaultState};
use serde::{Deserialize, de::Error as _};

use super::{
    AppConfig, Config, ConfigError, Loaded, RowDefaults,
    alias::{self, ALIASES, As, Effects, Given, Parts, Setting},
    environment,
    follow::Follow,
    origin::{Origin, Origins},
    soketi,
    strict::{self, Node},
};

/// The variables of one source. Without `Debug`, as they may be secrets.
pub(super) struct Layer(BTreeMap<String, Given>);

impl Layer {
    pub(super) fn new(variables: impl IntoIterator<Item = (Origin, String)>) -> Self {
        let given = |(origin, text): (Origin, String)| (origin.name().to_owned(), Given { text, origin });
        Self(variables.into_iter().map(given).collect())
    }

    /// A variable that is not empty, which would be as good as not set.
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name).filter(|given| !given.text.is_empty())
    }
}

/// One value, as a source of the `config` crate.
#[derive(Clone, Debug)]
struct OneValue(String, Value);

impl Source for OneValue {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(Map::from_iter([(self.0.clone(), self.1.clone())]))
    }
}

/// What has been read so far.
#[derive(Default)]
pub(super) struct Merge {
    builder: ConfigBuilder<DefaultState>,
    origins: Origins,
    /// The TOML file with its text.
    file: Option<(PathBuf, String)>,
    /// What has been set as a whole, to tell it from its parts.
    wholes: HashMap<String, Origin>,
    every_app: Vec<Setting>,
    /// What is read together with others, by its name.
    parts: Parts,
    notes: Vec<String>,
    warnings: Vec<String>,
}

impl Merge {
    /// A TOML file. Its values have no origin.
    pub(super) fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let source = File::from_str(text, FileFormat::Toml);
        // Parsed here already, so that an error of `build` later on cannot be about this file.
        source.collect().map_err(|error| ConfigError::file(path, not_toml(error, text)))?;
        self.builder = std::mem::take(&mut self.builder).add_source(source);
        self.file = Some((path.to_path_buf(), text.to_owned()));
        Ok(())
    }

    /// Soketi's file.
    pub(super) fn soketi_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let effects = soketi::read(path, text)?;
        self.effects(effects)
    }

    /// Variables, the ones that win last.
    pub(super) fn layers(&mut self, layers: &[Layer]) -> Result<(), ConfigError> {
        for layer in layers {
            let mut effects = Effects::default();
            for alias in ALIASES {
                if let Some(given) = layer.get(alias.name) {
                    effects.take(alias, given)?;
                }
            }
            for (name, given) in
                layer.0.range("SOKETI_".to_owned()..).take_while(|(name, _)| name.starts_with("SOKETI_"))
            {
                if !ALIASES.iter().any(|alias| alias.name == name) {
                    let known = ALIASES.iter().map(|alias| alias.name);
                    effects.warnings.push(alias::unknown(&given.origin, name, known));
                }
            }
            let own = environment::settings(layer.0.values().map(|given| (&given.origin, given.text.as_str())))?;
            effects.taken.extend(
                own.iter().filter(|own| !matches!(own.origin, Origin::Variable(_))).map(|own| own.origin.clone()),
            );
            self.effects(effects)?;
            for setting in own {
                self.set(setting)?;
            }
        }
        Ok(())
    }

    /// A flag.
    pub(super) fn flag(&mut self, name: &'static str, path: &str, text: Option<String>) {
        if let Some(text) = text {
            self.add(path.to_owned(), text, Origin::Flag(name));
        }
    }

    fn effects(&mut self, effects: Effects) -> Result<(), ConfigError> {
        self.note_taken(&effects.taken);
        self.warnings.extend(effects.warnings);
        self.every_app.extend(effects.every_app);
        self.parts.extend(effects.parts);
        effects.settings.into_iter().try_for_each(|setting| self.set(setting))
    }

    /// One line for what was taken from a source under names that are not in the configuration file.
    fn note_taken(&mut self, taken: &[Origin]) {
        let mut sources: Vec<(String, Vec<&str>)> = Vec::new();
        for origin in taken {
            let source = match origin {
                Origin::EnvFile { file, .. } | Origin::Option { file, .. } => file.clone(),
                Origin::Variable(_) => "the environment".to_owned(),
                Origin::Flag(_) | Origin::Because(_) => continue,
            };
            match sources.iter_mut().find(|(known, _)| *known == source) {
                Some((_, names)) => names.push(origin.name()),
                None => sources.push((source, vec![origin.name()])),
            }
        }
        for (source, mut names) in sources {
            names.dedup();
            self.notes.push(format!("taken from {source}: {}", names.join(", ")));
        }
    }

    fn set(&mut self, setting: Setting) -> Result<(), ConfigError> {
        let Setting { path, text, origin } = setting;
        let parts = path.match_indices(['.', '[']).map(|(end, _)| &path[..end]);
        if let Some(whole) = parts.filter_map(|whole| self.wholes.get(whole)).next() {
            return Err(ConfigError::variable(&origin.to_string(), format!("a part of {whole}; set one of them")));
        }
        self.wholes.insert(path.clone(), origin.clone());
        self.add(path, text, origin);
        Ok(())
    }

    fn add(&mut self, path: String, text: String, origin: Origin) {
        let value = self.origins.value(origin, text);
        self.builder = std::mem::take(&mut self.builder).add_source(OneValue(path, value));
    }

    /// The configuration.
    pub(super) fn finish(self) -> Result<Loaded, ConfigError> {
        let Self { builder, mut origins, file, every_app, parts, mut notes, mut warnings, .. } = self;
        let mut tree = builder.build().map_err(ConfigError::custom)?.cache;
        strict::expand_list(&mut tree, "apps")
            .map_err(|error| error.with_origin(|key| text_origin(&origins, &tree, key)))?;

        let mut follow = Follow { tree: &mut tree, origins: &mut origins, of_rows: Vec::new() };
        follow.soketi_database(&parts, &mut notes, &mut warnings)?;
        follow.user_authentication(&parts)?;
        follow.laravel(&parts, &mut notes, &mut warnings)?;
        follow.soketi_apps();
        follow.soketi_metrics();
        follow.every_app(every_app);
        follow.redis(&parts)?;
        follow.reverb_sizes(&parts);
        follow.carriers();
        let of_rows = follow.of_rows;

        let path = file.as_ref().map(|(path, _)| path.display().to_string());
        let origin = |key: &str| text_origin(&origins, &tree, key).or_else(|| path.clone());
        let mut config = Config::deserialize(Node::root(tree.clone())).map_err(|error| error.with_origin(origin))?;
        if config.apps.is_empty() && config.database.url.is_empty() {
            config.apps.push(AppConfig::demo());
        }
        config.validate().map_err(|error| error.with_origin(origin))?;
        if !config.database.url.is_empty() {
            config.database.row_defaults = row_defaults(&of_rows, &parts)?;
        }
        let loaded = Loaded { config, notes, warnings, tree, origins, file };
        Ok(loaded.with_hints())
    }
}

/// What rows of the database lack.
fn row_defaults(settings: &[Setting], parts: &Parts) -> Result<RowDefaults, ConfigError> {
    let mut defaults = RowDefaults::default();
    if let Some(given) = parts.get("SOKETI_USER_AUTHENTICATION_TIMEOUT") {
        let time = As::Milliseconds.convert("", &given.text);
        defaults.sign_in_time = time.map_err(|problem| ConfigError::variable(&given.origin.to_string(), problem))?;
    }
    defaults.settings = settings.iter().map(|setting| (setting.path.clone(), setting.text.clone())).collect();
    let origin = |key: &str| {
        let of_key = settings.iter().find(|setting| setting.path == key.trim_start_matches("app."));
        of_key.map(|setting| setting.origin.to_string())
    };
    defaults.validate().map_err(|error| error.with_origin(origin))?;
    Ok(defaults)
}

fn text_origin(origins: &Origins, tree: &Value, key: &str) -> Option<String> {
    origins.find(tree, key).map(ToString::to_string)
}

/// Why `text` is not TOML, without a line of it: there could be a secret in that line.
fn not_toml(error: ::config::ConfigError, text: &str) -> String {
    let ::config::ConfigError::FileParse { cause, .. } = error else {
        return "not a TOML file".to_owned();
    };
    let Some(error) = cause.downcast_ref::<toml::de::Error>() else {
        // A number that is valid TOML, but too large for any type here.
        return format!("not a TOML file: {cause}");
    };
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("not a TOML file: line {line}, column {column}: {}", error.message())
}
