//! The broker of several nodes: a log per shard in Redis, and a push of every entry to every node.
//!
//! ```text
//!  publishers ─▶ outgoing ─▶ publisher ─ MULTI, XADD log, PUBLISH, EXEC ─▶ Redis ─ push ─▶ reader ─▶ directory of each app
//!  (any thread)  (bounded)   (one task: one order)                           └─ XRANGE ──────┘ after a gap
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | `membership` | who and what this node has: told to Redis as it changes, and all of it when Redis forgot |
//! | `keeper` | the task that tells it, gives signs of life, and takes back what dead nodes told |
//! | `kept` | the last events of cache channels |
//! | `announcement` | what others are told of that |
//! | `hooks` | the task that delivers the cluster's webhook events |
//! | `reads` | what the HTTP API asks Redis for |
//! | `outgoing` | events that wait for Redis, and the last ones, should Redis lose them |
//! | `publisher` | the task that puts them into the log |
//! | `reader` | the task that gets them from there, each once and in order |
//! | `progress` | how far it has come: the numbers of clients' positions |
//! | `recall` | the task that reads what clients need who come from another node |
//! | `seen` | which events were received already |
//! | `entry` | how they are written |
//! | `log` | keys, scripts and commands |
//! | `link` | which connection leads to a shard |
//! | `server` | where Redis is, and connecting to it |
//!
//! | word | what it means here |
//! | --- | --- |
//! | shard | a sixteenth of the log, and of everything else in Redis; the hash of app and channel says which one |
//! | entry | what is in the log: events of one publisher that were packed together, or an announcement |
//! | epoch | when a shard's log was made: the first half of its entries' ids. A log that was lost begins anew with a later one |
//! | announcement | what a script puts into the log: who came, who left, how many are there |
//! | mark | an announcement that tells nothing but how far the log is, so that pushes, which have no number, can be counted |
//! | era | a time in which this node hands on exactly what one log has; clients can go on only within one |
//!
//! In a Redis Cluster each shard is in one slot, and so on one server. No script and no transaction needs two shards: a channel, its
//! members, its counts and its webhook events are in the same one.
//!
//! All of it runs on a thread of its own; workers only touch `outgoing`, under a lock for moments. Local subscribers get an
//! event by the push, too: that is what makes one order for all nodes.

mod announcement;
mod entry;
mod hooks;
mod keeper;
mod kept;
mod link;
mod log;
mod membership;
mod outgoing;
mod progress;
mod publisher;
mod reader;
mod reads;
mod recall;
mod seen;
mod server;

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use fanfare_protocol::ChannelKind;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use self::{
    kept::Keep,
    link::Link,
    log::Keys,
    outgoing::{Bounds, New, Outgoing},
    recall::Recalls,
    server::Server,
};
pub(crate) use self::{
    log::Position,
    membership::{Fact, Joining, Membership, Subject},
    progress::{At, Logged, Progress, Standing},
    reads::Unreachable,
    recall::Recall,
};
use super::{Broker, Published, Receipt, Refused, Source};
use crate::{app::App, config::Config, metrics::Metrics, node::Node, tls};

/// The parts of the log. A channel belongs to one, so it has one order. Fixed: all nodes have to agree on it.
const SHARDS: usize = 16;

/// How long a start waits for Redis at most: to connect, and for the first answers.
const STARTING: Duration = Duration::from_secs(5);

/// The tasks whose first attempt a start waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Reader,
    Publisher,
    Keeper,
}

/// Those of them that have not tried yet.
#[derive(Debug)]
struct Starting {
    tasks: Mutex<Vec<Task>>,
    changed: Condvar,
}

impl Starting {
    fn new() -> Self {
        Self { tasks: Mutex::new(vec![Task::Reader, Task::Publisher, Task::Keeper]), changed: Condvar::new() }
    }

    /// A task's attempt has worked or failed.
    fn done(&self, task: Task) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).retain(|waiting| *waiting != task);
        self.changed.notify_all();
    }

    fn wait(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout_while(tasks, STARTING, |tasks| !tasks.is_empty());
    }
}

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
    /// A random number that tells this process from all others that ever published.
    publisher: u64,
    outgoing: Mutex<Outgoing>,
    /// Something waits to be sent, or the end has come.
    work: Notify,
    /// Names this node in Redis; another one for each process, whatever it is called elsewhere.
    node_name: String,
    /// What this node tells of itself.
    membership: Arc<Membership>,
    /// How far this node has come in the logs.
    progress: Arc<Progress>,
    recalls: Recalls,
    /// How long events stay in the logs.
    log_window: Duration,
    /// For reads, while Redis is there.
    reads: Mutex<Option<Link>>,
    /// Clients have left: the node says goodbye.
    leaving: AtomicBool,
    /// The node has said goodbye.
    left: Notify,
    /// No webhook event is this node's any more.
    delivered: Notify,
    /// The last event is sent, and nothing more is taken.
    sent: Notify,
    /// The thread has to end, whether everything is sent or not.
    end: Notify,
    starting: Starting,
    metrics: Arc<Metrics>,
}

impl Redis {
    /// # Errors
    /// A URL that names no server.
    pub(crate) fn new(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let (recovery, config) = (&config.recovery, &config.broker);
        tls::choose_crypto();
        let server = Server::new(config).context("broker.url does not name a Redis server")?;
        let bounds = Bounds { bytes: config.max_buffer_bytes, wait: config.buffer_time, window: config.window };
        let shared = Shared {
            server,
            keys: Keys::new(&config.prefix),
            bounds,
            publisher: rand::random(),
            outgoing: Mutex::new(Outgoing::new(bounds)),
            work: Notify::new(),
            node_name: format!("{:016x}", rand::random::<u64>()),
            membership: Arc::new(Membership::new()),
            progress: Arc::new(Progress::new()),
            recalls: Recalls::default(),
            log_window: config.window.max(if recovery.enabled { recovery.window } else { Duration::ZERO }),
            reads: Mutex::default(),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
            delivered: Notify::new(),
            sent: Notify::new(),
            end: Notify::new(),
            starting: Starting::new(),
            metrics: Arc::clone(metrics),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts the thread that talks to Redis. It ends with the process, or when [`Redis::stop`] is done.
    ///
    /// Returns when all tasks have tried Redis. From then on no client misses an event: either events come, or it is known that they have
    /// to be read from the log later. That takes some round trips, or if nothing answers at Redis' address, as long as it takes to give up
    /// connecting.
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
                    () = keeper::run(&shared, &node) => {}
                    () = hooks::run(&shared, &node) => {}
                    () = recall::run(&shared, &node) => {}
                    () = shared.server.watch() => {}
                    () = shared.end.notified() => {}
                }
            });
        })?;
        tracing::info!(
            node = self.shared.node_name,
            "nodes share events, members, users and counts through Redis at {}",
            self.shared.server.address()
        );
        self.shared.starting.wait();
        Ok(())
    }

    /// What this node tells of itself; for its directories.
    pub(crate) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.shared.membership)
    }

    /// How far this node has come in the logs; for its directories.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.shared.progress)
    }

    /// Says goodbye, takes no more events, and waits until those it took are in Redis. Returns how many are not there by the deadline.
    pub(crate) async fn stop(&self, deadline: Instant) -> usize {
        let (left, sent) = (self.shared.left.notified(), self.shared.sent.notified());
        let _ = timeout_at(deadline, self.shared.delivered.notified()).await;
        self.shared.leaving.store(true, Ordering::SeqCst);
        self.shared.membership.wake();
        let _ = timeout_at(deadline, left).await;
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

    fn reads(&self) -> Option<Link> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_reads(&self, link: Option<Link>) {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    fn publish(&self, events: impl Iterator<Item = New>) -> Result<Receipt, Refused> {
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
        let (app, policy) = (app.id.as_str(), app.policy());
        self.shared.publish(events.map(|event| {
            let channel = event.publication.channel;
            let kept = event.source == Source::Api && ChannelKind::of(channel).cache;
            let keep = kept.then(|| Keep::of(&policy.config));
            let asked = event.position.is_some();
            New { shard: shard(app, channel), bytes: entry::event(app, &event), keep, asked }
        }))
    }

    fn cluster(&self) -> Option<&Redis> {
        Some(self)
    }

    fn terminate(&self, app: &App, user_id: &str) -> Result<Receipt, Refused> {
        let app = app.id.as_str();
        let bytes = entry::terminate(app, user_id);
        let end = New { shard: shard(app, user_id), bytes, keep: None, asked: false };
        self.shared.publish(std::iter::once(end))
    }
}

/// The shard of an app's channel: FNV-1a, which is the same on all nodes and in all versions.
fn shard(app: &str, channel: &str) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in app.bytes().chain([0]).chain(channel.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    // Both halves are mixed: the low bits of the hash depend only on the low bits of the input.
    usize::try_from((hash ^ (hash >> 32)) % SHARDS as u64).unwrap_or_default()
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
