//! Events for clients that lost their connection: which are kept, and which of them a client gets that comes back.
//!
//! A client that sends `fanfare:recover` gets a position with each event, and hands the last one in when it subscribes again. It gets
//! everything since, in order, or is told that it cannot: never a part of it, which would look like success. Whatever is in doubt is
//! answered with "not recovered".
//!
//! A node that is alone counts the events of each channel. Nodes that share a log take its numbers, so a client may come back to
//! another one, which reads from the log what its ring lacks; the [`Progress`] of the log says where doubt begins.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `policy` | which channels keep events, how many, and for whom |
//! | `ring` | the last events of one channel |
//! | `rings` | what all rings of the node hold together |
//! | `saved` | rings on their way from one process to the next |

mod policy;
mod ring;
mod rings;
pub(crate) mod saved;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fanfare_protocol::{ChannelKind, Position, SocketId, client_event::RecoverFrom, server_event};
use tokio::time::Instant;

pub(super) use self::ring::{Ring, Tended};
pub(crate) use self::rings::Rings;
use self::{
    policy::{Keeping, Policy},
    ring::Replay,
};
use super::channel::Channel;
use crate::{
    broker::{At, Logged, Progress, Standing},
    config::{AppConfig, Config, RecoveryConfig},
    frame::Frame,
};

/// What the apps of a node have in common.
#[derive(Debug)]
pub(crate) struct RecoverySetup {
    config: RecoveryConfig,
    /// Bytes one subscription may get back.
    max_replay_bytes: usize,
    /// The log that gives the numbers; `None`: this node is alone, and counts by itself.
    progress: Option<Arc<Progress>>,
    /// How often clients of a silent channel hear of their position, so that it does not get older than the log.
    refresh: Duration,
    pub(crate) rings: Arc<Rings>,
}

impl RecoverySetup {
    pub(crate) fn new(config: &Config, progress: Option<Arc<Progress>>) -> Self {
        Self {
            // At most half of an outbox, so that the other half is free for live events.
            max_replay_bytes: config.recovery.max_replay_bytes.min(config.server.max_outbox_bytes / 2),
            progress,
            refresh: config.recovery.window.max(config.broker.window) / 2,
            rings: Arc::new(Rings::new(config.recovery.max_total_bytes)),
            config: config.recovery.clone(),
        }
    }
}

/// An app's part in recovery.
#[derive(Debug)]
pub(super) struct Recovery {
    setup: Arc<RecoverySetup>,
    app: Arc<str>,
    policy: ArcSwap<Policy>,
    /// Whether the policy has a history for any channel: looked at with each publish.
    history: AtomicBool,
    pub(super) outcomes: Outcomes,
}

/// A client that opted in, at one subscription.
#[derive(Debug)]
pub(crate) struct Recovering<'a> {
    /// Where it wants to go on, if it said so.
    pub(crate) from: Option<RecoverFrom>,
    /// Its socket, and those it had before.
    pub(crate) sockets: &'a [SocketId],
    /// Bytes it may get back for now; what it gets is taken off.
    pub(crate) room: &'a Arc<AtomicUsize>,
}

/// What the log has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The ring has what can be had.
    Nothing,
    /// Not known yet: this node has to come further in the log first.
    Later,
    /// The events behind a number, in this era, the newest of them up to a size.
    Events { behind: u64, era: u64, max_bytes: usize },
}

/// What the log had of a channel.
#[derive(Debug)]
pub(crate) struct Recalled {
    pub(crate) era: u64,
    /// No event between `since` and `until` is missing.
    pub(crate) since: u64,
    pub(crate) until: u64,
    pub(crate) events: Vec<PastEvent>,
}

/// An event as it stands in the log.
#[derive(Debug)]
pub(crate) struct PastEvent {
    pub(crate) number: u64,
    /// Without a position.
    pub(crate) frame: Frame,
    pub(crate) except: Option<SocketId>,
    pub(crate) age: Duration,
}

/// How clients' requests ended, counted by result.
#[derive(Debug, Default)]
pub(crate) struct Outcomes([AtomicU64; Outcome::ALL.len()]);

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was there.
    Recovered,
    /// The position was right once; what follows it is not held any more.
    Expired,
    /// A position of another epoch, or none at all.
    Unknown,
    /// More than one client may get at once.
    TooLarge,
    /// Asked after the subscription, and the channel had an event in between.
    Late,
    /// The channel keeps nothing, or no history for clients.
    Refused,
}

impl Outcome {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Recovered, Self::Expired, Self::Unknown, Self::TooLarge, Self::Late, Self::Refused];

    /// As the label of a metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::TooLarge => "too_large",
            Self::Late => "late",
            Self::Refused => "refused",
        }
    }
}

impl Outcomes {
    fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each outcome with its number so far.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// What a subscription begins with.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The position that goes with the success frame: where the client is before anything else arrives, so that a connection that is cut
    /// right behind it loses nothing.
    pub(super) start: Option<Position>,
    /// Earlier events.
    pub(super) replay: Vec<Frame>,
    /// What the client is told about them, if it asked.
    pub(super) verdict: Option<Frame>,
    /// Whether a cache channel's event is among what the client has or gets.
    pub(super) has_newest: bool,
    /// A position for a cached event, where that is the first thing to carry one.
    pub(super) cached: Option<Position>,
}

impl Recovery {
    pub(super) fn new(app: &AppConfig, setup: &Arc<RecoverySetup>) -> Self {
        let policy = Policy::new(&setup.config, app);
        Self {
            history: AtomicBool::new(policy.has_history()),
            policy: ArcSwap::from_pointee(policy),
            setup: Arc::clone(setup),
            app: app.id.as_str().into(),
            outcomes: Outcomes::default(),
        }
    }

    /// From now on `app` holds, for channels that somebody joins.
    pub(super) fn set(&self, app: &AppConfig) {
        let policy = Policy::new(&self.setup.config, app);
        self.history.store(policy.has_history(), Ordering::Relaxed);
        self.policy.store(policy.into());
    }

    /// Whether a channel's events are kept, once somebody wants them.
    pub(super) fn keeps(&self, name: &str, kind: ChannelKind) -> bool {
        self.keeping(name, kind).is_on()
    }

    fn keeping(&self, name: &str, kind: ChannelKind) -> Keeping {
        self.policy.load().of(name, kind)
    }

    /// Whether nodes share a log.
    pub(super) fn is_shared(&self) -> bool {
        self.setup.progress.is_some()
    }

    /// Where a channel stands in it; `None` if there is doubt.
    fn standing(&self, name: &str) -> Option<Standing> {
        self.setup.progress.as_ref()?.of(&self.app, name)
    }

    /// The position of an event that is in the log; `None` if the channel keeps nothing, or if it is not sure that clients can go on in
    /// this log.
    pub(super) fn position(&self, name: &str, Logged { log, number }: Logged) -> Option<Position> {
        let sure = self.standing(name)?.log == log && self.keeps(name, ChannelKind::of(name));
        sure.then(|| Position { epoch: self.policy.load().epoch(log, name), number })
    }

    /// Whether events of this channel are kept although nobody may be there.
    pub(super) fn keeps_history(&self, name: &str, kind: ChannelKind) -> bool {
        self.history.load(Ordering::Relaxed) && self.keeping(name, kind).has_history()
    }

    /// A channel's ring, which begins now if there is none; `None` if the channel keeps nothing, or nothing is sure.
    pub(super) fn ring<'c>(&self, channel: &'c mut Channel, now: Instant) -> Option<&'c mut Ring> {
        let keeping = self.keeping(&channel.name, channel.kind);
        if !keeping.is_on() {
            channel.ring = None;
            return None;
        }
        if self.is_shared() {
            self.share(channel, keeping, now)?;
        }
        let begin = || Box::new(Ring::new(keeping, &self.setup.rings, now));
        let ring = channel.ring.get_or_insert_with(begin);
        // The app's policy may have changed.
        ring.keeping = keeping;
        Some(ring)
    }

    /// Sees to it that a channel has a ring of this era, if nothing is in doubt.
    fn share(&self, channel: &mut Channel, keeping: Keeping, now: Instant) -> Option<()> {
        let standing = self.standing(&channel.name)?;
        let before = channel.ring.as_ref().map(|ring| ring.era);
        if before != Some(standing.era) {
            let epoch = self.policy.load().epoch(standing.log, &channel.name);
            let ring = Ring::shared(keeping, &self.setup.rings, now, epoch, &standing);
            if channel.opted_in > 0 {
                // The positions that subscribers hold are of the era before and mean nothing now. If events were lost as well, they have to
                // hear of a gap.
                let text = match before.is_some_and(|before| before < standing.lost) {
                    true => server_event::recovery(&channel.name, false, 0),
                    false => server_event::position(&channel.name),
                };
                channel.inform(&Frame::text(&text).with_position(ring.newest()));
            }
            channel.ring = Some(Box::new(ring));
        }
        let ring = channel.ring.as_mut()?;
        ring.reach(standing.done);
        Some(())
    }

    /// Before an event of the shared log is published: gives its channel a ring of the event's era, if anybody needs one. Returns whether
    /// the event can be kept. One whose place is not sure cannot, and the ring's era has ended with it.
    pub(super) fn follow(&self, channel: &mut Channel, at: Option<At>, now: Instant) -> bool {
        let Some(at) = at else { return false };
        let of_era = |ring: Option<&Ring>| ring.is_some_and(|ring| ring.era == at.era);
        let begin = channel.ring.is_some() || channel.opted_in > 0;
        of_era(channel.ring.as_deref()) || begin && of_era(self.ring(channel, now).as_deref())
    }

    /// Sends the position of a silent channel to those who get positions, if it is time. Returns when it will be time again.
    pub(super) fn refresh(&self, channel: &mut Channel, now: Instant) -> Option<Instant> {
        let ring = channel.ring.as_mut().filter(|_| self.is_shared() && channel.opted_in > 0)?;
        if now >= ring.told + self.setup.refresh {
            ring.told = now;
            let frame = Frame::text(&server_event::position(&channel.name)).with_position(ring.newest());
            channel.inform(&frame);
        }
        Some(now + self.setup.refresh)
    }

    /// Whether what a client says of a channel makes sense, as far as that is known.
    pub(super) fn knows(&self, name: &str, from: RecoverFrom) -> bool {
        match (from, self.standing(name)) {
            (RecoverFrom::Position(position), Some(standing)) => {
                position.epoch == self.policy.load().epoch(standing.log, name)
            }
            (RecoverFrom::Position(_), None) => true,
            (RecoverFrom::Last(_), _) => self.keeping(name, ChannelKind::of(name)).last > 0,
            (RecoverFrom::Nowhere, _) => false,
        }
    }

    /// What the log has to be asked for, so that a client can go on in a channel.
    pub(super) fn want(&self, channel: &mut Channel, from: RecoverFrom, now: Instant) -> Want {
        if !self.keeping(&channel.name, channel.kind).is_on() {
            return Want::Nothing;
        }
        let Some(ring) = self.ring(channel, now) else { return Want::Later };
        let (era, newest, max_bytes) = (ring.era, ring.newest(), ring.keeping.max_bytes);
        match from {
            RecoverFrom::Position(position) if position.epoch == newest.epoch => {
                if position.number > newest.number {
                    Want::Later
                } else if ring.covers(position.number) {
                    Want::Nothing
                } else {
                    Want::Events { behind: position.number, era, max_bytes }
                }
            }
            RecoverFrom::Last(_) if ring.keeping.last > 0 && !ring.is_complete => {
                Want::Events { behind: 0, era, max_bytes }
            }
            _ => Want::Nothing,
        }
    }

    /// Gives a ring the events from before it, which the log had.
    pub(super) fn complete(&self, channel: &mut Channel, recalled: Recalled, now: Instant) {
        let Some(ring) = self.ring(channel, now).filter(|ring| ring.era == recalled.era) else { return };
        let epoch = ring.newest().epoch;
        let event = |PastEvent { number, frame, except, age }| ring::Event {
            frame: frame.with_position(Position { epoch, number }),
            except,
            published: now.checked_sub(age).unwrap_or(now),
            number,
        };
        let events = recalled.events.into_iter().map(event).collect();
        ring.complete(recalled.since, recalled.until, events, now);
    }

    /// The earlier events that a new subscriber gets which did not opt in: frames as they were published.
    pub(super) fn history(&self, channel: &Channel, now: Instant) -> Vec<Frame> {
        let Some(ring) = channel.ring.as_deref().filter(|ring| ring.keeping.on_subscribe > 0) else {
            return Vec::new();
        };
        let replay = self.on_subscribe(ring, &[], now);
        let stock = |(number, frame): (u64, Frame)| {
            let position = Position { number, ..ring.newest() };
            frame.without_position(position).unwrap_or(frame)
        };
        replay.numbers.into_iter().zip(replay.frames).map(stock).collect()
    }

    /// The newest events that everybody gets who subscribes; fewer, where they would not fit.
    fn on_subscribe(&self, ring: &Ring, sockets: &[SocketId], now: Instant) -> Replay {
        let mut count = ring.keeping.on_subscribe;
        loop {
            let replay = ring.last(count, sockets, now);
            if replay.bytes <= self.setup.max_replay_bytes {
                return replay;
            }
            count = replay.events / 2;
        }
    }

    /// What a new subscriber that opted in gets. `cached`: whether the channel has an event for everybody who comes.
    pub(super) fn open(
        &self,
        channel: &mut Channel,
        recovering: &Recovering<'_>,
        cached: bool,
        now: Instant,
    ) -> Opening {
        let name = Arc::clone(&channel.name);
        let Some(ring) = self.ring(channel, now) else {
            return Opening {
                start: self.doubtful(channel),
                verdict: recovering.from.map(|_| self.refuse(&name)),
                ..Opening::default()
            };
        };
        let newest = ring.newest();
        let Some(from) = recovering.from else {
            let replay = match ring.keeping.on_subscribe {
                0 => Replay::default(),
                _ => self.on_subscribe(ring, recovering.sockets, now),
            };
            if replay.events > 0 {
                let start = Some(ring.start(&replay));
                return Opening { start, replay: replay.frames, has_newest: true, ..Opening::default() };
            }
            // A client that is cut off before the cached event arrives does not have it. So it begins with a position that matches nothing,
            // and will be told of a gap.
            let (start, cached) = if cached { (Position::NONE, Some(newest)) } else { (newest, None) };
            return Opening { start: Some(start), cached, ..Opening::default() };
        };
        match self.find(ring, from, recovering, now) {
            Ok(replay) => Opening {
                start: Some(ring.start(&replay)),
                verdict: Some(self.verdict(&name, Outcome::Recovered, replay.frames.len(), newest)),
                has_newest: replay.events > 0 || matches!(from, RecoverFrom::Position(_)),
                replay: replay.frames,
                cached: None,
            },
            Err(outcome) => Opening {
                // Not the newest position: a client that is cut off before the verdict arrives has to hear of the gap the next time.
                start: Some(match from {
                    RecoverFrom::Position(position) => position,
                    RecoverFrom::Last(_) | RecoverFrom::Nowhere => Position::NONE,
                }),
                verdict: Some(self.verdict(&name, outcome, 0, newest)),
                ..Opening::default()
            },
        }
    }

    /// What a subscriber gets that asks afterwards. `undisturbed`: whether it got nothing of the channel's events so far.
    pub(super) fn open_late(
        &self,
        channel: &mut Channel,
        recovering: &Recovering<'_>,
        undisturbed: bool,
        now: Instant,
    ) -> Vec<Frame> {
        let name = Arc::clone(&channel.name);
        let Some(ring) = self.ring(channel, now) else {
            let told = || Some(Frame::text(&server_event::position(&name)).with_position(self.doubtful(channel)?));
            return recovering.from.map(|_| self.refuse(&name)).or_else(told).into_iter().collect();
        };
        let newest = ring.newest();
        let Some(from) = recovering.from else {
            return vec![Frame::text(&server_event::position(&name)).with_position(newest)];
        };
        let found = match undisturbed {
            true => self.find(ring, from, recovering, now),
            false => Err(Outcome::Late),
        };
        match found {
            Ok(replay) => {
                let mut frames = replay.frames;
                frames.push(self.verdict(&name, Outcome::Recovered, frames.len(), newest));
                frames
            }
            Err(outcome) => vec![self.verdict(&name, outcome, 0, newest)],
        }
    }

    fn find(
        &self,
        ring: &Ring,
        from: RecoverFrom,
        recovering: &Recovering<'_>,
        now: Instant,
    ) -> Result<Replay, Outcome> {
        let sockets = recovering.sockets;
        let replay = match from {
            RecoverFrom::Position(position) if position.epoch == ring.newest().epoch => {
                ring.behind(position, sockets, now).ok_or(Outcome::Expired)?
            }
            RecoverFrom::Last(count) if ring.keeping.last > 0 => ring.last(count.min(ring.keeping.last), sockets, now),
            RecoverFrom::Last(_) => return Err(Outcome::Refused),
            RecoverFrom::Position(_) | RecoverFrom::Nowhere => return Err(Outcome::Unknown),
        };
        if replay.bytes > self.setup.max_replay_bytes {
            return Err(Outcome::TooLarge);
        }
        let taken =
            recovering.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(replay.bytes));
        taken.map(|_| replay).map_err(|_| Outcome::TooLarge)
    }

    /// The position that clients get while nothing is sure, although events should be kept: when they hand it in after a gap, they are told
    /// of the gap.
    fn doubtful(&self, channel: &Channel) -> Option<Position> {
        (self.is_shared() && self.keeps(&channel.name, channel.kind)).then_some(Position::NONE)
    }

    /// The verdict of a channel that keeps nothing. Its position makes clients ask again after the next gap, and be told again.
    fn refuse(&self, channel: &str) -> Frame {
        self.verdict(channel, Outcome::Refused, 0, Position::NONE)
    }

    fn verdict(&self, channel: &str, outcome: Outcome, count: usize, position: Position) -> Frame {
        self.outcomes.count(outcome);
        Frame::text(&server_event::recovery(channel, outcome == Outcome::Recovered, count)).with_position(position)
    }
}

#[cfg(test)]
mod tests;
