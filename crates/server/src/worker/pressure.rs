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
/// Events and answers are bounded apart: clients that only listen are read whatever others publish, and a flood of requests
/// keeps no publisher waiting.
#[derive(Debug)]
pub(crate) struct Pressure {
    events: Gate,
    answers: Gate,
}

/// What waits in inboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// What goes to the subscribers of a channel.
    Events,
    /// What goes to one connection.
    Answers,
}

/// One bound.
#[derive(Debug)]
struct Gate {
    limit: usize,
    /// Inboxes over their bound. Below zero for a moment when an inbox is emptied before whoever filled it has counted.
    over: AtomicIsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How often everybody who waited was woken.
    round: u64,
    wakers: Vec<Waker>,
}

/// A task that may have to wait. Remembers the queue and the round in which it waits, so that it is not queued twice.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<(Load, u64)>);

impl Pressure {
    /// `limit`: bytes of either that may wait in one inbox.
    pub(crate) fn new(limit: usize) -> Self {
        Self { events: Gate::new(limit), answers: Gate::new(limit) }
    }

    fn gate(&self, load: Load) -> &Gate {
        match load {
            Load::Events => &self.events,
            Load::Answers => &self.answers,
        }
    }

    /// Ready when there is room everywhere. A ticket is for one task.
    pub(crate) fn poll_room(&self, load: Load, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<()> {
        let gate = self.gate(load);
        if gate.over.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        let mut waiting = gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked again under the lock: whoever makes room takes the lock, too, so no wake is missed.
        if gate.over.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        let place = (load, waiting.round);
        if ticket.0.replace(place) != Some(place) {
            waiting.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether anybody has to wait now.
    pub(crate) fn is_over(&self) -> bool {
        [&self.events, &self.answers].iter().any(|gate| gate.over.load(Ordering::SeqCst) > 0)
    }

    /// An inbox grew from `before` by `by` bytes.
    pub(super) fn added(&self, load: Load, before: usize, by: usize) {
        let gate = self.gate(load);
        if before < gate.limit && before + by >= gate.limit {
            gate.over.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// An inbox shrank from `before` by `by` bytes.
    pub(super) fn removed(&self, load: Load, before: usize, by: usize) {
        let gate = self.gate(load);
        if before >= gate.limit && before - by < gate.limit && gate.over.fetch_sub(1, Ordering::SeqCst) == 1 {
            let wakers = {
                let mut waiting = gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.round += 1;
                std::mem::take(&mut waiting.wakers)
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Gate {
    fn new(limit: usize) -> Self {
        Self { limit, over: AtomicIsize::new(0), waiting: Mutex::default() }
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
        pressure.added(Load::Events, 0, 99);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready());
        pressure.added(Load::Events, 99, 1);
        pressure.added(Load::Events, 50, 60);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_pending());
        pressure.removed(Load::Events, 110, 60);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst));
        pressure.removed(Load::Events, 100, 1);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready());
    }

    #[test]
    fn whoever_waits_stands_in_the_queue_once() {
        let pressure = Pressure::new(100);
        let (mut cx, mut ticket) = (Context::from_waker(Waker::noop()), Ticket::default());
        pressure.added(Load::Events, 0, 100);
        for _ in 0..10 {
            assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_pending());
        }
        assert_eq!(pressure.events.waiting.lock().unwrap().wakers.len(), 1);
        pressure.removed(Load::Events, 100, 100);
        pressure.added(Load::Events, 0, 100);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_pending());
        assert_eq!(pressure.events.waiting.lock().unwrap().wakers.len(), 1);
    }

    #[test]
    fn emptying_before_the_filling_was_counted_leaves_room() {
        let pressure = Pressure::new(100);
        let (mut cx, mut ticket) = (Context::from_waker(Waker::noop()), Ticket::default());
        pressure.removed(Load::Events, 100, 100);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready());
        pressure.added(Load::Events, 0, 100);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready());
    }

    #[test]
    fn events_and_answers_are_waited_for_apart() {
        let pressure = Pressure::new(100);
        let (mut cx, mut ticket) = (Context::from_waker(Waker::noop()), Ticket::default());
        pressure.added(Load::Events, 0, 150);
        assert!(pressure.poll_room(Load::Answers, &mut cx, &mut ticket).is_ready());
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_pending());
        pressure.added(Load::Answers, 0, 100);
        // With the ticket of the other queue: it stands in both.
        assert!(pressure.poll_room(Load::Answers, &mut cx, &mut ticket).is_pending());
        assert_eq!(pressure.answers.waiting.lock().unwrap().wakers.len(), 1);
        pressure.removed(Load::Events, 150, 150);
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready());
        assert!(pressure.poll_room(Load::Answers, &mut cx, &mut ticket).is_pending());
    }
}
