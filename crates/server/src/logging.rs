//! The log: `[log]` says what is written and how; it goes to stderr.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

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
    EnvFilter::try_new(directives.join(",")).map_err(|_| problem())
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
    fn a_misspelt_level_is_not_taken_for_a_target() {
        for level in ["inof", "", "info,", "fanfare_server", "info,fanfare_server=loud", "[=info"] {
            let problem = filter(level).unwrap_err();
            assert!(problem.starts_with("must be off, error, warn"), "{problem}");
        }
    }
}
