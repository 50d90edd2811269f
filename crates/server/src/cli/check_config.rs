//! `fanfare check-config`.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::{CliError, ConfigArgs};
use crate::config::{Config, Overrides, process_environment};

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let config = Config::load(args.config.as_deref(), process_environment()?, Overrides::default())?;
    crate::tls::Certificate::load(&config.tls)?;
    let written = io::stdout().lock().write_all(config.to_redacted_toml().as_bytes());
    Ok(written.context("cannot print the configuration")?)
}
