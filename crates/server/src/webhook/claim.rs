//! Events that came from a queue all nodes share: kept there until an endpoint took them or they are given up.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

/// A node's right to deliver some of the shared events, for as long as it is renewed. One that stood still for too long has lost
/// it, and with it what it holds: others deliver that.
#[derive(Debug)]
pub(crate) struct Tenure {
    until: Mutex<Instant>,
    /// Entries that are done with.
    done: Mutex<Vec<Entry>>,
}

/// Where a shared event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) shard: usize,
    pub(crate) id: String,
}

/// One event of the shared queue. The last clone that is dropped says that it is done with.
#[derive(Debug)]
pub(crate) struct Claim {
    tenure: Arc<Tenure>,
    entry: Entry,
    /// This node will not deliver it: another shall.
    left: AtomicBool,
}

impl Tenure {
    pub(crate) fn new(until: Instant) -> Arc<Self> {
        Arc::new(Self { until: Mutex::new(until), done: Mutex::default() })
    }

    /// Holds until then.
    pub(crate) fn renew(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn holds(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        Instant::now() < until
    }

    /// Takes the entries that are done with.
    pub(crate) fn take_done(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Claims an entry.
    pub(crate) fn claim(self: &Arc<Self>, entry: Entry) -> Arc<Claim> {
        Arc::new(Claim { tenure: Arc::clone(self), entry, left: AtomicBool::new(false) })
    }
}

impl Claim {
    /// Whether this node may still deliver the event.
    pub(crate) fn holds(&self) -> bool {
        self.tenure.holds()
    }

    /// Leaves the event to another node.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.holds() && !self.left.load(Ordering::SeqCst) {
            self.tenure.done.lock().unwrap_or_else(PoisonError::into_inner).push(self.entry.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_one_who_lets_go_is_done_with_it_unless_the_tenure_is_over() {
        let entry = |id: &str| Entry { shard: 3, id: id.to_owned() };
        let tenure = Tenure::new(Instant::now() + Duration::from_secs(60));
        let claim = tenure.claim(entry("1-0"));
        let second = Arc::clone(&claim);
        drop(claim);
        assert!(tenure.take_done().is_empty());
        drop(second);
        assert_eq!(tenure.take_done(), [entry("1-0")]);
        let late = tenure.claim(entry("2-0"));
        tenure.renew(Instant::now());
        assert!(!late.holds());
        drop(late);
        assert!(tenure.take_done().is_empty());
        tenure.renew(Instant::now() + Duration::from_secs(60));
        let left = tenure.claim(entry("3-0"));
        left.leave();
        drop(left);
        assert!(tenure.take_done().is_empty());
    }
}
