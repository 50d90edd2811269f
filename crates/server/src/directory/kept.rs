//! The last event of a cache channel, where several nodes share it.
//!
//! Each node keeps the events that pass through it. Who subscribes and finds nothing here waits while Redis is asked, and becomes a
//! subscriber only then, so that the kept event comes before everything newer. An event that passes meanwhile is an answer as well.
//!
//! When Redis is away, the wait ends after [`JOIN_TIMEOUT`]: the subscriber is let in without an event, and gets it, or the miss, as soon
//! as there is an answer.

use std::{sync::Arc, time::Duration};

use fanfare_protocol::{json::EventData, server_event};
use tokio::time::Instant;

use super::{
    Directory, Verdict,
    channel::{Cached, Channel},
    cluster::Asks,
};
use crate::{
    broker::Membership,
    frame::Frame,
    limits::JOIN_TIMEOUT,
    timing,
    worker::{Address, ConnectionId},
};

/// Who waits for a channel's last event.
#[derive(Debug)]
pub(super) struct Awaited {
    /// Tells the answer to this question from one to an earlier question.
    question: u64,
    waiting: Vec<Waiting>,
    /// Subscribers who were let in without it.
    admitted: Vec<Address>,
}

#[derive(Debug)]
struct Waiting {
    address: Address,
    since: Instant,
    verdict: Arc<Verdict>,
    /// What is to be answered to a client that opted in to positions.
    asks: Option<Asks>,
}

impl Awaited {
    /// How many wait, and are not subscribers yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// An event that the cluster keeps.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept<'a> {
    pub(crate) event: &'a str,
    pub(crate) data: EventData<'a>,
    /// For how long it will still be kept.
    pub(crate) ttl: Duration,
}

impl Directory {
    /// Lets a connection wait for the channel's last event, under the channel's lock.
    pub(super) fn await_kept(
        &self,
        membership: &Membership,
        channel: &mut Channel,
        address: &Address,
        verdict: Arc<Verdict>,
        asks: Option<Asks>,
    ) -> Arc<Verdict> {
        let since = Instant::now();
        let ask = || {
            let question = membership.ask_kept(&self.app, &channel.name);
            Box::new(Awaited { question, waiting: Vec::new(), admitted: Vec::new() })
        };
        let waiting = Waiting { address: address.clone(), since, verdict: Arc::clone(&verdict), asks };
        channel.awaited.get_or_insert_with(ask).waiting.push(waiting);
        self.joins_due.add(since + JOIN_TIMEOUT, Arc::clone(&channel.name));
        verdict
    }

    /// A connection does not wait any more. Returns whether it did: then it was never a subscriber.
    pub(super) fn stop_awaiting(
        &self,
        membership: &Membership,
        channel: &mut Channel,
        connection: ConnectionId,
    ) -> bool {
        let Some(awaited) = &mut channel.awaited else { return false };
        let before = awaited.waiting.len();
        awaited.waiting.retain(|waiting| waiting.address.connection != connection);
        let waited = awaited.waiting.len() < before;
        awaited.admitted.retain(|address| address.connection != connection);
        if awaited.waiting.is_empty() && awaited.admitted.is_empty() {
            membership.kept_answered(&self.app, &channel.name, awaited.question);
            channel.awaited = None;
        }
        waited
    }

    /// An event was published, which answers those who waited for the last one. `left`: that event, if there was no room to keep it.
    pub(super) fn answer_waiting_for(&self, channel: &mut Channel, left: Option<Cached>, now: Instant) {
        let Some(membership) = &self.membership else { return };
        // Redis keeps the event, whether there is room for it here or not.
        channel.miss_is_over();
        let Some(awaited) = channel.awaited.take() else { return };
        membership.kept_answered(&self.app, &channel.name, awaited.question);
        self.admit(channel, awaited.waiting, left, now);
    }

    /// The cluster has answered. `None`: it keeps no event of this channel.
    pub(crate) fn answer_kept(&self, name: &str, question: u64, kept: Option<&Kept<'_>>) {
        let (Some(membership), Some(mut entry)) = (&self.membership, self.channels.get_mut(name)) else { return };
        let channel = &mut *entry;
        let Some(awaited) = channel.awaited.take_if(|awaited| awaited.question == question) else { return };
        membership.kept_answered(&self.app, &channel.name, question);
        let now = timing::now();
        let mut left = None;
        let frame = match kept {
            Some(Kept { event, data, ttl }) => {
                let frame = Frame::text(&server_event::channel_event(event, name, data, None));
                let (event, data) = ((*event).into(), data.literal().into());
                let expires = now + *ttl;
                left = self.keep(channel, Cached { frame: frame.clone(), event, data, expires, due: expires });
                frame
            }
            None => {
                let missed = channel.note_miss(now);
                self.tell_miss(channel, missed);
                Frame::text(&server_event::cache_miss(name))
            }
        };
        for address in awaited.admitted {
            address.send(frame.clone());
        }
        self.admit(channel, awaited.waiting, left, now);
    }

    /// Lets those in who have waited for too long: Redis is away.
    pub(super) fn admit_late(&self, channel: &mut Channel, now: Instant) {
        let Some(awaited) = &mut channel.awaited else { return };
        let late = |waiting: &Waiting| now.duration_since(waiting.since) >= JOIN_TIMEOUT;
        let (late, waiting): (Vec<_>, _) = std::mem::take(&mut awaited.waiting).into_iter().partition(late);
        awaited.waiting = waiting;
        awaited.admitted.extend(late.iter().map(|waiting| waiting.address.clone()));
        self.admit(channel, late, None, now);
    }

    /// Makes those who waited subscribers. `left`: the event they get, if it is not kept here.
    fn admit(&self, channel: &mut Channel, waiting: Vec<Waiting>, left: Option<Cached>, now: Instant) {
        let is_left = left.is_some();
        if is_left {
            channel.cached = left.map(Box::new);
        }
        for Waiting { address, verdict, asks, .. } in waiting {
            self.welcome_late(channel, &address, &verdict, asks.as_ref(), now);
        }
        if is_left {
            channel.cached = None;
        }
        if let Some(membership) = &self.membership {
            self.tell_count(membership, channel);
        }
    }

    /// The channels with a kept event, of those that are meant.
    pub(crate) fn kept_channels(&self, meant: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let kept = |channel: &Channel| channel.cached.is_some() && meant(&channel.name);
        self.channels.iter().filter(|channel| kept(channel)).map(|channel| Arc::clone(&channel.name)).collect()
    }

    /// Shows the event that a channel keeps.
    pub(crate) fn with_kept<T>(&self, name: &str, show: impl FnOnce(&Kept<'_>) -> T) -> Option<T> {
        let channel = self.channels.get(name)?;
        let now = timing::now();
        let cached = channel.cached(now)?;
        let data = EventData::from_literal(&cached.data)?;
        Some(show(&Kept { event: &cached.event, data, ttl: cached.expires.duration_since(now) }))
    }

    /// Forgets the kept events of the channels that are `meant`, since something newer may have been missed. The next subscriber makes this
    /// node ask the cluster.
    pub(crate) fn forget_kept(&self, meant: impl Fn(&str) -> bool) {
        for name in self.kept_channels(meant) {
            let now = timing::now();
            if let Some(cached) = self.channels.get_mut(&*name).as_mut().and_then(|channel| channel.cached.as_mut()) {
                cached.expires = now;
            }
            self.forget_if_unused(&name, now);
        }
    }
}
