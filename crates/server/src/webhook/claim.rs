//! Events that came from a queue all nodes share: kept there until an endpoint took them or they are given up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;

/// A node's right to deliver the shared events of some shards, for as long as it is renewed. A node that stood still for too long has lost
/// it, and other nodes deliver what it had claimed.
#[derive(Debug)]
pub(crate) struct Tenure {
    terms: Mutex<Vec<Term>>,
    /// Entries that are claimed, or done with and not noted yet, with the term of the claim.
    open: Mutex<HashMap<Entry, u64>>,
    /// Entries that are done with.
    done: Mutex<Vec<Entry>>,
}

/// A time in which a node has a shard without a break. What it claimed in an earlier term is not its own any more, even if it has the shard
/// again.
#[derive(Clone, Copy, Debug)]
struct Term {
    number: u64,
    until: Instant,
}

/// Where a shared event stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) shard: usize,
    pub(crate) id: String,
}

/// One event of the shared queue. The last clone that is dropped says that it is done with.
#[derive(Debug)]
pub(crate) struct Claim {
    tenure: Arc<Tenure>,
    term: u64,
    entry: Entry,
    /// This node will not deliver it, but leaves it to another.
    left: AtomicBool,
}

impl Tenure {
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        let none = Term { number: 0, until: Instant::now() };
        Arc::new(Self { terms: Mutex::new(vec![none; shards]), open: Mutex::default(), done: Mutex::default() })
    }

    fn terms(&self) -> MutexGuard<'_, Vec<Term>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Entry, u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new term begins for a shard.
    pub(crate) fn begin(&self, shard: usize, until: Instant) {
        let term = &mut self.terms()[shard];
        *term = Term { number: term.number + 1, until };
    }

    /// Extends the term until then, if it has not ended. Returns whether it goes on.
    pub(crate) fn renew(&self, shard: usize, until: Instant) -> bool {
        let term = &mut self.terms()[shard];
        let holds = Instant::now() < term.until;
        if holds {
            term.until = until;
        }
        holds
    }

    /// Others have the shard.
    pub(crate) fn end(&self, shard: usize) {
        self.terms()[shard].until = Instant::now();
    }

    /// Takes the entries that are done with.
    pub(crate) fn take_done(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The shared queue knows that these are done with.
    pub(crate) fn noted(&self, done: &[Entry]) {
        let mut open = self.open();
        for entry in done {
            open.remove(entry);
        }
    }

    /// These are still done with: the shared queue may not have heard of it.
    pub(crate) fn not_noted(&self, done: Vec<Entry>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
    }

    /// Claims an entry; `None` if it is this node's already: an answer that did not arrive is asked for again.
    pub(crate) fn claim(self: &Arc<Self>, entry: Entry) -> Option<Arc<Claim>> {
        let term = self.terms()[entry.shard].number;
        let before = self.open().insert(entry.clone(), term);
        (before != Some(term))
            .then(|| Arc::new(Claim { tenure: Arc::clone(self), term, entry, left: AtomicBool::new(false) }))
    }
}

impl Claim {
    /// Whether this node may still deliver the event.
    pub(crate) fn holds(&self) -> bool {
        let term = self.tenure.terms()[self.entry.shard];
        term.number == self.term && Instant::now() < term.until
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
            return;
        }
        let mut open = self.tenure.open();
        if open.get(&self.entry) == Some(&self.term) {
            open.remove(&self.entry);
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
        let (tenure, long) = (Tenure::new(4), Duration::from_secs(60));
        tenure.begin(3, Instant::now() + long);
        let claim = tenure.claim(entry("1-0")).unwrap();
        let second = Arc::clone(&claim);
        drop(claim);
        assert!(tenure.take_done().is_empty());
        drop(second);
        assert_eq!(tenure.take_done(), [entry("1-0")]);
        let late = tenure.claim(entry("2-0")).unwrap();
        assert!(tenure.renew(3, Instant::now()));
        assert!(!late.holds());
        drop(late);
        assert!(tenure.take_done().is_empty());
        tenure.begin(3, Instant::now() + long);
        let left = tenure.claim(entry("3-0")).unwrap();
        left.leave();
        drop(left);
        assert!(tenure.take_done().is_empty());
    }

    #[test]
    fn what_was_claimed_before_a_break_is_not_held_after_it() {
        let (tenure, long) = (Tenure::new(2), Duration::from_secs(60));
        let claim = |shard| tenure.claim(Entry { shard, id: "1-0".to_owned() }).unwrap();
        assert!(!tenure.renew(0, Instant::now() + long), "it has not begun");
        for shard in 0..2 {
            tenure.begin(shard, Instant::now() + long);
        }
        let (first, other) = (claim(0), claim(1));
        assert!(tenure.renew(0, Instant::now() + long) && first.holds());
        tenure.end(0);
        assert!(!first.holds() && !tenure.renew(0, Instant::now() + long));
        tenure.begin(0, Instant::now() + long);
        assert!(!first.holds() && claim(0).holds() && other.holds());
        assert_eq!(tenure.take_done().len(), 1, "the one that was claimed, and let go of, in this term");
        drop(first);
        assert_eq!(tenure.take_done(), []);
    }

    #[test]
    fn an_entry_is_claimed_once_in_a_term_until_it_is_noted_or_left() {
        let entry = Entry { shard: 0, id: "1-0".to_owned() };
        let (tenure, long) = (Tenure::new(1), Duration::from_secs(60));
        tenure.begin(0, Instant::now() + long);
        let claim = tenure.claim(entry.clone());
        assert!(claim.is_some() && tenure.claim(entry.clone()).is_none());
        drop(claim);
        let done = tenure.take_done();
        assert!(done == [entry.clone()] && tenure.claim(entry.clone()).is_none(), "it is delivered, and not noted");
        tenure.not_noted(done);
        let done = tenure.take_done();
        tenure.noted(&done);
        let left = tenure.claim(entry.clone()).unwrap();
        left.leave();
        drop(left);
        let old = tenure.claim(entry.clone());
        tenure.begin(0, Instant::now() + long);
        let new = tenure.claim(entry.clone());
        assert!(old.is_some() && new.is_some(), "another term, in which others may have had it");
        drop(old);
        assert!(tenure.claim(entry).is_none(), "the one of the new term is there");
    }
}
