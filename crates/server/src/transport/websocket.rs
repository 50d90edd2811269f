//! The WebSocket transport that owns its socket.
//!
//! actix-http hands over each upgrade request with its socket. The socket moves to a task of its own and the HTTP
//! connection, with its buffers, is gone: an idle client costs little more than that task. The worker's loop writes; the
//! task reads, and writes only what the socket did not take at once.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_codec::{Decoder, Framed};
use actix_http::{Request, h1, ws};
use bytes::{Bytes, BytesMut};
use fanfare_protocol::{CloseCode, SocketId, server_event};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
    time::{Instant, timeout},
};

use super::handshake;
use crate::{
    connection::{Connection, ConnectionError, State},
    frame::{self, Frame},
    worker::Worker,
};

/// Reads of one connection before other tasks get their turn.
const READS_PER_TURN: usize = 4;
/// How long a client may take to read the last frames and to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes the kernel holds unsent for one client. More would hide a slow reader, and cost memory where nobody counts it.
const UNSENT_BYTES: u32 = 64 * 1024;

/// Takes over the socket of a request that asks for an upgrade.
pub(crate) fn upgrade(worker: &Rc<Worker>, request: &Request, framed: Framed<TcpStream, h1::Codec>) {
    let parts = framed.into_parts();
    let socket = parts.io;
    let options = socket2::SockRef::from(&socket);
    // None of these is worth a connection: they bound what a client that vanished or stalled can cost.
    let _ = options.set_tcp_notsent_lowat(UNSENT_BYTES);
    let _ = options.set_tcp_user_timeout(Some(worker.node.config.write_timeout));
    let mut answer = match handshake::answer(request.head()) {
        Ok(answer) => answer,
        Err(error) => return say_goodbye(socket, error.into()),
    };
    let app = match handshake::admit(&worker.node, request.head()) {
        Ok(app) => app,
        Err(error) => {
            tracing::debug!(%error, "connection refused");
            error.frames().for_each(|frame| answer.extend_from_slice(&frame));
            return say_goodbye(socket, answer);
        }
    };
    let (high, low) = rand::random();
    let socket_id = SocketId::from_random(high, low);
    let connection = worker.add(|id| Connection::new(id, socket_id, app.clone(), socket));
    // One write for both: the handshake's answer and the first frame.
    let established = server_event::connection_established(socket_id, app.activity_timeout);
    answer.extend_from_slice(&Frame::text(&established).into_bytes());
    connection.begin(answer.into());
    let session = Session {
        state: State::new(app, socket_id, worker.address(connection.id)),
        worker: Rc::clone(worker),
        connection,
        codec: ws::Codec::new().max_size(worker.node.config.max_message_bytes),
        // The HTTP parser's buffer is 8 KiB; most clients have sent nothing yet.
        partial: BytesMut::from(&*parts.read_buf),
        message: None,
    };
    spawn_local(Client::Open(session));
}

/// Sends the last bytes to a client that was never let in.
fn say_goodbye(mut socket: TcpStream, bytes: Vec<u8>) {
    spawn_local(async move {
        let goodbye = async {
            socket.write_all(&bytes).await?;
            socket.shutdown().await?;
            while socket.read(&mut [0; 512]).await? > 0 {}
            io::Result::Ok(())
        };
        // Whatever goes wrong, the socket is closed now.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    });
}

/// One client from its handshake to its end. Written as a future by hand: the compiler's would hold the session twice, and
/// there are as many of these as there are clients.
enum Client {
    /// Registered, and served.
    Open(Session),
    /// Gone from all channels; the last frames are on their way. On the heap, so that no client who is served holds the
    /// space for it.
    Closing(Pin<Box<dyn Future<Output = ()>>>),
}

impl Future for Client {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Open(session) => {
                    let end = ready!(session.poll(cx));
                    let connection = Rc::clone(&session.connection);
                    // Leaves all channels, before the goodbye takes its time.
                    *self = Self::Closing(Box::pin(close(connection, end)));
                }
                Self::Closing(goodbye) => return goodbye.as_mut().poll(cx),
            }
        }
    }
}

/// Says goodbye to a client whose session is over.
async fn close(connection: Rc<Connection>, end: End) {
    match &end {
        End::Gone => return,
        End::Left(answer) => connection.close_answer(answer.clone()),
        End::Error(error) => connection.close(error),
    }
    if timeout(CLOSE_TIMEOUT, say_last_words(&connection)).await.is_err() {
        connection.abort_on_drop();
    }
}

/// Writes what is left, and waits for the client to close its side.
async fn say_last_words(connection: &Connection) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        connection.set_task(cx);
        connection.poll_flush(cx)
    })
    .await?;
    std::future::poll_fn(|cx| connection.poll_shutdown(cx)).await?;
    let mut rest = BytesMut::with_capacity(512);
    while std::future::poll_fn(|cx| connection.poll_read(cx, &mut rest)).await? > 0 {
        rest.clear();
    }
    Ok(())
}

/// How a connection ended.
enum End {
    /// The socket is closed or broken.
    Gone,
    /// The client sent a close frame, which is to be answered with this one.
    Left(Bytes),
    /// The server ends it.
    Error(ConnectionError),
}

/// A registered connection with what it needs to read. Dropping it takes the connection out of the worker and all channels.
struct Session {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    state: State,
    codec: ws::Codec,
    /// The beginning of a frame whose rest is still to come; without memory otherwise.
    partial: BytesMut,
    /// The fragments of a message so far.
    message: Option<Box<BytesMut>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.remove(self.connection.id, self.state.channels());
    }
}

impl Session {
    /// Writes what waits and reads what has come, until the connection ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let worker = Rc::clone(&self.worker);
        self.connection.set_task(cx);
        if let Some(error) = self.connection.take_error() {
            return Poll::Ready(End::Error(error));
        }
        if let Poll::Ready(Err(_)) = self.connection.poll_flush(cx) {
            return Poll::Ready(End::Gone);
        }
        if !self.partial.is_empty() {
            // Frames that came along with the handshake.
            let mut buffer = std::mem::take(&mut self.partial);
            if let Some(end) = self.on_bytes(&mut buffer) {
                return Poll::Ready(end);
            }
            self.keep_rest(buffer);
        }
        for _ in 0..READS_PER_TURN {
            // A client whose events the workers cannot keep up with is not read from; its own kernel slows it down.
            ready!(worker.node.pressure.poll_room(cx));
            let mut scratch = worker.scratch.borrow_mut();
            Worker::reset_scratch(&mut scratch);
            match ready!(self.connection.poll_read(cx, &mut scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(End::Gone),
                Ok(_) => {}
            }
            let mut partial = std::mem::take(&mut self.partial);
            if partial.is_empty() {
                // The usual case: whole frames, and nothing to keep.
                if let Some(end) = self.on_bytes(&mut scratch) {
                    return Poll::Ready(end);
                }
                self.keep_rest(BytesMut::from(&**scratch));
            } else {
                partial.extend_from_slice(&scratch);
                if let Some(end) = self.on_bytes(&mut partial) {
                    return Poll::Ready(end);
                }
                self.keep_rest(partial);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn keep_rest(&mut self, rest: BytesMut) {
        if !rest.is_empty() {
            self.partial = rest;
        }
    }

    /// Takes all whole frames from the front of the buffer.
    fn on_bytes(&mut self, buffer: &mut BytesMut) -> Option<End> {
        let limit = self.worker.node.config.max_message_bytes;
        loop {
            // The codec looks at the length when the whole frame is there; until then it would be kept.
            if announced_length(buffer).is_some_and(|length| length > limit as u64) {
                return Some(End::Error(self.too_large()));
            }
            match self.codec.decode(buffer) {
                Ok(Some(frame)) => {
                    if let Some(end) = self.on_frame(frame) {
                        return Some(end);
                    }
                }
                Ok(None) => return None,
                Err(ws::ProtocolError::Overflow) => return Some(End::Error(self.too_large())),
                Err(error) => return Some(End::Error(ConnectionError::Protocol(error.to_string()))),
            }
        }
    }

    fn too_large(&self) -> ConnectionError {
        ConnectionError::MessageTooLarge { limit: self.worker.node.config.max_message_bytes }
    }

    fn on_frame(&mut self, frame: ws::Frame) -> Option<End> {
        match frame {
            ws::Frame::Text(text) => return self.on_message(&text, true),
            // Clients that send their JSON as binary mean the same.
            ws::Frame::Binary(bytes) => return self.on_message(&bytes, false),
            ws::Frame::Continuation(item) => return self.on_fragment(item),
            ws::Frame::Ping(payload) => {
                let mut dirty = Vec::new();
                self.connection.queue(frame::pong(&payload), &mut dirty);
                dirty.iter().for_each(|connection| connection.flush());
            }
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
        let limit = self.worker.node.config.max_message_bytes;
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
        self.state.on_message(message, Instant::now());
        if self.state.is_authorized() {
            self.connection.set_authorized();
        }
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
