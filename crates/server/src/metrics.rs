//! What is counted, once each.

use std::sync::atomic::AtomicU64;

/// Counters of the node.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections ended because they read too slowly.
    pub(crate) slow_readers_closed: AtomicU64,
    /// Triggers answered with 503 because a worker was too busy for too long.
    pub(crate) publish_timeouts: AtomicU64,
    /// Events of cache channels that were not kept, because the app keeps as many as it may.
    pub(crate) cache_overflows: AtomicU64,
}
