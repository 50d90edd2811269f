//! The command line: flags and subcommands. What they do is in a module each.

use std::{
    ffi::OsString,
    fmt::{Display, Write as _},
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::{ConfigError, EnvFile, Overrides, Sources, TlsConfig, process_environment},
    tls::Certificate,
};

mod api;
mod app;
mod bench;
mod channels;
mod check_config;
mod listen;
mod serve;
mod shell;
mod sign;
mod target;
mod trigger;
mod wire;

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
  fanfare app new --config fanfare.toml          one more app, with a new key and secret
  fanfare listen orders                          the events of a channel, as they come
  fanfare trigger orders order.created '{}'      an event for them
  fanfare channels                               who listens to what
  fanfare bench --subscribers 1000 --rate 20     how a running server does under that load
  fanfare --env-file ../shop/.env                with the app that a Laravel project has in its .env
  FANFARE__LOG__LEVEL=debug fanfare              any key of the file: FANFARE__SECTION__KEY

Flags win over the environment, that over the .env file, that over the configuration file, that over the defaults.
All keys: docs/configuration.md. Commands that talk to a server: docs/tools.md";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients and the HTTP API (also without a subcommand)
    #[command(after_help = serve::HELP)]
    Serve(serve::ServeArgs),
    /// Print the effective configuration, without secrets, and where each value comes from; or what is wrong with it
    #[command(after_help = check_config::HELP)]
    CheckConfig(ConfigArgs),
    /// Make, list, switch and rotate apps, in the configuration file or the database
    App(app::AppArgs),
    /// Publish an event
    Trigger(trigger::TriggerArgs),
    /// Print the events of channels as they come
    Listen(listen::ListenArgs),
    /// List the channels that have subscribers, or tell about one
    Channels(channels::ChannelsArgs),
    /// Print a signature, as an SDK would make it
    Sign(sign::SignArgs),
    /// Load a running server and print what it delivered, and how fast
    Bench(bench::BenchArgs),
    /// Print what a shell needs to complete commands and flags
    Completions(shell::CompletionsArgs),
    /// Print a page of the manual
    Man(shell::ManArgs),
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
    Other(anyhow::Error),
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        error.downcast().map_or_else(Self::Other, Self::Config)
    }
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
        Some(Command::App(args)) => app::run(&args),
        Some(Command::Trigger(args)) => trigger::run(&args),
        Some(Command::Listen(args)) => listen::run(&args),
        Some(Command::Channels(args)) => channels::run(&args),
        Some(Command::Sign(args)) => sign::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Completions(args)) => shell::completions(&args),
        Some(Command::Man(args)) => shell::man(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("fanfare: {error}"));
            match error {
                CliError::Config(_) | CliError::Usage(_) => BAD_CONFIG.into(),
                CliError::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Help and version are asked for; all else is a mistake, of which clap's first paragraph says enough.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // If stderr cannot be written, there is nobody left to tell.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    // Only the first paragraph is the error; hints and the usage follow.
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    let line = line.trim_start_matches("error: ");
    tell(format_args!("fanfare: {line}; see fanfare --help"));
    BAD_CONFIG.into()
}

/// A certificate that cannot be used is a mistake of the configuration.
fn check_certificate(config: &TlsConfig) -> Result<(), CliError> {
    Certificate::load(config).map(drop).map_err(|error| CliError::Usage(format!("{error:#}")))
}

/// Tells whoever runs it, on stderr. If that fails, nobody is left to tell.
fn tell(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a command's result.
fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // The reader of the pipe has closed it: it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot print")?),
    }
}

/// Text that others have written, for a terminal: its control characters are shown, not obeyed.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        if character.is_control() {
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.push(character);
        }
        out
    })
}

/// The value of an argument; `-` stands for what comes from stdin, without the line's end.
fn argument_or_stdin(argument: &str) -> Result<String, CliError> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("cannot read stdin")?;
    let line = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
    Ok(line.unwrap_or(&text).to_owned())
}

/// Runs what has to wait for a server.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Commands, and those below them.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        found.push((path.to_owned(), help));
        for below in command.get_subcommands() {
            leaves(below, &format!("{path} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_examples_of_itself() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "fanfare", &mut found);
        assert!(found.len() > 18, "{found:?}");
        for (path, help) in found {
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{path} has no examples"));
            assert!(examples.lines().any(|line| line.contains(&path)), "{path} is not in its examples: {examples}");
        }
    }

    #[test]
    fn flags_of_serve_work_without_its_name() {
        for words in [&["fanfare", "--port", "7000"][..], &["fanfare", "serve", "--port", "7000"]] {
            let cli = Cli::try_parse_from(words).unwrap();
            let args = match cli.command {
                Some(Command::Serve(args)) => args,
                None => cli.serve,
                Some(_) => unreachable!(),
            };
            assert_eq!(args.port, Some(7000));
        }
    }
}
