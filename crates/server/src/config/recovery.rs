//! `[recovery]`: what clients that lost their connection get back, for all apps and for one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// `[recovery]`: what clients that lost their connection, and ask for it, get back.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryConfig {
    /// Keep events for clients that ask; when false, whoever asks is told that nothing could be recovered.
    pub enabled: bool,
    /// How long an event is kept, and how long a channel keeps events after the last client that asked has left. 0: no recovery.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Events kept of one channel.
    pub max_events: usize,
    /// Bytes kept of one channel.
    pub max_bytes: usize,
    /// Bytes kept of all channels together; beyond it the oldest go, whatever their channel.
    pub max_total_bytes: usize,
    /// Bytes one subscription may get back; more is told as a gap. Half of `server.max_outbox_bytes` is a bound as well.
    pub max_replay_bytes: usize,
    /// Where a server that shuts down leaves what it keeps for the next start; empty: nowhere.
    pub file: String,
    /// Channels with a window or a history of their own; the first whose pattern fits counts.
    pub channels: Vec<RecoveryChannelConfig>,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(120),
            max_events: 1_000,
            max_bytes: 256 * 1024,
            max_total_bytes: 64 * 1024 * 1024,
            max_replay_bytes: 256 * 1024,
            file: String::new(),
            channels: Vec::new(),
        }
    }
}

/// `[[recovery.channels]]`: channels that are treated in another way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryChannelConfig {
    /// The names this is about; `*` stands for any characters.
    pub pattern: String,
    /// How long; absent: as for other channels. 0: no recovery.
    #[serde(with = "duration::optional")]
    pub window: Option<Duration>,
    /// What those who subscribe may have of the time before.
    pub history: HistoryConfig,
}

/// `history` of a channel pattern: events for subscribers who were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Events a client may ask for with `{last: n}`.
    pub last: usize,
    /// Events everybody gets who subscribes, asked or not.
    pub on_subscribe: usize,
    /// Holds for channels that need an authorisation, too.
    pub private: bool,
}

/// `[apps.recovery]`: what is absent is as in `[recovery]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppRecoveryConfig {
    /// As `recovery.enabled`.
    pub enabled: Option<bool>,
    /// As `recovery.window`.
    #[serde(with = "duration::optional")]
    pub window: Option<Duration>,
    /// As `recovery.max_events`.
    pub max_events: Option<usize>,
    /// As `recovery.max_bytes`.
    pub max_bytes: Option<usize>,
    /// Looked at before `recovery.channels`.
    pub channels: Vec<RecoveryChannelConfig>,
}
