//! `[xhr]`: pusher-js's transports for networks that let no WebSocket through.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// `[xhr]`: clients that cannot use a WebSocket. pusher-js calls these transports `xhr_streaming` and `xhr_polling`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct XhrConfig {
    /// Serve them.
    pub enabled: bool,
    /// How long a client may be without a request that receives before its session ends.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// After how long without an event a stream gets an empty line, and a poll an empty answer.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// Sessions of one client address (IPv6: of a /64 network); 0: no limit.
    pub max_sessions_per_address: usize,
}

impl Default for XhrConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            grace: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            max_sessions_per_address: 1_000,
        }
    }
}
