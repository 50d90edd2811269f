//! Reads the sources in their order, and says where a bad value came from.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, Loaded, env_file,
    merge::{Layer, Merge},
    origin::Origin,
};

/// Where [`EnvFile::Beside`] is.
const BESIDE: &str = ".env";

/// What flags set; they win over everything else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// `--host`
    pub host: Option<IpAddr>,
    /// `--port`
    pub port: Option<u16>,
}

/// Which `.env` file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EnvFile {
    /// None.
    #[default]
    None,
    /// `.env` in the working directory, if there is one: a Laravel project's.
    Beside,
    /// This one, which has to be there.
    At(PathBuf),
}

/// Where the configuration comes from: defaults < file < `.env` file < environment < flags. Within each of them, Fanfare's own
/// names win over those of other servers. Kept for the next load, when a file has changed.
#[derive(Clone, Default)]
pub struct Sources {
    /// TOML, or Soketi's JSON if its name ends in `.json`.
    pub file: Option<PathBuf>,
    /// Variables in a file.
    pub env_file: EnvFile,
    /// Variables of the process: see [`process_environment`](super::process_environment). Those with other names are none of ours.
    pub environment: Vec<(String, String)>,
    /// Flags.
    pub overrides: Overrides,
}

// By hand, as variables may hold secrets.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("env_file", &self.env_file)
            .field("environment", &self.environment.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("overrides", &self.overrides)
            .finish()
    }
}

impl Sources {
    /// Reads the files, merges everything key by key, and validates it. A configuration without apps gets the demo app.
    ///
    /// # Errors
    /// A file cannot be read, a key is unknown or a value is bad. The error names the source, the key and what would be right,
    /// and never a secret.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let file = self.file.as_deref().map(|path| Ok((path, read(path)?))).transpose()?;
        let env_file = self.read_env_file()?;
        self.merge(file.as_ref().map(|(path, text)| (*path, text.as_str())), env_file)
    }

    /// Whether the file is Soketi's.
    pub(crate) fn is_soketis(&self) -> bool {
        self.file.as_deref().is_some_and(is_soketis)
    }

    /// [`Sources::load`] with this text in the place of the file's, to see whether it could be the file's.
    pub(crate) fn load_with(&self, path: &Path, text: &str) -> Result<Config, ConfigError> {
        let env_file = self.read_env_file()?;
        self.merge(Some((path, text)), env_file).map(|loaded| loaded.config)
    }

    /// Where the next load finds the same files: a `.env` that is there now has to be there then, too.
    #[must_use]
    pub fn to_read_again(&self) -> Self {
        let mut again = self.clone();
        if self.env_file == EnvFile::Beside && Path::new(BESIDE).is_file() {
            again.env_file = EnvFile::At(BESIDE.into());
        }
        again
    }

    /// The files that are read, for who looks whether they have changed.
    pub fn files(&self) -> Vec<PathBuf> {
        let env_file = match &self.env_file {
            EnvFile::None => None,
            EnvFile::Beside => Some(BESIDE.into()),
            EnvFile::At(path) => Some(path.clone()),
        };
        self.file.iter().cloned().chain(env_file).collect()
    }

    fn read_env_file(&self) -> Result<Option<(&Path, String)>, ConfigError> {
        Ok(match &self.env_file {
            EnvFile::None => None,
            EnvFile::Beside => beside()?,
            EnvFile::At(path) => Some((path.as_path(), read(path)?)),
        })
    }

    /// [`Sources::load`] of these texts.
    pub(super) fn merge(
        &self,
        file: Option<(&Path, &str)>,
        env_file: Option<(&Path, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut merge = Merge::default();
        match file {
            Some((path, text)) if is_soketis(path) => {
                merge.soketi_file(path, text)?;
            }
            Some((path, text)) => merge.file(path, text)?,
            None => {}
        }
        let outer =
            |name: &str| self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let mut layers = Vec::new();
        if let Some((path, text)) = env_file {
            layers.push(layer_of_file(path, &text, outer)?);
        }
        let variables = self.environment.iter();
        layers.push(Layer::new(variables.map(|(name, value)| (Origin::Variable(name.clone()), value.clone()))));
        merge.layers(&layers)?;
        let Overrides { host, port } = self.overrides;
        merge.flag("--host", "server.host", host.map(|host| host.to_string()));
        merge.flag("--port", "server.port", port.map(|port| port.to_string()));
        merge.finish()
    }
}

impl Config {
    /// [`Sources::load`] without a `.env` file, for who needs nothing but the configuration.
    ///
    /// # Errors
    /// As there.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let sources = Sources {
            file: file.map(Path::to_path_buf),
            env_file: EnvFile::None,
            environment: environment.into_iter().collect(),
            overrides,
        };
        sources.load().map(|loaded| loaded.config)
    }
}

/// Whether a file is Soketi's, by its name.
fn is_soketis(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "json")
}

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file)
        .map_err(|error| ConfigError::file(file, format!("cannot read the configuration file: {error}")))
}

/// The `.env` of the working directory. A folder of this name, as Python's environments have it, is none.
fn beside() -> Result<Option<(&'static Path, String)>, ConfigError> {
    let path = Path::new(BESIDE);
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(ConfigError::file(
            path,
            format!("cannot read the file: {error}; to start without it, give another one or none: --env-file ''"),
        )),
    }
}

/// The variables of a `.env` file that are about the configuration.
fn layer_of_file(path: &Path, text: &str, outer: impl Fn(&str) -> Option<String>) -> Result<Layer, ConfigError> {
    let file = path.display().to_string();
    let entries = env_file::parse(text, outer).map_err(|unclosed| unclosed.in_file(&file))?;
    let mut variables = Vec::new();
    for entry in entries.into_iter().filter(|entry| super::environment::is_ours(&entry.name)) {
        let origin = Origin::EnvFile { file: file.clone(), line: entry.line, name: entry.name };
        let value = entry.value.map_err(|problem| ConfigError::variable(&origin.to_string(), problem))?;
        // The last of several counts.
        variables.retain(|(other, _): &(Origin, String)| other.name() != origin.name());
        variables.push((origin, value));
    }
    Ok(Layer::new(variables))
}

#[cfg(test)]
mod tests;
