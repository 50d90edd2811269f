//! One tenant: its policy, prepared for use, and everything that is true of it right now.

mod origin;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_protocol::{AppId, AppKey, Signer, limits, presence::MemberLimits, trigger::EventLimits};

use self::origin::OriginPattern;
use crate::{
    broker::AnyBroker,
    config::{AppConfig, ServerConfig},
    directory::{Directory, Users},
    metrics::{Metrics, Refusals},
    webhook::{AppWebhooks, WebhookConfigError, Webhooks},
};

/// One tenant.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: AppId,
    pub(crate) config: AppConfig,
    pub(crate) event_limits: EventLimits,
    pub(crate) member_limits: MemberLimits,
    pub(crate) activity_timeout: Duration,
    pub(crate) authorization_timeout: Duration,
    /// Changes of its subscriptions a connection may make at once: enough to leave all its channels and join as many others.
    pub(crate) subscription_changes: u32,
    /// Bytes that may wait for one connection.
    pub(crate) max_outbox_bytes: usize,
    pub(crate) metrics: Arc<Metrics>,
    /// What its clients and backends were refused.
    pub(crate) refusals: Refusals,
    /// What carries its events to the subscribers.
    pub(crate) broker: AnyBroker,
    pub(crate) webhooks: AppWebhooks,
    /// Its channels.
    pub(crate) directory: Directory,
    /// Its signed-in users.
    pub(crate) users: Users,
    key: AppKey,
    signer: Signer,
    origins: Vec<OriginPattern>,
    connections: AtomicUsize,
}

impl App {
    fn new(
        config: AppConfig,
        server: &ServerConfig,
        webhooks: &Webhooks,
        metrics: &Arc<Metrics>,
        broker: &AnyBroker,
    ) -> Result<Self, WebhookConfigError> {
        let webhooks = webhooks.app(&config)?;
        Ok(Self {
            id: config.id.clone(),
            event_limits: EventLimits {
                event_name_chars: config.max_event_name_length,
                data_bytes: config.max_event_bytes,
                channel_name_bytes: config.max_channel_name_length,
                channels: config.max_channels_per_trigger,
                batch: config.max_batch_events,
                reserved_names: config.allow_reserved_event_names,
            },
            member_limits: MemberLimits { user_id: limits::USER_ID_CHARS, user_info: config.max_user_info_bytes },
            activity_timeout: config.activity_timeout.unwrap_or(server.activity_timeout),
            authorization_timeout: config.authorization_timeout,
            subscription_changes: u32::try_from(config.max_channels_per_connection)
                .unwrap_or(u32::MAX)
                .saturating_mul(2),
            max_outbox_bytes: server.max_outbox_bytes,
            metrics: Arc::clone(metrics),
            refusals: Refusals::default(),
            broker: Arc::clone(broker),
            directory: Directory::new(&config, webhooks.clone(), Arc::clone(metrics)),
            users: Users::new(config.watchlist, config.max_watchlist_users),
            webhooks,
            key: config.key.clone(),
            signer: Signer::new(&config.secret),
            origins: config.allowed_origins.iter().map(|pattern| OriginPattern::new(pattern)).collect(),
            connections: AtomicUsize::new(0),
            config,
        })
    }

    /// The prepared secret of one of the app's keys.
    pub(crate) fn signer(&self, key: &str) -> Option<&Signer> {
        (key == self.key.as_str()).then_some(&self.signer)
    }

    /// Whether pages of this origin may connect. Clients that are no browsers send none, and could send any.
    pub(crate) fn allows_origin(&self, origin: Option<&str>) -> bool {
        origin.is_none_or(|origin| self.origins.iter().any(|pattern| pattern.matches(origin)))
    }

    /// Counts a connection in, if there is room for it. [`App::disconnected`] counts it out.
    pub(crate) fn connected(&self) -> bool {
        let limit = self.config.max_connections;
        let one_more = |count| (count < limit || limit == 0).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts a connection out.
    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Live connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The apps of this node.
#[derive(Debug)]
pub(crate) struct AppStore {
    by_id: HashMap<String, Arc<App>>,
    by_key: HashMap<String, Arc<App>>,
}

impl AppStore {
    /// The apps of the configuration.
    ///
    /// # Errors
    /// [`WebhookConfigError`] names the endpoint that cannot be used.
    pub(crate) fn new(
        apps: &[AppConfig],
        server: &ServerConfig,
        webhooks: &Webhooks,
        metrics: &Arc<Metrics>,
        broker: &AnyBroker,
    ) -> Result<Self, WebhookConfigError> {
        let (mut by_id, mut by_key) = (HashMap::new(), HashMap::new());
        for config in apps {
            let app = Arc::new(App::new(config.clone(), server, webhooks, metrics, broker)?);
            by_key.insert(config.key.as_str().to_owned(), Arc::clone(&app));
            by_id.insert(config.id.as_str().to_owned(), app);
        }
        Ok(Self { by_id, by_key })
    }

    /// The app of an HTTP API path.
    pub(crate) fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id)
    }

    /// The app of a WebSocket URL.
    pub(crate) fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key)
    }

    /// All apps.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_id.values()
    }
}
