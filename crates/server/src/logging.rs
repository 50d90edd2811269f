//! The log: `[log]` says what is written and how; it goes to stderr.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// What actix-http reports as errors are mistakes of clients: each malformed request would write a line, and anybody can send
/// those without end.
const QUIET: &str = "actix_http=off";

/// Starts the log of this process. `RUST_LOG` is not read: `[log] level`, or `FANFARE__LOG__LEVEL`, is the one place.
///
/// # Errors
/// The level is none, or the process has a log already.
pub(crate) fn init(config: &LogConfig) -> anyhow::Result<()> {
    let builder = fmt().with_env_filter(filter(&config.level).map_err(anyhow::Error::msg)?).with_writer(io::stderr);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(wants_color()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(anyhow::Error::from_boxed)
}

/// Escape sequences are for people: not for files and pipes, and not for who sets `NO_COLOR` (no-color.org).
fn wants_color() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The filter that `level` describes, or what would be right.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    let problem = || {
        format!(
            "must be off, error, warn, info, debug or trace, or a list such as \"info,fanfare_server::webhook=debug\", \
             not \"{level}\""
        )
    };
    // `EnvFilter` takes any word for a target: with a misspelt level it would write nothing, with a blank not match.
    let directives: Vec<_> = level.split(',').map(str::trim).collect();
    let is_directive = |text: &str| text.contains('=') || (!text.is_empty() && text.parse::<LevelFilter>().is_ok());
    if !directives.iter().copied().all(is_directive) {
        return Err(problem());
    }
    // First, so that the configuration can say otherwise.
    EnvFilter::try_new(format!("{QUIET},{}", directives.join(","))).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_are_filters() {
        for level in [
            "info",
            "off",
            "WARN",
            "info,fanfare_server::webhook=debug",
            "warn, [connection{id=1}]=trace",
            "info,actix_server=off",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn clients_mistakes_are_quiet_unless_asked_for() {
        let directives = |level: &str| filter(level).unwrap().to_string();
        assert!(directives("info").contains("actix_http=off"));
        assert!(directives("info,actix_http=debug").contains("actix_http=debug"));
        assert!(!directives("info,actix_http=debug").contains("actix_http=off"));
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_target() {
        for level in ["inof", "", "info,", "fanfare_server", "info,fanfare_server=loud", "[=info"] {
            let problem = filter(level).unwrap_err();
            assert!(problem.starts_with("must be off, error, warn"), "{problem}");
        }
    }
}
