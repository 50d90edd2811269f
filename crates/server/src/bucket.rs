//! How much may happen in a time: a bucket that fills evenly, in one atomic number.
//!
//! The generic cell rate algorithm: instead of a count of tokens it keeps the time at which the bucket will be full again.
//! Taking moves that time on; it may not be further away than it takes to fill an empty bucket.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Times are counted from here, in nanoseconds: enough for five centuries.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is left of a rate. Begins full.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
}

/// So many (`limit`) in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) limit: u32,
    pub(crate) per: Duration,
}

/// What a bucket says: the `X-RateLimit-` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// What a full bucket holds.
    pub(crate) limit: u32,
    /// What it holds now.
    pub(crate) remaining: u32,
    /// When it will be full.
    pub(crate) reset: Duration,
}

/// There is not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) allowance: Allowance,
    /// How long to wait until there is.
    pub(crate) retry_after: Duration,
}

impl Exceeded {
    /// `retry_after` in whole seconds, as it is told.
    pub(crate) fn seconds(self) -> u64 {
        whole_seconds(self.retry_after).max(1)
    }
}

/// Rounded up: whoever comes back then is not too early.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Rate {
    /// In a second.
    pub(crate) fn per_second(limit: u32) -> Self {
        Self { limit, per: Duration::from_secs(1) }
    }

    fn nanos(self, count: u32) -> u64 {
        let each = self.per.as_nanos() * u128::from(count) / u128::from(self.limit.max(1));
        u64::try_from(each).unwrap_or(u64::MAX)
    }

    fn allowance(self, missing_nanos: u64) -> Allowance {
        let per = u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX);
        let left = u128::from(per.saturating_sub(missing_nanos)) * u128::from(self.limit);
        let remaining = u32::try_from(left / u128::from(per.max(1))).unwrap_or(u32::MAX);
        Allowance { limit: self.limit, remaining, reset: Duration::from_nanos(missing_nanos) }
    }
}

impl Bucket {
    /// Takes `count`. More than a full bucket holds passes when the bucket is full, and is paid for later; otherwise it could never pass.
    pub(crate) fn take(&self, rate: Rate, count: u32, now: Instant) -> Result<Allowance, Exceeded> {
        let now = nanos(now);
        let (cost, room) = (rate.nanos(count), rate.nanos(rate.limit));
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let start = full_at.max(now);
            // If the bucket is full again by then at the latest, this much may be taken now.
            let latest = now.saturating_add(room.saturating_sub(cost));
            if start > latest {
                return Err(Exceeded {
                    allowance: rate.allowance(start - now),
                    retry_after: Duration::from_nanos(start - latest),
                });
            }
            let after = start.saturating_add(cost);
            match self.full_at.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(rate.allowance(after - now)),
                Err(other) => full_at = other,
            }
        }
    }

    /// Whether `count` could be taken; does not take it.
    pub(crate) fn check(&self, rate: Rate, count: u32, now: Instant) -> Result<(), Exceeded> {
        let now = nanos(now);
        let start = self.full_at.load(Ordering::Relaxed).max(now);
        let latest = now.saturating_add(rate.nanos(rate.limit).saturating_sub(rate.nanos(count)));
        if start <= latest {
            return Ok(());
        }
        Err(Exceeded { allowance: rate.allowance(start - now), retry_after: Duration::from_nanos(start - latest) })
    }

    /// Whether it is full, so that a new one would be the same.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn nanos(time: Instant) -> u64 {
    u64::try_from(time.duration_since(*START).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { limit: 10, per: Duration::from_secs(1) };

    /// A time far enough from the clock's beginning to subtract from.
    fn now() -> Instant {
        LazyLock::force(&START);
        Instant::now()
    }

    #[test]
    fn a_full_bucket_holds_its_limit_and_fills_evenly() {
        let (bucket, now) = (Bucket::default(), now());
        for left in (0..10).rev() {
            assert_eq!(bucket.take(RATE, 1, now).unwrap().remaining, left);
        }
        let exceeded = bucket.take(RATE, 1, now).unwrap_err();
        assert_eq!(exceeded.retry_after, Duration::from_millis(100));
        assert_eq!(exceeded.allowance, Allowance { limit: 10, remaining: 0, reset: Duration::from_secs(1) });
        assert!(bucket.take(RATE, 1, now + Duration::from_millis(99)).is_err());
        assert!(bucket.take(RATE, 1, now + Duration::from_millis(100)).is_ok());
        assert!(bucket.take(RATE, 1, now + Duration::from_millis(100)).is_err());
        let later = now + Duration::from_secs(60);
        assert!(bucket.is_full(later));
        assert_eq!((0..20).filter(|_| bucket.take(RATE, 1, later).is_ok()).count(), 10);
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let (bucket, now) = (Bucket::default(), now());
        bucket.take(RATE, 8, now).unwrap();
        for _ in 0..100 {
            assert_eq!(bucket.take(RATE, 3, now).unwrap_err().allowance.remaining, 2);
        }
        assert!(bucket.check(RATE, 2, now).is_ok());
        assert!(bucket.take(RATE, 2, now).is_ok());
        assert!(bucket.check(RATE, 1, now).is_err());
    }

    #[test]
    fn more_than_a_full_bucket_passes_when_it_is_full_and_is_paid_for() {
        let (bucket, now) = (Bucket::default(), now());
        assert!(bucket.take(RATE, 30, now).is_ok());
        assert_eq!(bucket.take(RATE, 1, now).unwrap_err().retry_after, Duration::from_millis(2100));
        assert!(bucket.take(RATE, 30, now + Duration::from_millis(2999)).is_err());
        assert!(bucket.take(RATE, 30, now + Duration::from_secs(3)).is_ok());
    }

    #[test]
    fn a_changed_rate_holds_from_the_next_time_on() {
        let (bucket, now) = (Bucket::default(), now());
        (0..10).for_each(|_| assert!(bucket.take(RATE, 1, now).is_ok()));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| bucket.take(Rate::per_second(2), 1, later).is_ok()).count(), 2);
    }

    #[test]
    fn many_threads_take_exactly_what_there_is() {
        let (bucket, now) = (Bucket::default(), now());
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| bucket.take(Rate::per_second(500), 1, now).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 500);
    }
}
