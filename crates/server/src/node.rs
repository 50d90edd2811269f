//! What all workers of one server process share, built once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, interval, timeout};

use crate::{
    app::AppStore,
    background,
    config::{Config, ServerConfig},
    metrics::Metrics,
    webhook::{WebhookConfigError, Webhooks},
    worker::{Command, Inbox, Pressure},
};

/// One server process: owns the configuration, the apps with their directories, the workers' inboxes and the counters.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: ServerConfig,
    pub(crate) apps: AppStore,
    pub(crate) webhooks: Webhooks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pressure: Arc<Pressure>,
    workers: Mutex<Vec<Arc<Inbox>>>,
    draining: AtomicBool,
}

impl Node {
    /// Builds the node and starts its background thread: webhooks and due announcements. Whatever those take, the workers do
    /// not feel it.
    ///
    /// # Errors
    /// A webhook endpoint that cannot be used, or a thread that cannot be started.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let webhooks = {
            let _context = runtime.enter();
            Webhooks::start(config.webhooks.clone())
        };
        let node = Arc::new(Self::new(config, webhooks)?);
        let (background, delivery) = (background::run(Arc::clone(&node)), node.webhooks.clone());
        std::thread::Builder::new().name("fanfare-background".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! { () = background => {}, () = delivery.ended() => {} }
            });
        })?;
        Ok(node)
    }

    fn new(config: &Config, webhooks: Webhooks) -> Result<Self, WebhookConfigError> {
        let metrics = Arc::<Metrics>::default();
        Ok(Self {
            apps: AppStore::new(&config.apps, &config.server, &webhooks, &metrics)?,
            webhooks,
            metrics,
            pressure: Arc::new(Pressure::new(config.server.max_inbox_bytes)),
            workers: Mutex::default(),
            draining: AtomicBool::new(false),
            config: config.server.clone(),
        })
    }

    /// Makes the inbox of one more worker.
    pub(crate) fn add_worker(&self) -> Arc<Inbox> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u16::try_from(workers.len()).unwrap_or(u16::MAX);
        let inbox = Arc::new(Inbox::new(number, Arc::clone(&self.pressure)));
        workers.push(Arc::clone(&inbox));
        inbox
    }

    /// Lets nobody new in, sends everybody away over the grace period, and delivers the webhooks that wait.
    pub(crate) async fn shutdown(self: Arc<Self>) {
        let grace = self.config.shutdown_grace;
        tracing::info!(connections = self.connections(), ?grace, "shutting down: connections are told to reconnect");
        self.draining.store(true, Ordering::SeqCst);
        for inbox in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            inbox.push(Command::Drain);
        }
        let gone = async {
            let mut ticks = interval(Duration::from_millis(20));
            while self.connections() > 0 {
                ticks.tick().await;
            }
        };
        if timeout(grace, gone).await.is_err() {
            tracing::warn!(connections = self.connections(), "the grace period is over: closing the rest");
        }
        let dropped = self.webhooks.flush(Instant::now() + grace).await;
        if dropped > 0 {
            tracing::warn!(dropped, "webhook events were not delivered before the end of the shutdown");
        }
    }

    /// Whether the server is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Live connections of all apps.
    pub(crate) fn connections(&self) -> usize {
        self.apps.all().map(|app| app.connections()).sum()
    }

    /// Waits until every worker can take more; whether it can before `publish_timeout`.
    pub(crate) async fn room(&self) -> bool {
        // The usual case takes one atomic load and no timer.
        let mut room = std::pin::pin!(std::future::poll_fn(|cx| self.pressure.poll_room(cx)));
        let now = std::future::poll_fn(|cx| Poll::Ready(room.as_mut().poll(cx).is_ready())).await;
        let in_time = now || tokio::time::timeout(self.config.publish_timeout, room).await.is_ok();
        if !in_time {
            self.metrics.publish_timeouts.fetch_add(1, Ordering::Relaxed);
        }
        in_time
    }
}
