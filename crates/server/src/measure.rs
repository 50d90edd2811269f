//! The directory of an app without sockets. For `cargo bench` alone; nothing of it is kept compatible.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Waker},
};

use fanfare_protocol::{ChannelName, json::EventData, presence::Member};
use tokio::time::Instant;

use crate::{
    app::App,
    config::Config,
    directory::{Publication, Subscription},
    node::Node,
    worker::{Address, Command, ConnectionId, Inbox},
};

/// The channels of the configuration's first app, and one worker that does nothing.
#[derive(Debug)]
pub struct Channels {
    app: Arc<App>,
    inbox: Arc<Inbox>,
    waiting: VecDeque<Command>,
}

/// Proof that a connection has subscribed, for [`Channels::unsubscribe`].
#[derive(Debug)]
pub struct Joined(Address, Subscription);

impl Channels {
    /// No channels yet.
    ///
    /// # Errors
    /// A configuration that no server starts with, or without an app.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let node = Node::start(config, None, config.server.port)?;
        let app = node.apps.all().into_iter().next();
        let app = app.ok_or_else(|| anyhow::anyhow!("the configuration has no app"))?;
        Ok(Self { app, inbox: node.add_worker(), waiting: VecDeque::new() })
    }

    /// Subscribes a connection to a channel, as a user if it is a presence channel. `None` if it may not.
    pub fn subscribe(&self, connection: u32, channel: &str, user_id: Option<&str>) -> Option<Joined> {
        let address = Address {
            inbox: Arc::clone(&self.inbox),
            connection: ConnectionId { worker: 0, slot: connection, generation: 0 },
        };
        let name = ChannelName::parse(channel, usize::MAX).ok()?;
        let member = user_id.map(|id| Member { user_id: id.into(), user_info: None });
        let (_, subscription) = self.app.directory.subscribe(&address, name, member.as_ref(), None).ok()?;
        Some(Joined(address, subscription))
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, channel: &str, joined: &Joined) {
        self.app.directory.unsubscribe(&joined.0, channel, &joined.1, true);
    }

    /// Publishes an event.
    pub fn publish(&self, channel: &str, data: &str) {
        let data = EventData::from_text(data);
        let since = Instant::now();
        self.app.directory.publish(&Publication { channel, event: "order-created", data: &data, except: None, since });
    }

    /// Takes what waits for the worker, as a worker does; how much it was.
    pub fn take(&mut self) -> usize {
        let mut taken = 0;
        while self.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut self.waiting).is_ready() {
            for command in self.waiting.drain(..) {
                self.inbox.done(&command);
                taken += 1;
            }
        }
        taken
    }
}
