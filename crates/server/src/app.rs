//! One app: its policy, prepared for use, and everything that is true of it right now.

mod database;
mod lookup;
mod origin;
mod policy;
mod store;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use fanfare_protocol::AppId;
use tokio::time::Instant;

pub(crate) use self::{
    database::{AppRow, AppTable, is_database_url},
    lookup::{Loader, Lookups, Missing},
    policy::Policy,
    store::{AppStore, Source, Update},
};
use crate::{
    broker::{AnyBroker, Membership, Redis},
    bucket::{Allowance, Bucket, Exceeded, Rate},
    config::{AppConfig, ServerConfig},
    connection::ConnectionError,
    directory::{Directory, RecoverySetup, Users},
    metrics::{AppMetrics, Metrics, Refusal},
    transport::xhr::Sessions,
    webhook::{AppWebhooks, WebhookConfigError, Webhooks},
};

/// What an app may do only so often, if it is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metered {
    /// Events its backends publish, for each channel.
    BackendEvents,
    /// Events of all its clients.
    ClientEvents,
    /// Reads of its backends.
    Reads,
}

impl Metered {
    /// What it is counted as when there are too many.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::BackendEvents => Refusal::BackendEvents,
            Self::ClientEvents => Refusal::TotalClientEvents,
            Self::Reads => Refusal::Reads,
        }
    }

    /// What there are too many of.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BackendEvents => "events",
            Self::ClientEvents => "client events",
            Self::Reads => "reads",
        }
    }

    /// The setting that says how many there may be.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::BackendEvents => "max_backend_events_per_second",
            Self::ClientEvents => "max_total_client_events_per_second",
            Self::Reads => "max_reads_per_second",
        }
    }

    /// What an error adds, if whoever reads it may want to know more.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Self::BackendEvents => "each channel of an event counts, and nothing was published; ",
            Self::ClientEvents | Self::Reads => "",
        }
    }
}

/// One app. Its id, channels, users and counters stay for as long as it has connections. What it may do is a [`Policy`], which can change
/// at any time: each decision asks for the policy that holds then.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: AppId,
    /// Bytes that may wait for one connection.
    pub(crate) max_outbox_bytes: usize,
    pub(crate) metrics: Arc<AppMetrics>,
    /// What carries its events to the subscribers.
    pub(crate) broker: AnyBroker,
    /// Tells other nodes what holds here; `None`: this node is alone.
    pub(crate) membership: Option<Arc<Membership>>,
    pub(crate) webhooks: AppWebhooks,
    /// Its channels.
    pub(crate) directory: Directory,
    /// Its signed-in users.
    pub(crate) users: Users,
    /// Its clients that have no WebSocket.
    pub(crate) sessions: Sessions,
    policy: ArcSwap<Policy>,
    /// Events of its backends, its clients and its reads, where they are limited.
    backend_events: Bucket,
    client_events: Bucket,
    reads: Bucket,
    /// It comes from the database, not from the configuration.
    of_database: AtomicBool,
    /// Somebody asked for it since this was last looked at.
    used: AtomicBool,
    /// It was removed. It is forgotten with its last connection.
    removed: AtomicBool,
    connections: AtomicUsize,
    /// Its id, to be shared with what is told of it.
    name: Arc<str>,
    /// The connections of all apps.
    all_connections: Arc<AtomicUsize>,
}

impl App {
    fn new(
        config: AppConfig,
        server: &ServerConfig,
        recovery: &Arc<RecoverySetup>,
        webhooks: &Webhooks,
        metrics: &Metrics,
        broker: &AnyBroker,
        all_connections: &Arc<AtomicUsize>,
    ) -> Result<Self, WebhookConfigError> {
        let metrics = metrics.app(&config.id);
        let webhooks = webhooks.app(&config)?;
        let membership = broker.cluster().map(Redis::membership);
        Ok(Self {
            id: config.id.clone(),
            max_outbox_bytes: server.max_outbox_bytes,
            broker: Arc::clone(broker),
            directory: Directory::new(&config, recovery, webhooks.clone(), Arc::clone(&metrics), membership.clone()),
            users: Users::new(&config, membership.clone()),
            name: config.id.as_str().into(),
            membership,
            sessions: Sessions::default(),
            metrics,
            webhooks,
            policy: ArcSwap::from_pointee(Policy::new(config, server)),
            backend_events: Bucket::default(),
            client_events: Bucket::default(),
            reads: Bucket::default(),
            of_database: AtomicBool::new(false),
            used: AtomicBool::new(true),
            removed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            all_connections: Arc::clone(all_connections),
        })
    }

    /// Its id, to be shared.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What holds now. A few nanoseconds, without a lock; to be kept for one decision, not longer.
    pub(crate) fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// From now on `config` holds, for live connections as well.
    ///
    /// # Errors
    /// A webhook endpoint that cannot be used; then nothing has changed.
    fn set(&self, config: AppConfig, server: &ServerConfig) -> Result<(), WebhookConfigError> {
        self.webhooks.set(&config)?;
        self.directory.set(&config);
        self.users.set(&config);
        self.policy.store(Policy::new(config, server).into());
        Ok(())
    }

    /// Why a connection may not be, or may not stay. `secure`: it is one of TLS.
    pub(crate) fn refuses(&self, secure: bool) -> Option<ConnectionError> {
        let policy = self.policy();
        if self.removed.load(Ordering::SeqCst) {
            Some(ConnectionError::AppNotFound(policy.config.key.as_str().to_owned()))
        } else if !policy.config.enabled {
            Some(ConnectionError::AppDisabled)
        } else if policy.config.require_tls && !secure {
            Some(ConnectionError::TlsRequired)
        } else {
            None
        }
    }

    /// Itself, for somebody who asked for it.
    fn use_now(self: &Arc<Self>) -> Arc<Self> {
        // Read before it is written: as long as nobody writes, all cores keep it in their caches.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Arc::clone(self)
    }

    /// Whether anybody has used it since this was last asked, or still does.
    fn is_in_use(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed) || self.connections() > 0 || !self.directory.is_empty()
    }

    fn is_of(&self, source: Source) -> bool {
        self.of_database.load(Ordering::Relaxed) == (source == Source::Database)
    }

    fn set_source(&self, source: Source) {
        self.of_database.store(source == Source::Database, Ordering::Relaxed);
    }

    /// Counts a connection in, if there is room for it here and on the node. [`App::disconnected`] counts it out.
    ///
    /// # Errors
    /// What is full.
    pub(crate) fn connected(&self, limit_of_node: usize) -> Result<(), ConnectionError> {
        let count_in = |count: &AtomicUsize, limit: usize| {
            let one_more = |count| (count < limit || limit == 0).then_some(count + 1);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
        };
        if !count_in(&self.connections, self.policy().config.max_connections) {
            return Err(ConnectionError::OverQuota);
        }
        if !count_in(&self.all_connections, limit_of_node) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectionError::NodeFull { limit: limit_of_node });
        }
        self.tell_connections();
        Ok(())
    }

    /// Counts a connection out.
    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.all_connections.fetch_sub(1, Ordering::Relaxed);
        self.tell_connections();
    }

    fn tell_connections(&self) {
        if let Some(membership) = &self.membership {
            membership.set_connections(&self.name, || self.connections());
        }
    }

    /// Takes from what the app may do in a second. Returns what is left; `None`: there is no limit.
    ///
    /// # Errors It has done as much as it may already.
    pub(crate) fn take(&self, what: Metered, count: u32) -> Result<Option<Allowance>, Exceeded> {
        let policy = self.policy();
        let (limit, bucket) = match what {
            Metered::BackendEvents => (policy.config.max_backend_events_per_second, &self.backend_events),
            Metered::ClientEvents => (policy.config.max_total_client_events_per_second, &self.client_events),
            Metered::Reads => (policy.config.max_reads_per_second, &self.reads),
        };
        if limit == 0 {
            return Ok(None);
        }
        bucket.take(Rate::per_second(limit), count, Instant::now()).map(Some)
    }

    /// Live connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
