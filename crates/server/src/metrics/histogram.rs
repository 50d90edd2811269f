//! How long something took, in buckets.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The upper bounds of the buckets, in microseconds: from a delivery that found an idle worker to one that waited as long as
/// `server.publish_timeout`. One more bucket takes what is above.
const BOUNDS: [u64; 14] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000];

/// Durations, as all threads see them.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// What one thread has seen and not handed over yet.
#[derive(Debug, Default)]
pub(super) struct LocalHistogram {
    buckets: [Cell<u64>; BOUNDS.len() + 1],
    nanos: Cell<u64>,
}

/// A histogram at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    /// Upper bounds in seconds, and how many were not above.
    pub(super) buckets: Vec<(f64, u64)>,
    /// How many there are.
    pub(super) count: u64,
    /// All together, in seconds.
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let mut at_most = |bucket: &AtomicU64| {
            count += bucket.load(Ordering::Relaxed);
            count
        };
        let seconds = |duration: Duration| duration.as_secs_f64();
        let buckets = BOUNDS.iter().zip(&self.buckets);
        let buckets =
            buckets.map(|(bound, bucket)| (seconds(Duration::from_micros(*bound)), at_most(bucket))).collect();
        let count = at_most(&self.buckets[BOUNDS.len()]);
        Snapshot { buckets, count, sum: seconds(Duration::from_nanos(self.nanos.load(Ordering::Relaxed))) }
    }
}

impl LocalHistogram {
    pub(super) fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[BOUNDS.partition_point(|bound| *bound < micros)];
        bucket.set(bucket.get() + 1);
        self.nanos.set(self.nanos.get() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2));
    }

    /// Hands over what was seen since the last time.
    pub(super) fn publish(&self, to: &Histogram) {
        let nanos = self.nanos.take();
        for (local, shared) in self.buckets.iter().zip(&to.buckets) {
            let count = local.take();
            if count > 0 {
                shared.fetch_add(count, Ordering::Relaxed);
            }
        }
        if nanos > 0 {
            to.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_is_not_above_its_bound() {
        let (local, shared) = (LocalHistogram::default(), Histogram::default());
        for micros in [0, 250, 251, 1_000, 5_000_000, 6_000_000] {
            local.observe(Duration::from_micros(micros));
        }
        local.publish(&shared);
        local.publish(&shared);
        let Snapshot { buckets, count, sum } = shared.snapshot();
        assert_eq!(buckets[0], (0.00025, 2));
        assert_eq!(buckets[1], (0.0005, 3));
        assert_eq!(buckets[2], (0.001, 4));
        assert_eq!(buckets[13], (5.0, 5));
        assert_eq!((count, sum), (6, 11.001_501));
    }
}
