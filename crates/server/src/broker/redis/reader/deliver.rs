//! What the reader does with an entry of the log: what is new in it goes to the directories, once.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    super::{
        announcement::Announcement,
        entry::{self, Told},
        log::Position,
        progress,
    },
    Reader, Way,
};
use crate::{
    broker::{At, Source, redis},
    directory::Publication,
    timing::unix_ms,
    worker::{Load, Ticket},
};

/// How far clocks of nodes may differ where only they can tell old events from new ones: after a start that found no Redis.
const CLOCK_SKEW_MS: u64 = 5_000;

impl Reader<'_> {
    /// Hands what is new in an entry to the directories. `entry`: its number, if that is sure.
    pub(super) async fn deliver(
        &mut self,
        shard: usize,
        header: entry::Header,
        told: Vec<Told<'_>>,
        way: Way,
        entry: Option<u64>,
    ) {
        let state = &mut self.shards[shard];
        let new = state.seen.look(header.publisher, header.first, told.len());
        state.seen.note(header.publisher, header.first, told.len(), Instant::now());
        // What was published before this node started was missed by none of its clients.
        let from_before = header.sent_ms.saturating_add(CLOCK_SKEW_MS) < self.started_ms;
        if new.stranger && from_before && (way == Way::Whole || header.replay) {
            // No ring has these events, so rings begin anew behind them.
            match entry {
                Some(entry) => self.renew(shard, progress::whole(entry), false),
                None => self.doubt(shard),
            }
            return;
        }
        if new.missing > 0 {
            self.found.lost += new.missing;
            self.shared.metrics.broker.lost.fetch_add(new.missing, Ordering::Relaxed);
            tracing::error!(shard, lost = new.missing, "events of another node are lost: they are in no log any more");
            self.forget_kept(shard);
        }
        let age = match way {
            Way::Push => Duration::ZERO,
            Way::Rest | Way::Whole => Duration::from_millis(unix_ms().saturating_sub(header.sent_ms)),
        };
        let era = self.era_of(shard, &header, new, told.len(), entry);
        let count = told.len().saturating_sub(new.skip) as u64;
        if way != Way::Push {
            self.found.read += count;
            self.shared.metrics.broker.read_from_log.fetch_add(count, Ordering::Relaxed);
        }
        self.shared.metrics.broker.received.fetch_add(count, Ordering::Relaxed);
        for (index, told) in told.into_iter().enumerate().skip(new.skip) {
            self.room().await;
            let at = era.zip(entry).map(|(era, entry)| At { era, number: progress::event(entry, index) });
            if let Some(at) = at {
                self.shared.progress.begin(shard, at.number);
            }
            self.tell(told, age, at);
            if let Some(at) = at {
                self.shared.progress.done(shard, at.number);
            }
        }
        match (entry, self.shards[shard].era) {
            (Some(entry), Some(_)) => self.shared.progress.done(shard, progress::whole(entry)),
            (Some(entry), None) => self.renew(shard, progress::whole(entry), new.missing > 0),
            (None, _) => {}
        }
    }

    /// Hands an announcement to the directory, unless it was had.
    pub(super) async fn announce(&mut self, shard: usize, position: Position, announcement: &Announcement<'_>) {
        if position <= self.shards[shard].announced {
            return;
        }
        self.shards[shard].announced = position;
        self.room().await;
        self.shared.membership.set_announced(shard, position);
        let app = |app: &str| self.node.apps.by_id(app);
        match *announcement {
            Announcement::Joined { app: id, channel, user_id, info } => {
                if let Some(app) = app(id) {
                    app.directory.member_joined(channel, user_id, info, position);
                }
            }
            Announcement::Left { app: id, channel, user_id } => {
                if let Some(app) = app(id) {
                    app.directory.member_left(channel, user_id, position);
                }
            }
            Announcement::Count { app: id, channel, count } => {
                if let Some(app) = app(id) {
                    app.directory.counted(channel, count);
                }
            }
            Announcement::Online { app: id, user_id } => {
                if let Some(app) = app(id) {
                    app.users.announced(user_id, true);
                }
            }
            Announcement::Offline { app: id, user_id } => {
                if let Some(app) = app(id) {
                    app.users.announced(user_id, false);
                }
            }
            Announcement::Mark => {}
        }
    }

    /// Waits until the workers can take more. Pushes queue up meanwhile.
    async fn room(&self) {
        let mut ticket = Ticket::default();
        std::future::poll_fn(|cx| self.node.pressure.poll_room(Load::Events, cx, &mut ticket)).await;
    }

    /// What cache channels of a shard keep here may not be their last event.
    pub(super) fn forget_kept(&self, shard: usize) {
        for app in self.node.apps.all() {
            app.directory.forget_kept(|channel| redis::shard(app.id.as_str(), channel) == shard);
        }
    }

    fn tell(&self, told: Told<'_>, age: Duration, at: Option<At>) {
        match told {
            Told::Event { app, channel, event, data, except, source } => {
                if let Some(app) = self.node.apps.by_id(app) {
                    let except = except.and_then(|socket_id| socket_id.parse().ok());
                    // Measured from here on only: how long the way took cannot be told, since clocks of nodes differ.
                    let publication = Publication { channel, event, data: &data, except, since: Instant::now() };
                    match source {
                        Source::Api => {
                            app.directory.publish_late(&publication, age, at);
                        }
                        Source::Client { user_id } => app.directory.relay(&publication, user_id),
                    }
                }
            }
            Told::Terminate { app, user_id } => {
                if let Some(app) = self.node.apps.by_id(app) {
                    app.users.terminate(user_id, app.policy().config.terminate_code);
                }
            }
        }
    }
}
