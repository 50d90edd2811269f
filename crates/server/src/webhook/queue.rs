//! The queue of one endpoint. Events stay at its head until the endpoint took them or they are given up, so the bound is for everything
//! that waits. One task at a time works on it.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_protocol::webhook::{self, WebhookEvent};
use tokio::time::Instant;

use super::{Backlog, Claim};
use crate::{limits::WEBHOOK_QUEUE_BYTES, throttle::Throttle};

/// What waits for one endpoint. The lock is held for moments by the dispatcher and the endpoint's task, never across `.await`.
#[derive(Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    /// Oldest first.
    events: VecDeque<Waiting>,
    bytes: usize,
    /// A task delivers, and will look here again before it ends.
    running: bool,
    overflow: Throttle,
}

struct Waiting {
    event: Arc<WebhookEvent>,
    since: Instant,
    claim: Option<Arc<Claim>>,
}

impl Waiting {
    fn is_lost(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| !claim.holds())
    }
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, and the task will come to it.
    Waits,
    /// It waits, and a task has to be started.
    NeedsTask,
    /// There was no room. The number, if there is one, is to be logged.
    Overflowed(Option<u64>),
}

/// What [`Queue::next`] has for the task.
pub(super) enum Next {
    /// The body for the first events, and their number.
    Request(Vec<u8>, usize),
    /// Nothing: the task has to end, for the next event starts another. The number of overflowed events, if there is
    /// one, is to be logged.
    End(Option<u64>),
}

impl Queue {
    /// Appends an event, if there is room for it.
    pub(super) fn push(
        &self,
        event: Arc<WebhookEvent>,
        claim: Option<Arc<Claim>>,
        max_events: usize,
        now: Instant,
    ) -> Pushed {
        let mut state = self.state();
        let bytes = state.bytes + weight(&event);
        if state.events.len() >= max_events || bytes > WEBHOOK_QUEUE_BYTES {
            return Pushed::Overflowed(state.overflow.add(1, now));
        }
        state.bytes = bytes;
        state.events.push_back(Waiting { event, since: now, claim });
        if mem::replace(&mut state.running, true) { Pushed::Waits } else { Pushed::NeedsTask }
    }

    /// The body of the next request, with at most `max_events`. They stay until [`Self::took`] or [`Self::give_up`].
    pub(super) fn next(&self, max_events: usize, time_ms: u64) -> Next {
        let mut state = self.state();
        // Another node has taken these over and delivers them.
        while state.events.front().is_some_and(Waiting::is_lost) {
            state.pop();
        }
        let events = state.events.iter().take(max_events).take_while(|waiting| !waiting.is_lost()).count();
        if events == 0 {
            state.running = false;
            return Next::End(state.overflow.rest());
        }
        Next::Request(webhook::body(time_ms, state.events.iter().take(events).map(|waiting| &*waiting.event)), events)
    }

    /// The endpoint took the first `events`.
    pub(super) fn took(&self, events: usize) {
        let mut state = self.state();
        for _ in 0..events {
            state.pop();
        }
    }

    /// Drops from the head what would be older than `retry_for` when the next attempt comes, in `pause`: the first
    /// `tried` events were in the one that just failed. Those behind them drop only once they are older than `patience`
    /// now. Returns how many were dropped.
    pub(super) fn give_up(
        &self,
        tried: usize,
        pause: Duration,
        retry_for: Duration,
        patience: Duration,
        now: Instant,
    ) -> usize {
        let mut state = self.state();
        let mut dropped = 0;
        while let Some(head) = state.events.front() {
            let age = now.duration_since(head.since);
            let keep = if dropped < tried { age.saturating_add(pause) <= retry_for } else { age <= patience };
            if keep {
                break;
            }
            state.pop();
            dropped += 1;
        }
        dropped
    }

    /// How much waits, and for how long.
    pub(super) fn waiting(&self, now: Instant) -> Backlog {
        let state = self.state();
        let oldest = state.events.front().map(|head| now.duration_since(head.since));
        Backlog { events: state.events.len(), oldest: oldest.unwrap_or_default() }
    }

    /// Drops everything, and counts it. The task has to end.
    pub(super) fn clear(&self) -> usize {
        let state = mem::take(&mut *self.state());
        state.events.iter().filter_map(|waiting| waiting.claim.as_ref()).for_each(|claim| claim.leave());
        state.events.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poisoning can be ignored: no code that holds the lock panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) {
        if let Some(waiting) = self.events.pop_front() {
            self.bytes -= weight(&waiting.event);
        }
    }
}

/// About how many bytes of memory an event takes.
fn weight(event: &WebhookEvent) -> usize {
    let data = if let WebhookEvent::ClientEvent { data, .. } = event { data.len() } else { 0 };
    size_of::<Waiting>() + size_of::<WebhookEvent>() + event.channel().len() + data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data_bytes: usize) -> Arc<WebhookEvent> {
        Arc::new(WebhookEvent::ClientEvent {
            channel: "private-c".into(),
            event: "client-e".into(),
            data: "x".repeat(data_bytes).into(),
            socket_id: "1.1".into(),
            user_id: None,
        })
    }

    #[test]
    fn one_task_at_a_time_works_on_it() {
        let (queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.push(event(1), None, 10, now), Pushed::NeedsTask);
        assert_eq!(queue.push(event(1), None, 10, now), Pushed::Waits);
        assert!(matches!(queue.next(10, 0), Next::Request(_, 2)));
        queue.took(2);
        assert_eq!(queue.push(event(1), None, 10, now), Pushed::Waits);
        assert!(matches!(queue.next(10, 0), Next::Request(_, 1)));
        queue.took(1);
        assert!(matches!(queue.next(10, 0), Next::End(None)));
        assert_eq!(queue.push(event(1), None, 10, now), Pushed::NeedsTask);
    }

    #[test]
    fn it_is_bounded_in_events_and_in_bytes() {
        let (queue, now) = (Queue::default(), Instant::now());
        queue.push(event(1), None, 2, now);
        queue.push(event(1), None, 2, now);
        assert_eq!(queue.push(event(1), None, 2, now), Pushed::Overflowed(Some(1)));
        assert_eq!(queue.push(event(1), None, 2, now), Pushed::Overflowed(None));
        queue.took(2);
        assert!(matches!(queue.next(1, 0), Next::End(Some(1))));

        assert_eq!(queue.push(event(WEBHOOK_QUEUE_BYTES), None, 2, now), Pushed::Overflowed(None));
        assert_eq!(queue.push(event(WEBHOOK_QUEUE_BYTES - 1024), None, 2, now), Pushed::NeedsTask);
        assert_eq!(queue.push(event(1024), None, 2, now), Pushed::Overflowed(None));
        queue.took(1);
        assert_eq!(queue.state().bytes, 0);
    }

    #[test]
    fn an_event_drops_when_its_next_attempt_would_be_too_late() {
        let (queue, start) = (Queue::default(), Instant::now());
        let second = Duration::from_secs(1);
        for age in 0..4 {
            queue.push(event(1), None, 10, start + second * age);
        }
        let give_up =
            |tried, pause, now| queue.give_up(tried, second * pause, second * 10, second * 10, start + second * now);
        assert_eq!(give_up(2, 5, 5), 0);
        assert_eq!(give_up(2, 7, 5), 2, "the two that were tried; the others are young enough for a first attempt");
        assert_eq!(give_up(1, 1, 12), 1);
        assert_eq!(give_up(0, 0, 13), 0);
        assert_eq!(give_up(0, 0, 14), 1, "never tried, but too old");
    }
}
