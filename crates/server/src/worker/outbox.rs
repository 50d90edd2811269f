//! What waits for one client, bounded in bytes.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Frames a connection has yet to write. Nothing is ever dropped from its middle: the connection stays whole or ends.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Part of the first frame is written: it cannot be taken back.
    started: bool,
    /// The last frame is queued: nothing may follow.
    closed: bool,
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

impl Outbox {
    /// Queues a frame unless `limit` bytes wait already. So one frame may exceed the limit: a presence snapshot can be larger.
    pub(crate) fn push(&mut self, frame: Bytes, limit: usize) -> Pushed {
        if self.closed {
            return Pushed::Closed;
        }
        if self.bytes >= limit {
            return Pushed::Full;
        }
        self.bytes += frame.len();
        self.queue.push_back(frame);
        Pushed::Queued
    }

    /// Queues the last frames, whatever the limit.
    pub(crate) fn close(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        if self.closed {
            return;
        }
        self.closed = true;
        for frame in frames {
            self.bytes += frame.len();
            self.queue.push_back(frame);
        }
    }

    /// Forgets what is not yet begun, for a reader that is too slow to ever get it.
    pub(crate) fn forget_unsent(&mut self) {
        self.queue.truncate(usize::from(self.started));
        self.bytes = self.queue.iter().map(Bytes::len).sum();
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes the next frame whole, for those who write it elsewhere.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.queue.pop_front()?;
        self.bytes -= frame.len();
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

    /// Takes off what was written.
    pub(crate) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.queue.front_mut() {
            if written < frame.len() {
                frame.advance(written);
                self.started |= written > 0;
                return;
            }
            written -= frame.len();
            self.started = false;
            self.queue.pop_front();
        }
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue.shrink_to(KEPT_CAPACITY);
        }
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
        assert_eq!(outbox.bytes, 5);
        outbox.advance(2);
        assert_eq!(outbox.push(Bytes::from_static(b"6"), 4), Pushed::Queued);
        assert_eq!(waiting(&outbox), b"3456");
        outbox.advance(4);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes, 0);
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
        outbox.advance(8);
        assert!(outbox.is_empty());
    }

    #[test]
    fn frames_not_begun_are_forgotten() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"), 100);
        outbox.advance(5);
        outbox.push(Bytes::from_static(b"second"), 100);
        outbox.forget_unsent();
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes, 0);
    }
}
