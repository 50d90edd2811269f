//! `fanfare check-config`.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::{CliError, ConfigArgs};
use crate::config::Overrides;

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let loaded = args.sources(Overrides::default())?.load()?;
    crate::tls::Certificate::load(&loaded.config.tls)?;
    for warning in &loaded.warnings {
        eprintln!("fanfare: warning: {warning}");
    }
    let written = io::stdout().lock().write_all(loaded.to_annotated_toml().as_bytes());
    Ok(written.context("cannot print the configuration")?)
}
