//! One channel's entry in the directory.

use std::sync::Arc;

use fanfare_protocol::{ChannelKind, Position, SocketId, json::EventData, limits};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{ChannelId, cluster::Shared, kept::Awaited, members::Members, recovery::Ring};
use crate::{
    frame::Frame,
    timing,
    worker::{Command, Inbox},
};

/// The shortest time between two `cache_miss` webhooks of a channel.
const MISS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// What is true of one channel on this node.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) name: Arc<str>,
    pub(super) kind: ChannelKind,
    /// Connections, on all workers.
    pub(super) subscribers: usize,
    /// The workers that have subscribers, and how many.
    listeners: SmallVec<[(Arc<Inbox>, usize); 2]>,
    /// The users of a presence channel; empty otherwise.
    pub(super) members: Members,
    /// How a presence channel stands with the other nodes.
    pub(super) shared: Option<Box<Shared>>,
    pub(super) cached: Option<Box<Cached>>,
    /// Events published since the channel was made, client events not counted.
    pub(super) published: u64,
    /// The last events, if somebody may want them back.
    pub(super) ring: Option<Box<Ring>>,
    /// Subscriptions whose clients get positions.
    pub(super) opted_in: usize,
    /// The kept event that the cluster was asked for.
    pub(super) awaited: Option<Box<Awaited>>,
    counts: Counts,
    /// When a `cache_miss` webhook was last sent, and whether that still holds: since then no event was kept, nor was the
    /// channel vacated.
    missed: Option<(Instant, bool)>,
    /// The channel is on the due list, and is remembered until then because of `missed`.
    pub(super) remembers_miss: bool,
}

/// When the number of subscribers was last announced.
#[derive(Debug, Default)]
struct Counts {
    announced: Option<Instant>,
    /// A later announcement is already on the due list.
    due: bool,
}

/// The last event of a cache channel.
#[derive(Debug)]
pub(super) struct Cached {
    /// As subscribers got it.
    pub(super) frame: Frame,
    /// Its name.
    pub(super) event: Box<str>,
    /// The data as a JSON string literal.
    pub(super) data: Box<str>,
    pub(super) expires: Instant,
    /// When the due list comes to it: not after `expires`.
    pub(super) due: Instant,
}

impl Cached {
    /// The data as it was published.
    pub(super) fn text(&self) -> String {
        let value = serde_json::from_str::<&RawValue>(&self.data).ok();
        let data = value.and_then(|value| EventData::from_value(value).ok());
        data.map(|data| data.text().into_owned()).unwrap_or_default()
    }
}

impl Channel {
    pub(super) fn new(id: ChannelId, name: Arc<str>, kind: ChannelKind) -> Self {
        Self {
            id,
            name,
            kind,
            subscribers: 0,
            listeners: SmallVec::new(),
            members: Members::default(),
            shared: None,
            cached: None,
            published: 0,
            ring: None,
            opted_in: 0,
            awaited: None,
            counts: Counts::default(),
            missed: None,
            remembers_miss: false,
        }
    }

    /// Hands a frame to every worker that has subscribers: one message each.
    pub(super) fn announce(&self, frame: &Frame) {
        self.hand_over(frame, None, None, None);
    }

    /// As [`Channel::announce`], for a client's event, which has no position. It does not come back to its sender, not even over a socket
    /// that the sender opened later.
    pub(super) fn relay(&self, frame: &Frame, except: Option<SocketId>, since: Instant) {
        self.hand_over(frame, (self.opted_in > 0).then_some(frame), except, Some(since));
    }

    /// As [`Channel::announce`], for a published event, which is kept if anybody may want it back. Then its position is returned, and when
    /// its ring has to be looked at. `keep`: whether it may be kept at all. `number`: its number, where nodes share a log.
    pub(super) fn publish(
        &mut self,
        frame: &Frame,
        except: Option<SocketId>,
        since: Instant,
        keep: bool,
        number: Option<u64>,
    ) -> Option<(Position, Instant)> {
        self.published += 1;
        let Some(ring) = self.ring.as_mut().filter(|_| keep) else {
            // Whoever holds an earlier position would get this event again at a node that is not in doubt.
            let unknown = self.ring.is_some() && self.opted_in > 0;
            let unknown = unknown.then(|| frame.with_position(Position::NONE));
            self.hand_over(frame, unknown.as_ref(), except, Some(since));
            return None;
        };
        let now = timing::now();
        let (positioned, position) = ring.record(frame, except, number, now);
        ring.told = now;
        let due = ring.due_after_event(now);
        self.hand_over(frame, (self.opted_in > 0).then_some(&positioned), except, Some(since));
        Some((position, due))
    }

    /// Hands a frame to those subscribers alone who get positions.
    pub(super) fn inform(&self, frame: &Frame) {
        for (inbox, subscribers) in &self.listeners {
            inbox.push(Command::Inform { channel: self.id, frame: frame.clone(), subscribers: *subscribers });
        }
    }

    /// `since`: when an event was asked for, if it is one.
    fn hand_over(&self, frame: &Frame, positioned: Option<&Frame>, except: Option<SocketId>, since: Option<Instant>) {
        for (inbox, subscribers) in &self.listeners {
            inbox.push(Command::Deliver {
                channel: self.id,
                frame: frame.clone(),
                positioned: positioned.cloned(),
                except,
                subscribers: *subscribers,
                since,
            });
        }
    }

    pub(super) fn add_subscriber(&mut self, inbox: &Arc<Inbox>) {
        self.subscribers += 1;
        match self.listeners.iter_mut().find(|(listener, _)| Arc::ptr_eq(listener, inbox)) {
            Some((_, count)) => *count += 1,
            None => self.listeners.push((Arc::clone(inbox), 1)),
        }
    }

    pub(super) fn remove_subscriber(&mut self, inbox: &Arc<Inbox>) {
        let Some(index) = self.listeners.iter().position(|(listener, _)| Arc::ptr_eq(listener, inbox)) else { return };
        self.subscribers -= 1;
        self.listeners[index].1 -= 1;
        if self.listeners[index].1 == 0 {
            self.listeners.swap_remove(index);
        }
    }

    /// The kept event, unless its time is over.
    pub(super) fn cached(&self, now: Instant) -> Option<&Cached> {
        self.cached.as_deref().filter(|cached| cached.expires > now)
    }

    /// Keeps an event in place of the last one.
    pub(super) fn keep(&mut self, cached: Cached) {
        self.cached = Some(Box::new(cached));
        self.miss_is_over();
    }

    /// A subscriber found no event. Returns whether that is worth a webhook: the first time, then not before an event was kept or the
    /// channel was vacated, and never twice within a second.
    pub(super) fn note_miss(&mut self, now: Instant) -> bool {
        let told = self.missed.is_some_and(|(at, holds)| holds || now.duration_since(at) < MISS_INTERVAL);
        if !told {
            self.missed = Some((now, true));
        }
        !told
    }

    /// An event was kept, here or elsewhere, or everybody has left.
    pub(super) fn miss_is_over(&mut self) {
        if let Some((_, holds)) = &mut self.missed {
            *holds = false;
        }
    }

    /// Everybody has left. Returns until when the channel has to be remembered, unless that is arranged already.
    pub(super) fn vacated(&mut self, now: Instant) -> Option<Instant> {
        self.counts.announced = None;
        self.miss_is_over();
        let until = self.missed.map(|(at, _)| at + MISS_INTERVAL).filter(|until| *until > now)?;
        let arranged = std::mem::replace(&mut self.remembers_miss, true);
        (!arranged).then_some(until)
    }

    /// Whether the channel can be forgotten.
    pub(super) fn is_unused(&self, now: Instant) -> bool {
        self.subscribers == 0
            && self.shared.as_ref().is_none_or(|shared| shared.is_unused())
            && self.cached(now).is_none()
            && self.awaited.is_none()
            && !self.remembers_miss
            && self.ring.is_none()
    }

    /// When the number of subscribers may be announced again; `None` if now.
    pub(super) fn count_due(&self, now: Instant) -> Option<Instant> {
        let next = self.counts.announced.map(|announced| announced + limits::COUNT_INTERVAL);
        next.filter(|next| self.subscribers > limits::COUNT_AT_ONCE && *next > now)
    }

    /// Notes that a later announcement is needed. Returns whether the caller has to put it on the due list, as it is not there yet.
    pub(super) fn arrange_count(&mut self) -> bool {
        !std::mem::replace(&mut self.counts.due, true)
    }

    /// Takes the due list's entry, which has come up. Returns false if it was that of an earlier channel of the same name.
    pub(super) fn take_arranged_count(&mut self) -> bool {
        std::mem::take(&mut self.counts.due)
    }

    /// The number of subscribers was announced.
    pub(super) fn counted(&mut self, now: Instant) {
        self.counts.announced = Some(now);
    }
}
