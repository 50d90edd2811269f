//! How a connection becomes a subscriber, and how it stops being one.
//!
//! With other nodes, a join may have to wait for them: `cluster` and `kept` make the connection a subscriber later, by the same steps.

use std::sync::Arc;

use dashmap::mapref::one::RefMut;
use fanfare_protocol::{
    ChannelName,
    presence::Member,
    server_event,
    webhook::{WebhookEvent, WebhookEventType},
};
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use super::{ChannelId, Directory, Recovering, Verdict, channel::Channel, cluster::Asks, recovery::Opening};
use crate::{
    frame::Frame,
    timing,
    worker::{Address, Command},
};

/// A subscription as its connection remembers it.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: ChannelId,
    /// Who the connection is in a presence channel.
    pub(crate) user_id: Option<Arc<str>>,
    /// What other nodes say about it; `None`: they are not asked.
    pub(crate) verdict: Option<Arc<Verdict>>,
    /// How many events the channel had before it; `u64::MAX` if some of them were repeated for it.
    pub(super) since: u64,
    /// Counted among those who get positions.
    pub(super) opted_in: bool,
    /// The client asked where it can go on, and was told.
    pub(super) answered: bool,
}

impl Subscription {
    pub(super) fn new(channel: &Channel) -> Self {
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
    pub(super) fn is_opted_in(&self) -> bool {
        self.opted_in || self.verdict.as_ref().is_some_and(|verdict| verdict.is_opted_in())
    }

    /// Whether the client has not been told yet whether it can go on where it was.
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

impl Directory {
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

    /// Joins, under the channel's lock.
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
        // Announced before the subscriber is added, so that only the others hear of it.
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

    /// Makes a connection a subscriber, and sends its first frames, under the channel's lock. Returns its subscription, and whether a cache
    /// miss is to be told.
    pub(super) fn welcome(
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

    /// What a subscriber gets before anything live: its success, what it missed or may have from before, and what it is told about that.
    /// Returns the frames, and whether a cache channel had no event for it, so that the webhook is due.
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
        // Redis is away and its kept event is not known. This subscriber gets it, or the miss, later.
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
    pub(super) fn opt_in(&self, channel: &mut Channel, subscription: &mut Subscription, now: Instant) {
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

    /// A connection has left a channel. If it was the last one, forgets what is not needed any more.
    fn left(&self, mut channel: RefMut<'_, Arc<str>, Channel>) {
        if channel.subscribers > 0 || channel.awaited.is_some() {
            return;
        }
        let (name, now) = (Arc::clone(&channel.name), timing::now());
        // A kept event outlives the subscribers, and so does the memory of a miss. The due list removes the channel when they run out.
        if let Some(due) = channel.vacated(now) {
            self.caches_due.add(due, Arc::clone(&name));
        }
        drop(channel);
        self.forget_if_unused(&name, now);
    }

    pub(super) fn tell_miss(&self, channel: &Channel, missed: bool) {
        if missed {
            self.tell(channel, WebhookEventType::CacheMiss, |channel| WebhookEvent::CacheMiss { channel });
        }
    }
}
