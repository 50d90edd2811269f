//! The apps of this node, by id and by key. Finding one that is known never waits.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::{DashMap, Entry};
use fanfare_protocol::AppId;

use super::{
    App,
    lookup::{Lookups, Missing, Name},
};
use crate::{
    broker::AnyBroker,
    config::{AppConfig, RowDefaults, ServerConfig},
    connection::ConnectionError,
    directory::RecoverySetup,
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
    recovery: Arc<RecoverySetup>,
    webhooks: Webhooks,
    metrics: Arc<Metrics>,
    broker: AnyBroker,
    lookups: Option<Lookups>,
    /// Live connections of all apps.
    connections: Arc<AtomicUsize>,
}

/// Where an app comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The configuration, which wins.
    File,
    /// The database.
    Database,
}

/// What an update came to.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    /// Those that refuse connections now which they did not refuse before.
    pub(crate) closed: Vec<Arc<App>>,
    /// Apps that stay as they were.
    pub(crate) errors: Vec<WebhookConfigError>,
}

/// An app that an update has made, changed or removed.
struct Touched {
    app: Arc<App>,
    /// Why it refused connections without TLS before, if it did. An app that refuses all connections refuses these for the same reason.
    refused: Option<ConnectionError>,
}

impl Touched {
    /// The app, if it refuses connections for another reason than before.
    fn closed(self) -> Option<Arc<App>> {
        let refused = self.app.refuses(false);
        (refused.is_some() && refused != self.refused).then_some(self.app)
    }
}

impl AppStore {
    pub(crate) fn new(
        server: &ServerConfig,
        recovery: &Arc<RecoverySetup>,
        webhooks: &Webhooks,
        metrics: &Arc<Metrics>,
        broker: &AnyBroker,
    ) -> Self {
        Self {
            by_id: DashMap::new(),
            by_key: DashMap::new(),
            changes: Mutex::default(),
            server: server.clone(),
            recovery: Arc::clone(recovery),
            webhooks: webhooks.clone(),
            metrics: Arc::clone(metrics),
            broker: Arc::clone(broker),
            lookups: None,
            connections: Arc::default(),
        }
    }

    /// From now on apps that are not known are asked for.
    pub(crate) fn with_lookups(self, lookups: Option<Lookups>) -> Self {
        Self { lookups, ..self }
    }

    /// A known app, by its id.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.by_id.get(id).filter(|app| !app.removed.load(Ordering::SeqCst)).map(|app| app.use_now())
    }

    /// A known app, by one of its keys.
    pub(crate) fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.by_key.get(key).map(|app| app.use_now())
    }

    /// A known app.
    pub(crate) fn known(&self, name: &Name) -> Option<Arc<App>> {
        match name {
            Name::Id(id) => self.by_id(id),
            Name::Key(key) => self.by_key(key),
        }
    }

    /// The app of an HTTP API path; waits only where the database has to be asked.
    ///
    /// # Errors
    /// There is none, or it cannot be known.
    pub(crate) async fn find_by_id(&self, id: &str) -> Result<Arc<App>, Missing> {
        match self.by_id(id) {
            Some(app) => Ok(app),
            None => self.ask(Name::Id(id.into())).await,
        }
    }

    /// The app of a key; waits only where the database has to be asked.
    ///
    /// # Errors
    /// There is none, or it cannot be known.
    pub(crate) async fn find_by_key(&self, key: &str) -> Result<Arc<App>, Missing> {
        match self.by_key(key) {
            Some(app) => Ok(app),
            None => self.ask(Name::Key(key.into())).await,
        }
    }

    /// Whether an app that is not known may be one of the database.
    pub(crate) fn may_know_key(&self, key: &str) -> bool {
        self.lookups.as_ref().is_some_and(|lookups| lookups.may_know(&Name::Key(key.into())))
    }

    /// Whether there may be apps that are not known yet.
    pub(crate) fn may_know_more(&self) -> bool {
        self.lookups.is_some()
    }

    async fn ask(&self, name: Name) -> Result<Arc<App>, Missing> {
        match &self.lookups {
            Some(lookups) if lookups.may_know(&name) => lookups.ask(name).await,
            _ => Err(Missing::Unknown),
        }
    }

    /// Asks the database for everything again, now. `defaults` is used for columns that rows lack.
    pub(crate) fn refresh(&self, defaults: RowDefaults) {
        if let Some(lookups) = &self.lookups {
            lookups.refresh(defaults);
        }
    }

    /// The apps that the database told of.
    pub(super) fn of_database(&self) -> Vec<Arc<App>> {
        let of_database = |app: &App| app.is_of(Source::Database) && !app.removed.load(Ordering::SeqCst);
        self.by_id.iter().filter(|app| of_database(app)).map(|app| Arc::clone(&app)).collect()
    }

    /// Live connections of all apps.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// All apps, and those removed ones that still have connections.
    pub(crate) fn all(&self) -> Vec<Arc<App>> {
        self.by_id.iter().map(|app| Arc::clone(&app)).collect()
    }

    /// Makes apps known or changes them, and makes others unknown. An app whose configuration is the same is left alone, and so is one that
    /// the configuration file has as well, if the update is the database's.
    pub(crate) fn update(&self, source: Source, set: Vec<AppConfig>, remove: &[AppId]) -> Update {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut update = Update::default();
        let mut touched = Vec::new();
        for id in remove {
            let known = self.by_id.get(id.as_str()).map(|app| Arc::clone(&app));
            if let Some(app) = known.filter(|app| app.is_of(source) && !app.removed.load(Ordering::SeqCst)) {
                let refused = app.refuses(false);
                app.removed.store(true, Ordering::SeqCst);
                update.removed += 1;
                touched.push(Touched { app, refused });
            }
        }
        for config in set {
            match self.set(source, config, &mut update) {
                Ok(Some(touch)) => touched.push(touch),
                Ok(None) => {}
                Err(error) => update.errors.push(error),
            }
        }
        if !touched.is_empty() {
            // Old keys go before new ones come, because a key may have moved from one app to another.
            self.by_key.retain(|key, app| !app.removed.load(Ordering::SeqCst) && app.policy().signer(key).is_some());
            touched.iter().for_each(|touched| self.add_keys(&touched.app));
        }
        update.closed = touched.into_iter().filter_map(Touched::closed).collect();
        update
    }

    /// The app, if it is new or has changed.
    fn set(
        &self,
        source: Source,
        config: AppConfig,
        update: &mut Update,
    ) -> Result<Option<Touched>, WebhookConfigError> {
        let Some(app) = self.by_id.get(config.id.as_str()).map(|app| Arc::clone(&app)) else {
            let app = Arc::new(App::new(
                config,
                &self.server,
                &self.recovery,
                &self.webhooks,
                &self.metrics,
                &self.broker,
                &self.connections,
            )?);
            app.set_source(source);
            self.by_id.insert(app.id.as_str().into(), Arc::clone(&app));
            update.added += 1;
            return Ok(Some(Touched { app, refused: None }));
        };
        if source == Source::Database && app.is_of(Source::File) && !app.removed.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let refused = app.refuses(false);
        app.set_source(source);
        let changed = app.policy().config != config;
        if changed {
            app.set(config, &self.server)?;
        }
        if app.removed.swap(false, Ordering::SeqCst) {
            update.added += 1;
        } else if changed {
            update.changed += 1;
        } else if app.policy().config.keys().all(|(key, _)| self.by_key.contains_key(key.as_str())) {
            return Ok(None);
        }
        // Nothing has changed but that its key is free now: another app had it until now.
        Ok(Some(Touched { app, refused }))
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
