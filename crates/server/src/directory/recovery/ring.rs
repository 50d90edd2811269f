//! The last events of one channel, for clients that come back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_protocol::{Position, SocketId};
use tokio::time::Instant;

use super::{
    policy::Keeping,
    rings::{Place, Rings},
};
use crate::{broker::Standing, frame::Frame, worker::FRAME_COST};

/// What an event costs beside its frame.
const EVENT_COST: usize = 72;

/// The last events of a channel. It begins with the first subscriber that asks for positions, or with the first event of a channel that has
/// a history. Its epoch is never used again.
#[derive(Debug)]
pub(in crate::directory) struct Ring {
    pub(super) keeping: Keeping,
    epoch: u64,
    /// Where nodes share a log: the era in which this node hands on exactly what the log has.
    pub(super) era: u64,
    /// Where nodes share a log: everything up to this number was handed on, also if the channel's newest event is older.
    reached: u64,
    /// Where nodes share a log: it was looked at for events from before this ring.
    pub(super) is_complete: bool,
    /// When those who asked for positions last got one.
    pub(in crate::directory) told: Instant,
    /// Behind a lock of its own, apart from the channel's, so that a publisher to another channel can make room on the node.
    log: Arc<Mutex<Log>>,
    rings: Arc<Rings>,
    /// Until when it stays even without a subscriber that asked for positions.
    until: Instant,
    /// When the due list looks at it next.
    due: Option<Instant>,
}

/// What is left of a ring after a look at it.
#[derive(Debug)]
pub(in crate::directory) enum Tended {
    /// Nobody needs it.
    Ended,
    /// It has to be looked at again.
    Again(Instant),
    /// It is empty; the next event or the last subscriber's leaving says when to look again.
    Quiet,
}

/// The events, none left out.
#[derive(Debug)]
pub(super) struct Log {
    /// The number of the newest event there was.
    newest: u64,
    /// Events up to this number are not held; all behind it are.
    since: u64,
    /// Oldest first; the last is the newest event, unless all are gone.
    events: VecDeque<Event>,
    bytes: usize,
    number: u64,
    /// Where the node's list has it, if it does.
    listed: Option<Place>,
}

/// One event that is kept.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// With its position.
    pub(super) frame: Frame,
    /// The connection that was not to get it.
    pub(super) except: Option<SocketId>,
    pub(super) published: Instant,
    pub(super) number: u64,
}

impl Event {
    fn cost(&self) -> usize {
        self.frame.len() + EVENT_COST
    }
}

/// Events behind a position, taken out for one client.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Where it begins: what the client has before it.
    from: u64,
    /// How many there are, with those that the client is not to get.
    pub(super) events: usize,
    pub(super) frames: Vec<Frame>,
    /// The frames' numbers.
    pub(super) numbers: Vec<u64>,
    /// As an outbox counts them.
    pub(super) bytes: usize,
}

impl Ring {
    pub(super) fn new(keeping: Keeping, rings: &Arc<Rings>, now: Instant) -> Self {
        // 0 stands for no epoch.
        let epoch = std::iter::repeat_with(rand::random).find(|epoch| *epoch != 0).unwrap_or(1);
        Self::continued(keeping, rings, now, Position { epoch, number: 0 })
    }

    /// A ring of a channel whose events have their numbers from a log that nodes share.
    pub(super) fn shared(keeping: Keeping, rings: &Arc<Rings>, now: Instant, epoch: u64, standing: &Standing) -> Self {
        let mut ring = Self::continued(keeping, rings, now, Position { epoch, number: standing.done });
        ring.log().since = standing.begun;
        ring.era = standing.era;
        ring
    }

    /// A ring that goes on where one of an earlier process ended.
    pub(super) fn continued(keeping: Keeping, rings: &Arc<Rings>, now: Instant, newest: Position) -> Self {
        let Position { epoch, number } = newest;
        let events = VecDeque::new();
        let log = Log { newest: number, since: number, events, bytes: 0, number: rings.number(), listed: None };
        Self {
            keeping,
            epoch,
            era: 0,
            reached: 0,
            is_complete: false,
            told: now,
            log: Arc::new(Mutex::new(log)),
            rings: Arc::clone(rings),
            until: now + keeping.window,
            due: None,
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, number: u64) -> Position {
        Position { epoch: self.epoch, number }
    }

    /// The position of the newest event.
    pub(in crate::directory) fn newest(&self) -> Position {
        self.at(self.log().newest.max(self.reached))
    }

    /// Everything up to this number was handed on to its channel.
    pub(super) fn reach(&mut self, number: u64) {
        self.reached = self.reached.max(number);
    }

    /// Whether all events behind a number are held.
    pub(super) fn covers(&self, number: u64) -> bool {
        self.log().since <= number
    }

    /// Keeps an event; with its position, as those get it who asked. `number`: the event's, where nodes share a log.
    pub(in crate::directory) fn record(
        &mut self,
        frame: &Frame,
        except: Option<SocketId>,
        number: Option<u64>,
        now: Instant,
    ) -> (Frame, Position) {
        let mut log = self.log();
        log.newest = number.unwrap_or(log.newest + 1);
        let position = self.at(log.newest);
        let frame = frame.with_position(position);
        let event = Event { frame: frame.clone(), except, published: now, number: position.number };
        self.append(log, event, now);
        (frame, position)
    }

    /// Puts the events of an earlier process into a ring that has none; the last is its newest.
    pub(super) fn restore(&self, events: impl ExactSizeIterator<Item = Event>) {
        let since = self.log().newest.saturating_sub(events.len() as u64);
        self.log().since = since;
        for (number, event) in (since + 1..).zip(events) {
            let published = event.published;
            self.append(self.log(), Event { number, ..event }, published);
        }
    }

    /// Puts events in front that were published before this ring began: all that follow `since`, up to `until` at least.
    pub(super) fn complete(&mut self, since: u64, until: u64, events: Vec<Event>, now: Instant) {
        self.is_complete = true;
        let mut log = self.log();
        if since >= log.since || until < log.since {
            return;
        }
        let (held, end) = (log.events.front().map(|event| event.number), log.since);
        let before = |event: &Event| event.number <= end && held.is_none_or(|held| event.number < held);
        let mut added = 0;
        for event in events.into_iter().rev().filter(before) {
            added += event.cost();
            log.events.push_front(event);
        }
        self.rings.add(added);
        log.bytes += added;
        log.since = since;
        self.bound(log, now);
    }

    fn append(&self, mut log: MutexGuard<'_, Log>, event: Event, now: Instant) {
        let cost = event.cost();
        self.rings.add(cost);
        log.events.push_back(event);
        log.bytes += cost;
        self.bound(log, now);
    }

    fn bound(&self, mut log: MutexGuard<'_, Log>, now: Instant) {
        let limit = self.keeping;
        let mut removed = log.expire(limit, now);
        while log.events.len() > limit.max_events || log.bytes > limit.max_bytes {
            removed += log.drop_oldest();
        }
        let unlisted = log.listed.is_none() && !log.events.is_empty();
        drop(log);
        if unlisted {
            self.rings.list(&self.log);
        }
        self.rings.removed(removed);
        self.rings.bound();
    }

    /// The events behind a position, without those of a client's own sockets; `None` if not all are held any more.
    pub(super) fn behind(&self, position: Position, sockets: &[SocketId], now: Instant) -> Option<Replay> {
        let log = self.current(now);
        let known = log.since..=log.newest.max(self.reached);
        if position.epoch != self.epoch || !known.contains(&position.number) {
            return None;
        }
        let held = log.events.partition_point(|event| event.number <= position.number);
        Some(Replay { from: position.number, ..log.last(log.events.len() - held, sockets) })
    }

    /// The newest events, at most so many.
    pub(super) fn last(&self, count: usize, sockets: &[SocketId], now: Instant) -> Replay {
        let log = self.current(now);
        let count = count.min(log.events.len());
        log.last(count, sockets)
    }

    /// The position that stands before a replay.
    pub(super) fn start(&self, replay: &Replay) -> Position {
        self.at(replay.from)
    }

    /// The log without what is too old.
    fn current(&self, now: Instant) -> MutexGuard<'_, Log> {
        let mut log = self.log();
        let removed = log.expire(self.keeping, now);
        self.rings.removed(removed);
        log
    }

    /// Keeps the ring for a window from now on, even if nobody needs it. Returns until when that is.
    pub(in crate::directory) fn keep(&mut self, now: Instant) -> Instant {
        self.until = now + self.keeping.window;
        self.until
    }

    /// When to look at it again because of an event that is published now. A ring with a history stays as long as it has events, even if
    /// nobody is subscribed.
    pub(in crate::directory) fn due_after_event(&mut self, now: Instant) -> Instant {
        if self.keeping.has_history() { self.keep(now) } else { now + self.keeping.window }
    }

    /// Whether the due list has yet to be told when to look at it.
    pub(in crate::directory) fn arrange(&mut self, due: Instant) -> bool {
        let arranged = self.due.is_some();
        self.due = self.due.or(Some(due));
        !arranged
    }

    /// Whether it is this ring that was to be looked at now, not one that the channel had before.
    pub(in crate::directory) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Drops what is too old. `needed`: whether a subscriber gets positions, and when they have to hear of theirs again, if they do.
    pub(in crate::directory) fn tend(&mut self, needed: bool, refresh: Option<Instant>, now: Instant) -> Tended {
        self.due = None;
        if !needed && self.until <= now {
            return Tended::Ended;
        }
        let oldest = self.current(now).oldest().map(|oldest| oldest + self.keeping.window);
        let end = (!needed).then_some(self.until);
        match [oldest, end, refresh].into_iter().flatten().min() {
            Some(due) => Tended::Again(due),
            None => Tended::Quiet,
        }
    }

    /// What an end of the process would lose.
    pub(super) fn contents(&self, now: Instant) -> (Position, Vec<Event>) {
        let log = self.current(now);
        (self.at(log.newest), log.events.iter().cloned().collect())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.rings.end(&self.log);
    }
}

impl Log {
    /// When the oldest event was published.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.events.front().map(|event| event.published)
    }

    /// Drops the oldest event. Returns how many bytes that were.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let Some(event) = self.events.pop_front() else { return 0 };
        self.since = self.since.max(event.number);
        let bytes = event.cost();
        self.bytes -= bytes;
        // The memory of one burst must not be kept for ever.
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
        bytes
    }

    fn expire(&mut self, keeping: Keeping, now: Instant) -> usize {
        let mut bytes = 0;
        while self.oldest().is_some_and(|oldest| now.duration_since(oldest) >= keeping.window) {
            bytes += self.drop_oldest();
        }
        bytes
    }

    /// Drops everything. Returns how many bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        self.events = VecDeque::new();
        std::mem::take(&mut self.bytes)
    }

    /// Takes its place in the node's list, if it has something to list and is not there.
    pub(super) fn place_to_list(&mut self) -> Option<Place> {
        if self.listed.is_none() {
            self.listed = self.oldest().map(|oldest| (oldest, self.number));
            return self.listed;
        }
        None
    }

    /// Gives up its place in the node's list.
    pub(super) fn unlist(&mut self) -> Option<Place> {
        self.listed.take()
    }

    fn last(&self, count: usize, sockets: &[SocketId]) -> Replay {
        let first = self.events.len() - count;
        // The replay begins behind the last event that is not in it.
        let from = first.checked_sub(1).map_or(self.since, |before| self.events[before].number);
        let mut replay = Replay { from, events: count, ..Replay::default() };
        for event in self.events.range(first..) {
            if !event.except.is_some_and(|except| sockets.contains(&except)) {
                replay.bytes += event.frame.len() + FRAME_COST;
                replay.frames.push(event.frame.clone());
                replay.numbers.push(event.number);
            }
        }
        replay
    }
}
