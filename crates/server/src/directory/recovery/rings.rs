//! What all rings of the node hold together, and which of them holds the oldest event.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::ring::Log;

/// The events kept on this node, bounded in bytes. Beyond the bound the oldest go, whatever their channel.
///
/// Lock order: this list, then a log. A log's owner never holds it while it takes the list.
#[derive(Debug)]
pub(crate) struct Rings {
    limit: usize,
    bytes: AtomicUsize,
    logs: AtomicU64,
    /// Logs with events by the age of their oldest. An entry may be out of date; it is corrected when it comes first.
    by_age: Mutex<BTreeMap<Place, Weak<Mutex<Log>>>>,
}

/// Where a log stands in the list: when its oldest event was published, and a number that tells it from others.
pub(super) type Place = (Instant, u64);

impl Rings {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: AtomicUsize::new(0), logs: AtomicU64::new(0), by_age: Mutex::default() }
    }

    /// A number for one more log.
    pub(super) fn number(&self) -> u64 {
        self.logs.fetch_add(1, Ordering::Relaxed)
    }

    fn by_age(&self) -> MutexGuard<'_, BTreeMap<Place, Weak<Mutex<Log>>>> {
        self.by_age.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes in, before a log has them. Whoever drops them counts them out.
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn removed(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Makes room if there is too much.
    pub(super) fn bound(&self) {
        if self.bytes() > self.limit {
            self.trim();
        }
    }

    /// Puts a log that has got its first event on the list.
    pub(super) fn list(&self, log: &Arc<Mutex<Log>>) {
        let mut by_age = self.by_age();
        let mut entry = log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = entry.place_to_list() {
            by_age.insert(place, Arc::downgrade(log));
        }
    }

    /// Takes a log that ends off the list, with its bytes.
    pub(super) fn end(&self, log: &Mutex<Log>) {
        let mut by_age = self.by_age();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = log.unlist() {
            by_age.remove(&place);
        }
        self.removed(log.clear());
    }

    /// Drops the oldest events until a part of the bound is free, so that not every publish has to come here.
    fn trim(&self) {
        let goal = self.limit - self.limit / 64;
        let mut by_age = self.by_age();
        while self.bytes() > goal
            && let Some((place, log)) = by_age.pop_first()
        {
            let Some(log) = log.upgrade() else { continue };
            let mut entry = log.lock().unwrap_or_else(PoisonError::into_inner);
            entry.unlist();
            if entry.oldest() == Some(place.0) {
                self.removed(entry.drop_oldest());
            }
            if let Some(place) = entry.place_to_list() {
                by_age.insert(place, Arc::downgrade(&log));
            }
        }
    }

    /// How long the oldest event has been kept.
    pub(crate) fn oldest_age(&self, now: Instant) -> Option<Duration> {
        let mut by_age = self.by_age();
        loop {
            let (place, log) = by_age.pop_first()?;
            let Some(log) = log.upgrade() else { continue };
            let mut entry = log.lock().unwrap_or_else(PoisonError::into_inner);
            entry.unlist();
            let oldest = entry.oldest();
            if let Some(place) = entry.place_to_list() {
                by_age.insert(place, Arc::downgrade(&log));
            }
            if oldest == Some(place.0) {
                return Some(now.duration_since(place.0));
            }
        }
    }
}
