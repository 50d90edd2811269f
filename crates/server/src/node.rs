//! What all workers of one server process share, built once.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_protocol::AppId;
use futures_util::future::OptionFuture;
use tokio::{
    sync::Notify,
    time::{Instant, interval, sleep, timeout_at},
};

use crate::{
    admission::Admission,
    app::{AppStore, AppTable, Loader, Lookups, Source, Update},
    background,
    broker::{AnyBroker, Local, Redis},
    config::{AppConfig, BrokerDriver, Config, ServerConfig, XhrConfig},
    directory::{RecoverySetup, saved},
    limits::CLOSE_TIMEOUT,
    metrics::Metrics,
    reload::{Reload, Watch},
    timing::in_time,
    transport::xhr::Addresses,
    webhook::Webhooks,
    worker::{Command, Inbox, Load, Pressure, Ticket},
};

/// One server process: owns the configuration, the apps with their directories, the workers' inboxes and the counters.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: ServerConfig,
    pub(crate) xhr: XhrConfig,
    pub(crate) xhr_addresses: Addresses,
    pub(crate) apps: AppStore,
    pub(crate) admission: Arc<Admission>,
    pub(crate) webhooks: Webhooks,
    pub(crate) metrics: Arc<Metrics>,
    /// Events kept for clients that come back, of all apps.
    pub(crate) recovery: Arc<RecoverySetup>,
    /// Where they are left for the next process; `None`: nowhere.
    rings_file: Option<PathBuf>,
    pub(crate) pressure: Arc<Pressure>,
    /// The broker, if it is one that has to be started and stopped.
    redis: Option<Redis>,
    workers: Mutex<Vec<Arc<Inbox>>>,
    /// The server is about to end: `/up` says so, but new clients are still let in.
    stopping: AtomicBool,
    /// The server ends: nobody new is let in.
    draining: AtomicBool,
    /// Sockets of clients, those that are being closed included.
    clients: AtomicUsize,
    /// The webhooks are delivered: the background thread may end.
    finished: Notify,
}

impl Node {
    /// Builds the node and starts its background thread: webhooks, due announcements, apps of the database, and changes of the
    /// configuration if there is a way to read it again. Whatever these cost, workers are not delayed by it.
    ///
    /// # Errors
    /// A webhook endpoint, a Redis or database URL that cannot be used, or a thread that cannot be started.
    pub(crate) fn start(config: &Config, reload: Option<Reload>, port: u16) -> anyhow::Result<Arc<Self>> {
        let watch = reload.map(|reload| Watch::new(reload, config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let metrics = Arc::new(Metrics::new(config.metrics.clone(), port));
        let made = {
            let _context = runtime.enter();
            let webhooks = Webhooks::start(config.webhooks.clone(), &metrics);
            Self::new(config, webhooks, metrics)
        };
        let (node, loader) = match made {
            Ok(made) => made,
            Err(error) => {
                // Dropped here, among the tasks of another runtime, it would panic.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let node = Arc::new(node);
        let background = Arc::clone(&node);
        std::thread::Builder::new().name("fanfare-background".to_owned()).spawn(move || {
            runtime.block_on(async {
                let finished = background.finished.notified();
                let watch = OptionFuture::from(watch.map(|watch| watch.run(&background)));
                let load = OptionFuture::from(loader.map(|loader| loader.run(&background)));
                let work = async { tokio::join!(background::run(&background), watch, load) };
                tokio::select! { _ = work => {}, () = finished => {} }
            });
        })?;
        if let Some(redis) = &node.redis {
            redis.start(&node)?;
        }
        Ok(node)
    }

    fn new(config: &Config, webhooks: Webhooks, metrics: Arc<Metrics>) -> anyhow::Result<(Self, Option<Loader>)> {
        let redis = match config.broker.driver {
            BrokerDriver::Local => None,
            BrokerDriver::Redis => Some(Redis::new(config, &metrics)?),
        };
        let recovery = Arc::new(RecoverySetup::new(config, redis.as_ref().map(Redis::progress)));
        let broker: AnyBroker = match &redis {
            Some(redis) => Arc::new(redis.clone()),
            None => Arc::new(Local),
        };
        let apps = AppStore::new(&config.server, &recovery, &webhooks, &metrics, &broker);
        if let Some(error) = apps.update(Source::File, config.apps.clone(), &[]).errors.pop() {
            return Err(error.into());
        }
        let database = (!config.database.url.is_empty()).then(|| AppTable::new(&config.database)).transpose()?;
        let (lookups, loader) = database.map(|table| Lookups::new(&config.database, table)).unzip();
        let node = Self {
            apps: apps.with_lookups(lookups),
            admission: Arc::new(Admission::new(&config.limits)),
            redis,
            recovery,
            // Nodes that share a Redis need no file: the log there has the events.
            rings_file: Some(&config.recovery.file)
                .filter(|file| !file.is_empty() && config.broker.driver == BrokerDriver::Local)
                .map(PathBuf::from),
            webhooks,
            metrics,
            pressure: Arc::new(Pressure::new(config.server.max_inbox_bytes)),
            workers: Mutex::default(),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
            finished: Notify::new(),
            config: config.server.clone(),
            xhr: config.xhr.clone(),
            xhr_addresses: Addresses::default(),
        };
        Ok((node, loader))
    }

    /// Makes apps known, changed or unknown, and sends away the connections that may not stay.
    pub(crate) fn update_apps(&self, source: Source, set: Vec<AppConfig>, remove: &[AppId]) -> Update {
        let update = self.apps.update(source, set, remove);
        for error in &update.errors {
            tracing::error!(%error, "an app stays as it was");
        }
        for app in &update.closed {
            let (connections, error) = (app.connections(), app.refuses(false));
            if let Some(error) = error.filter(|_| connections > 0) {
                let which = if app.refuses(true).is_some() { "connections" } else { "connections without TLS" };
                tracing::info!(app.id = %app.id, connections, %error, "closing an app's {which}");
            }
            // A connection that was let in just before is registered before its worker comes to this command.
            for inbox in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                inbox.push(Command::CloseApp { app: Arc::clone(app) });
            }
        }
        update
    }

    /// Makes the inbox of one more worker.
    pub(crate) fn add_worker(&self) -> Arc<Inbox> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u16::try_from(workers.len()).unwrap_or(u16::MAX);
        let inbox = Arc::new(Inbox::new(number, Arc::clone(&self.pressure)));
        workers.push(Arc::clone(&inbox));
        inbox
    }

    /// Says that it will end, lets nobody new in after `shutdown_delay`, sends everybody away over the grace period, and
    /// delivers the webhooks that wait.
    pub(crate) async fn shutdown(self: Arc<Self>) {
        let (delay, grace) = (self.config.shutdown_delay, self.config.shutdown_grace);
        self.stopping.store(true, Ordering::SeqCst);
        if !delay.is_zero() {
            tracing::info!(?delay, "shutting down soon: load balancers get time to send no more clients here");
            sleep(delay).await;
        }
        let end = Instant::now() + grace;
        tracing::info!(connections = self.connections(), ?grace, "shutting down: connections are told to reconnect");
        self.draining.store(true, Ordering::SeqCst);
        // Some of the grace period is left for their goodbyes.
        self.send_away(grace.mul_f32(0.6));
        if !self.have_left(end, Self::clients).await && self.connections() > 0 {
            tracing::warn!(connections = self.connections(), "the grace period is over: closing the rest");
            self.send_away(Duration::ZERO);
            // They leave their channels at once. The webhooks are delivered after that, so that these departures are among them.
            self.have_left(Instant::now() + CLOSE_TIMEOUT, Self::connections).await;
        }
        let dropped = self.webhooks.flush(Instant::now() + grace).await;
        if dropped > 0 {
            tracing::warn!(dropped, "webhook events were not delivered before the end of the shutdown");
        }
        if let Some(redis) = &self.redis {
            let waiting = redis.stop(Instant::now() + grace).await;
            if waiting > 0 {
                tracing::error!(
                    waiting,
                    "events were accepted, but could not be given to Redis before the end of the shutdown"
                );
            }
        }
        self.finished.notify_one();
    }

    /// Takes what an earlier process left for clients that come back. To be called before anybody is served.
    pub(crate) fn load_rings(&self) {
        let Some(file) = &self.rings_file else { return };
        match saved::load(file, &self.apps) {
            Ok(rings) => tracing::info!(rings, file = %file.display(), "events kept by the last process go on"),
            Err(error) => tracing::error!(
                %error, file = %file.display(),
                "cannot use recovery.file, or what the last process kept there: clients that come back after a restart are told that \
                 they missed something"
            ),
        }
    }

    /// Leaves what is kept for clients that come back to the next process. To be called when nothing can be published any more.
    pub(crate) fn save_rings(&self) {
        let Some(file) = &self.rings_file else { return };
        match saved::save(file, &self.apps) {
            Ok(rings) => {
                let bytes = self.recovery.rings.bytes();
                tracing::info!(rings, bytes, file = %file.display(), "kept events are saved for the next start");
            }
            Err(error) => tracing::error!(
                %error, file = %file.display(),
                "cannot save kept events (recovery.file): clients that come back will be told that they missed something"
            ),
        }
    }

    fn send_away(&self, spread: Duration) {
        for inbox in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            inbox.push(Command::Drain { spread });
        }
    }

    /// Waits until a count is zero. Returns whether it was in time.
    async fn have_left(&self, end: Instant, count: impl Fn(&Self) -> usize) -> bool {
        let gone = async {
            let mut ticks = interval(Duration::from_millis(20));
            while count(self) > 0 {
                ticks.tick().await;
            }
        };
        timeout_at(end, gone).await.is_ok()
    }

    /// Counts a client's socket, from its handshake until it is closed.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Client(Arc::clone(self))
    }

    fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Whether the server wants no new clients, and still takes them for a while.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether the server is sending everybody away.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Live connections of all apps.
    pub(crate) fn connections(&self) -> usize {
        self.apps.connections()
    }

    /// Waits until every worker can take more. Returns whether that was before `publish_timeout`.
    pub(crate) async fn room(&self) -> bool {
        let mut ticket = Ticket::default();
        let room = std::future::poll_fn(|cx| self.pressure.poll_room(Load::Events, cx, &mut ticket));
        in_time(self.config.publish_timeout, room).await.is_some()
    }

    /// What waits for the workers: events and answers, in the unit of `max_inbox_bytes`.
    pub(crate) fn inbox_bytes(&self) -> (usize, usize) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|inbox| inbox.weights()).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

/// A client's socket. Counted out when it is dropped.
#[derive(Debug)]
pub(crate) struct Client(Arc<Node>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
