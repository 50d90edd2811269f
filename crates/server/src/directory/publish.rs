//! How an event reaches a channel's subscribers, and is kept for those who come later.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fanfare_protocol::{ChannelKind, Position, SocketId, json::EventData, server_event};
use tokio::time::Instant;

use super::{
    Directory,
    channel::{Cached, Channel},
};
use crate::{broker::At, frame::Frame, timing};

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
    /// Sends an event to a channel's subscribers, and keeps it if it is a cache channel's. The frame is encoded once; a second time with
    /// its position, where somebody may want it back. Returns the position, if it has one.
    pub(crate) fn publish(&self, publication: &Publication<'_>) -> Option<Position> {
        self.publish_late(publication, Duration::ZERO, None)
    }

    /// As [`Directory::publish`], for an event that was published `age` ago, and so is kept for a shorter time. `at`: its place in the log
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
            let (event, data) = (event.into(), data.literal().into());
            let left = self.keep(&mut channel, Cached { frame, event, data, expires, due: expires });
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

    /// Keeps a cache channel's last event. Returns it if the app keeps as many as it may already.
    pub(super) fn keep(&self, channel: &mut Channel, mut cached: Cached) -> Option<Cached> {
        let due = channel.cached.as_ref().map(|kept| kept.due);
        let is_one_more = due.is_none();
        if is_one_more && self.cached.fetch_add(1, Ordering::Relaxed) >= self.rules.load().max_cached_events {
            self.cached.fetch_sub(1, Ordering::Relaxed);
            self.metrics.cache_overflows.increment();
            return Some(cached);
        }
        // It is looked at when the last one would have been, unless it is kept for less time.
        match due.filter(|due| *due <= cached.expires) {
            Some(due) => cached.due = due,
            None => self.caches_due.add(cached.expires, Arc::clone(&channel.name)),
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
}
