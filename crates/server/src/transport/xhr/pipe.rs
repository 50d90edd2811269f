//! The way from a session to the request that takes what it sends, whichever worker has the request: room for one chunk.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

/// A new way.
pub(super) fn pipe() -> (Writer, Reader) {
    let shared = Arc::<Shared>::default();
    (Writer(Arc::clone(&shared)), Reader(shared))
}

/// The session's end. Dropping it ends the response, behind the chunk that may still wait.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

/// The request's end. It goes with the request.
#[derive(Debug)]
pub(crate) struct Reader(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    chunk: Option<Bytes>,
    ended: bool,
    gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The writer waits for room, not only for the end of the request.
    waits: bool,
}

/// The request is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Whether there is room for a chunk. In any case the task is woken when the request goes.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut state = self.0.state();
        if state.gone {
            return Poll::Ready(Err(Gone));
        }
        if !state.writer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.writer = Some(cx.waker().clone());
        }
        state.waits = state.chunk.is_some();
        if state.waits { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Hands over a chunk, for which there is room.
    pub(super) fn send(&self, chunk: Bytes) {
        let reader = {
            let mut state = self.0.state();
            state.chunk = Some(chunk);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Takes back a chunk that the request did not take.
    pub(super) fn take_back(self) -> Option<Bytes> {
        self.0.state().chunk.take()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let reader = {
            let mut state = self.0.state();
            state.ended = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Reader {
    /// The next chunk; `None` when the session is done with this request.
    pub(crate) fn poll_chunk(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let (chunk, writer) = {
            let mut state = self.0.state();
            let Some(chunk) = state.chunk.take() else {
                if state.ended {
                    return Poll::Ready(None);
                }
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let waits = std::mem::take(&mut state.waits);
            (chunk, state.writer.clone().filter(|_| waits))
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Some(chunk))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let writer = {
            let mut state = self.0.state();
            state.gone = true;
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// The body of a stream.
impl MessageBody for Reader {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.poll_chunk(cx).map(|chunk| chunk.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Bytes = Bytes::from_static(b"a[]\n");

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn one_chunk_waits_and_the_last_comes_before_the_end() {
        let (writer, reader) = pipe();
        assert_eq!(reader.poll_chunk(&cx()), Poll::Pending);
        assert_eq!(writer.poll_ready(&mut cx()), Poll::Ready(Ok(())));
        writer.send(CHUNK);
        assert_eq!(writer.poll_ready(&mut cx()), Poll::Pending);
        drop(writer);
        assert_eq!(reader.poll_chunk(&cx()), Poll::Ready(Some(CHUNK)));
        assert_eq!(reader.poll_chunk(&cx()), Poll::Ready(None));
    }

    #[test]
    fn a_chunk_for_a_request_that_went_can_be_taken_back() {
        let (writer, reader) = pipe();
        writer.send(CHUNK);
        drop(reader);
        assert_eq!(writer.poll_ready(&mut cx()), Poll::Ready(Err(Gone)));
        assert_eq!(writer.take_back(), Some(CHUNK));
    }
}
