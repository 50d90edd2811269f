//! What is true of an app's channels on this node: subscribers, members, kept events, and who has to hear of a change.
//!
//! The entry lock of a channel gives it one order for everybody. Subscribing, leaving, publishing and every announcement
//! are decided **and** handed to the workers' inboxes under it; nothing waits under it. So a subscriber's
//! `subscription_succeeded` precedes each event of the channel, a presence snapshot agrees with the `member_*` frames that
//! follow, and subscribers of different workers see the same order.
//!
//! Lock order: a channel's entry, then an inbox, a due list or the webhook queue. Never two entries at once.

mod channel;
mod cluster;
mod due;
mod kept;
mod members;
mod recovery;
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
    ChannelKind, ChannelName, Position, SocketId,
    channel::SERVER_TO_USER,
    client_event::RecoverFrom,
    json::EventData,
    presence::Member,
    server_event,
    trigger::{CachedData, ChannelInfo, Info},
    webhook::{WebhookEvent, WebhookEventType},
};
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use self::{
    channel::{Cached, Channel},
    cluster::Asks,
    due::DueList,
    recovery::{Opening, Recovery, Tended},
};
pub(crate) use self::{
    cluster::{JoinAnswer, Verdict},
    kept::Kept,
    recovery::{Outcomes, PastEvent, Recalled, Recovering, RecoverySetup, Want, saved},
    users::{Asked, SignedIn, Users},
};
use crate::{
    broker::{At, Logged, Membership},
    config::AppConfig,
    frame::Frame,
    metrics::AppMetrics,
    timing,
    webhook::AppWebhooks,
    worker::{Address, Command},
};

/// Names a channel of this node for as long as anybody is subscribed; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct ChannelId(u64);

/// When a ring that is in doubt is looked at again.
const RING_PATIENCE: Duration = Duration::from_secs(1);

static NEXT_CHANNEL_ID: AtomicU64 = AtomicU64::new(0);

/// The channels of one app.
#[derive(Debug)]
pub(crate) struct Directory {
    channels: DashMap<Arc<str>, Channel>,
    rules: ArcSwap<Rules>,
    recovery: Recovery,
    webhooks: AppWebhooks,
    metrics: Arc<AppMetrics>,
    /// Channels there are.
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
    /// Where the other nodes are told of them; `None`: there are no others.
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

/// A subscription as its connection remembers it.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: ChannelId,
    /// Who the connection is in a presence channel.
    pub(crate) user_id: Option<Arc<str>>,
    /// What other nodes say to it; `None`: they are not asked.
    pub(crate) verdict: Option<Arc<Verdict>>,
    /// Events the channel had before it; `u64::MAX` if some of them were repeated for it.
    since: u64,
    /// Counted among those who get positions.
    opted_in: bool,
    /// The client asked where it can go on, and was told.
    answered: bool,
}

impl Subscription {
    fn new(channel: &Channel) -> Self {
        Self {
            channel: channel.id,
            user_id: None,
            verdict: None,
            since: channel.published,
            opted_in: false,
            answered: false,
        }
    }

    /// Whether it is counted among those who get positions.
    fn is_opted_in(&self) -> bool {
        self.opted_in || self.verdict.as_ref().is_some_and(|verdict| verdict.is_opted_in())
    }

    /// Whether the client still has to be told where it can go on, now that it says where it was.
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.answered
    }
}

/// There is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChannelFull {
    #[error("the channel has {limit} members, which is its limit (max_presence_members)")]
    Members { limit: usize },
    #[error("the app has {limit} channels, which is its limit (max_channels)")]
    Channels { limit: usize },
}

/// An event on its way to a channel.
#[derive(Debug)]
pub(crate) struct Publication<'a> {
    pub(crate) channel: &'a str,
    pub(crate) event: &'a str,
    pub(crate) data: &'a EventData<'a>,
    pub(crate) except: Option<SocketId>,
    /// When it was asked for, so that it can be told how long it took.
    pub(crate) since: Instant,
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

    /// Makes a connection a subscriber. Its first frames are on the way to it when this returns. `recovering`: what the client wants
    /// back, if it opted in to positions.
    pub(crate) fn subscribe(
        &self,
        address: &Address,
        name: ChannelName<'_>,
        member: Option<&Member>,
        recovering: Option<Recovering<'_>>,
    ) -> Result<(Arc<str>, Subscription), ChannelFull> {
        if !self.has_room_for(name.as_str()) {
            return Err(ChannelFull::Channels { limit: self.rules.load().max_channels });
        }
        let mut channel = self.channel(name.as_str(), name.kind());
        match self.join(&mut channel, address, member, recovering) {
            Ok(subscription) => Ok((Arc::clone(&channel.name), subscription)),
            Err(full) => {
                drop(channel);
                self.forget_if_unused(name.as_str(), timing::now());
                Err(full)
            }
        }
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

    /// Under the channel's lock.
    fn join(
        &self,
        channel: &mut Channel,
        address: &Address,
        member: Option<&Member>,
        recovering: Option<Recovering<'_>>,
    ) -> Result<Subscription, ChannelFull> {
        if let (Some(membership), Some(member)) = (&self.membership, member) {
            return Ok(self.begin_join(membership, channel, address, member, recovering));
        }
        let limit = self.rules.load().max_presence_members;
        let joined = match member {
            Some(member) => Some(channel.members.join(member, limit).ok_or(ChannelFull::Members { limit })?),
            None => None,
        };
        // The others hear of it first; the subscriber is not yet among them.
        if let Some(fragments) = joined.as_ref().and_then(|joined| joined.first.as_ref()) {
            channel.announce(&Frame::text(&server_event::member_added(&channel.name, fragments)));
        }
        let succeeded = match member {
            Some(_) => channel.members.snapshot(&channel.name),
            None => Frame::text(&server_event::subscription_succeeded(&channel.name)),
        };
        let now = timing::now();
        if let Some(membership) = &self.membership
            && channel.kind.cache
            && channel.cached(now).is_none()
        {
            let asks = recovering.map(Asks::of);
            let answered = asks.as_ref().is_some_and(|asks| asks.from.is_some());
            let verdict = self.await_kept(membership, channel, address, Arc::default(), asks);
            return Ok(Subscription { verdict: Some(verdict), answered, ..Subscription::new(channel) });
        }
        let (mut subscription, missed) = self.welcome(channel, address, succeeded, recovering, now);
        if let Some(membership) = &self.membership {
            self.tell_count(membership, channel);
            self.tell_miss(channel, missed);
            return Ok(subscription);
        }
        if channel.subscribers == 1 {
            self.tell(channel, WebhookEventType::ChannelOccupied, |channel| WebhookEvent::ChannelOccupied { channel });
        }
        subscription.user_id = joined.map(|joined| {
            if joined.first.is_some() {
                self.tell(channel, WebhookEventType::MemberAdded, |channel| WebhookEvent::MemberAdded {
                    channel,
                    user_id: (&*joined.user_id).into(),
                });
            }
            joined.user_id
        });
        self.tell_miss(channel, missed);
        self.count_changed(channel, now);
        Ok(subscription)
    }

    /// Makes a connection a subscriber with its first frames, under the channel's lock. Its subscription, and whether a miss is to
    /// be told of.
    fn welcome(
        &self,
        channel: &mut Channel,
        address: &Address,
        succeeded: Frame,
        recovering: Option<Recovering<'_>>,
        now: Instant,
    ) -> (Subscription, bool) {
        let mut subscription = Subscription::new(channel);
        let (frames, missed) = self.first_frames(channel, succeeded, recovering, &mut subscription, now);
        channel.add_subscriber(&address.inbox);
        address.inbox.push(Command::Subscribe { connection: address.connection, channel: channel.id, frames });
        (subscription, missed)
    }

    /// What a subscriber gets before anything live: its success, what it missed or may have of before, and what it is told about
    /// that. Whether a cache channel had no event for it, and its webhook is due.
    fn first_frames(
        &self,
        channel: &mut Channel,
        succeeded: Frame,
        recovering: Option<Recovering<'_>>,
        subscription: &mut Subscription,
        now: Instant,
    ) -> (SmallVec<[Frame; 2]>, bool) {
        let cached = channel.cached(now).map(|cached| cached.frame.clone());
        let opening = match recovering {
            None => {
                let replay = self.recovery.history(channel, now);
                Opening { has_newest: !replay.is_empty(), replay, ..Opening::default() }
            }
            Some(recovering) => {
                subscription.answered = recovering.from.is_some();
                let opening = self.recovery.open(channel, &recovering, cached.is_some(), now);
                self.opt_in(channel, subscription, now);
                opening
            }
        };
        if !opening.replay.is_empty() || cached.is_some() {
            subscription.since = u64::MAX;
        }
        let mut frames: SmallVec<[Frame; 2]> = smallvec![match opening.start {
            Some(start) => succeeded.with_position(start),
            None => succeeded,
        }];
        frames.extend(opening.replay);
        let mut missed = false;
        // Whoever was let in while Redis is away hears later what there is.
        let is_open = cached.is_none() && channel.awaited.is_some();
        if channel.kind.cache && !opening.has_newest && !is_open {
            frames.push(match (cached, opening.cached) {
                (Some(cached), Some(position)) => cached.with_position(position),
                (Some(cached), None) => cached,
                (None, _) => {
                    missed = channel.note_miss(now);
                    Frame::text(&server_event::cache_miss(&channel.name))
                }
            });
        }
        frames.extend(opening.verdict);
        (frames, missed)
    }

    /// Counts a subscription among those who get positions, if its channel has any.
    fn opt_in(&self, channel: &mut Channel, subscription: &mut Subscription, now: Instant) {
        if !subscription.is_opted_in() && self.recovery.keeps(&channel.name, channel.kind) {
            channel.opted_in += 1;
            subscription.opted_in = true;
        }
        if let Some(due) = self.recovery.refresh(channel, now) {
            self.arrange_ring(channel, due);
        }
    }

    /// A subscriber opts in to positions only now, or says only now where it was.
    pub(crate) fn recover_late(
        &self,
        address: &Address,
        name: &str,
        subscription: &mut Subscription,
        recovering: &Recovering<'_>,
    ) {
        let Some(mut entry) = self.channels.get_mut(name).filter(|channel| channel.id == subscription.channel) else {
            return;
        };
        let channel = &mut *entry;
        subscription.answered |= recovering.from.is_some();
        let undisturbed = channel.published == subscription.since;
        let now = timing::now();
        let frames = self.recovery.open_late(channel, recovering, undisturbed, now);
        self.opt_in(channel, subscription, now);
        let frames = frames.into();
        address.inbox.push(Command::Subscribe { connection: address.connection, channel: channel.id, frames });
    }

    /// Sees to it that a channel's ring is looked at when its oldest event is too old, or nobody needs it.
    fn arrange_ring(&self, channel: &mut Channel, due: Instant) {
        if let Some(ring) = &mut channel.ring
            && ring.arrange(due)
        {
            self.rings_due.add(due, Arc::clone(&channel.name));
        }
    }

    /// Ends a subscription. `tell_worker`: whether the connection lives on, so that its worker has to stop delivering to it.
    pub(crate) fn unsubscribe(&self, address: &Address, name: &str, subscription: &Subscription, tell_worker: bool) {
        let Some(mut entry) = self.channels.get_mut(name).filter(|channel| channel.id == subscription.channel) else {
            return;
        };
        let channel = &mut *entry;
        if subscription.is_opted_in() {
            channel.opted_in -= 1;
            if channel.opted_in == 0 {
                self.keep_ring(channel, timing::now());
            }
        }
        if let Some(membership) = &self.membership {
            let refused = subscription.verdict.as_ref().is_some_and(|verdict| verdict.is_refused());
            let waited = self.stop_awaiting(membership, channel, address.connection);
            let subscriber = !refused
                && subscription
                    .user_id
                    .as_ref()
                    .is_none_or(|user_id| self.end_join(membership, channel, address.connection, user_id));
            if subscriber && !waited {
                channel.remove_subscriber(&address.inbox);
                if tell_worker {
                    address.inbox.push(Command::Unsubscribe { connection: address.connection, channel: channel.id });
                }
            }
            self.tell_count(membership, channel);
            return self.left(entry);
        }
        channel.remove_subscriber(&address.inbox);
        if tell_worker {
            let command = Command::Unsubscribe { connection: address.connection, channel: channel.id };
            address.inbox.push(command);
        }
        if let Some(user_id) = &subscription.user_id
            && let Some(fragments) = channel.members.leave(user_id)
        {
            channel.announce(&Frame::text(&server_event::member_removed(&channel.name, &fragments)));
            self.tell(channel, WebhookEventType::MemberRemoved, |channel| WebhookEvent::MemberRemoved {
                channel,
                user_id: (&**user_id).into(),
            });
        }
        self.count_changed(channel, timing::now());
        if channel.subscribers == 0 {
            self.tell(channel, WebhookEventType::ChannelVacated, |channel| WebhookEvent::ChannelVacated { channel });
        }
        self.left(entry);
    }

    /// A connection has left a channel: the last one's going leaves little behind.
    fn left(&self, mut channel: RefMut<'_, Arc<str>, Channel>) {
        if channel.subscribers > 0 || channel.awaited.is_some() {
            return;
        }
        let (name, now) = (Arc::clone(&channel.name), timing::now());
        // A kept event outlives its subscribers, and so does the memory of a miss; the due list removes the channel then.
        if let Some(due) = channel.vacated(now) {
            self.caches_due.add(due, Arc::clone(&name));
        }
        drop(channel);
        self.forget_if_unused(&name, now);
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

    /// Sends an event to a channel's subscribers, and keeps it if it is a cache channel's. The frame is encoded once; a second time with
    /// its position, where somebody may want it back. The position, if it has one.
    pub(crate) fn publish(&self, publication: &Publication<'_>) -> Option<Position> {
        self.publish_late(publication, Duration::ZERO, None)
    }

    /// As [`Directory::publish`], for an event that was published a while ago: so much less long is it kept. `at`: its place in the log
    /// that nodes share, if it is sure.
    pub(crate) fn publish_late(
        &self,
        publication: &Publication<'_>,
        age: Duration,
        at: Option<At>,
    ) -> Option<Position> {
        let Publication { channel: name, event, data, except, since } = *publication;
        let kind = ChannelKind::of(name);
        let frame = || Frame::text(&server_event::channel_event(event, name, data, None));
        let history = self.recovery.keeps_history(name, kind);
        let made = kind.cache || history && self.has_room_for(name);
        if !made {
            // Most triggers of most applications go to channels nobody listens to: those cost no frame.
            let mut channel = self.channels.get_mut(name)?;
            return self.deliver(&mut channel, &frame(), except, since, at);
        }
        let frame = frame();
        let mut channel = self.channel(name, kind);
        if history {
            self.recovery.ring(&mut channel, timing::now());
        }
        let position = self.deliver(&mut channel, &frame, except, since, at);
        if kind.cache {
            let now = timing::now();
            let expires = now + self.rules.load().cache_ttl.saturating_sub(age);
            let left =
                self.keep(&mut channel, Cached { frame, event: event.into(), data: data.literal().into(), expires });
            let is_kept = left.is_none();
            self.answer_waiting_for(&mut channel, left, now);
            drop(channel);
            if !is_kept {
                self.forget_if_unused(name, now);
            }
        }
        position
    }

    fn deliver(
        &self,
        channel: &mut Channel,
        frame: &Frame,
        except: Option<SocketId>,
        since: Instant,
        at: Option<At>,
    ) -> Option<Position> {
        let number = at.map(|at| at.number);
        let keep = !self.recovery.is_shared() || self.recovery.follow(channel, at, timing::now());
        let (position, due) = channel.publish(frame, except, since, keep, number)?;
        self.arrange_ring(channel, due);
        Some(position)
    }

    /// Keeps a channel's ring for a window from now on, whoever is there.
    fn keep_ring(&self, channel: &mut Channel, now: Instant) {
        if let Some(ring) = &mut channel.ring {
            let until = ring.keep(now);
            self.arrange_ring(channel, until);
        }
    }

    /// Whether a channel is there, or may be made.
    fn has_room_for(&self, name: &str) -> bool {
        self.count.load(Ordering::Relaxed) < self.rules.load().max_channels || self.channels.contains_key(name)
    }

    /// How far a channel has come, for a client that will go on from there; from now on its events are kept. `None` if the channel
    /// keeps nothing.
    pub(crate) fn position(&self, name: ChannelName<'_>) -> Option<Position> {
        if !self.recovery.keeps(name.as_str(), name.kind()) || !self.has_room_for(name.as_str()) {
            return None;
        }
        let mut channel = self.channel(name.as_str(), name.kind());
        let now = timing::now();
        let position = self.recovery.ring(&mut channel, now)?.newest();
        self.keep_ring(&mut channel, now);
        Some(position)
    }

    /// The position of an event that is in the log which nodes share; `None` if its channel keeps nothing, or if anything is in doubt.
    pub(crate) fn position_of(&self, name: &str, place: Logged) -> Option<Position> {
        self.recovery.position(name, place)
    }

    /// Keeps a cache channel's last event. If the app keeps as many as it may, it comes back.
    fn keep(&self, channel: &mut Channel, cached: Cached) -> Option<Cached> {
        if channel.cached.is_none() {
            if self.cached.fetch_add(1, Ordering::Relaxed) >= self.rules.load().max_cached_events {
                self.cached.fetch_sub(1, Ordering::Relaxed);
                self.metrics.cache_overflows.increment();
                return Some(cached);
            }
            self.caches_due.add(cached.expires, Arc::clone(&channel.name));
        }
        channel.keep(cached);
        None
    }

    /// Relays a client's event to the other subscribers. Not kept.
    pub(crate) fn relay(&self, publication: &Publication<'_>, user_id: Option<&str>) {
        let Publication { channel: name, event, data, except, since } = *publication;
        if let Some(channel) = self.channels.get_mut(name) {
            let frame = Frame::text(&server_event::channel_event(event, name, data, user_id));
            channel.relay(&frame, except, since);
        }
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

    fn tell_miss(&self, channel: &Channel, missed: bool) {
        if missed {
            self.tell(channel, WebhookEventType::CacheMiss, |channel| WebhookEvent::CacheMiss { channel });
        }
    }

    /// Hands a transition to the webhooks, if any endpoint wants it. A user's own channel is nobody else's business.
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
            match channel.cached(now).map(|cached| cached.expires) {
                // It was renewed since.
                Some(expires) => self.caches_due.add(expires, name),
                None => {
                    if channel.cached.take().is_some() {
                        self.cached.fetch_sub(1, Ordering::Relaxed);
                    }
                    drop(channel);
                    self.forget_if_unused(&name, now);
                }
            }
        }
    }

    /// Drops kept events that are too old, and a ring that nobody needs.
    fn tend_ring(&self, name: &str, now: Instant) {
        let Some(mut entry) = self.channels.get_mut(name) else { return };
        let channel = &mut *entry;
        if self.recovery.is_shared() && channel.opted_in > 0 {
            let kind = channel.kind;
            match self.recovery.ring(channel, now) {
                // It may be new.
                Some(ring) => {
                    ring.arrange(now);
                }
                None if self.recovery.keeps(name, kind) => self.rings_due.add(now + RING_PATIENCE, name.into()),
                None => {}
            }
        }
        // The entry may be that of a ring that has ended.
        if !channel.ring.as_ref().is_some_and(|ring| ring.is_due(now)) {
            return;
        }
        let refresh = self.recovery.refresh(channel, now);
        let Some(ring) = &mut channel.ring else { return };
        match ring.tend(channel.opted_in > 0, refresh, now) {
            Tended::Ended => {
                channel.ring = None;
                drop(entry);
                self.forget_if_unused(name, now);
            }
            Tended::Again(due) => self.arrange_ring(channel, due),
            Tended::Quiet => {}
        }
    }

    /// What the log of all nodes has to be asked for, so that a client can go on in a channel.
    pub(crate) fn want(&self, name: &str, from: RecoverFrom) -> Want {
        let Ok(parsed) = ChannelName::parse(name, usize::MAX) else { return Want::Nothing };
        if !self.recovery.is_shared() || !self.recovery.knows(name, from) || !self.has_room_for(name) {
            return Want::Nothing;
        }
        let (mut channel, now) = (self.channel(name, parsed.kind()), timing::now());
        let want = self.recovery.want(&mut channel, from, now);
        // Until the client subscribes.
        self.keep_ring(&mut channel, now);
        drop(channel);
        self.forget_if_unused(name, now);
        want
    }

    /// What it had.
    pub(crate) fn recalled(&self, name: &str, recalled: Recalled) {
        if let Some(mut channel) = self.channels.get_mut(name) {
            let now = timing::now();
            self.recovery.complete(&mut channel, recalled, now);
            self.keep_ring(&mut channel, now);
        }
    }

    /// How clients' requests to go on where they were have ended.
    pub(crate) fn recoveries(&self) -> &Outcomes {
        &self.recovery.outcomes
    }

    /// What the HTTP API tells of one channel; what does not apply to its kind is left out.
    pub(crate) fn info(&self, name: ChannelName<'_>, info: Info) -> ChannelInfo {
        let channel = self.channels.get(name.as_str());
        let (kind, now) = (name.kind(), timing::now());
        let cached = |channel: &Channel| {
            channel
                .cached(now)
                .map(|cached| CachedData { data: cached.text(), ttl: cached.expires.duration_since(now).as_secs() })
        };
        ChannelInfo {
            occupied: None,
            user_count: (info.user_count && kind.presence)
                .then(|| channel.as_ref().map_or(0, |channel| channel.members.len())),
            subscription_count: (info.subscription_count && self.rules.load().subscription_count)
                .then(|| channel.as_ref().map_or(0, |channel| channel.subscribers)),
            cache: (info.cache && kind.cache).then(|| channel.as_deref().and_then(cached)),
            // Only where events are kept already; `position` begins with it.
            position: (channel.as_deref())
                .filter(|_| info.position)
                .and_then(|channel| Some(channel.ring.as_ref()?.newest().to_string())),
        }
    }

    /// Channels there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is no channel at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events that cache channels keep.
    pub(crate) fn cached_events(&self) -> usize {
        self.cached.load(Ordering::Relaxed)
    }

    /// Whether anybody is subscribed.
    pub(crate) fn is_occupied(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(|channel| channel.subscribers > 0)
    }

    /// The occupied channels with a prefix, without users' own.
    pub(crate) fn occupied(&self, prefix: &str) -> Vec<Arc<str>> {
        let listed = |channel: &Channel| {
            channel.subscribers > 0 && channel.name.starts_with(prefix) && !channel.name.starts_with(SERVER_TO_USER)
        };
        self.channels.iter().filter(|channel| listed(channel)).map(|channel| Arc::clone(&channel.name)).collect()
    }

    /// The distinct users of a presence channel.
    pub(crate) fn user_ids(&self, name: &str) -> Vec<Arc<str>> {
        self.channels.get(name).map(|channel| channel.members.ids().cloned().collect()).unwrap_or_default()
    }

    /// The distinct users of a presence channel, each with its info as JSON.
    pub(crate) fn user_infos(&self, name: &str) -> Vec<(Arc<str>, Option<String>)> {
        let infos = |channel: &Channel| channel.members.infos().map(|(id, info)| (Arc::clone(id), info)).collect();
        self.channels.get(name).map(|channel| infos(&channel)).unwrap_or_default()
    }
}
