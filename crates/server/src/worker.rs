//! One worker thread's part of the node: its connections, and the task that sends to them.
//!
//! Everything in here is used by one thread alone. Other threads reach a worker through its [`Inbox`].

mod inbox;
mod outbox;
mod pressure;
mod shard;

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    task::{coop::unconstrained, spawn_local, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::shard::{Shard, Turn};
pub(crate) use self::{
    inbox::{Address, Command, ConnectionId, Inbox},
    outbox::{FRAME_COST, MAX_SLICES, Outbox, Pushed},
    pressure::{Load, Pressure, Ticket},
};
use crate::{
    app::App,
    connection::{Connection, ConnectionError},
    metrics::Tally,
    node::Node,
};

/// Bytes of frames that are queued before the queues are written. Far below the bound of an outbox, so that a reader that
/// keeps up is never taken for a slow one.
const TURN_BYTES: usize = 64 * 1024;
/// Frames that are queued for connections before the queues are written, however small they are.
const TURN_FRAMES: usize = 64 * 1024;
/// Connections written to before other tasks of the thread get their turn; about a millisecond of system calls.
const WRITES_PER_SLICE: usize = 256;
/// Frames queued in the time that one write takes.
const FRAMES_PER_WRITE: usize = 128;
/// How often connections are looked at for silence.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// How long after one connection of a closed app the next one is ended, and how long that may take for all.
const CLOSE_PAUSE: Duration = Duration::from_micros(200);
const CLOSE_SPREAD: Duration = Duration::from_secs(2);
/// Bytes read at once, into a buffer all connections of a worker share.
const SCRATCH_BYTES: usize = 64 * 1024;

/// One worker thread's part of the node.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) inbox: Arc<Inbox>,
    shard: RefCell<Shard>,
    /// What is counted of the apps that have connections here.
    tallies: RefCell<Vec<Rc<Tally>>>,
    /// Where all connections of this worker read into; empty between reads.
    pub(crate) scratch: RefCell<BytesMut>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.inbox.worker)
    }
}

impl Worker {
    /// Starts the worker's tasks on the current thread, which has to run a `LocalSet`.
    pub(crate) fn start(node: &Arc<Node>) -> Rc<Self> {
        let worker = Rc::new(Self {
            node: Arc::clone(node),
            inbox: node.add_worker(),
            shard: RefCell::default(),
            tallies: RefCell::default(),
            scratch: RefCell::new(BytesMut::with_capacity(SCRATCH_BYTES)),
        });
        // The loop yields by itself; tokio's budget would cut a delivery short after some hundred writes.
        let deliver = spawn_local(unconstrained(Rc::clone(&worker).deliver()));
        spawn_local(async move {
            if deliver.await.is_err_and(|error| error.is_panic()) {
                // Without the loop no client of this worker would get an event again, and publishers would wait for room for ever.
                tracing::error!("a worker's loop has panicked: ending the process, so that it can be started again");
                std::process::abort();
            }
        });
        spawn_local(Rc::clone(&worker).sweep());
        worker
    }

    /// The worker of the current thread, which all listeners share; started by the first of them.
    pub(crate) fn of_thread(node: &Arc<Node>) -> Rc<Self> {
        thread_local!(static WORKER: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) });
        WORKER.with_borrow_mut(|worker| match worker {
            Some(worker) if Arc::ptr_eq(&worker.node, node) => Rc::clone(worker),
            _ => Rc::clone(worker.insert(Self::start(node))),
        })
    }

    /// Registers a connection; from now on commands reach it.
    pub(crate) fn add(&self, make: impl FnOnce(ConnectionId) -> Connection) -> Rc<Connection> {
        self.shard.borrow_mut().add(self.inbox.worker, make)
    }

    /// Forgets a connection: nothing that is still on its way arrives any more.
    pub(crate) fn remove(&self, connection: ConnectionId, channels: impl Iterator<Item = crate::directory::ChannelId>) {
        self.shard.borrow_mut().remove(connection, channels);
    }

    /// Where this worker counts what concerns an app.
    pub(crate) fn tally(&self, app: &App) -> Rc<Tally> {
        let mut tallies = self.tallies.borrow_mut();
        if let Some(tally) = tallies.iter().find(|tally| tally.is_of(&app.metrics)) {
            return Rc::clone(tally);
        }
        let tally = Rc::new(Tally::new(app.id.clone(), Arc::clone(&app.metrics)));
        tallies.push(Rc::clone(&tally));
        tally
    }

    /// The address of a connection of this worker.
    pub(crate) fn address(&self, connection: ConnectionId) -> Address {
        Address { inbox: Arc::clone(&self.inbox), connection }
    }

    /// Makes room for the next read. The frames of the last one are gone by then, so the same memory is used again.
    pub(crate) fn reset_scratch(scratch: &mut BytesMut) {
        scratch.clear();
        scratch.reserve(SCRATCH_BYTES);
    }

    /// Takes what is in the inbox, queues it for the connections, and writes to each of them once.
    async fn deliver(self: Rc<Self>) {
        let mut batch = VecDeque::new();
        let mut turn = Turn::default();
        // Counted over several turns, because the inbox may fill as fast as it is emptied, while each turn writes to a few clients only.
        let mut work = 0;
        loop {
            std::future::poll_fn(|cx| self.inbox.poll_take(cx, &mut batch)).await;
            while !batch.is_empty() {
                // Queueing for some hundred connections takes about as long as writing to one.
                work += 1 + self.queue(&mut batch, &mut turn) / FRAMES_PER_WRITE;
                for connection in turn.dirty.drain(..) {
                    connection.flush();
                    work += 1;
                    if work >= WRITES_PER_SLICE {
                        work = 0;
                        yield_now().await;
                    }
                }
                if !turn.events.is_empty() {
                    let now = Instant::now();
                    turn.events.drain(..).for_each(|(since, tally)| tally.delivered(now.duration_since(since)));
                }
            }
            if work >= WRITES_PER_SLICE {
                work = 0;
                yield_now().await;
            }
            // One large burst shall not keep its memory for ever.
            if batch.capacity() > 1024 {
                batch = VecDeque::new();
            }
        }
    }

    /// Queues frames until a turn is full. Returns how many times a frame was queued for a connection.
    fn queue(self: &Rc<Self>, batch: &mut VecDeque<Command>, turn: &mut Turn) -> usize {
        let mut shard = self.shard.borrow_mut();
        let (mut bytes, mut frames_queued) = (0, 0);
        while bytes < TURN_BYTES
            && frames_queued < TURN_FRAMES
            && let Some(command) = batch.pop_front()
        {
            self.inbox.done(&command);
            match command {
                Command::Deliver { channel, frame, positioned, except, since, .. } => {
                    bytes += frame.len();
                    frames_queued += shard.deliver(channel, &frame, positioned.as_ref(), except, since, turn);
                }
                Command::Inform { channel, frame, .. } => {
                    bytes += frame.len();
                    shard.inform(channel, &frame, &mut turn.dirty);
                }
                Command::OptIn { connection, sockets } => {
                    if let Some(connection) = shard.get(connection) {
                        connection.opt_in(sockets);
                    }
                }
                Command::Subscribe { connection, channel, frames } => {
                    bytes += shard.subscribe(connection, channel, frames, &mut turn.dirty);
                }
                Command::Unsubscribe { connection, channel } => shard.unsubscribe(connection, channel),
                Command::Send { connection, frame } => {
                    bytes += frame.len();
                    if let Some(connection) = shard.get(connection) {
                        connection.queue(frame.into_bytes(), &mut turn.dirty);
                    }
                }
                Command::Wake { connection } => {
                    if let Some(connection) = shard.get(connection) {
                        connection.wake();
                    }
                }
                Command::Close { connection, error } => {
                    if let Some(connection) = shard.get(connection) {
                        connection.end(error);
                    }
                }
                Command::Drain { spread } => {
                    spawn_local(
                        Rc::clone(self).drain(shard.connections().map(|connection| connection.id).collect(), spread),
                    );
                }
                Command::CloseApp { app } => {
                    spawn_local(Rc::clone(self).close_app(app));
                }
            }
        }
        frames_queued
    }

    /// Looks for connections that have gone silent.
    async fn sweep(self: Rc<Self>) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            self.shard.borrow_mut().release();
            let mut dirty = Vec::new();
            for connection in self.shard.borrow().connections() {
                connection.check_liveness(now, &self.node.config, &mut dirty);
            }
            for connection in dirty {
                connection.flush();
            }
            let limit_bytes = self.node.config.max_outbox_bytes;
            self.tallies.borrow_mut().retain(|tally| {
                tally.publish(limit_bytes, now);
                Rc::strong_count(tally) > 1
            });
        }
    }

    /// Ends all connections, spread over time: clients that all came back in the same instant would be a burst for the nodes
    /// that take them.
    async fn drain(self: Rc<Self>, connections: Vec<ConnectionId>, spread: Duration) {
        self.end_all(connections, spread, |_| Some(ConnectionError::Draining)).await;
    }

    /// Ends the connections that an app refuses. They do not come back, but others are told that they left.
    async fn close_app(self: Rc<Self>, app: Arc<App>) {
        let connections: Vec<_> = {
            let shard = self.shard.borrow();
            let of_app = shard.connections().filter(|connection| connection.is_of(&app));
            let refused = of_app.filter(|connection| connection.refused_by_app().is_some());
            refused.map(|connection| connection.id).collect()
        };
        let spread = CLOSE_PAUSE * u32::try_from(connections.len()).unwrap_or(u32::MAX);
        self.end_all(connections, spread.min(CLOSE_SPREAD), Connection::refused_by_app).await;
    }

    /// Ends connections evenly over a time, as long as there is a reason for it.
    async fn end_all(
        &self,
        connections: Vec<ConnectionId>,
        spread: Duration,
        reason: impl Fn(&Connection) -> Option<ConnectionError>,
    ) {
        let start = Instant::now();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX).max(1);
        for (index, connection) in connections.into_iter().enumerate() {
            sleep_until(start + spread / count * u32::try_from(index).unwrap_or(u32::MAX)).await;
            let Some(connection) = self.shard.borrow().get(connection).cloned() else { continue };
            if let Some(reason) = reason(&connection) {
                connection.end(reason);
            }
        }
    }
}
