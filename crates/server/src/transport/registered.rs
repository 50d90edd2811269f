//! A client that was let in: what a transport holds beside its bytes.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use fanfare_protocol::{SocketId, server_event};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    admission::Admitted,
    connection::{Connection, Link, State},
    frame::Frame,
    metrics::Open,
    node::Client,
    worker::{Load, Ticket, Worker},
};

/// A registered connection with what decides for it. Dropping it takes the connection out of the worker and all channels.
pub(super) struct Registered {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Rc<Connection>,
    state: State,
    /// The place in the queue of those who wait for busy workers.
    ticket: Ticket,
    /// Set while the client has to wait with further changes of its subscriptions.
    pause: Option<Pin<Box<Sleep>>>,
    _client: Client,
    _open: Open,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.remove(self.connection.id, self.state.channels());
    }
}

impl Registered {
    /// Registers a connection of an app that has counted it in. `opening` goes out before anything else, with the first frame
    /// of the protocol behind it.
    pub(super) fn new(worker: &Rc<Worker>, admitted: Admitted, link: Link, mut opening: Vec<u8>) -> Self {
        let (app, secure) = (&admitted.app, admitted.secure);
        let (high, low) = rand::random();
        let socket_id = SocketId::from_random(high, low);
        let open = app.metrics.open(link.transport());
        let tally = worker.tally(app);
        let connection = worker.add(|id| Connection::new(id, socket_id, Arc::clone(app), secure, tally, link));
        let established = server_event::connection_established(socket_id, app.policy().activity_timeout);
        opening.extend_from_slice(&Frame::text(&established).into_bytes());
        connection.begin(opening.into());
        Self {
            state: State::new(admitted, socket_id, worker.address(connection.id)),
            worker: Rc::clone(worker),
            connection,
            ticket: Ticket::default(),
            pause: None,
            _client: worker.node.client(),
            _open: open,
        }
    }

    /// Counts the client's socket once more, for a task that outlives this.
    pub(super) fn client(&self) -> Client {
        self.worker.node.client()
    }

    /// Whether the client's next message has to wait: for other nodes to answer to its last one, or since it changed its
    /// subscriptions too often. [`Self::poll_pause`] is ready when it need not any more.
    pub(super) fn has_to_pause(&mut self) -> bool {
        if let Some(until) = self.state.pause(Instant::now()) {
            self.pause = Some(Box::pin(sleep_until(until)));
        }
        self.is_paused()
    }

    /// Whether a pause has begun.
    pub(super) fn is_paused(&mut self) -> bool {
        self.pause.is_some() || self.state.waits()
    }

    /// Waits for the end of a pause.
    pub(super) fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        // Woken by whoever has the answer.
        if self.state.waits() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Waits until the workers keep up with what this client asks of them. Those who only listen wait for answers, whatever
    /// others publish.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pressure = &self.worker.node.pressure;
        ready!(pressure.poll_room(Load::Answers, cx, &mut self.ticket));
        if self.state.publishes() {
            ready!(pressure.poll_room(Load::Events, cx, &mut self.ticket));
        }
        Poll::Ready(())
    }

    /// Acts on one message, which is UTF-8 or fails as JSON.
    pub(super) fn on_message(&mut self, message: &[u8]) {
        self.connection.tally().message();
        self.state.on_message(message, Instant::now());
        if self.state.is_authorized() {
            self.connection.set_authorized();
        }
    }
}
