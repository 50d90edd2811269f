//! Which events of the senders a subscriber has got.

use std::ops::Range;

/// What the arrival of an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is later than all others of its sender.
    InOrder,
    /// A later one came before.
    OutOfOrder,
    /// It was here before.
    Duplicate,
}

/// The events of one channel, as one subscriber has seen them.
#[derive(Debug)]
pub(super) struct Sequences {
    /// By lane: one more than the greatest number that came.
    next: Box<[u32]>,
    /// What was left out before `next`, by lane. Empty as long as nothing goes wrong.
    holes: Vec<(usize, Range<u32>)>,
}

impl Sequences {
    pub(super) fn new(lanes: u16) -> Self {
        Self { next: vec![0; lanes.into()].into(), holes: Vec::new() }
    }

    /// Takes down an event; `None` for a lane that does not exist.
    pub(super) fn arrived(&mut self, lane: usize, number: u32) -> Option<Arrival> {
        let next = self.next.get_mut(lane)?;
        if number >= *next {
            if number > *next {
                self.holes.push((lane, *next..number));
            }
            *next = number.saturating_add(1);
            return Some(Arrival::InOrder);
        }
        let Some(index) = self.holes.iter().position(|(of, hole)| *of == lane && hole.contains(&number)) else {
            return Some(Arrival::Duplicate);
        };
        let (_, hole) = self.holes.swap_remove(index);
        let parts = [hole.start..number, number + 1..hole.end];
        self.holes.extend(parts.into_iter().filter(|part| !part.is_empty()).map(|part| (lane, part)));
        Some(Arrival::OutOfOrder)
    }

    /// How many of the first `issued` events of a lane have not come, those of `excused` left out.
    pub(super) fn lost(&self, lane: usize, issued: u32, excused: &[u32]) -> u64 {
        let next = self.next.get(lane).copied().unwrap_or_default();
        let holes = self.holes.iter().filter(|(of, _)| *of == lane).map(|(_, hole)| hole.clone());
        let missing = holes.chain(std::iter::once(next..issued.max(next)));
        missing
            .map(|range| {
                let length = u64::from(range.end - range.start);
                length - excused.iter().filter(|number| range.contains(number)).count() as u64
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_twice_or_never_is_told_apart() {
        let mut seen = Sequences::new(2);
        assert_eq!(seen.arrived(0, 0), Some(Arrival::InOrder));
        assert_eq!(seen.arrived(0, 5), Some(Arrival::InOrder));
        assert_eq!(seen.arrived(1, 0), Some(Arrival::InOrder));
        assert_eq!(seen.arrived(0, 3), Some(Arrival::OutOfOrder));
        assert_eq!(seen.arrived(0, 3), Some(Arrival::Duplicate));
        assert_eq!(seen.arrived(0, 5), Some(Arrival::Duplicate));
        assert_eq!(seen.arrived(2, 0), None);
        // 1, 2 and 4 never came, nor 6 and 7.
        assert_eq!(seen.lost(0, 8, &[]), 5);
        assert_eq!(seen.lost(0, 8, &[2, 7]), 3);
        assert_eq!((seen.lost(1, 1, &[]), seen.lost(1, 2, &[])), (0, 1));
    }
}
