//! What a worker counts by itself. One thread's own, so that counting a delivery is an addition and no more.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fanfare_protocol::AppId;
use tokio::time::Instant;

use super::{AppMetrics, histogram::LocalHistogram};
use crate::throttle::Throttle;

/// What one worker has counted of an app and not handed over yet. All connections of the app on that worker share it.
#[derive(Debug)]
pub(crate) struct Tally {
    app: AppId,
    metrics: Arc<AppMetrics>,
    bytes_received: Cell<u64>,
    bytes_sent: Cell<u64>,
    messages_received: Cell<u64>,
    messages_sent: Cell<u64>,
    writes: Cell<u64>,
    delivery: LocalHistogram,
    /// Bytes that wait, added up while the worker looks after its connections.
    outbox_bytes: Cell<usize>,
    /// The worker's part of what the app has at present.
    outbox_bytes_told: Cell<usize>,
    slow_readers: RefCell<Throttle>,
}

fn add(cell: &Cell<u64>, count: usize) {
    cell.set(cell.get() + count as u64);
}

impl Tally {
    pub(crate) fn new(app: AppId, metrics: Arc<AppMetrics>) -> Self {
        Self {
            app,
            metrics,
            bytes_received: Cell::default(),
            bytes_sent: Cell::default(),
            messages_received: Cell::default(),
            messages_sent: Cell::default(),
            writes: Cell::default(),
            delivery: LocalHistogram::default(),
            outbox_bytes: Cell::default(),
            outbox_bytes_told: Cell::default(),
            slow_readers: RefCell::default(),
        }
    }

    /// Whether these are the counters it hands over to.
    pub(crate) fn is_of(&self, metrics: &Arc<AppMetrics>) -> bool {
        Arc::ptr_eq(&self.metrics, metrics)
    }

    /// Bytes have come from a client.
    pub(crate) fn read(&self, bytes: usize) {
        add(&self.bytes_received, bytes);
    }

    /// A message of a client is complete.
    pub(crate) fn message(&self) {
        add(&self.messages_received, 1);
    }

    /// One write has taken bytes, and with them the last ones of so many frames.
    pub(crate) fn wrote(&self, bytes: usize, frames: usize) {
        add(&self.bytes_sent, bytes);
        add(&self.messages_sent, frames);
        add(&self.writes, 1);
    }

    /// An event was written to its subscribers here, this long after it was published.
    pub(crate) fn delivered(&self, after: Duration) {
        self.delivery.observe(after);
    }

    /// Bytes that wait for one of the connections.
    pub(crate) fn waits(&self, bytes: usize) {
        self.outbox_bytes.set(self.outbox_bytes.get() + bytes);
    }

    /// A connection is ended because it reads too slowly. Clients can cause this as often as they like; the log tells of it
    /// from time to time.
    pub(crate) fn slow_reader(&self, limit_bytes: usize, now: Instant) {
        self.metrics.slow_readers_closed.increment();
        self.log_slow_readers(1, limit_bytes, now);
    }

    fn log_slow_readers(&self, closed: u64, limit_bytes: usize, now: Instant) {
        if let Some(connections) = self.slow_readers.borrow_mut().add(closed, now) {
            tracing::warn!(
                app.id = %self.app, connections, limit_bytes,
                "closed connections that read too slowly: more than server.max_outbox_bytes waited, or nothing was taken for \
                 server.write_timeout"
            );
        }
    }

    /// Hands over what was counted since the last time. To be called when what waits was added up.
    pub(crate) fn publish(&self, limit_bytes: usize, now: Instant) {
        self.hand_over();
        self.log_slow_readers(0, limit_bytes, now);
    }

    fn hand_over(&self) {
        let Self { metrics, .. } = self;
        for (local, shared) in [
            (&self.bytes_received, &metrics.bytes_received),
            (&self.bytes_sent, &metrics.bytes_sent),
            (&self.messages_received, &metrics.messages_received),
            (&self.messages_sent, &metrics.messages_sent),
            (&self.writes, &metrics.writes),
        ] {
            shared.add(local.take());
        }
        self.delivery.publish(&metrics.delivery);
        let waits = self.outbox_bytes.take();
        let change = waits.wrapping_sub(self.outbox_bytes_told.replace(waits));
        if change != 0 {
            metrics.outbox_bytes.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.outbox_bytes.set(0);
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_handed_over_once_and_a_gauge_is_taken_back() {
        let metrics = Arc::<AppMetrics>::default();
        let tallies = [0, 1].map(|_| Tally::new(AppId::new("a"), Arc::clone(&metrics)));
        for tally in &tallies {
            tally.wrote(100, 3);
            tally.waits(10);
            tally.waits(5);
            tally.publish(100, Instant::now());
        }
        let [first, second] = tallies;
        assert_eq!((metrics.bytes_sent.get(), metrics.messages_sent.get(), metrics.writes.get()), (200, 6, 2));
        assert_eq!(metrics.outbox_bytes.load(Ordering::Relaxed), 30);
        first.waits(1);
        first.publish(100, Instant::now());
        assert_eq!(metrics.outbox_bytes.load(Ordering::Relaxed), 16);
        second.message();
        drop((first, second));
        assert_eq!((metrics.messages_received.get(), metrics.writes.get()), (1, 2));
        assert_eq!(metrics.outbox_bytes.load(Ordering::Relaxed), 0);
    }
}
