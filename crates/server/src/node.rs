//! What all workers of one server process share, built once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use crate::{
    app::AppStore,
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
    pub(crate) fn new(config: &Config, webhooks: Webhooks) -> Result<Self, WebhookConfigError> {
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

    /// From now on nobody new is let in, and everybody who is here is sent away.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for inbox in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            inbox.push(Command::Drain);
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
