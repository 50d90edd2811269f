//! Things to be done at a later time, in order of that time.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

/// A list that gives out its entries when their time has come. Whoever adds an entry sees to it that it is there only once,
/// so the list never has more entries than there are things.
#[derive(Debug)]
pub(super) struct DueList<T> {
    entries: Mutex<BTreeMap<(Instant, u64), T>>,
    /// Tells entries of the same instant apart.
    number: AtomicU64,
}

impl<T> Default for DueList<T> {
    fn default() -> Self {
        Self { entries: Mutex::default(), number: AtomicU64::new(0) }
    }
}

impl<T> DueList<T> {
    /// Adds an entry.
    pub(super) fn add(&self, due: Instant, entry: T) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert((due, number), entry);
    }

    /// Takes all entries whose time has come.
    pub(super) fn take(&self, now: Instant) -> Vec<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let later = entries.split_off(&(now, u64::MAX));
        std::mem::replace(&mut *entries, later).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_come_out_in_order_when_their_time_has_come() {
        let (list, now) = (DueList::default(), Instant::now());
        list.add(now + Duration::from_secs(2), "c");
        list.add(now, "a");
        list.add(now, "b");
        assert_eq!(list.take(now), ["a", "b"]);
        assert!(list.take(now + Duration::from_secs(1)).is_empty());
        assert_eq!(list.take(now + Duration::from_secs(3)), ["c"]);
    }
}
