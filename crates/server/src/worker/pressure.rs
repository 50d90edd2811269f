//! Whether publishers have to wait: set while any worker has too much to do.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Counts the inboxes over their bound. Publishers look here **before** they take a channel's lock, so that a busy worker
/// slows them down and nothing that was accepted is lost or reordered.
#[derive(Debug)]
pub(crate) struct Pressure {
    limit: usize,
    /// Below zero for a moment when an inbox is counted out before whoever filled it has counted it in.
    over: AtomicIsize,
    waiting: Mutex<Vec<Waker>>,
}

impl Pressure {
    /// `limit`: bytes that may wait in one inbox.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, over: AtomicIsize::new(0), waiting: Mutex::default() }
    }

    /// Ready when there is room everywhere.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked again under the lock that whoever makes room takes: no wake is missed.
        if self.over.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// An inbox grew from `before` by `by` bytes.
    pub(super) fn added(&self, before: usize, by: usize) {
        if before < self.limit && before + by >= self.limit {
            self.over.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// An inbox shrank from `before` by `by` bytes.
    pub(super) fn removed(&self, before: usize, by: usize) {
        if before >= self.limit && before - by < self.limit && self.over.fetch_sub(1, Ordering::SeqCst) == 1 {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
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
        let mut cx = Context::from_waker(&waker);
        pressure.added(0, 99);
        assert!(pressure.poll_room(&mut cx).is_ready());
        pressure.added(99, 1);
        pressure.added(50, 60);
        assert!(pressure.poll_room(&mut cx).is_pending());
        pressure.removed(110, 60);
        assert!(pressure.poll_room(&mut cx).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst));
        pressure.removed(100, 1);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(pressure.poll_room(&mut cx).is_ready());
    }

    /// A push counts its bytes before it says that they crossed the bound, and the worker may be quicker.
    #[test]
    fn an_inbox_may_be_emptied_before_it_was_said_to_be_full() {
        let pressure = Pressure::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        pressure.removed(110, 30);
        assert!(pressure.poll_room(&mut cx).is_ready(), "nobody would ever wake a publisher that waits now");
        pressure.added(90, 20);
        assert!(pressure.poll_room(&mut cx).is_ready());
        pressure.added(80, 20);
        assert!(pressure.poll_room(&mut cx).is_pending());
    }
}
