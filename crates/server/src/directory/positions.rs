//! Where clients can go on in a channel: what they, the HTTP API and the log of other nodes ask of its ring, and when the ring is
//! looked at to drop what is too old.

use std::{sync::Arc, time::Duration};

use fanfare_protocol::{ChannelName, Position, client_event::RecoverFrom};
use tokio::time::Instant;

use super::{Directory, Outcomes, Recalled, Want, channel::Channel, recovery::Tended};
use crate::{broker::Logged, timing};

/// When a ring that is in doubt is looked at again.
const RING_PATIENCE: Duration = Duration::from_secs(1);

impl Directory {
    /// How far a channel has come, for a client that will go on from there. Its events are kept from now on. `None` if the channel keeps
    /// nothing.
    pub(crate) fn position(&self, name: ChannelName<'_>) -> Option<Position> {
        if !self.recovery.keeps(name.as_str(), name.kind()) || !self.has_room_for(name.as_str()) {
            return None;
        }
        let mut channel = self.channel(name.as_str(), name.kind());
        let now = timing::now();
        let position = self.recovery.ring(&mut channel, now)?.newest();
        self.keep_ring(&mut channel, now);
        Some(position)
    }

    /// The position of an event that is in the log which nodes share; `None` if its channel keeps nothing, or if anything is in doubt.
    pub(crate) fn position_of(&self, name: &str, place: Logged) -> Option<Position> {
        self.recovery.position(name, place)
    }

    /// What the log of all nodes has to be asked for, so that a client can go on in a channel.
    pub(crate) fn want(&self, name: &str, from: RecoverFrom) -> Want {
        let Ok(parsed) = ChannelName::parse(name, usize::MAX) else { return Want::Nothing };
        if !self.recovery.is_shared() || !self.recovery.knows(name, from) || !self.has_room_for(name) {
            return Want::Nothing;
        }
        let (mut channel, now) = (self.channel(name, parsed.kind()), timing::now());
        let want = self.recovery.want(&mut channel, from, now);
        // The ring has to live until the client subscribes.
        self.keep_ring(&mut channel, now);
        drop(channel);
        self.forget_if_unused(name, now);
        want
    }

    /// Gives the channel's ring what the log had.
    pub(crate) fn recalled(&self, name: &str, recalled: Recalled) {
        if let Some(mut channel) = self.channels.get_mut(name) {
            let now = timing::now();
            self.recovery.complete(&mut channel, recalled, now);
            self.keep_ring(&mut channel, now);
        }
    }

    /// How many of the clients' requests to go on where they were ended in which way.
    pub(crate) fn recoveries(&self) -> &Outcomes {
        &self.recovery.outcomes
    }

    /// Keeps a channel's ring for a window from now on, even if nobody needs it.
    pub(super) fn keep_ring(&self, channel: &mut Channel, now: Instant) {
        if let Some(ring) = &mut channel.ring {
            let until = ring.keep(now);
            self.arrange_ring(channel, until);
        }
    }

    /// Puts a channel's ring on the due list, unless it is there already: when its oldest event gets too old, or nobody needs it any more.
    pub(super) fn arrange_ring(&self, channel: &mut Channel, due: Instant) {
        if let Some(ring) = &mut channel.ring
            && ring.arrange(due)
        {
            self.rings_due.add(due, Arc::clone(&channel.name));
        }
    }

    /// Drops kept events that are too old, and a ring that nobody needs.
    pub(super) fn tend_ring(&self, name: &str, now: Instant) {
        let Some(mut entry) = self.channels.get_mut(name) else { return };
        let channel = &mut *entry;
        if self.recovery.is_shared() && channel.opted_in > 0 {
            let kind = channel.kind;
            match self.recovery.ring(channel, now) {
                // The ring may be a new one, which is on no due list yet.
                Some(ring) => {
                    ring.arrange(now);
                }
                None if self.recovery.keeps(name, kind) => self.rings_due.add(now + RING_PATIENCE, name.into()),
                None => {}
            }
        }
        // The due entry may be of an earlier ring of this channel.
        if !channel.ring.as_ref().is_some_and(|ring| ring.is_due(now)) {
            return;
        }
        let refresh = self.recovery.refresh(channel, now);
        let Some(ring) = &mut channel.ring else { return };
        match ring.tend(channel.opted_in > 0, refresh, now) {
            Tended::Ended => {
                channel.ring = None;
                drop(entry);
                self.forget_if_unused(name, now);
            }
            Tended::Again(due) => self.arrange_ring(channel, due),
            Tended::Quiet => {}
        }
    }
}
