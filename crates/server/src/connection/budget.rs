//! How often a connection may come and go in channels. Every change of a subscription is told to others; without a bound one
//! client's endless changes would fill their outboxes.

use std::time::Duration;

use tokio::time::Instant;

use crate::{limits::SUBSCRIPTION_CHANGES_PER_SECOND, timing::Tick};

/// Changes that are saved up, and refilled with time.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
    refilled: Tick,
}

impl Budget {
    /// Begins full.
    pub(crate) fn new(full: u32, now: Instant) -> Self {
        Self { left: full, refilled: now.into() }
    }

    /// Uses one up.
    pub(crate) fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// Until when to wait for the next; `None` if there is one.
    pub(crate) fn wait(&mut self, full: impl FnOnce() -> u32, now: Instant) -> Option<Instant> {
        if self.left > 0 {
            return None;
        }
        let each = Duration::from_secs(1) / SUBSCRIPTION_CHANGES_PER_SECOND;
        let since = self.refilled.age(now);
        let gained = since.as_nanos() / each.as_nanos();
        self.left = u32::try_from(gained).unwrap_or(u32::MAX).min(full());
        if self.left > 0 {
            self.refilled = now.into();
            return None;
        }
        Some(now + each - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_refills_with_time() {
        let start = Instant::now();
        let mut budget = Budget::new(2, start);
        let full = || 2;
        budget.spend();
        assert_eq!(budget.wait(full, start), None);
        budget.spend();
        let next = budget.wait(full, start).unwrap();
        assert!(next > start);
        assert_eq!(budget.wait(full, next), None);
        budget.spend();
        assert!(budget.wait(full, next).is_some());
        assert_eq!(budget.wait(full, next + Duration::from_secs(60)), None);
        assert_eq!(budget.left, 2);
    }
}
