//! Which channels keep events, how many, and for whom.

use std::time::Duration;

use fanfare_protocol::{ChannelKind, signature::Signer};

use crate::{
    config::{AppConfig, RecoveryConfig},
    glob::glob,
};

/// An app's rules.
#[derive(Debug)]
pub(super) struct Policy {
    enabled: bool,
    /// Makes epochs that nobody can guess, and every node the same.
    signer: Signer,
    /// What holds where no pattern fits.
    usual: Keeping,
    /// The first that fits counts.
    exceptions: Vec<(String, Exception)>,
}

#[derive(Debug)]
struct Exception {
    keeping: Keeping,
    /// Whether the history is also for channels that need an authorisation.
    private: bool,
}

/// What one channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keeping {
    pub(super) window: Duration,
    pub(super) max_events: usize,
    pub(super) max_bytes: usize,
    /// Events a client may ask for that was not there.
    pub(super) last: usize,
    /// Events everybody gets who subscribes.
    pub(super) on_subscribe: usize,
}

impl Keeping {
    /// Of a channel that keeps nothing.
    pub(super) const NOTHING: Self =
        Self { window: Duration::ZERO, max_events: 0, max_bytes: 0, last: 0, on_subscribe: 0 };

    /// Whether there is anything to recover from.
    pub(super) fn is_on(&self) -> bool {
        !self.window.is_zero()
    }

    /// Whether events are kept for clients who were not there.
    pub(super) fn has_history(&self) -> bool {
        self.last > 0 || self.on_subscribe > 0
    }
}

impl Policy {
    pub(super) fn new(recovery: &RecoveryConfig, app: &AppConfig) -> Self {
        let usual = Keeping {
            window: app.recovery.window.unwrap_or(recovery.window),
            max_events: app.recovery.max_events.unwrap_or(recovery.max_events),
            max_bytes: app.recovery.max_bytes.unwrap_or(recovery.max_bytes),
            last: 0,
            on_subscribe: 0,
        };
        let exceptions = app.recovery.channels.iter().chain(&recovery.channels).map(|channel| {
            let keeping = Keeping {
                window: channel.window.unwrap_or(usual.window),
                last: channel.history.last,
                on_subscribe: channel.history.on_subscribe,
                ..usual
            };
            (channel.pattern.clone(), Exception { keeping, private: channel.history.private })
        });
        Self {
            enabled: app.recovery.enabled.unwrap_or(recovery.enabled),
            signer: Signer::new(&app.secret),
            usual,
            exceptions: exceptions.collect(),
        }
    }

    /// The epoch of a channel in a log that nodes share. Never 0, which is that of no channel.
    pub(super) fn epoch(&self, log: u64, channel: &str) -> u64 {
        let signature = self.signer.sign(&[b"recovery\0", &log.to_be_bytes(), channel.as_bytes()]);
        u64::from_str_radix(&signature[..16], 16).map_or(1, |epoch| epoch.max(1))
    }

    /// What a channel keeps; nothing if its window is empty.
    pub(super) fn of(&self, name: &str, kind: ChannelKind) -> Keeping {
        if !self.enabled {
            return Keeping::NOTHING;
        }
        let Some((_, exception)) = self.exceptions.iter().find(|(pattern, _)| glob(pattern, name)) else {
            return self.usual;
        };
        // Events from before somebody was authorised are shown only if the pattern says so (`private`).
        if (kind.auth || kind.user) && !exception.private {
            return Keeping { last: 0, on_subscribe: 0, ..exception.keeping };
        }
        exception.keeping
    }

    /// Whether any channel has a history, so that publishes have to be looked at where nobody is subscribed.
    pub(super) fn has_history(&self) -> bool {
        self.enabled && self.exceptions.iter().any(|(_, exception)| exception.keeping.has_history())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppRecoveryConfig, HistoryConfig, RecoveryChannelConfig};

    fn exception(pattern: &str, window: Option<u64>, history: HistoryConfig) -> RecoveryChannelConfig {
        RecoveryChannelConfig { pattern: pattern.to_owned(), window: window.map(Duration::from_secs), history }
    }

    fn policy(app: AppRecoveryConfig, channels: Vec<RecoveryChannelConfig>) -> Policy {
        let recovery = RecoveryConfig { channels, ..RecoveryConfig::default() };
        Policy::new(&recovery, &AppConfig { recovery: app, ..AppConfig::default() })
    }

    fn of(policy: &Policy, name: &str) -> (u64, usize, usize) {
        let keeping = policy.of(name, ChannelKind::of(name));
        (keeping.window.as_secs(), keeping.last, keeping.on_subscribe)
    }

    #[test]
    fn a_history_is_for_public_channels_unless_it_says_otherwise() {
        let history = HistoryConfig { last: 20, on_subscribe: 3, private: false };
        let policy = policy(
            AppRecoveryConfig::default(),
            vec![
                exception("private-log-*", None, HistoryConfig { private: true, ..history.clone() }),
                exception("*log*", Some(600), history),
            ],
        );
        assert_eq!(of(&policy, "log"), (600, 20, 3));
        assert_eq!(of(&policy, "private-log-1"), (120, 20, 3));
        for name in ["private-log", "presence-log", "#server-to-user-log", "private-encrypted-log"] {
            assert_eq!(of(&policy, name), (600, 0, 0), "{name}");
        }
        assert_eq!(of(&policy, "orders"), (120, 0, 0));
        assert!(policy.has_history());
    }

    #[test]
    fn the_app_comes_before_the_server() {
        let app = AppRecoveryConfig {
            window: Some(Duration::from_secs(300)),
            max_events: Some(5),
            channels: vec![exception("secret-*", Some(0), HistoryConfig::default())],
            ..AppRecoveryConfig::default()
        };
        let policy = policy(app, vec![exception("*", Some(60), HistoryConfig::default())]);
        assert_eq!(of(&policy, "secret-1"), (0, 0, 0));
        assert_eq!(of(&policy, "orders"), (60, 0, 0));
        assert_eq!(policy.of("orders", ChannelKind::default()).max_events, 5);
        assert!(!policy.has_history());
    }

    #[test]
    fn an_epoch_is_of_one_secret_log_and_channel() {
        let with = |secret| {
            let app = AppConfig { secret: fanfare_protocol::AppSecret::new(secret), ..AppConfig::default() };
            Policy::new(&RecoveryConfig::default(), &app)
        };
        let epochs = [("a", 1, "x"), ("b", 1, "x"), ("a", 2, "x"), ("a", 1, "y")];
        let epochs = epochs.map(|(secret, log, channel)| with(secret).epoch(log, channel));
        assert_eq!(std::collections::HashSet::from(epochs).len(), 4);
        assert_eq!(with("a").epoch(1, "x"), epochs[0]);
    }

    #[test]
    fn switched_off_nothing_is_kept() {
        let off = AppRecoveryConfig { enabled: Some(false), ..AppRecoveryConfig::default() };
        let history = HistoryConfig { last: 20, on_subscribe: 3, private: true };
        let policy = policy(off, vec![exception("*", Some(60), history)]);
        assert_eq!(of(&policy, "orders"), (0, 0, 0));
        assert!(!policy.has_history());
    }
}
