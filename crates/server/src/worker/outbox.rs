//! What waits for one client, bounded in bytes.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Frames a connection has yet to write. Nothing is ever dropped from its middle: the connection stays whole or ends.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    /// Bytes of the frames, with [`FRAME_COST`] for each.
    cost: usize,
    /// Part of the first frame is written: it cannot be taken back.
    started: bool,
    /// A frame found no room: none behind it may be queued, or there would be a gap.
    full: bool,
    /// The last frame is queued: nothing may follow.
    closed: bool,
    /// Something was taken since [`Outbox::take_moved`] was last called.
    moved: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits to be written.
    Queued,
    /// The bound was reached before; the frame is not queued.
    Full,
    /// The stream has its last frame already; the frame is not queued.
    Closed,
}

/// Frames that one system call takes.
pub(crate) const MAX_SLICES: usize = 64;
/// An emptied queue keeps room for as many frames; more is given back.
const KEPT_CAPACITY: usize = 8;
/// What a waiting frame counts beside its bytes, so that many small ones cannot get around the bound.
pub(crate) const FRAME_COST: usize = 96;

impl Outbox {
    /// Queues a frame unless `limit` bytes wait already. A presence snapshot can be larger than that: a frame may exceed the
    /// limit, and more may follow while it is written.
    pub(crate) fn push(&mut self, frame: Bytes, limit: usize) -> Pushed {
        if self.closed {
            return Pushed::Closed;
        }
        self.full |= self.cost >= limit && self.cost_by_frame(limit / 4) >= limit;
        if self.full {
            return Pushed::Full;
        }
        self.add(frame);
        Pushed::Queued
    }

    fn add(&mut self, frame: Bytes) {
        self.cost += frame.len() + FRAME_COST;
        self.queue.push_back(frame);
    }

    /// What waits, with at most `most` bytes counted of each frame. Only looked at where large frames make the difference.
    fn cost_by_frame(&self, most: usize) -> usize {
        self.queue.iter().map(|frame| frame.len().min(most) + FRAME_COST).sum()
    }

    /// Queues the last frames, whatever the limit.
    pub(crate) fn close(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        if !self.closed {
            self.closed = true;
            frames.into_iter().for_each(|frame| self.add(frame));
        }
    }

    /// Forgets what is not yet begun, for a reader that is too slow to ever get it.
    pub(crate) fn forget_unsent(&mut self) {
        self.queue.truncate(usize::from(self.started));
        self.cost = self.queue.iter().map(|frame| frame.len() + FRAME_COST).sum();
    }

    /// What counts for its bound: the bytes that wait, and a little for each frame.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether something was taken since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Takes the next frame whole, for a transport that writes it itself.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.queue.pop_front()?;
        self.moved = true;
        self.cost -= frame.len() + FRAME_COST;
        Some(frame)
    }

    /// Whether the last frame is queued, or gone already.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next frame, if it is the only one.
    pub(crate) fn single(&self) -> Option<&Bytes> {
        self.queue.front().filter(|_| self.queue.len() == 1)
    }

    /// Gives back the memory of an empty queue.
    pub(crate) fn release(&mut self) {
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// The next frames as one vectored write takes them.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        count
    }

    /// Takes off what was written. Returns how many frames are complete with it.
    pub(crate) fn advance(&mut self, mut written: usize) -> usize {
        self.cost -= written;
        self.moved = true;
        let mut frames = 0;
        while let Some(frame) = self.queue.front_mut() {
            if written < frame.len() {
                frame.advance(written);
                self.started |= written > 0;
                return frames;
            }
            written -= frame.len();
            frames += 1;
            self.started = false;
            self.cost -= FRAME_COST;
            self.queue.pop_front();
        }
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue.shrink_to(KEPT_CAPACITY);
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = outbox.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn the_limit_lets_one_frame_exceed_it_and_no_more() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(Bytes::from_static(b"12345"), 4), Pushed::Queued);
        assert_eq!(outbox.push(Bytes::from_static(b"6"), 4), Pushed::Full);
        assert_eq!(waiting(&outbox), b"12345");
        outbox.advance(5);
        assert_eq!((outbox.is_empty(), outbox.cost), (true, 0));
    }

    #[test]
    fn more_may_follow_a_frame_above_the_limit_but_not_many_of_its_kind() {
        let (snapshot, event) = (Bytes::from(vec![b'x'; 100_000]), Bytes::from_static(&[b'x'; 100]));
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(snapshot.clone(), 10_000), Pushed::Queued);
        assert_eq!(outbox.push(event.clone(), 10_000), Pushed::Queued);
        let more = (0..10).filter(|_| outbox.push(snapshot.clone(), 10_000) == Pushed::Queued);
        assert_eq!(more.count(), 3);
        let mut outbox = Outbox::default();
        let events = (0..1000).filter(|_| outbox.push(event.clone(), 10_000) == Pushed::Queued);
        assert_eq!(events.count(), 52);
    }

    #[test]
    fn nothing_is_queued_behind_a_frame_that_found_no_room() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"12345"), 4);
        assert_eq!(outbox.push(Bytes::from_static(b"6"), 4), Pushed::Full);
        outbox.advance(5);
        assert_eq!(outbox.push(Bytes::from_static(b"7"), 4), Pushed::Full);
    }

    #[test]
    fn many_small_frames_do_not_get_around_the_limit() {
        let mut outbox = Outbox::default();
        let pongs = (0..).take_while(|_| outbox.push(Bytes::from_static(&[0x8A, 0]), 1024 * 1024) == Pushed::Queued);
        assert!(pongs.count() < 11_000);
    }

    #[test]
    fn a_begun_frame_is_finished_even_for_a_slow_reader() {
        let mut outbox = Outbox::default();
        for frame in ["first", "second", "third"] {
            outbox.push(Bytes::from_static(frame.as_bytes()), 100);
        }
        outbox.advance(2);
        outbox.forget_unsent();
        outbox.close([Bytes::from_static(b"close")]);
        assert_eq!(waiting(&outbox), b"rstclose");
        assert_eq!(outbox.push(Bytes::from_static(b"late"), 100), Pushed::Closed);
        assert_eq!(outbox.advance(8), 2);
        assert!(outbox.is_empty());
    }

    #[test]
    fn frames_not_begun_are_forgotten() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"), 100);
        outbox.advance(5);
        outbox.push(Bytes::from_static(b"second"), 100);
        outbox.forget_unsent();
        assert_eq!((outbox.is_empty(), outbox.cost), (true, 0));
    }
}
