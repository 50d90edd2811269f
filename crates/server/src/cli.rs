//! The command line: flags and subcommands. What they do is in a module each.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::config::{ConfigError, EnvFile, Overrides, Sources, process_environment};

mod bench;
mod check_config;
mod serve;

/// The exit code of a bad flag or configuration. Whatever goes wrong later is 1.
const BAD_CONFIG: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "fanfare",
    version,
    about = "A self-hosted broadcast server for stock Pusher Channels clients and SDKs",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  fanfare                                        on 127.0.0.1:6001, with the demo app
  fanfare serve --config fanfare.toml --port 80  with a file, and another port than it says
  fanfare check-config --config fanfare.toml     what a start would use, or what is wrong
  fanfare bench --subscribers 1000 --rate 20     how a running server does under that load
  fanfare --env-file ../shop/.env                with the app that a Laravel project has in its .env
  FANFARE__LOG__LEVEL=debug fanfare              any key of the file: FANFARE__SECTION__KEY

Flags win over the environment, that over the .env file, that over the configuration file, that over the defaults.
All keys: docs/configuration.md";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients and the HTTP API (also without a subcommand)
    Serve(serve::ServeArgs),
    /// Print the effective configuration, without secrets, and where each value comes from; or what is wrong with it
    CheckConfig(ConfigArgs),
    /// Load a running server and print what it delivered, and how fast
    Bench(bench::BenchArgs),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration: a TOML file, or Soketi's JSON file
    #[arg(long, value_name = "FILE", env = "FANFARE_CONFIG")]
    config: Option<PathBuf>,
    /// A file of variables, such as a Laravel project's; '' for none [default: .env, if there is one]
    #[arg(long, value_name = "FILE", env = "FANFARE_ENV_FILE")]
    env_file: Option<OsString>,
}

impl ConfigArgs {
    /// Everything the configuration comes from.
    fn sources(&self, overrides: Overrides) -> Result<Sources, ConfigError> {
        let env_file = match &self.env_file {
            None => EnvFile::Beside,
            Some(none) if none.is_empty() => EnvFile::None,
            Some(file) => EnvFile::At(file.into()),
        };
        Ok(Sources { file: self.config.clone(), env_file, environment: process_environment()?, overrides })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Usage(String),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Runs what the command line asks for. Errors are one line on stderr.
///
/// Exit codes: 0; 2 for a bad flag or configuration; 1 for anything later.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let result = match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::CheckConfig(args)) => check_config::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanfare: {error}");
            match error {
                CliError::Config(_) | CliError::Usage(_) => BAD_CONFIG.into(),
                CliError::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Help and version are asked for; all else is a mistake, of which clap's first line says enough.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody is left to tell if this fails.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    eprintln!("fanfare: {line}; see fanfare --help");
    BAD_CONFIG.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_work_without_its_name() {
        for words in [&["fanfare", "--port", "7000"][..], &["fanfare", "serve", "--port", "7000"]] {
            let cli = Cli::try_parse_from(words).unwrap();
            let args = match cli.command {
                Some(Command::Serve(args)) => args,
                None => cli.serve,
                Some(Command::CheckConfig(_) | Command::Bench(_)) => unreachable!(),
            };
            assert_eq!(args.port, Some(7000));
        }
    }
}
