//! A worker's connections, and which of them listen to a channel. Adding and removing either takes constant time.

use std::rc::Rc;

use fanfare_protocol::SocketId;
use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::inbox::ConnectionId;
use crate::{connection::Connection, directory::ChannelId, frame::Frame, metrics::Tally};

/// What a turn has queued and still has to write.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Connections to write to.
    pub(super) dirty: Vec<Rc<Connection>>,
    /// When each event was asked for, and where the time that it took is counted.
    pub(super) events: Vec<(Instant, Rc<Tally>)>,
}

/// What one worker owns. Channel ids and slots are ours, so their hashes need no defence.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    connections: Slab<Rc<Connection>>,
    /// Slots of the subscribers with their generations, in one dense list a channel. A connection may be gone while its
    /// `Unsubscribe` still waits in the inbox, and another in its place: the generation tells them apart.
    channels: FxHashMap<ChannelId, IndexMap<u32, u32, FxBuildHasher>>,
    generation: u32,
}

impl Shard {
    /// Registers a connection.
    pub(super) fn add(&mut self, worker: u16, make: impl FnOnce(ConnectionId) -> Connection) -> Rc<Connection> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let connection = Rc::new(make(ConnectionId { worker, slot, generation: self.generation }));
        Rc::clone(entry.insert(connection))
    }

    /// Forgets a connection and its subscriptions.
    pub(super) fn remove(&mut self, id: ConnectionId, channels: impl Iterator<Item = ChannelId>) {
        if self.get(id).is_none() {
            return;
        }
        for channel in channels {
            self.unsubscribe(id, channel);
        }
        self.connections.remove(id.slot as usize);
    }

    /// Gives back the memory of a peak: the slab alone would keep its largest size.
    pub(super) fn release(&mut self) {
        if self.connections.len() < self.connections.capacity() / 4 {
            self.connections.shrink_to_fit();
        }
        if self.channels.len() < self.channels.capacity() / 8 {
            self.channels.shrink_to_fit();
        }
    }

    /// A connection, unless it has ended since.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Rc<Connection>> {
        self.connections.get(id.slot as usize).filter(|connection| connection.id == id)
    }

    /// All connections.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.connections.iter().map(|(_, connection)| connection)
    }

    /// Queues a frame for every subscriber but one, and notes in `turn` what is to be timed. Returns how many subscribers there are.
    ///
    /// `positioned`: where some have opted in to positions, they get this instead; one that excludes a socket which they had before, they
    /// do not get at all.
    pub(super) fn deliver(
        &self,
        channel: ChannelId,
        frame: &Frame,
        positioned: Option<&Frame>,
        except: Option<SocketId>,
        since: Option<Instant>,
        turn: &mut Turn,
    ) -> usize {
        let Some(subscribers) = self.channels.get(&channel) else { return 0 };
        let mut last = None;
        for (slot, generation) in subscribers {
            let connection = self.connections.get(*slot as usize);
            let Some(connection) = connection.filter(|connection| connection.id.generation == *generation) else {
                continue;
            };
            if except == Some(connection.socket_id) {
                continue;
            }
            let frame = match positioned {
                Some(_) if except.is_some_and(|except| connection.was(except)) => continue,
                Some(positioned) if connection.opted_in() => positioned,
                _ => frame,
            };
            connection.queue(frame.clone().into_bytes(), &mut turn.dirty);
            last = Some(connection);
        }
        // Measured once per event, by any of its connections: they all belong to the same app.
        if let (Some(since), Some(connection)) = (since, last) {
            turn.events.push((since, Rc::clone(connection.tally())));
        }
        subscribers.len()
    }

    /// Queues a frame for the subscribers who opted in to positions.
    pub(super) fn inform(&self, channel: ChannelId, frame: &Frame, dirty: &mut Vec<Rc<Connection>>) {
        for (slot, generation) in self.channels.get(&channel).into_iter().flatten() {
            let connection = self.connections.get(*slot as usize);
            let connection = connection.filter(|connection| connection.id.generation == *generation);
            if let Some(connection) = connection.filter(|connection| connection.opted_in()) {
                connection.queue(frame.clone().into_bytes(), dirty);
            }
        }
    }

    /// Adds a subscriber, unless it is one already, and queues its next frames. Returns how many bytes that adds to what was waiting for
    /// it.
    ///
    /// The first frames of a connection in a turn do not count, however long they are. A new member's list of all members would otherwise
    /// end the turn, and when many join at once, each of them would cost every other member a write of its own.
    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        channel: ChannelId,
        frames: SmallVec<[Frame; 2]>,
        dirty: &mut Vec<Rc<Connection>>,
    ) -> usize {
        let Some(connection) = self.connections.get(id.slot as usize).filter(|connection| connection.id == id) else {
            return 0;
        };
        let added = if connection.is_dirty() { frames.iter().map(Frame::len).sum() } else { 0 };
        for frame in frames {
            connection.queue(frame.into_bytes(), dirty);
        }
        self.channels.entry(channel).or_default().insert(id.slot, id.generation);
        added
    }

    /// Removes a subscriber, also one whose connection has ended since.
    pub(super) fn unsubscribe(&mut self, id: ConnectionId, channel: ChannelId) {
        let Some(subscribers) = self.channels.get_mut(&channel) else { return };
        if subscribers.get(&id.slot) == Some(&id.generation) {
            subscribers.swap_remove(&id.slot);
        }
        if subscribers.is_empty() {
            self.channels.remove(&channel);
        }
    }
}
