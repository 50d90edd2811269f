//! One tenant: its policy, prepared for use, and everything that is true of it right now.

mod origin;
mod policy;
mod store;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use fanfare_protocol::AppId;

pub(crate) use self::{
    policy::Policy,
    store::{AppStore, Update},
};
use crate::{
    broker::{AnyBroker, Membership, Redis},
    config::{AppConfig, ServerConfig},
    connection::ConnectionError,
    directory::{Directory, Users},
    metrics::{AppMetrics, Metrics},
    transport::xhr::Sessions,
    webhook::{AppWebhooks, WebhookConfigError, Webhooks},
};

/// One tenant. What it is stays for as long as it has connections: its id, channels, users and counters. What it may is a
/// [`Policy`], which can change at any time; whoever asks it anew decides by the new one.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: AppId,
    /// Bytes that may wait for one connection.
    pub(crate) max_outbox_bytes: usize,
    pub(crate) metrics: Arc<AppMetrics>,
    /// What carries its events to the subscribers.
    pub(crate) broker: AnyBroker,
    /// Where the other nodes are told of what holds here; `None`: there are no others.
    pub(crate) membership: Option<Arc<Membership>>,
    pub(crate) webhooks: AppWebhooks,
    /// Its channels.
    pub(crate) directory: Directory,
    /// Its signed-in users.
    pub(crate) users: Users,
    /// Its clients that have no WebSocket.
    pub(crate) sessions: Sessions,
    policy: ArcSwap<Policy>,
    /// Nobody may know it any more. It is forgotten with its last connection.
    removed: AtomicBool,
    connections: AtomicUsize,
    /// Its id, to be shared with what is told of it.
    name: Arc<str>,
}

impl App {
    fn new(
        config: AppConfig,
        server: &ServerConfig,
        webhooks: &Webhooks,
        metrics: &Metrics,
        broker: &AnyBroker,
    ) -> Result<Self, WebhookConfigError> {
        let metrics = metrics.app(&config.id);
        let webhooks = webhooks.app(&config)?;
        let membership = broker.cluster().map(Redis::membership);
        Ok(Self {
            id: config.id.clone(),
            max_outbox_bytes: server.max_outbox_bytes,
            broker: Arc::clone(broker),
            directory: Directory::new(&config, webhooks.clone(), Arc::clone(&metrics), membership.clone()),
            users: Users::new(&config, membership.clone()),
            name: config.id.as_str().into(),
            membership,
            sessions: Sessions::default(),
            metrics,
            webhooks,
            policy: ArcSwap::from_pointee(Policy::new(config, server)),
            removed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        })
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

    /// Why its connections have to go, if they have to.
    pub(crate) fn closed(&self) -> Option<ConnectionError> {
        let policy = self.policy();
        if self.removed.load(Ordering::SeqCst) {
            Some(ConnectionError::AppNotFound(policy.config.key.as_str().to_owned()))
        } else if !policy.config.enabled {
            Some(ConnectionError::AppDisabled)
        } else {
            None
        }
    }

    /// Counts a connection in, if there is room for it. [`App::disconnected`] counts it out.
    pub(crate) fn connected(&self) -> bool {
        let limit = self.policy().config.max_connections;
        let one_more = |count| (count < limit || limit == 0).then_some(count + 1);
        let connected = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        self.tell_connections();
        connected
    }

    /// Counts a connection out.
    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.tell_connections();
    }

    fn tell_connections(&self) {
        if let Some(membership) = &self.membership {
            membership.set_connections(&self.name, || self.connections());
        }
    }

    /// Live connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
