//! The log: `[log]` says what is written and how; it goes to stderr. How much is written can change while the server runs: with
//! the setting, and for a while by a signal.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

use crate::config::{LogConfig, LogFormat};

/// What actix-http reports as errors are mistakes of clients: each malformed request would write a line, and anybody can send
/// those without end.
const QUIET: &str = "actix_http=off";

/// The log of this process, once it has one.
static LOG: OnceLock<Log> = OnceLock::new();

/// What decides which lines are written.
struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<Level>,
}

/// The level as configured, and how much more a signal has asked for.
struct Level {
    configured: String,
    more: More,
}

/// More than is configured, of our own lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    No,
    Debug,
    Trace,
}

impl More {
    /// What one more signal asks for.
    fn next(self) -> Self {
        match self {
            Self::No => Self::Debug,
            Self::Debug => Self::Trace,
            Self::Trace => Self::No,
        }
    }

    /// The whole level.
    fn with(self, configured: &str) -> String {
        match self {
            Self::No => configured.to_owned(),
            Self::Debug => format!("{configured},fanfare_server=debug"),
            Self::Trace => format!("{configured},fanfare_server=trace"),
        }
    }
}

/// Starts the log of this process. `RUST_LOG` is not read: `[log] level`, or `FANFARE__LOG__LEVEL`, is the one place.
///
/// # Errors The level cannot be used, or the process has a log already.
pub(crate) fn init(config: &LogConfig) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(filter(&config.level).map_err(anyhow::Error::msg)?);
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(io::stderr).with_ansi(wants_color())).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init(),
    }?;
    let level = Mutex::new(Level { configured: config.level.clone(), more: More::No });
    // This cannot fail: `try_init` has succeeded, so it is the first log of this process.
    let _ = LOG.set(Log { filter: handle, level });
    Ok(())
}

/// From now on this level is the configured one; whatever a signal has asked for is over.
///
/// Without a log of ours, as in tests and in applications of others, nothing happens.
///
/// # Errors The level cannot be used; then nothing has changed.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let Some(log) = LOG.get() else { return Ok(()) };
    let mut current = log.level.lock().unwrap_or_else(PoisonError::into_inner);
    if current.configured == level {
        return Ok(());
    }
    log.set(filter(level)?);
    *current = Level { configured: level.to_owned(), more: More::No };
    drop(current);
    tracing::info!(log.level = level, "log.level has changed");
    Ok(())
}

/// Writes more of our own lines, by one step; after the last step it is as configured again.
pub(crate) fn more() {
    let Some(log) = LOG.get() else { return };
    let mut current = log.level.lock().unwrap_or_else(PoisonError::into_inner);
    let more = current.more.next();
    let level = more.with(&current.configured);
    if more == More::No {
        // Before the level goes back, or the line might not be written.
        tracing::info!(log.level = level, "signal: the log is as configured again");
    }
    // It always is a filter: the configured one is, and so is what was added to it.
    if let Ok(filter) = filter(&level) {
        log.set(filter);
        current.more = more;
    }
    drop(current);
    if more != More::No {
        tracing::info!(log.level = level, "signal: the log tells more; the next one changes it again");
    }
}

impl Log {
    fn set(&self, filter: EnvFilter) {
        // This fails only when the log is gone, and the log lives as long as the process.
        let _ = self.filter.reload(filter);
        // Libraries that use the `log` crate come through a bridge that has a level of its own.
        log::set_max_level(match LevelFilter::current() {
            LevelFilter::OFF => log::LevelFilter::Off,
            LevelFilter::ERROR => log::LevelFilter::Error,
            LevelFilter::WARN => log::LevelFilter::Warn,
            LevelFilter::INFO => log::LevelFilter::Info,
            LevelFilter::DEBUG => log::LevelFilter::Debug,
            LevelFilter::TRACE => log::LevelFilter::Trace,
        });
    }
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
    // `EnvFilter` takes any word for the name of a target: a misspelt level would silence the log, and a blank before a name would match
    // nothing.
    let directives: Vec<_> = level.split(',').map(str::trim).collect();
    let is_directive = |text: &str| text.contains('=') || (!text.is_empty() && text.parse::<LevelFilter>().is_ok());
    if !directives.iter().copied().all(is_directive) {
        return Err(problem());
    }
    // In front, so that the configured directives, which come later, win.
    EnvFilter::try_new(format!("{QUIET},{}", directives.join(","))).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_through_the_levels_and_back() {
        let levels: Vec<_> = std::iter::successors(Some(More::No), |more| Some(more.next())).take(4).collect();
        assert_eq!(levels, [More::No, More::Debug, More::Trace, More::No]);
        for more in levels {
            assert!(filter(&more.with("warn,fanfare_server::webhook=debug")).is_ok(), "{more:?}");
        }
    }

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
