//! Waiting with a bound, and what time it is.

use std::{
    future::Future,
    pin::pin,
    sync::LazyLock,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, timeout};

/// What a future comes to, unless it takes longer than `limit`. One that is ready at once, as most are on the way of a
/// trigger, costs no timer.
pub(crate) async fn in_time<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let now = std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    });
    match now.await {
        Some(value) => Some(value),
        None => timeout(limit, future).await.ok(),
    }
}

/// [`Tick`]s count from here: a little before the first of them, which may be of an instant ago.
static START: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
});

/// A moment to the millisecond, in a quarter of an `Instant`: for what is kept of every connection. It counts around every 49 days,
/// so it is for what lasts seconds or minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    /// None in particular.
    pub(crate) const ZERO: Self = Self(0);

    /// How long it is ago; nothing if it is later than `now`.
    pub(crate) fn age(self, now: Instant) -> Duration {
        let milliseconds = Self::from(now).0.wrapping_sub(self.0);
        Duration::from_millis(if milliseconds > u32::MAX / 2 { 0 } else { milliseconds.into() })
    }
}

impl From<Instant> for Tick {
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    fn from(instant: Instant) -> Self {
        Self(instant.saturating_duration_since(*START).as_millis() as u32)
    }
}

/// The time since 1970 by the system's clock; zero if that is set to an earlier time.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// The time as the directory sees it. Tests move it; pausing tokio's would need a build of it that is slower for everybody.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    return Instant::now() + moved::BY.get();
    #[cfg(not(test))]
    Instant::now()
}

/// The time as a test of this thread has moved it.
#[cfg(test)]
pub(crate) mod moved {
    use std::{cell::Cell, time::Duration};

    thread_local! {
        pub(super) static BY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Moves the time on.
    pub(crate) fn advance(time: Duration) {
        BY.set(BY.get() + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_tells_how_long_it_is_ago_also_around_its_end() {
        let (now, second) = (Instant::now() + Duration::from_millis(u32::MAX.into()), Duration::from_secs(1));
        for start in [now - second, now, now + second] {
            assert_eq!(Tick::from(start).age(start), Duration::ZERO);
            assert_eq!(Tick::from(start).age(start + second * 60), second * 60);
            assert_eq!(Tick::from(start).age(start - second), Duration::ZERO);
        }
    }
}
