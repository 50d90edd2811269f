//! What the rest of the node asks of one worker, in the order that holds for everybody.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use fanfare_protocol::SocketId;
use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::pressure::{Load, Pressure};
use crate::{app::App, connection::ConnectionError, directory::ChannelId, frame::Frame};

/// Names one connection of this node for as long as the node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId {
    /// Which worker has it.
    pub(crate) worker: u16,
    /// Its place in the worker's slab.
    pub(crate) slot: u32,
    /// Tells it from earlier connections in the same place.
    pub(crate) generation: u32,
}

/// One thing to do. Carries frames ready to send, so that a worker decides nothing.
#[derive(Debug)]
pub(crate) enum Command {
    /// A frame for all of this worker's subscribers of a channel, except one socket. `subscribers` says how much work that is, `since` when
    /// an event was asked for. Where there is a `positioned` frame, those who opted in to positions get that one.
    Deliver {
        channel: ChannelId,
        frame: Frame,
        positioned: Option<Frame>,
        except: Option<SocketId>,
        subscribers: usize,
        since: Option<Instant>,
    },
    /// A frame for those of this worker's subscribers of a channel who opted in to positions.
    Inform { channel: ChannelId, frame: Frame, subscribers: usize },
    /// The connection gets positions from here on; these are the sockets it had before.
    OptIn { connection: ConnectionId, sockets: Box<[SocketId]> },
    /// The connection is a subscriber from here on, if it was none before; the frames are the next it gets.
    Subscribe { connection: ConnectionId, channel: ChannelId, frames: SmallVec<[Frame; 2]> },
    /// The connection is no subscriber any more.
    Unsubscribe { connection: ConnectionId, channel: ChannelId },
    /// A frame for one connection.
    Send { connection: ConnectionId, frame: Frame },
    /// What one connection waited for has come: its client is read again.
    Wake { connection: ConnectionId },
    /// Ends one connection.
    Close { connection: ConnectionId, error: ConnectionError },
    /// Ends all connections, evenly over a time.
    Drain { spread: Duration },
    /// Ends the connections of an app that may have none any more.
    CloseApp { app: Arc<App> },
}

impl Command {
    /// Which bound it counts for.
    fn load(&self) -> Load {
        match self {
            Self::Deliver { .. } | Self::Inform { .. } => Load::Events,
            Self::OptIn { .. }
            | Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Send { .. }
            | Self::Wake { .. }
            | Self::Close { .. }
            | Self::Drain { .. }
            | Self::CloseApp { .. } => Load::Answers,
        }
    }

    /// What it counts for in the bound: the bytes of its frames, and a little for itself and for each subscriber. The number of deliveries
    /// is what takes a worker long: if bytes alone counted, events of a large channel could wait for most of a minute before publishers had
    /// to.
    fn weight(&self) -> usize {
        const ITSELF: usize = 64;
        const DELIVERY: usize = 64;
        ITSELF
            + match self {
                Self::Deliver { frame, subscribers, .. } | Self::Inform { frame, subscribers, .. } => {
                    frame.len() + subscribers * DELIVERY
                }
                Self::Send { frame, .. } => frame.len(),
                Self::Subscribe { frames, .. } => frames.iter().map(Frame::len).sum(),
                Self::OptIn { .. }
                | Self::Unsubscribe { .. }
                | Self::Wake { .. }
                | Self::Close { .. }
                | Self::Drain { .. }
                | Self::CloseApp { .. } => 0,
            }
    }
}

/// The queue of one worker. Many push, one takes.
pub(crate) struct Inbox {
    /// The worker's number on this node.
    pub(crate) worker: u16,
    queue: Mutex<VecDeque<Command>>,
    waker: AtomicWaker,
    /// Weight of what waits, by [`Load`].
    events: AtomicUsize,
    answers: AtomicUsize,
    pressure: Arc<Pressure>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({})", self.worker)
    }
}

impl Inbox {
    pub(crate) fn new(worker: u16, pressure: Arc<Pressure>) -> Self {
        Self {
            worker,
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            events: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            pressure,
        }
    }

    fn waiting(&self, load: Load) -> &AtomicUsize {
        match load {
            Load::Events => &self.events,
            Load::Answers => &self.answers,
        }
    }

    /// Queues a command. Never refuses: publishers asked [`Pressure`] for room before they took a channel's lock.
    pub(crate) fn push(&self, command: Command) {
        let (load, weight) = (command.load(), command.weight());
        self.pressure.added(load, self.waiting(load).fetch_add(weight, Ordering::Relaxed), weight);
        let first = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push_back(command);
            queue.len() == 1
        };
        // Only the first command wakes the worker, which then takes all at once.
        if first {
            self.waker.wake();
        }
    }

    /// Takes everything that waits into `batch`, which has to be empty.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Command>) -> Poll<()> {
        if self.take(batch) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // A command may have come after the first look and before the waker was registered.
        if self.take(batch) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take(&self, batch: &mut VecDeque<Command>) -> bool {
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), batch);
        !batch.is_empty()
    }

    /// What waits, as events and answers, each in the unit of its bound.
    pub(crate) fn weights(&self) -> (usize, usize) {
        (self.events.load(Ordering::Relaxed), self.answers.load(Ordering::Relaxed))
    }

    /// Gives back the room of a command that is done.
    pub(crate) fn done(&self, command: &Command) {
        let (load, weight) = (command.load(), command.weight());
        self.pressure.removed(load, self.waiting(load).fetch_sub(weight, Ordering::Relaxed), weight);
    }
}

/// Where one connection can be reached from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// Its worker's inbox.
    pub(crate) inbox: Arc<Inbox>,
    /// Itself.
    pub(crate) connection: ConnectionId,
}

impl Address {
    /// Sends one frame, behind everything that was decided before.
    pub(crate) fn send(&self, frame: Frame) {
        self.inbox.push(Command::Send { connection: self.connection, frame });
    }

    /// Ends the connection.
    pub(crate) fn close(&self, error: ConnectionError) {
        self.inbox.push(Command::Close { connection: self.connection, error });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pressure::Ticket, *};

    #[test]
    fn an_event_counts_for_everybody_who_gets_it() {
        let pressure = Arc::new(Pressure::new(1024 * 1024));
        let inbox = Inbox::new(0, Arc::clone(&pressure));
        let (mut cx, mut ticket) = (Context::from_waker(std::task::Waker::noop()), Ticket::default());
        let mut deliver = |subscribers| {
            let frame = Frame::text(b"{}");
            let (channel, positioned, except, since) = (ChannelId::default(), None, None, None);
            inbox.push(Command::Deliver { channel, frame, positioned, except, subscribers, since });
            pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready()
        };
        assert!((0..100).all(|_| deliver(10)), "little to do");
        assert!(!(0..4).all(|_| deliver(10_000)), "as many deliveries as a worker makes in some ten milliseconds");
        let mut batch = VecDeque::new();
        inbox.take(&mut batch);
        batch.iter().for_each(|command| inbox.done(command));
        assert!(pressure.poll_room(Load::Events, &mut cx, &mut ticket).is_ready());
    }
}
