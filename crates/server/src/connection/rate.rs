//! How many client events a connection may send in a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::timing::Tick;

/// Counts in windows of one second that begin with their first event.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Means nothing before the first event.
    window: Tick,
    count: u32,
}

impl RateLimit {
    pub(crate) fn new() -> Self {
        Self { window: Tick::ZERO, count: 0 }
    }

    /// Counts one event; whether it is within `limit`. A limit of 0 lets everything pass.
    pub(crate) fn allows(&mut self, limit: u32, now: Instant) -> bool {
        if self.count == 0 || self.window.age(now) >= Duration::from_secs(1) {
            self.window = now.into();
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        limit == 0 || self.count <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_allows_its_limit_and_the_next_one_begins_anew() {
        let (mut rate, start) = (RateLimit::new(), Instant::now());
        for _ in 0..10 {
            assert!(rate.allows(10, start));
        }
        assert!(!rate.allows(10, start + Duration::from_millis(999)));
        assert!(rate.allows(10, start + Duration::from_secs(1)));
        assert!((0..1000).all(|_| rate.allows(0, start + Duration::from_secs(1))));
    }
}
