//! `fanfare app`: makes, lists, switches and rotates apps, in the configuration file or in the database.
//!
//! A running server takes what changes by itself: the file is watched, the database asked again.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};

use self::file::AppFile;
pub(super) use self::table::Database;
use super::{CliError, ConfigArgs, print, tell};
use crate::config::{AppConfig, Config, ConfigError, Overrides};

mod file;
mod table;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct AppArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an app with a new key and secret, and print what to paste
    #[command(after_help = NEW_HELP)]
    New {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its id [default: seven random digits]
        #[arg(long)]
        id: Option<String>,
    },
    /// List the apps, without secrets
    #[command(after_help = LIST_HELP)]
    List {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Let the clients and requests of an app in again
    #[command(after_help = ENABLE_HELP)]
    Enable(One),
    /// Close the connections of an app with 4003, and refuse its requests
    #[command(after_help = DISABLE_HELP)]
    Disable(One),
    /// Give an app a new key and secret; the old ones stay valid until --finish
    #[command(after_help = ROTATE_HELP)]
    RotateKey {
        #[command(flatten)]
        one: One,
        /// End the rotation: the old key and secret are refused from now on
        #[arg(long)]
        finish: bool,
        /// Give the table of the database the columns of a second key, if it lacks them, as Soketi's does
        #[arg(long, conflicts_with = "finish")]
        add_columns: bool,
    },
}

const HELP: &str = "\
Examples:
  fanfare app new --config fanfare.toml
  fanfare app list --config fanfare.toml
  fanfare app disable 1001 --config fanfare.toml
  fanfare app rotate-key 1001 --config fanfare.toml

Apps are in the file, or in the database that it names; FANFARE_CONFIG may name the file. A running server takes what
changes by itself.
Exit codes: 0; 1 when it cannot be done; 2 for a bad flag or configuration.";

const NEW_HELP: &str = "\
Examples:
  fanfare app new --config fanfare.toml            the file need not be there yet
  fanfare app new --config fanfare.toml --id shop
  fanfare app new --config fanfare.toml >> ../shop/.env

The lines to paste are on stdout; the secret is shown this once.";

const LIST_HELP: &str = "\
Examples:
  fanfare app list --config fanfare.toml";

const ENABLE_HELP: &str = "\
Examples:
  fanfare app enable 1001 --config fanfare.toml";

const DISABLE_HELP: &str = "\
Examples:
  fanfare app disable 1001 --config fanfare.toml";

const ROTATE_HELP: &str = "\
Examples:
  fanfare app rotate-key 1001 --config fanfare.toml            a second key and secret; both are valid
  fanfare app rotate-key 1001 --config fanfare.toml --finish   when your backends and pages have the new ones";

#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    config: ConfigArgs,
    /// The app's id
    id: String,
}

/// A key and its secret.
struct Credentials {
    key: String,
    secret: String,
}

impl Credentials {
    /// Out of the system's randomness.
    fn random() -> Self {
        Self { key: hex(&rand::random::<[u8; 10]>()), secret: hex(&rand::random::<[u8; 32]>()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where apps are kept.
struct Places {
    file: Option<File>,
    database: Option<Database>,
}

/// A configuration file.
enum File {
    Own(Box<AppFile>),
    /// Soketi's, with its apps: it can only be read.
    Soketis(PathBuf, Vec<AppConfig>),
}

impl Places {
    fn open(args: &ConfigArgs) -> Result<Self, CliError> {
        Self::read(args, Err)
    }

    /// For the first app: there may be no file yet, or one that an app is all it lacks. Without a usable one nothing is saved.
    fn open_for_new(args: &ConfigArgs) -> Result<Self, CliError> {
        Self::read(args, |_| Ok(Config::default()))
    }

    fn read(
        args: &ConfigArgs,
        otherwise: impl FnOnce(ConfigError) -> Result<Config, ConfigError>,
    ) -> Result<Self, CliError> {
        let sources = args.sources(Overrides::default())?;
        let config = sources.load().map(|loaded| loaded.config).or_else(otherwise)?;
        let database = (!config.database.url.is_empty()).then(|| Database::open(&config.database)).transpose()?;
        let file = match args.config.clone() {
            Some(path) if sources.is_soketis() => Some(File::Soketis(path, config.apps)),
            path => path.map(|path| AppFile::open(path, sources)).transpose()?.map(|file| File::Own(Box::new(file))),
        };
        if file.is_none() && database.is_none() {
            let text = "name the configuration with --config FILE or FANFARE_CONFIG; apps are kept there, or in the database \
                        of its database.url";
            return Err(CliError::Usage(text.to_owned()));
        }
        Ok(Self { file, database })
    }

    /// The place that has an app: the file wins, as it does for the server.
    fn of<T>(
        &mut self,
        id: &str,
        in_file: impl FnOnce(&mut AppFile) -> anyhow::Result<T>,
        in_database: impl FnOnce(&Database) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        match &mut self.file {
            Some(File::Own(file)) if file.has(id) => return in_file(file),
            Some(File::Soketis(path, apps)) if apps.iter().any(|app| app.id.as_str() == id) => {
                return Err(only_read(path));
            }
            _ => {}
        }
        match self.database.as_ref().map(in_database).transpose()?.flatten() {
            Some(value) => Ok(value),
            None => bail!("there is no app with the id {id}; `fanfare app list` names those there are"),
        }
    }
}

fn only_read(path: &Path) -> anyhow::Error {
    anyhow!("{} is Soketi's file, which can only be read: move to a TOML file", path.display())
}

pub(super) fn run(args: &AppArgs) -> Result<(), CliError> {
    match &args.command {
        Command::New { config, id } => new(&mut Places::open_for_new(config)?, id.as_deref())?,
        Command::List { config } => list(&Places::open(config)?)?,
        Command::Enable(one) => enable(one, true)?,
        Command::Disable(one) => enable(one, false)?,
        Command::RotateKey { one, finish: true, .. } => finish(&mut Places::open(&one.config)?, &one.id)?,
        Command::RotateKey { one, finish: false, add_columns } => {
            rotate(&mut Places::open(&one.config)?, &one.id, *add_columns)?;
        }
    }
    Ok(())
}

fn new(places: &mut Places, id: Option<&str>) -> anyhow::Result<()> {
    let id = id.map_or_else(|| rand::random_range(1_000_000..10_000_000).to_string(), str::to_owned);
    let credentials = Credentials::random();
    let place = match (&places.database, &mut places.file) {
        (Some(database), _) => database.add(&id, &credentials)?,
        (None, Some(File::Own(file))) => file.add(&id, &credentials)?,
        (None, Some(File::Soketis(path, _))) => return Err(only_read(path)),
        (None, None) => String::new(),
    };
    tell(format_args!("app {id} is in {place}. The secret is shown this once:"));
    show(Some(&id), &credentials)
}

/// Prints the lines to paste.
fn show(id: Option<&str>, credentials: &Credentials) -> anyhow::Result<()> {
    let id = id.map(|id| format!("PUSHER_APP_ID={id}\n")).unwrap_or_default();
    Ok(print(&format!("{id}PUSHER_APP_KEY={}\nPUSHER_APP_SECRET={}\n", credentials.key, credentials.secret))?)
}

fn list(places: &Places) -> anyhow::Result<()> {
    let mut rows = vec![["ID", "KEY", "STATE", "IN"].map(str::to_owned)];
    let mut add = |app: &AppConfig, place: &str| {
        let state = match (app.enabled, app.keys().count() > 1) {
            (false, _) => "disabled".to_owned(),
            (true, true) => format!("enabled, {} is active, too", app.previous_key),
            (true, false) => "enabled".to_owned(),
        };
        rows.push([app.id.to_string(), app.key.to_string(), state, place.to_owned()]);
    };
    match &places.file {
        Some(File::Own(file)) => file.apps()?.iter().for_each(|app| add(app, "file")),
        Some(File::Soketis(_, apps)) => apps.iter().for_each(|app| add(app, "file")),
        None => {}
    }
    if let Some(database) = &places.database {
        let (apps, unusable) = database.apps()?;
        apps.iter().for_each(|app| add(app, "database"));
        for problem in unusable {
            tell(format_args!("fanfare: warning: {problem}"));
        }
    }
    let widths: Vec<_> = (0..4).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    Ok(print(&rows.iter().map(line).collect::<String>())?)
}

fn enable(one: &One, enabled: bool) -> Result<(), CliError> {
    let (mut places, id) = (Places::open(&one.config)?, &*one.id);
    places.of(
        id,
        |file| file.set_enabled(id, enabled),
        |database| Ok(database.set_enabled(id, enabled)?.then_some(())),
    )?;
    tell(format_args!(
        "app {id} is {}",
        if enabled { "enabled" } else { "disabled: its connections are closed with 4003" }
    ));
    Ok(())
}

fn rotate(places: &mut Places, id: &str, add_columns: bool) -> anyhow::Result<()> {
    let credentials = Credentials::random();
    places.of(id, |file| file.rotate(id, &credentials), |database| database.rotate(id, &credentials, add_columns))?;
    tell(format_args!(
        "app {id} has a new key and secret; the old ones are valid, too, and webhooks signed with them. Give these to your \
         backends and pages, then run `fanfare app rotate-key {id} --finish`:"
    ));
    show(None, &credentials)
}

fn finish(places: &mut Places, id: &str) -> anyhow::Result<()> {
    places.of(id, |file| file.finish(id), |database| database.finish(id))?;
    tell(format_args!("the old key and secret of app {id} are refused from now on"));
    Ok(())
}
