//! How an event gets from the node that was asked to publish it to the subscribers of every node.
//!
//! | module | what it is |
//! | --- | --- |
//! | `local` | one node: straight to the directory |
//! | `redis` | several nodes: through a log in Redis, then to each node's directory |

mod local;
mod redis;

use std::{cell::Cell, sync::Arc};

use tokio::sync::oneshot;

pub(crate) use self::{
    local::Local,
    redis::{At, Fact, Joining, Logged, Membership, Position, Progress, Recall, Redis, Standing, Subject, Unreachable},
};
use crate::{app::App, directory::Publication};

/// Carries events to the subscribers of every node.
///
/// The promise, whichever broker it is:
///
/// - **Order.** The events of one channel reach all subscribers, on all nodes, in one order. What one publisher publishes one
///   after the other stays in that order, in every channel.
/// - **Once.** A subscriber gets each event once, whatever is sent again underneath.
/// - **Accepted means kept.** An event that was not [`Refused`] will be delivered: it is on its way to the subscribers, or in
///   Redis, or in this node's bounded buffer until Redis takes it. An outage delays events; one that outlasts the buffer
///   refuses new ones and forgets none it took. What ends with the process is what was accepted and not yet in Redis.
/// - **Gaps are seen.** A node that was cut off reads what it missed from the log and delivers it in order. What the log no
///   longer holds is counted and logged.
///
/// Events of clients are carried in the same way, and are in one order with the triggers.
pub(crate) trait Broker: std::fmt::Debug + Send + Sync {
    /// Publishes events in order; all, or none.
    ///
    /// # Errors
    /// [`Refused`] when the broker cannot keep its promise for these events.
    fn publish(&self, app: &App, events: &mut dyn Iterator<Item = Published<'_>>) -> Result<Receipt, Refused>;

    /// What is true of all nodes together, if there are several.
    fn cluster(&self) -> Option<&Redis>;

    /// Ends all connections of a user, on every node.
    ///
    /// # Errors
    /// As [`Broker::publish`].
    fn terminate(&self, app: &App, user_id: &str) -> Result<Receipt, Refused>;
}

/// An event and where it came from.
#[derive(Debug)]
pub(crate) struct Published<'a> {
    pub(crate) publication: Publication<'a>,
    pub(crate) source: Source<'a>,
    /// Where the publisher wants its position, if the event has one at once; else the [`Receipt`] tells its place.
    pub(crate) position: Option<&'a Cell<Option<fanfare_protocol::Position>>>,
}

/// Who published an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// The HTTP API. Cache channels keep it.
    Api,
    /// A client, and the member it is in a presence channel.
    Client { user_id: Option<&'a str> },
}

/// The broker cannot take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Redis is out of reach or too slow, and the node keeps no more events for it (broker.buffer_time, broker.max_buffer_bytes)"
)]
pub(crate) struct Refused;

/// Tells when an accepted event is as safe as it gets.
#[derive(Debug)]
pub(crate) struct Receipt(Option<oneshot::Receiver<Places>>);

/// Where the events are whose positions were asked for, in the same order; `None`: not sure. Empty if Redis did not answer.
pub(crate) type Places = Vec<Option<Logged>>;

impl Receipt {
    /// There is nothing to wait for.
    pub(crate) const DONE: Self = Self(None);

    /// Waits until the events are in Redis, or known to stay in the buffer for a while.
    pub(crate) async fn safe(self) -> Places {
        match self.0 {
            // An error means that the other side was dropped without an answer.
            Some(safe) => safe.await.unwrap_or_default(),
            None => Places::new(),
        }
    }
}

/// The broker of a node.
pub(crate) type AnyBroker = Arc<dyn Broker>;
