//! Whether publishers have to wait: set while any worker has too much to do.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Counts the inboxes over their bounds. Publishers look here **before** they take a channel's lock, so that a busy worker
/// slows them down and nothing that was accepted is lost or reordered.
///
/// There are two bounds. At the first, whoever publishes has to wait. So events alone never reach the second, which is twice as
/// high: at that everybody has to, as answers to a flood of requests wait in the inboxes, too.
#[derive(Debug)]
pub(crate) struct Pressure {
    publishing: Gate,
    asking: Gate,
}

/// What somebody wants room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Events for others.
    Publishing,
    /// Requests of its own, whose answers are for itself.
    Asking,
}

/// One bound.
#[derive(Debug)]
struct Gate {
    limit: usize,
    /// Below zero for a moment where an inbox is emptied before whoever filled it has counted.
    over: AtomicIsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How often all who waited were woken.
    round: u64,
    wakers: Vec<Waker>,
}

/// One who may have to wait: remembers where it stands in a queue, and in which round, so that it stands there once.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<(For, u64)>);

impl Pressure {
    /// `limit`: bytes that may wait in one inbox before publishers have to.
    pub(crate) fn new(limit: usize) -> Self {
        Self { publishing: Gate::new(limit), asking: Gate::new(limit.saturating_mul(2)) }
    }

    /// Ready when there is room everywhere. A ticket is for one task.
    pub(crate) fn poll_room(&self, wanted: For, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<()> {
        let gate = match wanted {
            For::Publishing => &self.publishing,
            For::Asking => &self.asking,
        };
        if gate.over.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        let mut waiting = gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked again under the lock that whoever makes room takes: no wake is missed.
        if gate.over.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        let place = (wanted, waiting.round);
        if ticket.0.replace(place) != Some(place) {
            waiting.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// An inbox grew from `before` by `by` bytes.
    pub(super) fn added(&self, before: usize, by: usize) {
        self.publishing.added(before, by);
        self.asking.added(before, by);
    }

    /// An inbox shrank from `before` by `by` bytes.
    pub(super) fn removed(&self, before: usize, by: usize) {
        self.publishing.removed(before, by);
        self.asking.removed(before, by);
    }
}

impl Gate {
    fn new(limit: usize) -> Self {
        Self { limit, over: AtomicIsize::new(0), waiting: Mutex::default() }
    }

    fn added(&self, before: usize, by: usize) {
        if before < self.limit && before + by >= self.limit {
            self.over.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn removed(&self, before: usize, by: usize) {
        if before >= self.limit && before - by < self.limit && self.over.fetch_sub(1, Ordering::SeqCst) == 1 {
            let wakers = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.round += 1;
                std::mem::take(&mut waiting.wakers)
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn publishers_wait_while_any_inbox_is_over_its_bound() {
        let pressure = Pressure::new(100);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (mut cx, mut ticket) = (Context::from_waker(&waker), Ticket::default());
        pressure.added(0, 99);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_ready());
        pressure.added(99, 1);
        pressure.added(50, 60);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_pending());
        pressure.removed(110, 60);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst));
        pressure.removed(100, 1);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_ready());
    }

    #[test]
    fn whoever_waits_stands_in_the_queue_once() {
        let pressure = Pressure::new(100);
        let (mut cx, mut ticket) = (Context::from_waker(Waker::noop()), Ticket::default());
        pressure.added(0, 100);
        for _ in 0..10 {
            assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_pending());
        }
        assert_eq!(pressure.publishing.waiting.lock().unwrap().wakers.len(), 1);
        pressure.removed(100, 100);
        pressure.added(0, 100);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_pending());
        assert_eq!(pressure.publishing.waiting.lock().unwrap().wakers.len(), 1);
    }

    #[test]
    fn emptying_before_the_filling_was_counted_leaves_room() {
        let pressure = Pressure::new(100);
        let (mut cx, mut ticket) = (Context::from_waker(Waker::noop()), Ticket::default());
        pressure.removed(100, 100);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_ready());
        pressure.added(0, 100);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_ready());
    }

    #[test]
    fn who_only_asks_waits_at_twice_the_bound() {
        let pressure = Pressure::new(100);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (mut cx, mut ticket) = (Context::from_waker(&waker), Ticket::default());
        pressure.added(0, 150);
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_pending());
        assert!(pressure.poll_room(For::Asking, &mut cx, &mut ticket).is_ready());
        pressure.added(150, 50);
        // The same ticket in the other queue: it stands in both.
        assert!(pressure.poll_room(For::Asking, &mut cx, &mut ticket).is_pending());
        pressure.removed(200, 1);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(pressure.poll_room(For::Asking, &mut cx, &mut ticket).is_ready());
        assert!(pressure.poll_room(For::Publishing, &mut cx, &mut ticket).is_pending());
    }
}
