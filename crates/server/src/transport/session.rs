//! One client's session over WebSocket frames, whoever owns the socket: reads, takes frames apart, and ends.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_codec::Decoder;
use actix_http::ws;
use bytes::{Bytes, BytesMut};
use fanfare_protocol::CloseCode;

use super::registered::Registered;
use crate::{
    admission::Admitted,
    connection::{Connection, ConnectionError, Link},
    frame,
    node::Client,
    worker::Worker,
};

/// Reads of one connection before other tasks get their turn.
const READS_PER_TURN: usize = 4;

/// How a connection ended.
pub(super) enum End {
    /// The socket is closed or broken.
    Gone,
    /// The client sent a close frame, which is to be answered with this one.
    Left(Bytes),
    /// The server ends it.
    Error(ConnectionError),
}

/// Where a client's bytes come from.
pub(super) trait Source {
    /// Adds what has come to `buffer`; 0 at the end.
    fn poll_read(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>>;
}

/// A registered connection with what it needs to read. Dropping it takes the connection out of the worker and all channels.
pub(super) struct Session<S> {
    registered: Registered,
    source: S,
    codec: ws::Codec,
    /// The beginning of a frame whose rest is still to come; without memory otherwise.
    partial: BytesMut,
    /// The fragments of a message so far.
    message: Option<Box<BytesMut>>,
}

impl<S: Source> Session<S> {
    /// Registers a connection of an app that has counted it in. `opening` goes out before anything else, with the first frame
    /// of the protocol behind it; `early` are bytes of the client that have come already.
    pub(super) fn open(
        worker: &Rc<Worker>,
        admitted: Admitted,
        link: Link,
        source: S,
        opening: Vec<u8>,
        early: &[u8],
    ) -> Self {
        let registered = Registered::new(worker, admitted, link, opening);
        registered.connection.tally().read(early.len());
        Self {
            registered,
            source,
            codec: ws::Codec::new().max_size(worker.node.config.max_message_bytes),
            partial: BytesMut::from(early),
            message: None,
        }
    }

    /// What the worker and others know of this client.
    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.registered.connection
    }

    /// Counts the client's socket once more, for a task that outlives the session.
    pub(super) fn client(&self) -> Client {
        self.registered.client()
    }

    /// Writes what waits and reads what has come, until the connection ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let worker = Rc::clone(&self.registered.worker);
        self.connection().set_task(cx);
        if let Some(error) = self.connection().take_error() {
            return Poll::Ready(End::Error(error));
        }
        if let Poll::Ready(Err(_)) = self.connection().poll_flush(cx) {
            return Poll::Ready(End::Gone);
        }
        ready!(self.registered.poll_pause(cx));
        // Bytes that came along with the handshake, or that were left behind the last frame when reading paused.
        if !self.partial.is_empty() {
            let mut buffer = std::mem::take(&mut self.partial);
            if let Some(end) = self.on_bytes(&mut buffer) {
                return Poll::Ready(end);
            }
            self.keep(buffer);
        }
        for _ in 0..READS_PER_TURN {
            if self.registered.is_paused() {
                break;
            }
            // A client that the workers cannot keep up with is not read from; its own kernel slows it down.
            ready!(self.registered.poll_room(cx));
            let mut scratch = worker.scratch.borrow_mut();
            Worker::reset_scratch(&mut scratch);
            match ready!(self.source.poll_read(&self.registered.connection, cx, &mut scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(End::Gone),
                Ok(_) => {}
            }
            let mut partial = std::mem::take(&mut self.partial);
            if partial.is_empty() {
                // The usual case: whole frames, and nothing to keep.
                if let Some(end) = self.on_bytes(&mut scratch) {
                    return Poll::Ready(end);
                }
                self.keep(BytesMut::from(&**scratch));
            } else {
                partial.extend_from_slice(&scratch);
                if let Some(end) = self.on_bytes(&mut partial) {
                    return Poll::Ready(end);
                }
                self.keep(partial);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Keeps the beginning of a frame, in no more memory than it needs.
    fn keep(&mut self, rest: BytesMut) {
        if rest.capacity() > 4 * rest.len() {
            self.partial = BytesMut::from(&*rest);
        } else {
            self.partial = rest;
        }
    }

    /// Takes whole frames from the front of the buffer: all, or as many as the client may send for now.
    fn on_bytes(&mut self, buffer: &mut BytesMut) -> Option<End> {
        let limit = self.registered.worker.node.config.max_message_bytes;
        let mut pong = None;
        let end = loop {
            if self.registered.has_to_pause() {
                break None;
            }
            // The codec checks the length only when the whole frame is there, and until then all of it would be kept.
            if announced_length(buffer).is_some_and(|length| length > limit as u64) {
                break Some(End::Error(self.too_large()));
            }
            match self.codec.decode(buffer) {
                Ok(Some(frame)) => {
                    if let Some(end) = self.on_frame(frame, &mut pong) {
                        break Some(end);
                    }
                }
                Ok(None) => break None,
                Err(ws::ProtocolError::Overflow) => break Some(End::Error(self.too_large())),
                Err(error) => break Some(End::Error(ConnectionError::Protocol(error.to_string()))),
            }
        };
        // Of several pings the last is answered (RFC 6455, 5.5.3): a flood of them costs its sender more than us.
        if let Some(payload) = pong {
            let mut dirty = Vec::new();
            self.connection().queue(frame::pong(&payload), &mut dirty);
            dirty.iter().for_each(|connection| connection.flush());
        }
        end
    }

    fn too_large(&self) -> ConnectionError {
        ConnectionError::MessageTooLarge { limit: self.registered.worker.node.config.max_message_bytes }
    }

    fn on_frame(&mut self, frame: ws::Frame, pong: &mut Option<Bytes>) -> Option<End> {
        match frame {
            ws::Frame::Text(text) => return self.on_message(&text, true),
            // Clients that send their JSON as binary mean the same.
            ws::Frame::Binary(bytes) => return self.on_message(&bytes, false),
            ws::Frame::Continuation(item) => return self.on_fragment(item),
            ws::Frame::Ping(payload) => *pong = Some(payload),
            ws::Frame::Pong(_) => {}
            ws::Frame::Close(reason) => {
                let code = reason.and_then(|reason| CloseCode::new(reason.code.into()));
                return Some(End::Left(frame::close(code.unwrap_or(CloseCode::NORMAL), "")));
            }
        }
        None
    }

    fn on_fragment(&mut self, item: ws::Item) -> Option<End> {
        let (bytes, last) = match item {
            ws::Item::FirstText(bytes) | ws::Item::FirstBinary(bytes) => {
                self.message = Some(Box::default());
                (bytes, false)
            }
            ws::Item::Continue(bytes) => (bytes, false),
            ws::Item::Last(bytes) => (bytes, true),
        };
        let limit = self.registered.worker.node.config.max_message_bytes;
        let message = self.message.get_or_insert_default();
        if message.len() + bytes.len() > limit {
            return Some(End::Error(self.too_large()));
        }
        message.extend_from_slice(&bytes);
        let message = self.message.take_if(|_| last)?;
        self.on_message(&message, true)
    }

    fn on_message(&mut self, message: &[u8], text: bool) -> Option<End> {
        if text && std::str::from_utf8(message).is_err() {
            return Some(End::Error(ConnectionError::InvalidUtf8));
        }
        self.registered.on_message(message);
        None
    }
}

/// The payload length in the header of the frame at the front of the buffer, once it is there. RFC 6455, 5.2.
fn announced_length(buffer: &[u8]) -> Option<u64> {
    match buffer.get(1)? & 0x7F {
        126 => Some(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?).into()),
        127 => Some(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)),
        short => Some(short.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_as_soon_as_the_header_is_there() {
        assert_eq!(announced_length(&[0x81]), None);
        assert_eq!(announced_length(&[0x81, 0x85]), Some(5));
        assert_eq!(announced_length(&[0x81, 0xFE, 1]), None);
        assert_eq!(announced_length(&[0x81, 0xFE, 1, 0]), Some(256));
        assert_eq!(announced_length(&[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0]), None);
        assert_eq!(announced_length(&[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0]), Some(65_536));
    }
}
