//! Deadlines: nothing sleeps, everything ends.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout};

/// How long anything may take. Generous, as it is only waited for when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a future, but not for ever.
pub async fn deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// Asks until the answer satisfies, for what the server does without telling anybody. Asking is a round trip to the server,
/// so the loop needs no pause.
pub async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if holds(&answer) {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}; the last answer was {answer:?}");
        tokio::task::yield_now().await;
    }
}
