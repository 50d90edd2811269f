//! Waiting with a bound.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

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
