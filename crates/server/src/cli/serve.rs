//! `fanfare serve`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;

use super::{CliError, ConfigArgs};
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

pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    let overrides = Overrides { host: args.host, port: args.port };
    let sources = args.config.sources(overrides)?;
    // What is to be said of the settings: once, however often they are read.
    let said = Arc::<Mutex<BTreeSet<String>>>::default();
    let log = move |loaded: &Loaded| loaded.log(&mut said.lock().unwrap_or_else(PoisonError::into_inner));
    // Before the first read, so that no change is missed.
    let (again, log_again) = (sources.clone(), log.clone());
    let reload = Reload::new(sources.files(), move || again.load().inspect(&log_again).map(|loaded| loaded.config));
    let loaded = sources.load()?;
    logging::init(&loaded.config.log)?;
    log(&loaded);
    Ok(crate::serve(loaded.config, reload)?)
}
