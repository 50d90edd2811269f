//! What is counted, once each.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters of the node.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections ended because they read too slowly.
    pub(crate) slow_readers_closed: AtomicU64,
    /// Triggers answered with 503 because a worker was too busy for too long.
    pub(crate) publish_timeouts: AtomicU64,
    /// Events of cache channels that were not kept, because the app keeps as many as it may.
    pub(crate) cache_overflows: AtomicU64,
    /// How often a changed configuration was taken, and how often it could not be used.
    pub(crate) config_reloads: AtomicU64,
    pub(crate) config_reload_failures: AtomicU64,
    /// What was refused before it was known for which app. What an app's clients and backends are refused, the app counts.
    pub(crate) refusals: Refusals,
    /// What went through Redis.
    pub(crate) broker: BrokerMetrics,
}

/// Counters of the broker between nodes.
#[derive(Debug, Default)]
pub(crate) struct BrokerMetrics {
    /// Events of this node that Redis has taken.
    pub(crate) published: AtomicU64,
    /// Requests and client events that were refused, since too much waits for Redis.
    pub(crate) refused: AtomicU64,
    /// Events of this node that were sent again, since Redis had lost its log.
    pub(crate) replayed: AtomicU64,
    /// Events of all nodes that came from Redis.
    pub(crate) received: AtomicU64,
    /// Those of them that were missed at first and read from the log.
    pub(crate) read_from_log: AtomicU64,
    /// Events of other nodes that were missed and in no log any more.
    pub(crate) lost: AtomicU64,
}

/// Why a connection, a request or a client event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No app has this key or id.
    AppUnknown,
    /// The app is disabled.
    AppDisabled,
    /// The server is about to stop.
    Draining,
    /// The page's origin may not connect.
    Origin,
    /// The signature of a request, subscription or sign-in is not the app's.
    Signature,
    /// The app has as many connections as it may (`max_connections`).
    Connections,
    /// One connection sends too many events (`max_client_events_per_second`).
    ClientEvents,
}

impl Refusal {
    /// All causes.
    pub(crate) const ALL: [Self; 7] = [
        Self::AppUnknown,
        Self::AppDisabled,
        Self::Draining,
        Self::Origin,
        Self::Signature,
        Self::Connections,
        Self::ClientEvents,
    ];

    /// The cause as the label of a metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::AppUnknown => "app_unknown",
            Self::AppDisabled => "app_disabled",
            Self::Draining => "draining",
            Self::Origin => "origin",
            Self::Signature => "signature",
            Self::Connections => "connections",
            Self::ClientEvents => "client_events",
        }
    }
}

/// What was refused, by cause.
#[derive(Default)]
pub(crate) struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, cause: Refusal) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each cause with its number so far.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(cause, count)| (cause.label(), count))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_counter_of_its_own() {
        let refusals = Refusals::default();
        for (times, cause) in Refusal::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| refusals.count(cause));
        }
        for (times, (cause, count)) in refusals.iter().enumerate() {
            assert_eq!((Refusal::ALL[times], count), (cause, times as u64), "{}", cause.label());
        }
    }
}
