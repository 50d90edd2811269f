//! What is counted, once each. Labelled by app, never by channel, socket or user.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `refusal` | why something is refused |
//! | `histogram` | how long something took |
//! | `tally` | what a worker counts by itself, and hands over from time to time |
//! | `process` | what the kernel knows of the process |
//! | `text` | the text format of Prometheus |
//! | `export` | every name, and where its value comes from |
//!
//! Counters of an app live as long as the app or one of its connections: its series end with it. Nothing that can be derived
//! is counted a second time: who is connected is who was let in less who has left, so that no gauge can drift.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use fanfare_protocol::AppId;

pub(crate) use self::{
    export::{CONTENT_TYPE, render},
    process::open_files,
    refusal::Refusal,
    tally::Tally,
};
use self::{histogram::Histogram, refusal::Refusals};
use crate::config::MetricsConfig;

mod export;
mod histogram;
mod process;
mod refusal;
mod tally;
mod text;

/// A counter. Order does not matter: each is read on its own.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        // Workers hand over all their counts twice a second; most are 0 and need no write.
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted of the node, and of its apps.
#[derive(Debug)]
pub(crate) struct Metrics {
    config: MetricsConfig,
    /// The server's, by which Prometheus tells processes of one machine apart.
    port: u16,
    started: SystemTime,
    /// By app: found again when an app's configuration is replaced while it has connections.
    apps: Mutex<HashMap<AppId, Weak<AppMetrics>>>,
    /// What was refused before it was known which app it is for.
    pub(crate) refusals: Refusals,
    /// Times the apps or settings were read anew.
    pub(crate) config_reloads: Reloads,
    /// Times the certificate was read anew.
    pub(crate) tls_reloads: Reloads,
    /// What went through Redis.
    pub(crate) broker: BrokerMetrics,
    /// Questions to the database of the apps.
    pub(crate) database: DatabaseMetrics,
}

/// Counters of the apps' database.
#[derive(Debug, Default)]
pub(crate) struct DatabaseMetrics {
    /// Questions.
    pub(crate) queries: Counter,
    /// Those that failed.
    pub(crate) failures: Counter,
    /// Whether the last one did.
    pub(crate) down: AtomicBool,
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

/// Attempts to read something anew.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// Those that are in force.
    pub(crate) succeeded: Counter,
    /// Those that left everything as it was.
    pub(crate) failed: Counter,
}

impl Metrics {
    pub(crate) fn new(config: MetricsConfig, port: u16) -> Self {
        Self {
            config,
            port,
            started: SystemTime::now(),
            apps: Mutex::default(),
            refusals: Refusals::default(),
            config_reloads: Reloads::default(),
            tls_reloads: Reloads::default(),
            broker: BrokerMetrics::default(),
            database: DatabaseMetrics::default(),
        }
    }

    /// Whether and where they are told.
    pub(crate) fn config(&self) -> &MetricsConfig {
        &self.config
    }

    /// The counters of an app: those it has, if it was known before and is still in use.
    pub(crate) fn app(&self, id: &AppId) -> Arc<AppMetrics> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = apps.get(id).and_then(Weak::upgrade) {
            return known;
        }
        let metrics = Arc::<AppMetrics>::default();
        apps.retain(|_, app| app.strong_count() > 0);
        apps.insert(id.clone(), Arc::downgrade(&metrics));
        metrics
    }
}

/// What is counted of one app.
#[derive(Debug, Default)]
pub(crate) struct AppMetrics {
    opened: [Counter; Transport::ALL.len()],
    closed: [Counter; Transport::ALL.len()],
    bytes_received: Counter,
    bytes_sent: Counter,
    messages_received: Counter,
    messages_sent: Counter,
    /// Writes to sockets that took something.
    writes: Counter,
    /// From a publish to its last write on a worker.
    delivery: Histogram,
    /// Bytes that wait for connections, as the workers saw it last.
    outbox_bytes: AtomicUsize,
    /// Connections ended because they read too slowly.
    pub(crate) slow_readers_closed: Counter,
    /// Requests of the HTTP API that name the app, and the bytes of their bodies and answers.
    pub(crate) http_calls: Counter,
    pub(crate) http_bytes_received: Counter,
    pub(crate) http_bytes_sent: Counter,
    /// Triggers answered with 503 because a worker was too busy for too long.
    pub(crate) publish_timeouts: Counter,
    /// Events of cache channels that were not kept, because the app keeps as many as it may.
    pub(crate) cache_overflows: Counter,
    /// What was refused, and why.
    pub(crate) refusals: Refusals,
    pub(crate) webhooks: WebhookCounters,
}

impl AppMetrics {
    /// Counts a connection in. The guard that is returned counts it out when it is dropped.
    pub(crate) fn open(self: &Arc<Self>, transport: Transport) -> Open {
        self.opened[transport as usize].increment();
        Open { metrics: Arc::clone(self), transport }
    }

    /// Live connections over a transport.
    fn open_now(&self, transport: Transport) -> u64 {
        // `closed` is read first: a connection that closes in between counts as open, and the difference is never negative.
        let closed = self.closed[transport as usize].get();
        self.opened[transport as usize].get().saturating_sub(closed)
    }
}

/// A live connection. Counted out when it is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    metrics: Arc<AppMetrics>,
    transport: Transport,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.closed[self.transport as usize].increment();
    }
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// With TLS that ends here.
    WebSocketTls,
    /// Inside an actix-web application of somebody else's.
    ActixWs,
    /// Without a WebSocket, in HTTP requests.
    Xhr,
    /// The same, with TLS that ends here.
    XhrTls,
}

impl Transport {
    const ALL: [Self; 5] = [Self::WebSocket, Self::WebSocketTls, Self::ActixWs, Self::Xhr, Self::XhrTls];

    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::WebSocketTls => "websocket_tls",
            Self::ActixWs => "actix_ws",
            Self::Xhr => "xhr",
            Self::XhrTls => "xhr_tls",
        }
    }
}

/// What happened to webhooks since the start.
#[derive(Debug, Default)]
pub(crate) struct WebhookCounters {
    /// Requests sent.
    pub(crate) attempts: Counter,
    /// Requests that failed, including those that were repeated.
    pub(crate) failed_attempts: Counter,
    /// Events an endpoint took.
    pub(crate) delivered: Counter,
    /// Events given up: not delivered within `retry_for`, or not before the end of a shutdown.
    pub(crate) dropped: Counter,
    /// Events that found a queue full.
    pub(crate) overflowed: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_an_app_outlive_its_configuration_and_end_with_its_last_connection() {
        let metrics = Metrics::new(MetricsConfig::default(), 0);
        let id = AppId::new("a");
        let app = metrics.app(&id);
        let open = app.open(Transport::WebSocket);
        drop(app);
        assert_eq!(metrics.app(&id).open_now(Transport::WebSocket), 1);
        drop(open);
        assert_eq!(metrics.app(&id).opened[0].get(), 0, "counted anew");
    }

    #[test]
    fn transports_are_in_the_order_of_their_numbers() {
        for (index, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(transport as usize, index);
        }
    }
}
