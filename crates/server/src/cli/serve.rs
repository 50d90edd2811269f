//! `fanfare serve`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;

use super::{CliError, ConfigArgs, check_certificate};
use crate::{
    Reload,
    config::{Loaded, Overrides},
    logging,
};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// The address to bind [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(super) host: Option<IpAddr>,
    /// The port to bind; 0 takes a free one [default: 6001]
    #[arg(long, value_name = "N")]
    pub(super) port: Option<u16>,
}

pub(super) const HELP: &str = "\
Examples:
  fanfare serve                                         on 127.0.0.1:6001, with the demo app
  fanfare serve --config fanfare.toml
  fanfare serve --env-file ../shop/.env --host 0.0.0.0  with the app of a Laravel project
  fanfare serve --config soketi.json                    with a file of Soketi's

SIGTERM or Ctrl-C sends clients away over a few seconds and ends it; SIGHUP reads the configuration again; SIGUSR1 makes the
log tell more.
Exit codes: 0 after a shutdown; 2 for a bad flag or configuration; 1 for anything else, such as a port in use.";

pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    let overrides = Overrides { host: args.host, port: args.port };
    let sources = args.config.sources(overrides)?;
    // Warnings about settings that were told already, so that each is told once however often the file is read.
    let said = Arc::<Mutex<BTreeSet<String>>>::default();
    let log = move |loaded: &Loaded| loaded.log(&mut said.lock().unwrap_or_else(PoisonError::into_inner));
    // Before the first read, so that no change is missed.
    let (again, log_again) = (sources.to_read_again(), log.clone());
    let reload = Reload::new(sources.files(), move || again.load().inspect(&log_again).map(|loaded| loaded.config));
    let loaded = sources.load()?;
    check_certificate(&loaded.config.tls)?;
    logging::init(&loaded.config.log)?;
    log(&loaded);
    Ok(crate::serve(loaded.config, reload)?)
}
