//! `fanfare check-config`.

use super::{CliError, ConfigArgs, check_certificate, print, tell};
use crate::config::Overrides;

pub(super) const HELP: &str = "\
Examples:
  fanfare check-config --config fanfare.toml
  fanfare check-config                       in a Laravel project's folder: what its .env comes to
  fanfare check-config --config soketi.json  what Fanfare makes of a file of Soketi's
  fanfare check-config | grep -v '# default'

What has no effect is told on stderr.
Exit codes: 0; 2 when a start would fail for what is in the configuration.";

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let loaded = args.sources(Overrides::default())?.load()?;
    check_certificate(&loaded.config.tls)?;
    for warning in &loaded.warnings {
        tell(format_args!("fanfare: warning: {warning}"));
    }
    print(&loaded.to_annotated_toml())
}
