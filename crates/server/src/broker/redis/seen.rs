//! Which events of a shard this node has received: the last number of each publisher.

use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// The last event of each publisher.
#[derive(Debug, Default)]
pub(super) struct Seen {
    publishers: FxHashMap<u64, Last>,
}

#[derive(Debug)]
struct Last {
    number: u64,
    /// The last one that came from an earlier log.
    old: u64,
    at: Instant,
}

/// What is new in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct New {
    /// Events at its front that were received before.
    pub(super) skip: usize,
    /// Events that should have come between the last one and these.
    pub(super) missing: u64,
    /// This publisher is not known.
    pub(super) stranger: bool,
    /// Some of the events came from an earlier log before.
    pub(super) old: bool,
}

impl Seen {
    /// What is new in `count` events from number `first` on.
    pub(super) fn look(&self, publisher: u64, first: u64, count: usize) -> New {
        match self.publishers.get(&publisher) {
            None => New { skip: 0, missing: 0, stranger: true, old: false },
            Some(last) => {
                let had = (last.number + 1).saturating_sub(first);
                let missing = if count == 0 { 0 } else { first.saturating_sub(last.number + 1) };
                let skip = usize::try_from(had).unwrap_or(count).min(count);
                New { skip, missing, stranger: false, old: first <= last.old && count > 0 }
            }
        }
    }

    /// These events are received now.
    pub(super) fn note(&mut self, publisher: u64, first: u64, count: usize, now: Instant) {
        let number = (first + count as u64).saturating_sub(1);
        let last = self.publishers.entry(publisher).or_insert(Last { number, old: 0, at: now });
        last.number = last.number.max(number);
        last.at = now;
    }

    /// From now on events come from another log.
    pub(super) fn new_log(&mut self) {
        self.publishers.values_mut().for_each(|last| last.old = last.number);
    }

    /// Forgets publishers that have said nothing since: their processes are gone, and their events from the log.
    pub(super) fn forget(&mut self, since: Instant) {
        self.publishers.retain(|_, last| last.at >= since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_new_once_and_missing_ones_are_counted() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        let known = New { skip: 0, missing: 0, stranger: false, old: false };
        assert_eq!(seen.look(1, 5, 3), New { stranger: true, ..known });
        seen.note(1, 5, 3, now);
        assert_eq!(seen.look(1, 5, 3), New { skip: 3, ..known });
        assert_eq!(seen.look(1, 6, 5), New { skip: 2, ..known });
        assert_eq!(seen.look(1, 8, 1), known);
        assert_eq!(seen.look(1, 10, 1), New { missing: 2, ..known });
        // An old entry again does not take the number back.
        seen.note(1, 2, 2, now);
        assert_eq!(seen.look(1, 7, 1).skip, 1);
        assert!(seen.look(2, 1, 1).stranger);
        seen.forget(now + std::time::Duration::from_secs(1));
        assert!(seen.look(1, 8, 1).stranger);
    }

    #[test]
    fn what_came_from_an_earlier_log_is_known_from_what_comes_twice() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        seen.note(1, 1, 3, now);
        seen.new_log();
        assert!(seen.look(1, 3, 2).old);
        seen.note(1, 4, 2, now);
        let again = seen.look(1, 4, 2);
        assert_eq!((again.skip, again.old), (2, false));
    }

    #[test]
    fn no_number_makes_it_panic() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        seen.note(1, 0, 0, now);
        assert_eq!(seen.look(1, u64::MAX, 2).skip, 0);
        seen.note(1, u64::MAX - 9, 5, now);
        assert_eq!(seen.look(1, 0, 3).skip, 3);
    }
}
