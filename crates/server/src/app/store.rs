//! The apps of this node, by id and by key. Finding one that is known takes no lock of others and no waiting.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use dashmap::{DashMap, Entry};
use fanfare_protocol::AppId;

use super::App;
use crate::{
    broker::AnyBroker,
    config::{AppConfig, ServerConfig},
    metrics::Metrics,
    webhook::{WebhookConfigError, Webhooks},
};

/// The apps of this node.
#[derive(Debug)]
pub(crate) struct AppStore {
    /// Removed apps stay as long as they have connections, so that one that comes back is the same.
    by_id: DashMap<Box<str>, Arc<App>>,
    /// Under each active key.
    by_key: DashMap<Box<str>, Arc<App>>,
    /// Taken by whoever changes the two maps.
    changes: Mutex<()>,
    server: ServerConfig,
    webhooks: Webhooks,
    metrics: Arc<Metrics>,
    broker: AnyBroker,
}

/// What an update came to.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    /// Those changed and removed ones whose connections have to go.
    pub(crate) closed: Vec<Arc<App>>,
    /// Apps that stay as they were.
    pub(crate) errors: Vec<WebhookConfigError>,
}

impl AppStore {
    pub(crate) fn new(server: &ServerConfig, webhooks: &Webhooks, metrics: &Arc<Metrics>, broker: &AnyBroker) -> Self {
        Self {
            by_id: DashMap::new(),
            by_key: DashMap::new(),
            changes: Mutex::default(),
            server: server.clone(),
            webhooks: webhooks.clone(),
            metrics: Arc::clone(metrics),
            broker: Arc::clone(broker),
        }
    }

    /// The app of an HTTP API path.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.by_id.get(id).filter(|app| !app.removed.load(Ordering::SeqCst)).map(|app| Arc::clone(&app))
    }

    /// The app of a WebSocket URL.
    pub(crate) fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.by_key.get(key).map(|app| Arc::clone(&app))
    }

    /// All apps, and those removed ones that still have connections.
    pub(crate) fn all(&self) -> Vec<Arc<App>> {
        self.by_id.iter().map(|app| Arc::clone(&app)).collect()
    }

    /// Makes apps known or changes them, and makes others unknown. An app whose configuration is the same is left alone.
    pub(crate) fn update(&self, set: Vec<AppConfig>, remove: &[AppId]) -> Update {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut update = Update::default();
        let mut touched = Vec::new();
        for id in remove {
            if let Some(app) = self.by_id(id.as_str()) {
                app.removed.store(true, Ordering::SeqCst);
                update.removed += 1;
                touched.push(app);
            }
        }
        for config in set {
            match self.set(config, &mut update) {
                Ok(Some(app)) => touched.push(app),
                Ok(None) => {}
                Err(error) => update.errors.push(error),
            }
        }
        if !touched.is_empty() {
            // Before any is added: a key may have gone from one app to another.
            self.by_key.retain(|key, app| !app.removed.load(Ordering::SeqCst) && app.policy().signer(key).is_some());
            touched.iter().for_each(|app| self.add_keys(app));
        }
        update.closed = touched;
        update.closed.retain(|app| app.closed().is_some());
        update
    }

    /// The app, if it is new or has changed.
    fn set(&self, config: AppConfig, update: &mut Update) -> Result<Option<Arc<App>>, WebhookConfigError> {
        let Some(app) = self.by_id.get(config.id.as_str()).map(|app| Arc::clone(&app)) else {
            let app = Arc::new(App::new(config, &self.server, &self.webhooks, &self.metrics, &self.broker)?);
            self.by_id.insert(app.id.as_str().into(), Arc::clone(&app));
            update.added += 1;
            return Ok(Some(app));
        };
        let changed = app.policy().config != config;
        if changed {
            app.set(config, &self.server)?;
        }
        if app.removed.swap(false, Ordering::SeqCst) {
            update.added += 1;
        } else if changed {
            update.changed += 1;
        } else {
            return Ok(None);
        }
        Ok(Some(app))
    }

    fn add_keys(&self, app: &Arc<App>) {
        if app.removed.load(Ordering::SeqCst) {
            return;
        }
        for (key, _) in app.policy().config.keys() {
            match self.by_key.entry(key.as_str().into()) {
                Entry::Vacant(entry) => {
                    entry.insert(Arc::clone(app));
                }
                Entry::Occupied(entry) if Arc::ptr_eq(entry.get(), app) => {}
                Entry::Occupied(entry) => {
                    let other = &entry.get().id;
                    tracing::error!(app.id = %app.id, %key, "the key is app {other}'s already, and stays with it");
                }
            }
        }
    }

    /// Forgets removed apps whose last connection has gone.
    pub(crate) fn sweep(&self) {
        let gone = |app: &App| app.removed.load(Ordering::SeqCst) && app.connections() == 0;
        if self.by_id.iter().any(|app| gone(&app)) {
            let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            self.by_id.retain(|_, app| !gone(app));
        }
    }
}
