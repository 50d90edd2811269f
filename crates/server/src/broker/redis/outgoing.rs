//! What this node has published: the events that wait for Redis, and those of the last while, should Redis lose its log.
//!
//! ```text
//! lane of a shard:   [ in the log, kept for a replay | under way | waiting ]
//!                     front                                        back
//! ```
//!
//! A state machine without I/O. Sequence numbers are given out here, so the order of a lane is the order of publishing, and
//! stays so whatever is sent again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    SHARDS, entry,
    kept::{InEntry, Keep},
    progress::{self, Logged},
};
use crate::broker::Places;

/// Bytes of events that are packed into one entry of the log.
const ENTRY_BYTES: usize = 128 * 1024;
/// Events of one entry.
const ENTRY_EVENTS: usize = 1024;
/// What an event costs beside its bytes.
const EVENT_COST: usize = 96;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes that may wait for Redis, and as many again that are kept for a replay.
    pub(super) bytes: usize,
    /// How long the oldest may wait before nothing more is taken.
    pub(super) wait: Duration,
    /// How long events are kept for a replay.
    pub(super) window: Duration,
}

/// All lanes of a node.
#[derive(Debug)]
pub(super) struct Outgoing {
    lanes: Vec<Lane>,
    bounds: Bounds,
    /// Cost of the events that have never been in the log.
    waiting: usize,
    /// Cost of those that have.
    kept: usize,
    /// Whether Redis is out of reach: then nobody waits for it.
    down: bool,
    /// Nothing is taken any more.
    closed: bool,
}

/// The events for one shard.
#[derive(Debug, Default)]
struct Lane {
    events: VecDeque<Event>,
    /// The sequence number of the first event in the queue.
    first: u64,
    /// Events at the front that the log of this epoch has.
    logged: usize,
    /// Events at the front that any log has had.
    confirmed: usize,
    /// Events at the front that were sent at all.
    sent: usize,
}

#[derive(Debug)]
struct Event {
    bytes: Box<[u8]>,
    at: Instant,
    /// Cache channels keep it.
    keep: Option<Keep>,
    /// Dropped when the event is as safe as it gets.
    safe: Option<Arc<Safe>>,
    /// Which of the places is this event's, that its publisher asked for.
    asked: Option<u32>,
}

/// Tells a publisher when the last of its events has let go of it, and where they are, if it asked.
#[derive(Debug)]
struct Safe {
    tell: Option<oneshot::Sender<Places>>,
    /// Empty as long as none is known that was asked for.
    places: Mutex<Places>,
}

impl Safe {
    fn note(&self, asked: u32, place: Logged) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked as usize;
        if places.len() <= asked {
            places.resize(asked + 1, None);
        }
        places[asked] = Some(place);
    }
}

impl Drop for Safe {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(std::mem::take(self.places.get_mut().unwrap_or_else(PoisonError::into_inner)));
        }
    }
}

impl Event {
    fn cost(&self) -> usize {
        self.bytes.len() + EVENT_COST
    }
}

/// Events of a lane that go into one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) shard: usize,
    pub(super) count: usize,
    pub(super) entry: Vec<u8>,
    /// The events in it that cache channels keep.
    pub(super) kept: Vec<InEntry>,
    /// Whether somebody asked where one of them will be, and none was ever sent before: then they are nowhere else.
    pub(super) asked: bool,
}

/// An event to publish, encoded.
#[derive(Debug)]
pub(super) struct New {
    pub(super) shard: usize,
    pub(super) bytes: Box<[u8]>,
    pub(super) keep: Option<Keep>,
    /// Whether its publisher wants to know its place in the log.
    pub(super) asked: bool,
}

impl Outgoing {
    pub(super) fn new(bounds: Bounds) -> Self {
        let lanes = (0..SHARDS).map(|_| Lane { first: 1, ..Lane::default() }).collect();
        Self { lanes, bounds, waiting: 0, kept: 0, down: true, closed: false }
    }

    /// Whether there is room for what comes now. Asked once for all events of a request.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        !self.closed && self.waiting < self.bounds.bytes && self.oldest().is_none_or(|at| now - at < self.bounds.wait)
    }

    /// When the event that has waited longest for Redis came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| Some(lane.events.get(lane.confirmed)?.at)).min()
    }

    /// Events that have never been in the log.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.events.len() - lane.confirmed).sum()
    }

    /// Takes the events of one request, in order. Returns what the publisher has to wait for, or `None` if it has not to wait.
    pub(super) fn push(
        &mut self,
        events: impl Iterator<Item = New>,
        now: Instant,
    ) -> Option<oneshot::Receiver<Places>> {
        let (sender, receiver) = oneshot::channel();
        let safe = (!self.down).then(|| Arc::new(Safe { tell: Some(sender), places: Mutex::default() }));
        let mut places = 0..;
        for New { shard, bytes, keep, asked } in events {
            let asked = asked.then(|| places.next()).flatten();
            let event = Event { bytes, at: now, keep, safe: safe.clone(), asked };
            self.waiting += event.cost();
            self.lanes[shard].events.push_back(event);
        }
        safe.map(|_| receiver)
    }

    /// The next entry of each lane that has one. Taken again, it begins with the same events, until they are acknowledged.
    pub(super) fn batches(&mut self, now: Instant, header: impl Fn(usize) -> entry::Header) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (shard, lane) in self.lanes.iter_mut().enumerate() {
            let (mut bytes, mut count) = (0, 0);
            // Events that were in an earlier log (`replay`) or may be in this one already (`again`) are marked as such, so an entry never
            // mixes them with new ones.
            let replay = lane.logged < lane.confirmed;
            let again = lane.logged < lane.sent;
            let end = match (replay, again) {
                (true, _) => lane.confirmed,
                (false, true) => lane.sent,
                (false, false) => lane.events.len(),
            };
            for event in lane.events.range(lane.logged..end).take(ENTRY_EVENTS) {
                if count > 0 && bytes + event.bytes.len() > ENTRY_BYTES {
                    break;
                }
                bytes += event.bytes.len();
                count += 1;
            }
            if count > 0 {
                let first = lane.first + lane.logged as u64;
                let header = entry::Header { first, replay, again, ..header(shard) };
                lane.sent = lane.sent.max(lane.logged + count);
                let events = lane.events.range(lane.logged..lane.logged + count);
                let (mut kept, mut asked, mut end) = (Vec::new(), false, entry::HEADER_BYTES);
                for (number, event) in (header.first..).zip(events.clone()) {
                    let place = end..end + event.bytes.len();
                    end = place.end;
                    asked |= event.asked.is_some();
                    if let Some(keep) = event.keep.and_then(|keep| keep.after(now.saturating_duration_since(event.at)))
                    {
                        kept.push(InEntry { number, place, keep });
                    }
                }
                let entry = entry::pack(header, events.map(|event| &*event.bytes));
                batches.push(Batch { shard, count, entry, kept, asked: asked && !replay && !again });
            }
        }
        batches
    }

    /// The next events of a lane are in this entry of a log, and nowhere else: tells those who asked. To be said before they are
    /// [`logged`](Self::logged).
    pub(super) fn placed(&mut self, shard: usize, count: usize, log: u64, entry: u64) {
        let lane = &self.lanes[shard];
        for (index, event) in lane.events.range(lane.logged..lane.logged + count).enumerate() {
            if let (Some(safe), Some(asked)) = (&event.safe, event.asked) {
                safe.note(asked, Logged { log, number: progress::event(entry, index) });
            }
        }
    }

    /// The log has the next events of a lane.
    pub(super) fn logged(&mut self, shard: usize, count: usize) {
        let lane = &mut self.lanes[shard];
        lane.logged += count;
        lane.sent = lane.sent.max(lane.logged);
        let new = lane.confirmed..lane.logged.max(lane.confirmed);
        for event in lane.events.range_mut(new) {
            event.safe = None;
            self.waiting -= event.cost();
            self.kept += event.cost();
        }
        lane.confirmed = lane.confirmed.max(lane.logged);
    }

    /// The log of a shard is a new one: what is kept goes there again. Returns how many events that are.
    pub(super) fn replay(&mut self, shard: usize) -> usize {
        std::mem::take(&mut self.lanes[shard].logged)
    }

    /// Redis is out of reach. Nobody waits: what is in the buffer stays there.
    pub(super) fn down(&mut self) {
        self.down = true;
        for lane in &mut self.lanes {
            for event in lane.events.range_mut(lane.confirmed..) {
                event.safe = None;
            }
        }
    }

    /// Redis is there.
    pub(super) fn up(&mut self) {
        self.down = false;
    }

    /// From now on nothing is taken.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing is taken and nothing waits.
    pub(super) fn is_done(&self) -> bool {
        self.closed && self.waiting() == 0
    }

    /// Forgets events that have been in the log for long enough, and the oldest of those that are too many to keep.
    pub(super) fn forget(&mut self, now: Instant) {
        // Only from lanes whose front has been logged: what has to be sent again is still needed.
        let oldest = |lanes: &Vec<Lane>| {
            let front = |lane: &Lane| lane.events.front().filter(|_| lane.logged > 0).map(|event| event.at);
            (0..SHARDS).filter_map(|shard| Some((front(&lanes[shard])?, shard))).min()
        };
        while let Some((at, shard)) = oldest(&self.lanes)
            && (now - at > self.bounds.window || self.kept > self.bounds.bytes)
        {
            let lane = &mut self.lanes[shard];
            self.kept -= lane.events.pop_front().map_or(0, |event| event.cost());
            lane.first += 1;
            lane.logged -= 1;
            lane.confirmed -= 1;
            lane.sent -= 1;
        }
        for lane in &mut self.lanes {
            if lane.events.capacity() > 1024 && lane.events.len() < lane.events.capacity() / 4 {
                lane.events.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 10_000, wait: Duration::from_secs(10), window: Duration::from_secs(60) };

    fn outgoing() -> Outgoing {
        let mut outgoing = Outgoing::new(BOUNDS);
        outgoing.up();
        outgoing
    }

    fn push(outgoing: &mut Outgoing, shards: &[usize], now: Instant) -> Option<oneshot::Receiver<Places>> {
        let new = |shard: &usize| New { shard: *shard, bytes: entry::terminate("app", "u"), keep: None, asked: false };
        outgoing.push(shards.iter().map(new), now)
    }

    fn ask(outgoing: &mut Outgoing, shards: &[(usize, bool)]) -> oneshot::Receiver<Places> {
        let new = |(shard, asked): &(usize, bool)| New {
            shard: *shard,
            bytes: entry::terminate("app", "u"),
            keep: None,
            asked: *asked,
        };
        outgoing.push(shards.iter().map(new), Instant::now()).expect("Redis is there")
    }

    /// Sends the next entry of each lane. Those that tell publishers where their events are have this number in the log.
    fn add(outgoing: &mut Outgoing, number: u64) {
        let header = |_| entry::Header { publisher: 1, epoch: 1, first: 0, sent_ms: 0, replay: false, again: false };
        for Batch { shard, count, asked, .. } in outgoing.batches(Instant::now(), header) {
            if asked {
                outgoing.placed(shard, count, 7, number);
            }
            outgoing.logged(shard, count);
        }
    }

    fn place(entry: u64, index: usize) -> Option<Logged> {
        Some(Logged { log: 7, number: progress::event(entry, index) })
    }

    /// Shard, first sequence number, number of events, replay.
    fn next(outgoing: &mut Outgoing) -> Vec<(usize, u64, usize, bool)> {
        let header = |_| entry::Header { publisher: 1, epoch: 1, first: 0, sent_ms: 0, replay: false, again: false };
        let read = |batch: Batch| {
            let (header, told) = entry::read(&batch.entry).unwrap();
            assert_eq!(told.len(), batch.count);
            (batch.shard, header.first, batch.count, header.replay)
        };
        outgoing.batches(Instant::now(), header).into_iter().map(read).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_with_the_same_numbers() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        push(&mut outgoing, &[3, 3, 5], now);
        assert_eq!(next(&mut outgoing), [(3, 1, 2, false), (5, 1, 1, false)]);
        push(&mut outgoing, &[3], now);
        assert_eq!(next(&mut outgoing), [(3, 1, 2, false), (5, 1, 1, false)], "what is new comes behind");
        outgoing.logged(3, 2);
        assert_eq!(next(&mut outgoing), [(3, 3, 1, false), (5, 1, 1, false)]);
        assert_eq!(outgoing.waiting(), 2);
    }

    #[test]
    fn what_may_be_in_the_log_already_is_marked() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        let again = |outgoing: &mut Outgoing| {
            let header =
                |_| entry::Header { publisher: 1, epoch: 1, first: 0, sent_ms: 0, replay: false, again: false };
            let read = |batch: Batch| entry::read(&batch.entry).unwrap().0.again;
            outgoing.batches(now, header).into_iter().map(read).collect::<Vec<_>>()
        };
        push(&mut outgoing, &[3, 5], now);
        assert_eq!(again(&mut outgoing), [false, false]);
        outgoing.logged(3, 1);
        push(&mut outgoing, &[3], now);
        assert_eq!(again(&mut outgoing), [false, true], "shard 5 had no answer");
        outgoing.logged(3, 1);
        outgoing.logged(5, 1);
        outgoing.forget(now + Duration::from_secs(61));
        push(&mut outgoing, &[3, 5], now);
        assert_eq!(again(&mut outgoing), [false, false]);
    }

    #[test]
    fn a_publisher_waits_for_the_last_of_its_events() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        let mut safe = push(&mut outgoing, &[0, 1], now).unwrap();
        outgoing.logged(0, 1);
        assert!(safe.try_recv().is_err());
        outgoing.logged(1, 1);
        assert_eq!(safe.try_recv(), Ok(vec![]));
    }

    #[test]
    fn who_asks_is_told_where_its_events_are() {
        let mut outgoing = outgoing();
        let mut first = ask(&mut outgoing, &[(3, false), (3, true), (5, true)]);
        let mut second = ask(&mut outgoing, &[(3, true), (3, false)]);
        add(&mut outgoing, 40);
        assert_eq!(first.try_recv(), Ok(vec![place(40, 1), place(40, 0)]));
        assert_eq!(second.try_recv(), Ok(vec![place(40, 2)]));
        let mut many = ask(&mut outgoing, &[(2, true); ENTRY_EVENTS + 1]);
        add(&mut outgoing, 50);
        assert!(many.try_recv().is_err(), "the last one is not in the log yet");
        outgoing.forget(Instant::now());
        add(&mut outgoing, 51);
        let places = many.try_recv().unwrap();
        assert_eq!((places[0], places[ENTRY_EVENTS - 1]), (place(50, 0), place(50, ENTRY_EVENTS - 1)));
        assert_eq!(places[ENTRY_EVENTS..], [place(51, 0)]);
    }

    #[test]
    fn no_place_is_told_that_is_not_sure() {
        let mut outgoing = outgoing();
        // Sent, and no answer came: it may be in two places.
        let mut unanswered = ask(&mut outgoing, &[(0, true)]);
        assert_eq!(next(&mut outgoing).len(), 1);
        let mut behind = ask(&mut outgoing, &[(0, true)]);
        add(&mut outgoing, 4);
        assert_eq!(unanswered.try_recv(), Ok(vec![]));
        assert!(behind.try_recv().is_err(), "it is not packed together with what is sent again");
        // The log is a new one: what comes for the second time is not told, what is new is.
        assert_eq!(outgoing.replay(0), 1);
        add(&mut outgoing, 1);
        assert!(behind.try_recv().is_err());
        add(&mut outgoing, 2);
        assert_eq!(behind.try_recv(), Ok(vec![place(2, 0)]));
        // Redis is gone: it stays in the buffer.
        let mut buffered = ask(&mut outgoing, &[(0, true), (1, true)]);
        outgoing.down();
        assert_eq!(buffered.try_recv(), Ok(vec![]));
        outgoing.up();
        add(&mut outgoing, 5);
        assert_eq!(outgoing.waiting(), 0);
    }

    #[test]
    fn nobody_waits_for_a_redis_that_is_out_of_reach() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        let mut safe = push(&mut outgoing, &[0], now).unwrap();
        outgoing.down();
        assert_eq!(safe.try_recv(), Ok(vec![]));
        assert!(push(&mut outgoing, &[0], now).is_none());
        outgoing.up();
        assert_eq!(next(&mut outgoing), [(0, 1, 2, false)]);
    }

    #[test]
    fn the_buffer_is_bounded_in_bytes_and_by_age() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        assert!(outgoing.has_room(now));
        push(&mut outgoing, &[0], now);
        assert!(outgoing.has_room(now + Duration::from_secs(9)));
        assert!(!outgoing.has_room(now + Duration::from_secs(10)));
        outgoing.logged(0, 1);
        assert!(outgoing.has_room(now + Duration::from_secs(10)));
        let taken = (0..1000).take_while(|_| outgoing.has_room(now) && push(&mut outgoing, &[1], now).is_some());
        assert!((60..90).contains(&taken.count()));
        outgoing.close();
        outgoing.logged(1, 10);
        assert!(!outgoing.has_room(now));
    }

    #[test]
    fn a_new_log_gets_what_is_kept_and_what_is_new_apart() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        push(&mut outgoing, &[0, 0, 0], now);
        outgoing.logged(0, 2);
        assert_eq!(outgoing.replay(0), 2);
        assert_eq!(next(&mut outgoing), [(0, 1, 2, true)]);
        // The replay is forgotten neither while it has to be sent nor in its middle.
        outgoing.forget(now + Duration::from_secs(100));
        outgoing.logged(0, 2);
        assert_eq!(next(&mut outgoing), [(0, 3, 1, false)]);
        outgoing.logged(0, 1);
        assert_eq!(next(&mut outgoing), []);
        outgoing.forget(now + Duration::from_secs(59));
        assert_eq!(outgoing.replay(0), 3);
        outgoing.logged(0, 3);
        outgoing.forget(now + Duration::from_secs(61));
        assert_eq!(outgoing.replay(0), 0);
        assert_eq!((outgoing.waiting, outgoing.kept), (0, 0));
        push(&mut outgoing, &[0], now);
        assert_eq!(next(&mut outgoing), [(0, 4, 1, false)]);
    }

    #[test]
    fn what_is_kept_is_bounded_too() {
        let (mut outgoing, now) = (outgoing(), Instant::now());
        for _ in 0..500 {
            push(&mut outgoing, &[2], now);
            outgoing.logged(2, 1);
            outgoing.forget(now);
        }
        assert!(outgoing.kept <= BOUNDS.bytes);
        assert!(outgoing.replay(2) > 60);
    }
}
