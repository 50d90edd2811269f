//! One client: what its worker and its transport share. Whatever ends a connection goes through [`Connection::end`].

mod budget;
mod error;
mod rate;
mod recovery;
mod state;

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fanfare_protocol::{SocketId, server_event};
use tokio::{io::AsyncWrite, time::Instant};

pub(crate) use self::{error::ConnectionError, state::State};
use crate::{
    app::App,
    config::ServerConfig,
    frame::{self, Frame},
    metrics::{Tally, Transport},
    timing::Tick,
    transport::Stream,
    worker::{ConnectionId, MAX_SLICES, Outbox, Pushed},
};

/// One client.
pub(crate) struct Connection {
    /// Its name within the node.
    pub(crate) id: ConnectionId,
    /// Its public name.
    pub(crate) socket_id: SocketId,
    app: Arc<App>,
    /// The client speaks TLS, with us or with a trusted proxy.
    secure: bool,
    tally: Rc<Tally>,
    outbox: RefCell<Outbox>,
    link: Link,
    /// Wakes the task that reads from the client; the socket's writability wakes it, too.
    task: RefCell<Option<Waker>>,
    /// Set when the client opted in to positions: the sockets it had before.
    earlier: RefCell<Option<Box<[SocketId]>>>,
    /// Why the connection ends, once it does.
    error: RefCell<Option<Box<ConnectionError>>>,
    /// Whether it stands in the list of connections to write to.
    dirty: Cell<bool>,
    /// Whether everything was handed to the socket, but not all of it has left it.
    unflushed: Cell<bool>,
    liveness: Liveness,
}

/// How bytes leave for the client.
pub(crate) enum Link {
    /// The connection owns its socket and writes to it.
    Socket(RefCell<Stream>),
    /// actix-web owns the socket and takes the bytes from a response's body; this wakes it.
    Body(RefCell<Option<Waker>>),
    /// The connection's task takes them, for whoever carries them; `tls`: over a connection of ours with TLS.
    Task { tls: bool },
}

impl Link {
    /// How the client is connected, for the metrics.
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Socket(stream) if stream.borrow().is_tls() => Transport::WebSocketTls,
            Self::Socket(_) => Transport::WebSocket,
            Self::Body(_) => Transport::ActixWs,
            Self::Task { tls: true } => Transport::XhrTls,
            Self::Task { tls: false } => Transport::Xhr,
        }
    }
}

/// When something was last heard of a client, and when it last took what it was sent.
struct Liveness {
    opened: Tick,
    received: Cell<Tick>,
    /// When it was last seen that nothing waits for it, or that it had taken something.
    taken: Cell<Tick>,
    /// When it was asked for a sign of life, until it gives one.
    pinged: Cell<Option<Tick>>,
    /// Signed in, or member of a private or presence channel.
    authorized: Cell<bool>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.socket_id)
    }
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        socket_id: SocketId,
        app: Arc<App>,
        secure: bool,
        tally: Rc<Tally>,
        link: Link,
    ) -> Self {
        let now = Instant::now().into();
        Self {
            id,
            socket_id,
            app,
            secure,
            tally,
            outbox: RefCell::default(),
            link,
            task: RefCell::default(),
            earlier: RefCell::default(),
            error: RefCell::default(),
            dirty: Cell::new(false),
            unflushed: Cell::new(false),
            liveness: Liveness {
                opened: now,
                received: Cell::new(now),
                taken: Cell::new(now),
                pinged: Cell::new(None),
                authorized: Cell::new(false),
            },
        }
    }

    /// Whether it is a connection of this app.
    pub(crate) fn is_of(&self, app: &Arc<App>) -> bool {
        Arc::ptr_eq(&self.app, app)
    }

    /// Why its app would not let it in now.
    pub(crate) fn refused_by_app(&self) -> Option<ConnectionError> {
        self.app.refuses(self.secure)
    }

    /// The client wants positions from now on, and had these sockets before.
    pub(crate) fn opt_in(&self, sockets: Box<[SocketId]>) {
        *self.earlier.borrow_mut() = Some(sockets);
    }

    /// Whether the client wants positions.
    pub(crate) fn opted_in(&self) -> bool {
        self.earlier.borrow().is_some()
    }

    /// Whether the client had this socket before.
    pub(crate) fn was(&self, socket: SocketId) -> bool {
        self.earlier.borrow().as_ref().is_some_and(|earlier| earlier.contains(&socket))
    }

    /// Queues bytes and lists the connection for the next flush. One that has let too much pile up is ended instead.
    pub(crate) fn queue(self: &Rc<Self>, bytes: Bytes, dirty: &mut Vec<Rc<Self>>) {
        match self.outbox.borrow_mut().push(bytes, self.app.max_outbox_bytes) {
            Pushed::Queued => {
                if !self.dirty.replace(true) {
                    dirty.push(Rc::clone(self));
                }
                return;
            }
            Pushed::Closed => return,
            Pushed::Full => {}
        }
        self.give_up(Instant::now());
    }

    /// Ends the connection of a client that reads too slowly.
    fn give_up(&self, now: Instant) {
        if self.error.borrow().is_none() {
            tracing::debug!(app.id = %self.app.id, socket_id = %self.socket_id, "closing a slow reader");
            self.tally.slow_reader(self.app.max_outbox_bytes, now);
        }
        self.end(ConnectionError::SlowReader);
    }

    /// Whether something has waited for this long without any of it being taken. The kernel's own time-out (`TCP_USER_TIMEOUT`) does not
    /// tell: each segment that the client sends puts off the kernel's next look at a client that has no room. A session over
    /// HTTP waits for the client's next request, and has its own bound.
    fn is_stalled(&self, outbox: &mut Outbox, now: Instant, write_timeout: Duration) -> bool {
        let taken = &self.liveness.taken;
        if outbox.take_moved() || outbox.is_empty() || matches!(self.link, Link::Task { .. }) {
            taken.set(now.into());
        }
        taken.get().age(now) >= write_timeout
    }

    /// Whether something waits for the next flush.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.get()
    }

    /// Queues the very first bytes, before the connection is known to anybody.
    pub(crate) fn begin(&self, bytes: Bytes) {
        self.outbox.borrow_mut().push(bytes, usize::MAX);
    }

    /// Ends the connection: its task says goodbye and leaves all channels. The first reason counts.
    pub(crate) fn end(&self, error: ConnectionError) {
        let mut reason = self.error.borrow_mut();
        if reason.is_none() {
            *reason = Some(Box::new(error));
            drop(reason);
            self.wake();
        }
    }

    /// Has the connection's task look what there is to do.
    pub(crate) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Why the connection shall end.
    pub(crate) fn take_error(&self) -> Option<ConnectionError> {
        self.error.borrow_mut().take().map(|error| *error)
    }

    /// Queues the last frames. What already waits is dropped for a slow reader, who would never get to the end of it, and for one that has
    /// missed something before.
    pub(crate) fn close(&self, error: &ConnectionError) {
        let mut outbox = self.outbox.borrow_mut();
        if matches!(error, ConnectionError::SlowReader | ConnectionError::Gap) {
            outbox.forget_unsent();
        }
        outbox.close(error.frames());
    }

    /// Queues the last frame, if there is one to say.
    pub(crate) fn close_with(&self, frame: Option<Bytes>) {
        self.outbox.borrow_mut().close(frame);
    }

    /// Where its app is counted.
    pub(crate) fn tally(&self) -> &Rc<Tally> {
        &self.tally
    }

    /// Remembers the task that polls this connection.
    pub(crate) fn set_task(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Writes what waits, from the worker's loop. What the socket does not take, the connection's task writes later.
    pub(crate) fn flush(&self) {
        self.dirty.set(false);
        let failed = {
            let task = self.task.borrow();
            let waker = task.as_ref().unwrap_or(Waker::noop());
            matches!(self.poll_flush(&mut Context::from_waker(waker)), Poll::Ready(Err(_)))
        };
        if failed {
            // The task sees the same error when it reads, and ends.
            self.wake();
        }
    }

    /// Writes what waits: ready when nothing does.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() && !outbox.is_closed() && !self.unflushed.get() {
            return Poll::Ready(Ok(()));
        }
        let mut socket = match &self.link {
            Link::Socket(socket) => socket.borrow_mut(),
            Link::Body(body) => {
                if let Some(waker) = &*body.borrow() {
                    waker.wake_by_ref();
                }
                return Poll::Ready(Ok(()));
            }
            Link::Task { .. } => {
                self.wake();
                return Poll::Ready(Ok(()));
            }
        };
        while !outbox.is_empty() {
            let written = match outbox.single() {
                // At ordinary rates one frame waits: no need to gather.
                Some(frame) => ready!(Pin::new(&mut *socket).poll_write(cx, frame))?,
                None => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let count = outbox.slices(&mut slices);
                    ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..count]))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let frames = outbox.advance(written);
            self.tally.wrote(written, frames);
        }
        // TLS may hold the end of a record back until the socket takes it.
        let flushed = Pin::new(&mut *socket).poll_flush(cx);
        self.unflushed.set(flushed.is_pending());
        flushed
    }

    /// Takes the next frame that waits.
    pub(crate) fn take_frame(&self) -> Option<Bytes> {
        self.outbox.borrow_mut().pop()
    }

    /// The next bytes of the body that carries this connection; `None` at its end.
    pub(crate) fn poll_body(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut outbox = self.outbox.borrow_mut();
        if let Some(frame) = outbox.pop() {
            self.tally.wrote(frame.len(), 1);
            return Poll::Ready(Some(frame));
        }
        if outbox.is_closed() {
            return Poll::Ready(None);
        }
        if let Link::Body(body) = &self.link {
            *body.borrow_mut() = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Reads into the shared buffer. A connection without a socket of its own has nothing to read here.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let Link::Socket(socket) = &self.link else { return Poll::Ready(Ok(0)) };
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut *socket.borrow_mut()), cx, buffer));
        self.received(read.as_ref().map_or(0, |bytes| *bytes));
        Poll::Ready(read)
    }

    /// Sends FIN, so that a client that waits for the end of the stream sees it.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.link {
            Link::Socket(socket) => Pin::new(&mut *socket.borrow_mut()).poll_shutdown(cx),
            Link::Body(_) | Link::Task { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Makes the kernel drop what it holds for this client when the socket goes.
    pub(crate) fn abort_on_drop(&self) {
        if let Link::Socket(socket) = &self.link {
            let _ = socket2::SockRef::from(socket.borrow().tcp()).set_linger(Some(Duration::ZERO));
        }
    }

    /// Any bytes of the client are a sign of life.
    pub(crate) fn received(&self, bytes: usize) {
        self.tally.read(bytes);
        self.liveness.received.set(Instant::now().into());
        self.liveness.pinged.set(None);
    }

    /// The client has shown that the app knows it.
    pub(crate) fn set_authorized(&self) {
        self.liveness.authorized.set(true);
    }

    /// Looks after a connection from time to time: gives back memory it does not need, pings a client that has been silent, and ends one
    /// that did not answer or takes nothing of what it is sent. Pings as control frames are answered even by browsers whose timers sleep; `pusher:ping` reaches clients that
    /// see no control frames.
    pub(crate) fn check_liveness(self: &Rc<Self>, now: Instant, config: &ServerConfig, dirty: &mut Vec<Rc<Self>>) {
        let stalled = {
            let mut outbox = self.outbox.borrow_mut();
            outbox.release();
            self.tally.waits(outbox.cost());
            self.is_stalled(&mut outbox, now, config.write_timeout)
        };
        if stalled {
            return self.give_up(now);
        }
        let liveness = &self.liveness;
        let policy = self.app.policy();
        let authorization_timeout = policy.config.authorization_timeout;
        let unauthorized = !liveness.authorized.get() && !authorization_timeout.is_zero();
        if unauthorized && liveness.opened.age(now) >= authorization_timeout {
            return self.end(ConnectionError::NotAuthorizedInTime);
        }
        match liveness.pinged.get() {
            Some(pinged) if pinged.age(now) >= config.pong_timeout => self.end(ConnectionError::PongTimeout),
            Some(_) => {}
            None if liveness.received.get().age(now) >= policy.activity_timeout => {
                liveness.pinged.set(Some(now.into()));
                self.queue(Frame::text(server_event::PING).into_bytes(), dirty);
                self.queue(frame::PING, dirty);
            }
            None => {}
        }
    }
}
