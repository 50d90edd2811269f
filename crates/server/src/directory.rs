//! What is true of an app's channels on this node: subscribers, members, kept events, and who has to hear of a change.
//!
//! The entry lock of a channel gives it one order for everybody. Subscribing, leaving, publishing and every announcement
//! are decided **and** handed to the workers' inboxes under it; nothing waits under it. So a subscriber's
//! `subscription_succeeded` precedes each event of the channel, a presence snapshot agrees with the `member_*` frames that
//! follow, and subscribers of different workers see the same order.
//!
//! Lock order: a channel's entry, then an inbox, a due list or the webhook queue. Never two entries at once.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `subscribe` | how a connection becomes a subscriber, and how it stops being one |
//! | `publish` | how an event reaches the subscribers |
//! | `reads` | what the HTTP API and the metrics ask |
//! | `channel`, `members` | one channel's entry, and the users in it |
//! | `users` | who is signed in, and who watches them |
//! | `recovery`, `positions` | the last events of a channel, for clients that lost their connection |
//! | `cluster`, `kept` | presence channels and cache channels that other nodes have, too |
//! | `due` | what has to be done later |

mod channel;
mod cluster;
mod due;
mod kept;
mod members;
mod positions;
mod publish;
mod reads;
mod recovery;
mod subscribe;
mod users;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use dashmap::{DashMap, mapref::one::RefMut};
use fanfare_protocol::{
    ChannelKind, server_event,
    webhook::{WebhookEvent, WebhookEventType},
};
use tokio::time::Instant;

use self::{channel::Channel, due::DueList, recovery::Recovery};
pub(crate) use self::{
    cluster::{JoinAnswer, Verdict},
    kept::Kept,
    publish::Publication,
    recovery::{Outcomes, PastEvent, Recalled, Recovering, RecoverySetup, Want, saved},
    subscribe::{ChannelFull, Subscription},
    users::{Asked, SignedIn, Users},
};
use crate::{broker::Membership, config::AppConfig, frame::Frame, metrics::AppMetrics, webhook::AppWebhooks};

/// Names a channel of this node for as long as anybody is subscribed; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct ChannelId(u64);

static NEXT_CHANNEL_ID: AtomicU64 = AtomicU64::new(0);

/// The channels of one app.
#[derive(Debug)]
pub(crate) struct Directory {
    channels: DashMap<Arc<str>, Channel>,
    rules: ArcSwap<Rules>,
    recovery: Recovery,
    webhooks: AppWebhooks,
    metrics: Arc<AppMetrics>,
    /// How many channels there are.
    count: AtomicUsize,
    /// Events kept by cache channels.
    cached: AtomicUsize,
    /// Channels whose count is to be announced later.
    counts_due: DueList<Arc<str>>,
    /// Channels whose kept event runs out.
    caches_due: DueList<Arc<str>>,
    /// Channels where somebody waits for the other nodes.
    joins_due: DueList<Arc<str>>,
    /// Whose channels they are.
    app: Arc<str>,
    /// Tells other nodes of them; `None`: this node is alone.
    membership: Option<Arc<Membership>>,
    /// Channels whose kept events get old, or are not needed any more.
    rings_due: DueList<Arc<str>>,
}

/// The part of an app's policy that concerns channels.
#[derive(Debug)]
struct Rules {
    subscription_count: bool,
    max_channels: usize,
    max_presence_members: usize,
    max_cached_events: usize,
    cache_ttl: Duration,
}

impl Rules {
    fn of(app: &AppConfig) -> Self {
        Self {
            subscription_count: app.subscription_count,
            max_channels: app.max_channels,
            max_presence_members: app.max_presence_members,
            max_cached_events: app.max_cached_events,
            cache_ttl: app.cache_ttl,
        }
    }
}

impl Directory {
    pub(crate) fn new(
        app: &AppConfig,
        recovery: &Arc<RecoverySetup>,
        webhooks: AppWebhooks,
        metrics: Arc<AppMetrics>,
        membership: Option<Arc<Membership>>,
    ) -> Self {
        Self {
            recovery: Recovery::new(app, recovery),
            channels: DashMap::new(),
            rules: ArcSwap::from_pointee(Rules::of(app)),
            webhooks,
            metrics,
            count: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            counts_due: DueList::default(),
            caches_due: DueList::default(),
            joins_due: DueList::default(),
            app: app.id.as_str().into(),
            membership,
            rings_due: DueList::default(),
        }
    }

    /// From now on `app` holds: for whoever joins, and for what is announced or kept.
    pub(crate) fn set(&self, app: &AppConfig) {
        self.rules.store(Rules::of(app).into());
        self.recovery.set(app);
    }

    /// A channel's entry, locked; made if there is none.
    fn channel(&self, name: &str, kind: ChannelKind) -> RefMut<'_, Arc<str>, Channel> {
        if let Some(channel) = self.channels.get_mut(name) {
            return channel;
        }
        let name: Arc<str> = name.into();
        let make = || {
            self.count.fetch_add(1, Ordering::Relaxed);
            Channel::new(ChannelId(NEXT_CHANNEL_ID.fetch_add(1, Ordering::Relaxed)), Arc::clone(&name), kind)
        };
        self.channels.entry(Arc::clone(&name)).or_insert_with(make)
    }

    fn forget_if_unused(&self, name: &str, now: Instant) {
        self.channels.remove_if_mut(name, |_, channel| {
            let cached = channel.cached.is_some();
            let unused = channel.is_unused(now);
            if unused && cached {
                self.cached.fetch_sub(1, Ordering::Relaxed);
            }
            if unused {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            unused
        });
    }

    /// Whether a channel is there, or may be made.
    fn has_room_for(&self, name: &str) -> bool {
        self.count.load(Ordering::Relaxed) < self.rules.load().max_channels || self.channels.contains_key(name)
    }

    /// Announces how many subscribers a channel has: at once up to a hundred, then every five seconds.
    fn count_changed(&self, channel: &mut Channel, now: Instant) {
        if channel.kind.presence || channel.kind.user || !self.rules.load().subscription_count {
            return;
        }
        match channel.count_due(now) {
            None => self.announce_count(channel, now),
            Some(due) => {
                if channel.arrange_count() {
                    self.counts_due.add(due, Arc::clone(&channel.name));
                }
            }
        }
    }

    fn announce_count(&self, channel: &mut Channel, now: Instant) {
        let count = channel.subscribers;
        channel.counted(now);
        if count > 0 {
            channel.announce(&Frame::text(&server_event::subscription_count(&channel.name, count)));
        }
        self.tell(channel, WebhookEventType::SubscriptionCount, |channel| WebhookEvent::SubscriptionCount {
            channel,
            subscription_count: count,
        });
    }

    /// Hands a transition to the webhooks, if any endpoint wants it. A user's own channel (`#server-to-user-`) is not told of.
    fn tell(&self, channel: &Channel, kind: WebhookEventType, event: impl FnOnce(Box<str>) -> WebhookEvent) {
        if self.webhooks.wants(kind) && !channel.kind.user {
            self.webhooks.tell(event((&*channel.name).into()), self.membership.as_deref());
        }
    }

    /// Does what has become due: counts to announce, kept events to forget.
    pub(crate) fn tick(&self, now: Instant) {
        self.expire_joins(now);
        for name in self.rings_due.take(now) {
            self.tend_ring(&name, now);
        }
        for name in self.counts_due.take(now) {
            if let Some(mut channel) = self.channels.get_mut(&*name)
                && channel.take_arranged_count()
            {
                self.count_changed(&mut channel, now);
            }
        }
        for name in self.caches_due.take(now) {
            let Some(mut channel) = self.channels.get_mut(&*name) else { continue };
            channel.remembers_miss = false;
            match &mut channel.cached {
                // Its turn is still to come: this one was a miss's, or that of an event that was to be kept for longer.
                Some(cached) if cached.due > now => {}
                // It was renewed since.
                Some(cached) if cached.expires > now => {
                    cached.due = cached.expires;
                    self.caches_due.add(cached.due, name);
                }
                _ => {
                    if channel.cached.take().is_some() {
                        self.cached.fetch_sub(1, Ordering::Relaxed);
                    }
                    drop(channel);
                    self.forget_if_unused(&name, now);
                }
            }
        }
    }
}
