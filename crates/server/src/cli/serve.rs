//! `fanfare serve`.

use std::net::IpAddr;

use clap::Args;

use super::{CliError, ConfigArgs};
use crate::{Reload, config::Overrides, logging};

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
    // Before the first read, so that no change is missed.
    let again = sources.clone();
    let reload = Reload::new(sources.files(), move || again.load().map(|loaded| loaded.config));
    let loaded = sources.load()?;
    logging::init(&loaded.config.log)?;
    loaded.log();
    Ok(crate::serve(loaded.config, reload)?)
}
