//! `[limits]`: what the node takes on, and what one client address may.

use serde::{Deserialize, Serialize};

use super::MemoryLimit;

/// `[limits]`: what the node takes on, and what one client address may. Each 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Live connections of all apps.
    pub max_connections: usize,
    /// Memory in use above which new connections are refused.
    pub max_memory: MemoryLimit,
    /// Live connections of one address.
    pub max_connections_per_address: u32,
    /// Connects of one address in a second.
    pub max_connects_per_second_per_address: u32,
    /// Signatures of one address that do not fit, in a minute.
    pub max_failed_signatures_per_minute_per_address: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_memory: MemoryLimit::Percent(90),
            max_connections_per_address: 0,
            max_connects_per_second_per_address: 0,
            max_failed_signatures_per_minute_per_address: 0,
        }
    }
}
