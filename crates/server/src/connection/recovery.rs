//! What a client that opted in to positions has said: where it wants to go on, and which sockets it had before.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_protocol::{SocketId, client_event::RecoverFrom};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{app::App, directory::Recovering};

/// Earlier sockets that are known of one client.
const MAX_SOCKETS: usize = 8;
/// How long it takes until a client may get back as much again.
const ROOM_PERIOD: Duration = Duration::from_secs(10);

/// One client's part in recovery. Gone with the connection.
#[derive(Debug)]
pub(super) struct Recovery {
    /// For channels it has not subscribed to yet.
    from: HashMap<String, RecoverFrom>,
    max_from: usize,
    /// The client asked for more channels than are remembered, so one that is not among them may have been asked for.
    overflowed: bool,
    /// Its own socket, then earlier ones.
    sockets: SmallVec<[SocketId; 5]>,
    /// Bytes it may get back, on all channels, until `refilled` is a period ago. Twice `max_outbox_bytes`: a client that gets back more
    /// than it can take would only be closed again and again.
    room: Arc<AtomicUsize>,
    max_room: usize,
    refilled: Option<Instant>,
}

impl Recovery {
    pub(super) fn new(app: &App, socket_id: SocketId) -> Self {
        Self {
            from: HashMap::new(),
            max_from: app.policy().config.max_channels_per_connection,
            overflowed: false,
            sockets: SmallVec::from_slice(&[socket_id]),
            room: Arc::default(),
            max_room: 2 * app.max_outbox_bytes,
            refilled: None,
        }
    }

    /// Adds sockets that the client had before; whether there was a new one.
    pub(super) fn add_sockets(&mut self, sockets: &[SocketId]) -> bool {
        let known = self.sockets.len();
        for socket in sockets {
            if self.sockets.len() <= MAX_SOCKETS && !self.sockets.contains(socket) {
                self.sockets.push(*socket);
            }
        }
        self.sockets.len() > known
    }

    /// The sockets it had before.
    pub(super) fn earlier_sockets(&self) -> &[SocketId] {
        &self.sockets[1..]
    }

    /// Remembers where the client wants to go on in a channel.
    pub(super) fn add(&mut self, channel: String, from: RecoverFrom) {
        if self.from.len() < self.max_from || self.from.contains_key(&channel) {
            self.from.insert(channel, from);
        } else {
            self.overflowed = true;
        }
    }

    /// A subscription was refused.
    pub(super) fn forget(&mut self, channel: &str) {
        self.from.remove(channel);
    }

    /// What holds for a subscription that begins now. Each position is used once.
    pub(super) fn take(&mut self, channel: &str, now: Instant) -> Recovering<'_> {
        if self.refilled.is_none_or(|refilled| now.duration_since(refilled) >= ROOM_PERIOD) {
            self.refilled = Some(now);
            self.room.store(self.max_room, Ordering::Relaxed);
        }
        let from = self.from.remove(channel).or(self.overflowed.then_some(RecoverFrom::Nowhere));
        Recovering { from, sockets: &self.sockets, room: &self.room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovery() -> Recovery {
        Recovery {
            from: HashMap::new(),
            max_from: 2,
            overflowed: false,
            sockets: SmallVec::from_slice(&["1.1".parse().unwrap()]),
            room: Arc::default(),
            max_room: 100,
            refilled: None,
        }
    }

    #[test]
    fn a_position_is_used_once() {
        let (mut recovery, now) = (recovery(), Instant::now());
        recovery.add("a".to_owned(), RecoverFrom::Last(1));
        recovery.add("a".to_owned(), RecoverFrom::Last(2));
        assert_eq!(recovery.take("a", now).from, Some(RecoverFrom::Last(2)));
        assert_eq!(recovery.take("a", now).from, None);
    }

    #[test]
    fn who_asks_for_more_than_is_remembered_is_told_of_a_gap() {
        let (mut recovery, now) = (recovery(), Instant::now());
        for channel in ["a", "b", "c"] {
            recovery.add(channel.to_owned(), RecoverFrom::Last(1));
        }
        assert_eq!(recovery.take("a", now).from, Some(RecoverFrom::Last(1)));
        assert_eq!(recovery.take("c", now).from, Some(RecoverFrom::Nowhere));
    }

    #[test]
    fn what_was_given_back_is_free_again_after_a_while() {
        let (mut recovery, now) = (recovery(), Instant::now());
        let room = |recovering: Recovering<'_>| recovering.room.load(Ordering::Relaxed);
        recovery.take("a", now).room.fetch_sub(70, Ordering::Relaxed);
        assert_eq!(room(recovery.take("a", now)), 30);
        assert_eq!(room(recovery.take("a", now + ROOM_PERIOD)), 100);
    }

    #[test]
    fn sockets_add_up_to_a_bound() {
        let mut recovery = recovery();
        assert!(!recovery.add_sockets(&[]));
        assert!(recovery.add_sockets(&["2.1".parse().unwrap(), "1.1".parse().unwrap()]));
        assert!(!recovery.add_sockets(&["2.1".parse().unwrap()]));
        for number in 3..30 {
            recovery.add_sockets(&[format!("{number}.1").parse().unwrap()]);
        }
        assert_eq!(recovery.earlier_sockets().len(), MAX_SOCKETS);
        assert_eq!(recovery.earlier_sockets()[0], "2.1".parse().unwrap());
    }
}
