//! How far this node has come in the log of each shard. Clients' positions are such numbers.
//!
//! All nodes read the same log, so a position that one has given out means the same to the others, as long as it is the same log on
//! the same server. Where that is not sure, or where this node may have handed on less or more than the log has, a new era begins:
//! nothing that was kept before it is used any more.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{SHARDS, shard};

/// So many low bits of a number are the event's place in its entry; the others are the entry's number.
const INDEX_BITS: u32 = 16;

/// The number of an event: its entry's, and its place there.
pub(super) fn event(entry: u64, index: usize) -> u64 {
    entry << INDEX_BITS | (index as u64 + 1).min(u64::from(u16::MAX))
}

/// The number behind all events of an entry.
pub(super) fn whole(entry: u64) -> u64 {
    entry << INDEX_BITS | u64::from(u16::MAX)
}

/// The first entry that has events behind a number.
pub(super) fn next_entry(number: u64) -> u64 {
    (number >> INDEX_BITS) + u64::from(number & u64::from(u16::MAX) == u64::from(u16::MAX))
}

/// The entry that a number is in.
pub(super) fn entry(number: u64) -> u64 {
    number >> INDEX_BITS
}

/// The node's place in all logs. The reader moves it; workers look.
#[derive(Debug)]
pub(crate) struct Progress {
    shards: [Place; SHARDS],
}

#[derive(Debug, Default)]
struct Place {
    era: Mutex<Era>,
    /// The event that was last begun to be handed to its channel.
    begun: AtomicU64,
    /// The event that was last handed over.
    done: AtomicU64,
}

/// A time in which this node has handed on exactly what one log has.
#[derive(Clone, Copy, Debug, Default)]
struct Era {
    number: u64,
    /// Names the log and its server; 0: they are not known.
    log: u64,
    /// The ids of its entries begin with it.
    epoch: u64,
    /// It is not sure where this node is in the log.
    doubt: bool,
    /// The last era before which events were lost.
    lost: u64,
}

/// Where a channel stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) era: u64,
    /// Names the log and its server.
    pub(crate) log: u64,
    pub(super) epoch: u64,
    /// The last era before which events were lost.
    pub(crate) lost: u64,
    /// No event behind this number was handed over yet.
    pub(crate) begun: u64,
    /// All events up to this number were handed over.
    pub(crate) done: u64,
}

/// The place of an event on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) era: u64,
    pub(crate) number: u64,
}

/// The place of an event in the log, whatever this node has had of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    /// Names the log and its server.
    pub(crate) log: u64,
    pub(crate) number: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Place::default()) }
    }

    fn era(&self, shard: usize) -> MutexGuard<'_, Era> {
        self.shards[shard].era.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a channel stands; `None` while there is doubt. To be asked under the channel's lock.
    pub(crate) fn of(&self, app: &str, channel: &str) -> Option<Standing> {
        self.standing(shard(app, channel))
    }

    pub(super) fn standing(&self, shard: usize) -> Option<Standing> {
        let Era { number, log, epoch, doubt, lost } = *self.era(shard);
        let place = &self.shards[shard];
        // Read in this order, so that `begun` is never older than `done`.
        let done = place.done.load(Ordering::SeqCst);
        let begun = place.begun.load(Ordering::SeqCst);
        (log != 0 && !doubt).then_some(Standing { era: number, log, epoch, lost, begun, done })
    }

    /// From now on nothing is sure.
    pub(super) fn doubt(&self, shard: usize) {
        self.era(shard).doubt = true;
    }

    /// Begins a new era behind an event's number. Returns the era's own number.
    pub(super) fn renew(&self, shard: usize, (log, epoch): (u64, u64), from: u64, lost: bool) -> u64 {
        let (mut era, place) = (self.era(shard), &self.shards[shard]);
        // In the same log, what was handed over before stays handed over.
        let done = if era.log == log { place.done.load(Ordering::SeqCst) } else { 0 };
        let lost = if lost { era.number + 1 } else { era.lost };
        *era = Era { number: era.number + 1, log, epoch, doubt: false, lost };
        place.begun.store(from.max(done), Ordering::SeqCst);
        place.done.store(from.max(done), Ordering::SeqCst);
        era.number
    }

    /// An event is about to be handed over.
    pub(super) fn begin(&self, shard: usize, number: u64) {
        self.shards[shard].begun.fetch_max(number, Ordering::SeqCst);
    }

    /// Everything up to here was handed over.
    pub(super) fn done(&self, shard: usize, number: u64) {
        self.shards[shard].begun.fetch_max(number, Ordering::SeqCst);
        self.shards[shard].done.fetch_max(number, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_the_log() {
        let numbers = [whole(0), event(1, 0), event(1, 1), event(1, 1023), whole(1), event(2, 0)];
        assert!(numbers.is_sorted());
        assert_eq!(numbers.map(next_entry), [1, 1, 1, 1, 2, 2]);
        assert_eq!(entry(whole(7)), 7);
    }

    #[test]
    fn doubt_ends_with_a_new_era() {
        let progress = Progress::new();
        assert!(progress.standing(3).is_none());
        progress.renew(3, (9, 1), whole(4), false);
        progress.begin(3, event(5, 0));
        let Standing { era, begun, done, .. } = progress.standing(3).unwrap();
        assert_eq!((era, begun, done), (1, event(5, 0), whole(4)));
        progress.done(3, whole(5));
        // What was read once more takes nothing back.
        progress.done(3, whole(2));
        assert_eq!(progress.standing(3).unwrap().done, whole(5));
        progress.doubt(3);
        assert!(progress.standing(3).is_none());
        progress.renew(3, (9, 1), whole(4), true);
        let Standing { lost, done, .. } = progress.standing(3).unwrap();
        assert_eq!((lost, done), (2, whole(5)), "what was handed over stays so");
        progress.renew(3, (10, 2), whole(1), false);
        assert_eq!(progress.standing(3).unwrap().done, whole(1), "another log has its own numbers");
    }
}
