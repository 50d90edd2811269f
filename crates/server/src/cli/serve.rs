//! `fanfare serve`.

use std::net::IpAddr;

use clap::Args;

use super::{CliError, ConfigArgs};
use crate::{
    Reload,
    config::{Config, Overrides, process_environment},
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
    let (file, environment) = (args.config.config.clone(), process_environment()?);
    let reload =
        Reload::new(file.clone(), move || Config::load(file.as_deref(), environment.iter().cloned(), overrides));
    let config = reload.load()?;
    logging::init(&config.log)?;
    Ok(crate::serve(config, reload)?)
}
