//! The broker of several nodes: a log per shard in Redis, and a push of every entry to every node.
//!
//! ```text
//!  publishers ─▶ outgoing ─▶ publisher ─ MULTI, XADD log, PUBLISH, EXEC ─▶ Redis ─ push ─▶ reader ─▶ directory of each app
//!  (any thread)  (bounded)   (one task: one order)                           └─ XRANGE ──────┘ after a gap
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | `outgoing` | events that wait for Redis, and the last ones, should Redis lose them |
//! | `publisher` | the task that puts them into the log |
//! | `reader` | the task that gets them from there, each once and in order |
//! | `seen` | which ones were had |
//! | `entry` | how they are written |
//! | `log` | keys, scripts and commands |
//! | `server` | the connection |
//!
//! All of it runs on a thread of its own; workers only touch `outgoing`, under a lock for moments. Local subscribers get an
//! event by the push, too: that is what makes one order for all nodes.

mod entry;
mod log;
mod outgoing;
mod publisher;
mod reader;
mod seen;
mod server;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use self::{
    log::Keys,
    outgoing::{Bounds, Outgoing},
    server::Server,
};
use super::{Broker, Published, Receipt, Refused};
use crate::{app::App, config::BrokerConfig, metrics::Metrics, node::Node};

/// The parts of the log. A channel belongs to one, so it has one order. Fixed: all nodes have to agree on it.
const SHARDS: usize = 16;

/// The broker of several nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    shared: Arc<Shared>,
}

/// What the broker's tasks and the publishers of all threads share.
#[derive(Debug)]
struct Shared {
    server: Server,
    keys: Keys,
    bounds: Bounds,
    /// Names this process among all that ever published.
    publisher: u64,
    outgoing: Mutex<Outgoing>,
    /// Something waits to be sent, or the end has come.
    work: Notify,
    /// The last event is sent, and nothing more is taken.
    sent: Notify,
    /// Whether it is or not, the thread shall end.
    end: Notify,
    metrics: Arc<Metrics>,
}

impl Redis {
    /// # Errors
    /// A URL that names no server.
    pub(crate) fn new(config: &BrokerConfig, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        // Without one, TLS would panic at the first connection.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::new(&config.url).context("broker.url does not name a Redis server")?;
        let bounds = Bounds { bytes: config.max_buffer_bytes, wait: config.buffer_time, window: config.window };
        let shared = Shared {
            server,
            keys: Keys::new(&config.prefix),
            bounds,
            publisher: rand::random(),
            outgoing: Mutex::new(Outgoing::new(bounds)),
            work: Notify::new(),
            sent: Notify::new(),
            end: Notify::new(),
            metrics: Arc::clone(metrics),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts the thread that talks to Redis. It ends with the process, or when [`Redis::stop`] has seen everything off.
    ///
    /// # Errors
    /// A thread or its runtime that cannot be started.
    pub(crate) fn start(&self, node: &Arc<Node>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, node) = (Arc::clone(&self.shared), Arc::clone(node));
        std::thread::Builder::new().name("fanfare-broker".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = reader::run(&shared, &node) => {}
                    () = publisher::run(&shared) => {}
                    () = shared.end.notified() => {}
                }
            });
        })?;
        tracing::info!(
            "events of all nodes go through Redis at {}. Presence, users, counts, channel lists and webhooks are still each \
             node's own: see docs/scaling.md",
            self.shared.server.address()
        );
        Ok(())
    }

    /// Takes no more events, and waits until those it took are in Redis. How many are not by then.
    pub(crate) async fn stop(&self, deadline: Instant) -> usize {
        let sent = self.shared.sent.notified();
        self.shared.outgoing().close();
        self.shared.work.notify_one();
        let _ = timeout_at(deadline, sent).await;
        self.shared.end.notify_one();
        self.shared.outgoing().waiting()
    }
}

impl Shared {
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, events: impl Iterator<Item = (usize, Box<[u8]>)>) -> Result<Receipt, Refused> {
        let now = Instant::now();
        let mut outgoing = self.outgoing();
        if !outgoing.has_room(now) {
            self.metrics.broker.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refused);
        }
        let receipt = Receipt(outgoing.push(events, now));
        drop(outgoing);
        self.work.notify_one();
        Ok(receipt)
    }
}

impl Broker for Redis {
    fn publish(&self, app: &App, events: &mut dyn Iterator<Item = Published<'_>>) -> Result<Receipt, Refused> {
        let app = app.id.as_str();
        self.shared.publish(events.map(|event| (shard(app, event.publication.channel), entry::event(app, &event))))
    }

    fn terminate(&self, app: &App, user_id: &str) -> Result<Receipt, Refused> {
        let app = app.id.as_str();
        self.shared.publish(std::iter::once((shard(app, user_id), entry::terminate(app, user_id))))
    }
}

/// The shard of an app's channel: FNV-1a, which is the same on all nodes and in all versions.
fn shard(app: &str, channel: &str) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in app.bytes().chain([0]).chain(channel.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    // The low bits alone depend on the low bits of the input.
    usize::try_from((hash ^ (hash >> 32)) % SHARDS as u64).unwrap_or_default()
}

/// Now, in ms since 1970.
fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_spread_over_all_shards() {
        let mut counts = [0; SHARDS];
        for number in 0..1600 {
            counts[shard("app", &format!("orders.{number}"))] += 1;
        }
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_shard_of_a_channel_never_changes() {
        // Nodes of different versions share a log: these are the values of the first version.
        assert_eq!(["a", "orders.1", "presence-x"].map(|channel| shard("app-id", channel)), [2, 5, 0]);
    }
}
