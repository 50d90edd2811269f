//! Webhooks: what apps are told of their channels, decided, queued, signed and delivered.
//!
//! Whoever holds a channel's entry lock reports a transition with [`AppWebhooks::enqueue`], which never waits. From there
//! one task, the dispatcher, owns the way: it holds back who may return ([`debounce`]), picks the endpoints that asked
//! ([`endpoint`]) and fills their queues ([`queue`]); each endpoint with something waiting has a task of its own that
//! sends and retries ([`delivery`]), so that a slow or dead one delays nobody else.
//!
//! ```text
//! directory -> AppWebhooks::enqueue -> intake -> dispatcher -> debounce -> queue of endpoint 1 -> delivery, one request at a time
//!  (any thread, under a lock)         (bounded)                         -> queue of endpoint 2 -> delivery
//! ```
//!
//! An event carries its app from the start, and an endpoint its app's key and secret: there is no place where the events
//! of two apps could mix. Left to the directory: what a transition is, how often `subscription_count` and `cache_miss`
//! are reported, and that server-to-user channels report nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fanfare_protocol::{
    AppId,
    signature::Signer,
    webhook::{WebhookEvent, WebhookEventType},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub(crate) use self::{
    claim::{Claim, Entry, Tenure},
    endpoint::WebhookConfigError,
};
use self::{
    delivery::Delivery,
    dispatcher::{Dispatcher, Flush, Message},
    endpoint::{Endpoint, EventTypes, Settings},
};
use crate::{
    broker::Membership,
    config::{AppConfig, WebhooksConfig},
    limits::WEBHOOK_INTAKE_EVENTS,
    metrics::{AppMetrics, Counter, Metrics, WebhookCounters},
};

mod claim;
mod debounce;
mod delivery;
mod dispatcher;
mod endpoint;
mod queue;
#[cfg(test)]
mod tests;

/// The sending side of all webhooks. Cheap to clone; used by any thread.
#[derive(Clone)]
pub(crate) struct Webhooks {
    intake: mpsc::Sender<Message>,
    counters: Arc<NodeCounters>,
    metrics: Arc<Metrics>,
    /// Everything is sent or given up.
    flushed: Arc<AtomicBool>,
}

/// What happened to the webhooks of all apps since the start.
#[derive(Debug, Default)]
struct NodeCounters {
    all: WebhookCounters,
    /// Those of `overflowed` that found the intake full and are not in the log yet: enqueueing must not write it.
    unlogged: AtomicU64,
}

impl NodeCounters {
    /// Counts for the node and for the app.
    fn add(&self, app: &AppMetrics, counter: impl Fn(&WebhookCounters) -> &Counter, count: u64) {
        counter(&self.all).add(count);
        counter(&app.webhooks).add(count);
    }
}

/// The webhooks of one app, prepared. Cheap to clone; all clones change together.
#[derive(Clone)]
pub(crate) struct AppWebhooks {
    app: Arc<ArcSwap<App>>,
    webhooks: Webhooks,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("counters", &self.counters.all).finish_non_exhaustive()
    }
}

impl fmt::Debug for AppWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppWebhooks").field("app", &self.app.load().id).finish_non_exhaustive()
    }
}

/// One app, as webhooks see it.
struct App {
    id: AppId,
    /// What at least one endpoint needs to hear of.
    needed: EventTypes,
    endpoints: Vec<Arc<Endpoint>>,
    metrics: Arc<AppMetrics>,
}

/// What waits for the endpoints of an app.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) events: usize,
    /// For how long the oldest one has.
    pub(crate) oldest: Duration,
}

/// An event and whose it is.
struct Notice {
    app: Arc<App>,
    event: WebhookEvent,
    /// Its place in the queue that all nodes share, if it comes from there.
    claim: Option<Arc<Claim>>,
}

impl Webhooks {
    /// Starts the delivery on the current tokio runtime. It ends with [`Webhooks::flush`], or once every handle is gone
    /// and everything was delivered or dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn start(config: WebhooksConfig, metrics: &Arc<Metrics>) -> Self {
        let (intake, messages) = mpsc::channel(WEBHOOK_INTAKE_EVENTS);
        let counters = Arc::<NodeCounters>::default();
        tokio::spawn(Dispatcher::new(messages, Delivery::new(config, counters.clone())).run());
        Self { intake, counters, metrics: Arc::clone(metrics), flushed: Arc::default() }
    }

    /// Prepares the endpoints of an app. Nothing runs for them until there is something to deliver.
    ///
    /// # Errors
    /// [`WebhookConfigError`] for a URL, header or key that cannot be used. A configuration is checked by calling this.
    pub(crate) fn app(&self, config: &AppConfig) -> Result<AppWebhooks, WebhookConfigError> {
        let app = App::new(config, None, self.metrics.app(&config.id))?;
        Ok(AppWebhooks { app: Arc::new(ArcSwap::from_pointee(app)), webhooks: self.clone() })
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> &WebhookCounters {
        &self.counters.all
    }

    /// Sends what waits, without waiting longer for who might come back, and ends the delivery. To be called once, after
    /// the last event was enqueued; later ones count as dropped. Retries go on until `deadline`. Returns how many events
    /// were dropped meanwhile.
    pub(crate) async fn flush(&self, deadline: Instant) -> usize {
        let (done, dropped) = oneshot::channel();
        // The flush takes its place behind everything that was enqueued before. Both steps fail only if the delivery has ended, and then
        // nothing waits.
        let dropped = match self.intake.send(Message::Flush(Flush { deadline, done })).await {
            Ok(()) => dropped.await.unwrap_or(0),
            Err(_) => 0,
        };
        self.flushed.store(true, Ordering::SeqCst);
        dropped
    }

    /// Whether everything was sent or given up, and nothing more will be.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::SeqCst)
    }

    /// Returns when the delivery has ended.
    #[cfg(test)]
    async fn ended(&self) {
        self.intake.closed().await;
    }
}

impl AppWebhooks {
    /// From now on this is configured. What waits for an endpoint is delivered, also if it is gone.
    ///
    /// # Errors
    /// As [`Webhooks::app`]; then nothing has changed.
    pub(crate) fn set(&self, config: &AppConfig) -> Result<(), WebhookConfigError> {
        let last = self.app.load();
        let app = App::new(config, Some(&last), Arc::clone(&last.metrics))?;
        self.app.store(app.into());
        Ok(())
    }

    /// Whether an event of this type has to be enqueued. A bit test: asked before an event is built.
    ///
    /// These are more than the endpoints ask for: where a departure is wanted, the return has to be known as well.
    pub(crate) fn wants(&self, kind: WebhookEventType) -> bool {
        self.app.load().needed.contains(kind)
    }

    /// Whether there is an endpoint at all.
    pub(crate) fn any(&self) -> bool {
        !self.app.load().endpoints.is_empty()
    }

    /// Hands an event over, as [`AppWebhooks::enqueue`]; with other nodes, to the queue they share, so that it keeps its place among
    /// what they report.
    pub(crate) fn tell(&self, event: WebhookEvent, membership: Option<&Membership>) {
        match membership {
            None => self.enqueue(event),
            Some(membership) => {
                let app = self.app.load();
                if !membership.say(app.id.as_str(), &event) {
                    self.webhooks.counters.add(&app.metrics, |of| &of.overflowed, 1);
                    self.webhooks.counters.unlogged.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Hands over an event from the queue that all nodes share, as [`AppWebhooks::enqueue`].
    pub(crate) fn enqueue_shared(&self, event: WebhookEvent, claim: Arc<Claim>) {
        self.hand_over(event, Some(claim));
    }

    /// Hands an event over. Never waits and does no I/O: it may be called under a lock. When the intake is full, the event
    /// is dropped and counted.
    ///
    /// The order of calls for a channel is the order of delivery, but for the events that are held back.
    pub(crate) fn enqueue(&self, event: WebhookEvent) {
        self.hand_over(event, None);
    }

    fn hand_over(&self, event: WebhookEvent, claim: Option<Arc<Claim>>) {
        let app = self.app.load();
        if !app.endpoints.iter().any(|endpoint| endpoint.needs(&event)) {
            return;
        }
        let counters = &self.webhooks.counters;
        match self.webhooks.intake.try_send(Message::Notice(Notice { app: Arc::clone(&app), event, claim })) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                counters.add(&app.metrics, |of| &of.overflowed, 1);
                counters.unlogged.fetch_add(1, Ordering::Relaxed);
            }
            // A shared event is for the node that comes next.
            Err(mpsc::error::TrySendError::Closed(Message::Notice(Notice { claim: Some(claim), .. }))) => claim.leave(),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                counters.add(&app.metrics, |of| &of.dropped, 1);
            }
        }
    }

    /// What waits for the app's endpoints at this moment.
    pub(crate) fn waiting(&self, now: Instant) -> Backlog {
        let app = self.app.load();
        app.endpoints.iter().map(|endpoint| endpoint.queue.waiting(now)).fold(Backlog::default(), |all, one| Backlog {
            events: all.events + one.events,
            oldest: all.oldest.max(one.oldest),
        })
    }
}

impl App {
    /// `last`: what was configured before. An endpoint with the same URL keeps its queue, and so the order of its events.
    fn new(config: &AppConfig, last: Option<&Self>, metrics: Arc<AppMetrics>) -> Result<Self, WebhookConfigError> {
        let signer = Signer::new(config.oldest_key().1);
        let settings = config.webhooks.iter().map(|webhook| Settings::new(config, &signer, webhook));
        // All are built before any is set, so that an error changes nothing.
        let settings = settings.collect::<Result<Vec<_>, _>>()?;
        let mut kept = last.map(|last| last.endpoints.clone()).unwrap_or_default();
        let endpoint = |(url, settings)| match kept.iter().position(|endpoint| endpoint.url == url) {
            Some(position) => {
                let endpoint = kept.remove(position);
                endpoint.set(settings);
                endpoint
            }
            None => Arc::new(Endpoint::new(config.id.clone(), url, settings, Arc::clone(&metrics))),
        };
        let endpoints: Vec<_> = settings.into_iter().map(endpoint).collect();
        let needed = endpoints.iter().fold(EventTypes::NONE, |all, endpoint| all.union(endpoint.needed()));
        Ok(Self { id: config.id.clone(), needed, endpoints, metrics })
    }
}
