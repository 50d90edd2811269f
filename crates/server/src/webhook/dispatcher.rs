//! The one task between the intake and the endpoints' queues. It never waits for an endpoint.

use std::{
    future,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tracing::warn;

use super::{
    Notice,
    debounce::Debounce,
    delivery::{Delivery, log_overflowed},
    queue::Pushed,
};
use crate::throttle::Throttle;

/// Messages taken from the intake at a time.
const TURN: usize = 256;

/// What comes through the intake.
pub(super) enum Message {
    /// Something happened.
    Notice(Notice),
    /// Send the rest and end.
    Flush(Flush),
}

/// The order to send the rest and end.
pub(super) struct Flush {
    pub(super) deadline: Instant,
    /// Told the number of dropped events.
    pub(super) done: oneshot::Sender<usize>,
}

/// Owns what is held back and the tasks that deliver.
pub(super) struct Dispatcher {
    intake: mpsc::Receiver<Message>,
    debounce: Debounce,
    delivery: Arc<Delivery>,
    tasks: JoinSet<()>,
    intake_overflow: Throttle,
}

impl Dispatcher {
    pub(super) fn new(intake: mpsc::Receiver<Message>, delivery: Delivery) -> Self {
        Self {
            intake,
            debounce: Debounce::new(delivery.config.vacated_delay, crate::limits::WEBHOOK_HELD_BACK_EVENTS),
            delivery: Arc::new(delivery),
            tasks: JoinSet::new(),
            intake_overflow: Throttle::default(),
        }
    }

    /// Runs until told to flush, or until all handles are gone.
    pub(super) async fn run(mut self) {
        let mut messages = Vec::with_capacity(TURN);
        let mut flush = None;
        while flush.is_none() {
            tokio::select! {
                received = self.intake.recv_many(&mut messages, TURN) => if received == 0 { break },
                () = until(self.debounce.next_due()) => {}
                Some(_) = self.tasks.join_next() => {}
            }
            let now = Instant::now();
            // Departures whose delay is over go first: whoever comes back only now has been away for too long.
            while let Some(notice) = self.debounce.pop_due(now) {
                self.queue(notice, now);
            }
            for message in messages.drain(..) {
                match message {
                    Message::Notice(notice) => {
                        if let Some(notice) = self.debounce.accept(notice, now) {
                            self.queue(notice, now);
                        }
                    }
                    Message::Flush(order) => flush = Some(order),
                }
            }
            self.log_intake_overflow(now);
        }
        self.finish(flush).await;
    }

    /// Gives an event to the endpoints that asked for it.
    fn queue(&mut self, notice: Notice, now: Instant) {
        let Notice { app, event, claim } = notice;
        let event = Arc::new(event);
        for endpoint in app.endpoints.iter().filter(|endpoint| endpoint.wants(&event)) {
            match endpoint.queue.push(event.clone(), claim.clone(), self.delivery.config.max_queued_events, now) {
                Pushed::Waits => {}
                Pushed::NeedsTask => {
                    self.tasks.spawn(self.delivery.clone().run(endpoint.clone()));
                }
                Pushed::Overflowed(events) => {
                    self.delivery.counters.add(&endpoint.metrics, |of| &of.overflowed, 1);
                    if let Some(events) = events {
                        log_overflowed(endpoint, events);
                    }
                }
            }
        }
    }

    async fn finish(mut self, flush: Option<Flush>) {
        let counters = self.delivery.counters.clone();
        let dropped_before = counters.all.dropped.get();
        self.debounce.stop();
        while let Some(notice) = self.debounce.pop() {
            // These clients reconnect to another node. If the event is shared, the node that takes it over sees whether they come back.
            match &notice.claim {
                Some(claim) => claim.leave(),
                None => self.queue(notice, Instant::now()),
            }
        }
        self.delivery.hurry.cancel();
        let deadline = flush.as_ref().map(|flush| flush.deadline);
        while !self.tasks.is_empty() || !self.intake.is_empty() {
            tokio::select! {
                biased;
                () = until(deadline) => break,
                Some(message) = self.intake.recv() => {
                    if let Message::Notice(notice) = message {
                        self.queue(notice, Instant::now());
                    }
                }
                Some(_) = self.tasks.join_next() => {}
            }
        }
        self.intake.close();
        self.delivery.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let mut unseen = 0;
        while let Ok(message) = self.intake.try_recv() {
            if let Message::Notice(Notice { claim: Some(claim), .. }) = message {
                claim.leave();
            } else if let Message::Notice(Notice { app, .. }) = message {
                counters.add(&app.metrics, |of| &of.dropped, 1);
                unseen += 1;
            }
        }
        if unseen > 0 {
            warn!(events = unseen, "webhook events dropped: the server shuts down");
        }
        if let Some(flush) = flush {
            let dropped = counters.all.dropped.get() - dropped_before;
            // This fails if the caller has given up waiting, which is fine.
            let _ = flush.done.send(usize::try_from(dropped).unwrap_or(usize::MAX));
        }
    }

    fn log_intake_overflow(&mut self, now: Instant) {
        let events = self.delivery.counters.unlogged.swap(0, Ordering::Relaxed);
        // Called without new ones, too: losses that were not logged at once, to keep the log short, are logged after the interval.
        if let Some(events) = self.intake_overflow.add(events, now) {
            warn!(events, "webhook events dropped: the intake is full, the delivery gets too little CPU");
        }
    }
}

/// The given time, or never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => future::pending().await,
    }
}
