//! Keeps a trouble that happens thousands of times from filling the log.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Adds up what happens between two lines of the log.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
    held: u64,
}

impl Throttle {
    /// Counts events, and returns the number to log if it is time for a line.
    pub(crate) fn add(&mut self, events: u64, now: Instant) -> Option<u64> {
        self.held += events;
        if self.held == 0 || self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        self.last = Some(now);
        self.rest()
    }

    /// What no line has told yet.
    pub(crate) fn rest(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.held)).filter(|&events| events > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_logged_is_in_the_next_line() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.add(0, start), None);
        assert_eq!(throttle.add(1, start), Some(1));
        assert_eq!(throttle.add(2, start + INTERVAL / 2), None);
        assert_eq!(throttle.add(3, start + INTERVAL), Some(5));
        assert_eq!(throttle.add(4, start + INTERVAL), None);
        assert_eq!((throttle.rest(), throttle.rest()), (Some(4), None));
    }
}
