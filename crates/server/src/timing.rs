//! Waiting with a bound.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use tokio::time::timeout;

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
