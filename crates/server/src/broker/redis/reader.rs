//! The task that gets all nodes' events and hands them to the directories: each once, in the order of the log.
//!
//! While all is well, entries come by push. After a reconnect, a jump in the numbers or a new log, the task reads what it
//! missed from the log, while pushes queue up behind it; what it has had is dropped by its number.
//!
//! Once a second it asks, **on the connection that the pushes come over**, where the logs end: whatever was pushed before the
//! answer has then come. That is the place to read from after a gap, and shows a Redis that is gone or was emptied.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use redis::{ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    SHARDS, Shared, Task,
    announcement::{self, Announcement},
    entry::{self, Told, Unreadable},
    keeper,
    kept::{self, Stored},
    link::Link,
    log::{self, ALL_MARKS, Asking, Content, Position, Scripts, State},
    membership::Question,
    progress,
    seen::{New, Seen},
    server::Backoff,
    unix_ms,
};
use crate::{
    broker::{At, Source},
    directory::Publication,
    limits::BROKER_PUSHED_BYTES,
    node::Node,
    worker::{Load, Ticket},
};

/// How often the ends of the logs are asked for.
const BEACON: Duration = Duration::from_secs(1);
/// Entries that are read from a log at once.
const PAGE: usize = 100;
/// How long a publisher is remembered that says nothing.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// How far clocks of nodes may differ where only they can tell old events from new ones: after a start that found no Redis.
const CLOCK_SKEW_MS: u64 = 5_000;

/// Reads for as long as it is polled.
pub(super) async fn run(shared: &Shared, node: &Node) {
    let mut reader = Reader {
        shared,
        node,
        started_ms: unix_ms(),
        shards: std::array::from_fn(|_| Shard::default()),
        attempts: 0,
        history: VecDeque::new(),
        outage: None,
        found: Found::default(),
        unreadable: false,
    };
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = reader.session(&mut backoff).await;
        reader.attempts += 1;
        shared.starting.done(Task::Reader);
        if reader.outage.is_none() {
            reader.outage = Some(Instant::now());
            tracing::warn!(
                "events of other nodes do not come: {error} (Redis at {}). They are read from its log later",
                shared.server.address()
            );
        }
        backoff.pause().await;
    }
}

struct Reader<'a> {
    shared: &'a Shared,
    node: &'a Node,
    started_ms: u64,
    shards: [Shard; SHARDS],
    /// Connections that failed.
    attempts: usize,
    /// Where the logs ended, second by second, for as long as they shall reach back.
    history: VecDeque<(Instant, Vec<Position>)>,
    outage: Option<Instant>,
    found: Found,
    /// An entry could not be read, and the log says so already.
    unreadable: bool,
}

/// What this node has had of a shard.
#[derive(Debug, Default)]
struct Shard {
    /// Everything up to here was had. Events behind it may have been, too.
    position: Position,
    seen: Seen,
    /// The last announcement that was had.
    announced: Position,
    /// The entry that was last pushed; `None` until a mark or an announcement says which it is.
    counted: Option<u64>,
    /// Names the log and its server.
    identity: u64,
    /// Of the log.
    epoch: u64,
    /// The era in which this node hands on exactly what the log has; `None` if there is doubt.
    era: Option<u64>,
}

/// What came of reading the log.
#[derive(Debug, Default)]
struct Found {
    /// Events that had been missed.
    read: u64,
    /// Events that are in no log any more.
    lost: u64,
    /// Logs that are not those of before.
    new_logs: usize,
}

/// How an entry came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Push,
    Log,
}

impl Reader<'_> {
    /// One connection, until it fails.
    async fn session(&mut self, backoff: &mut Backoff) -> RedisResult<Infallible> {
        let queue = Arc::new(Queue::default());
        let pushes = Arc::clone(&queue);
        let push = move |info| {
            pushes.push(info);
            Ok::<_, Infallible>(())
        };
        let link = self.shared.server.connect(Some(push)).await?;
        let scripts = Scripts::load(&link).await?;
        let channels: Vec<_> = (0..SHARDS).map(|shard| self.shared.keys.pushes(shard)).collect();
        // First the pushes, then the place from which to read: nothing is in between.
        link.subscribe(&channels).await?;
        let asking = Asking { marks: ALL_MARKS, ..Asking::default() };
        let states = scripts.inspect(&link, &self.shared.keys, &self.positions(), asking).await?;
        for (shard, state) in states.into_iter().enumerate() {
            self.catch_up(&link, shard, state).await?;
        }
        self.connected();
        self.shared.starting.done(Task::Reader);
        self.shared.membership.ask_again();
        backoff.reset();

        let (mut beacons, mut asked) = (interval(BEACON), false);
        beacons.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = beacons.tick(), if !asked => {
                    asked = true;
                    self.shared.server.still_leads_to(&link)?;
                    self.ask(&link, &scripts, &queue);
                }
                questions = self.shared.membership.new_questions() => self.ask_kept(&link, &questions, &queue),
                item = queue.next() => match item {
                    Item::Push(shard, bytes) => self.on_push(&link, &scripts, shard, &bytes).await?,
                    Item::Kept(questions, answers) => {
                        for (question, stored) in questions.iter().zip(answers?) {
                            kept::answer(self.node, question, &stored);
                        }
                    }
                    Item::Ends(ends) => {
                        asked = false;
                        self.on_ends(&link, &scripts, ends?).await?;
                    }
                    Item::Gone => return Err(broken("the connection was closed, or leads to the wrong server")),
                    Item::Full => return Err(broken("more events came than this node could deliver in time")),
                },
            }
        }
    }

    fn positions(&self) -> Vec<Position> {
        self.shards.iter().map(|shard| shard.position).collect()
    }

    fn connected(&mut self) {
        let Found { read, lost, .. } = self.found;
        self.tell_new_logs();
        match self.outage.take() {
            Some(since) => {
                let silence = since.elapsed();
                tracing::info!(
                    read,
                    lost,
                    "events come again after {silence:?}: {read} were read from the log, {lost} lost"
                );
            }
            None => tracing::info!("receiving events of all nodes from Redis at {}", self.shared.server.address()),
        }
    }

    fn tell_new_logs(&mut self) {
        let Found { read, new_logs, .. } = std::mem::take(&mut self.found);
        if new_logs > 0 {
            tracing::warn!(
                shards = new_logs,
                read,
                "Redis has lost its log, or another server has it: this node reads what others send again"
            );
        }
    }

    /// Asks where the logs end. The answer takes its place among the pushes.
    fn ask(&mut self, link: &Link, scripts: &Scripts, queue: &Arc<Queue>) {
        let old = |(at, _): &(Instant, Vec<Position>)| at.elapsed() > self.shared.log_window;
        let mut trim = None;
        while self.history.front().is_some_and(old) {
            trim = self.history.pop_front().map(|(_, ends)| ends);
        }
        let (link, scripts, queue) = (link.clone(), scripts.clone(), Arc::clone(queue));
        let (keys, known) = (self.shared.keys.clone(), self.positions());
        // A mark that is still awaited may have been lost with its connection.
        let unmarked = |(shard, state): (usize, &Shard)| u32::from(state.counted.is_none()) << shard;
        let marks = self.shards.iter().enumerate().map(unmarked).sum();
        tokio::spawn(async move {
            let asking = Asking { trim: trim.as_deref(), marks };
            let ends = scripts.inspect(&link, &keys, &known, asking).await;
            queue.add(Item::Ends(ends), 0);
        });
    }

    /// Asks for the last events of cache channels. The answer, too, has behind it all pushes that are newer, and none that is not.
    fn ask_kept(&self, link: &Link, questions: &[Question], queue: &Arc<Queue>) {
        for questions in questions.chunks(kept::PAGE) {
            let (link, keys, queue) = (link.clone(), self.shared.keys.clone(), Arc::clone(queue));
            let questions = questions.to_vec();
            tokio::spawn(async move {
                let channels = questions.iter().map(|question| (&*question.app, &*question.channel));
                let answers = kept::ask(&link, &keys, channels).await;
                queue.add(Item::Kept(questions, answers), 0);
            });
        }
    }

    async fn on_ends(&mut self, link: &Link, scripts: &Scripts, ends: Vec<State>) -> RedisResult<()> {
        let now = Instant::now();
        for (shard, end) in ends.iter().enumerate() {
            if end.last.epoch == self.shards[shard].position.epoch {
                self.shards[shard].position = end.last;
                if self.shards[shard].counted.is_some_and(|counted| counted < end.last.number) {
                    self.miscounted(shard);
                }
            } else {
                self.look(link, scripts, shard).await?;
            }
            self.shards[shard].seen.forget(now.checked_sub(REMEMBERED).unwrap_or(now - BEACON));
        }
        self.tell_new_logs();
        self.history.push_back((now, ends.into_iter().map(|end| end.last).collect()));
        Ok(())
    }

    async fn on_push(&mut self, link: &Link, scripts: &Scripts, shard: usize, bytes: &[u8]) -> RedisResult<()> {
        if bytes.first() == Some(&announcement::PUSHED) {
            let Some((position, announcement)) = self.readable(announcement::read_pushed(bytes)) else { return Ok(()) };
            if position.epoch > self.shards[shard].position.epoch {
                self.look(link, scripts, shard).await?;
            } else if position.epoch == self.shards[shard].position.epoch {
                self.count(shard, position.number, announcement == Announcement::Mark);
            }
            self.announce(shard, position, &announcement).await;
            return Ok(());
        }
        let Some((header, told)) = self.readable(entry::read(bytes)) else {
            self.shards[shard].counted = None;
            return Ok(());
        };
        let state = &mut self.shards[shard];
        let missing = state.seen.look(header.publisher, header.first, told.len()).missing;
        let mut entry = None;
        match header.epoch.cmp(&state.position.epoch) {
            // It is in no log: the publisher sends it again, behind what comes before it.
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Equal if missing == 0 => {
                state.counted = state.counted.map(|counted| counted + 1);
                entry = state.counted;
            }
            _ => self.look(link, scripts, shard).await?,
        }
        self.deliver(shard, header, told, Way::Push, entry).await;
        Ok(())
    }

    /// Asks where a log is, reads what it has beyond what was had, and waits for a mark to count from.
    async fn look(&mut self, link: &Link, scripts: &Scripts, shard: usize) -> RedisResult<()> {
        let asking = Asking { marks: 1 << shard, ..Asking::default() };
        let states = scripts.inspect(link, &self.shared.keys, &self.positions(), asking).await?;
        self.catch_up(link, shard, states[shard]).await?;
        self.tell_new_logs();
        Ok(())
    }

    /// A push has said which entry it is, or of a mark: which one came before it.
    fn count(&mut self, shard: usize, entry: u64, mark: bool) {
        let state = &mut self.shards[shard];
        let expected = state.counted.map(|counted| counted + u64::from(!mark));
        if expected.is_some_and(|expected| expected != entry) {
            self.miscounted(shard);
        }
        let state = &mut self.shards[shard];
        state.counted = Some(entry);
        match state.era {
            Some(_) => self.shared.progress.done(shard, progress::whole(entry)),
            None => self.renew(shard, progress::whole(entry), false),
        }
    }

    /// The log has entries that were not pushed, or the other way round. Nothing is lost by that, but no position is sure.
    fn miscounted(&mut self, shard: usize) {
        tracing::error!(shard, "entries of the log and pushes do not agree: clients that come back are told of a gap");
        self.doubt(shard);
        self.shards[shard].counted = None;
    }

    fn doubt(&mut self, shard: usize) {
        self.shards[shard].era = None;
        self.shared.progress.doubt(shard);
    }

    /// A new era begins behind a number, in which nothing from before counts. `lost`: events were lost before it.
    fn renew(&mut self, shard: usize, from: u64, lost: bool) {
        let state = &mut self.shards[shard];
        let log = (state.identity, state.epoch);
        state.era = Some(self.shared.progress.renew(shard, log, from, lost));
    }

    /// Reads what a log has beyond what was had.
    async fn catch_up(&mut self, link: &Link, shard: usize, state: State) -> RedisResult<()> {
        let known = self.shards[shard].position;
        let first_time = known.epoch == 0;
        let (same_log, nobody) = (known.epoch == state.last.epoch, first_time && self.attempts == 0);
        self.shards[shard].counted = None;
        if self.shards[shard].identity != state.identity {
            self.shards[shard].identity = state.identity;
            self.shards[shard].epoch = state.last.epoch;
            self.shards[shard].seen.new_log();
            let had = if nobody { state.last.number } else { known.number };
            let from = if same_log || nobody { progress::whole(had) } else { 0 };
            self.renew(shard, from, false);
        }
        if nobody {
            // Nobody was here to miss anything.
            self.shards[shard].position = state.last;
            self.shards[shard].announced = state.last;
            self.shared.membership.set_announced(shard, state.last);
            return Ok(());
        }
        let mut after = same_log.then_some(known);
        match after {
            Some(known) if known >= state.last => return Ok(()),
            Some(known) if state.begins_at() > known.number + 1 => {
                let entries = state.begins_at() - known.number - 1;
                tracing::error!(shard, entries, "the log does not reach back to where this node was: events are lost");
                // Whoever came or went meanwhile shows when all members are asked for.
                keeper::compare(self.node, shard);
                self.forget_kept(shard);
                self.renew(shard, progress::whole(state.begins_at() - 1), true);
            }
            Some(_) => {}
            None => self.found.new_logs += usize::from(!first_time),
        }
        loop {
            let entries = log::read(link, &self.shared.keys, shard, after, PAGE).await?;
            let last_page = entries.len() < PAGE;
            for (position, content) in entries {
                if position.epoch > state.last.epoch {
                    // One that began a moment ago; the next look says which it is.
                    return Ok(());
                }
                after = Some(position);
                // A server that took over from another one has that one's entries in front of its own, with numbers of their own.
                let entry = (position.epoch == state.last.epoch).then_some(position.number);
                match content {
                    Content::Events(bytes) => {
                        if let Some((header, told)) = self.readable(entry::read(&bytes)) {
                            self.deliver(shard, header, told, Way::Log, entry).await;
                        }
                    }
                    Content::Announcement(bytes) => {
                        if let Some(announcement) = self.readable(announcement::read(&bytes)) {
                            self.announce(shard, position, &announcement).await;
                        }
                    }
                    Content::Nothing => {}
                }
                self.shards[shard].position = position;
                if let (Some(entry), Some(_)) = (entry, self.shards[shard].era) {
                    self.shared.progress.done(shard, progress::whole(entry));
                }
            }
            if last_page {
                self.shards[shard].position = self.shards[shard].position.max(state.last);
                return Ok(());
            }
        }
    }

    fn readable<T>(&mut self, read: Result<T, Unreadable>) -> Option<T> {
        match read {
            Ok(content) => Some(content),
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::error!("an entry of the log cannot be read: {error}. Such entries are left out");
                }
                None
            }
        }
    }

    /// Hands what is new in an entry to the directories. `entry`: its number, if that is sure.
    async fn deliver(
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
        // What others had before this node was there is nothing that its clients missed.
        let from_before = header.sent_ms.saturating_add(CLOCK_SKEW_MS) < self.started_ms;
        if new.stranger && from_before && (way == Way::Log || header.replay) {
            // They are in no ring of this node.
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
            Way::Log => Duration::from_millis(unix_ms().saturating_sub(header.sent_ms)),
        };
        let era = self.era_of(shard, &header, new, told.len(), entry);
        let count = told.len().saturating_sub(new.skip) as u64;
        if way == Way::Log {
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

    /// The era in which the new events of an entry have their numbers. There is none where other nodes may have had them under other
    /// numbers, or where this node had some of them under other ones: in an earlier log.
    fn era_of(
        &mut self,
        shard: usize,
        header: &entry::Header,
        new: New,
        events: usize,
        entry: Option<u64>,
    ) -> Option<u64> {
        if new.missing > 0 {
            let from = entry.and_then(|entry| entry.checked_sub(1)).map_or(0, progress::whole);
            self.renew(shard, from, true);
        }
        let sure = match new.skip == events {
            true => !header.replay && !new.old,
            false => {
                let done = self.shared.progress.standing(shard).map_or(0, |standing| standing.done);
                let next = entry.is_some_and(|entry| progress::whole(entry) > done);
                next && !header.replay && !header.again && !new.old
            }
        };
        if !sure {
            self.doubt(shard);
        }
        self.shards[shard].era
    }

    /// Hands an announcement to the directory, unless it was had.
    async fn announce(&mut self, shard: usize, position: Position, announcement: &Announcement<'_>) {
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
            Announcement::Mark => {}
            Announcement::Offline { app: id, user_id } => {
                if let Some(app) = app(id) {
                    app.users.announced(user_id, false);
                }
            }
        }
    }

    /// Waits until the workers can take more. Pushes queue up meanwhile.
    async fn room(&self) {
        let mut ticket = Ticket::default();
        std::future::poll_fn(|cx| self.node.pressure.poll_room(Load::Events, cx, &mut ticket)).await;
    }

    /// What cache channels of a shard keep here may not be their last event.
    fn forget_kept(&self, shard: usize) {
        for app in self.node.apps.all() {
            app.directory.forget_kept(|channel| super::shard(app.id.as_str(), channel) == shard);
        }
    }

    fn tell(&self, told: Told<'_>, age: Duration, at: Option<At>) {
        match told {
            Told::Event { app, channel, event, data, except, source } => {
                if let Some(app) = self.node.apps.by_id(app) {
                    let except = except.and_then(|socket_id| socket_id.parse().ok());
                    // How long it took to come here is not known: clocks of nodes differ.
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

fn broken(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}

/// What has come over a connection and was not yet looked at. Bounded: the library would take whatever comes.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// The bound was reached: what came after is not here.
    full: bool,
}

#[derive(Debug)]
enum Item {
    Push(usize, Vec<u8>),
    Ends(RedisResult<Vec<State>>),
    Kept(Vec<Question>, RedisResult<Vec<Stored>>),
    Gone,
    Full,
}

impl Queue {
    /// Takes a message of the connection.
    fn push(&self, PushInfo { kind, data }: PushInfo) {
        match kind {
            PushKind::Message | PushKind::SMessage => {
                let mut data = data.into_iter();
                let (Some(Value::BulkString(channel)), Some(Value::BulkString(bytes))) = (data.next(), data.next())
                else {
                    return;
                };
                if let Some(shard) = shard_of(&channel) {
                    let length = bytes.len();
                    self.add(Item::Push(shard, bytes), length);
                }
            }
            // The second one: a slot has moved to another server.
            PushKind::Disconnection | PushKind::SUnsubscribe => self.add(Item::Gone, 0),
            _ => {}
        }
    }

    fn add(&self, item: Item, bytes: usize) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.full {
                return;
            }
            waiting.full = waiting.bytes + bytes > BROKER_PUSHED_BYTES;
            if waiting.full {
                waiting.items.push_back(Item::Full);
            } else {
                waiting.bytes += bytes;
                waiting.items.push_back(item);
            }
        }
        self.filled.notify_one();
    }

    async fn next(&self) -> Item {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(item) = waiting.items.pop_front() {
                    if let Item::Push(_, bytes) = &item {
                        waiting.bytes -= bytes.len();
                    }
                    return item;
                }
            }
            self.filled.notified().await;
        }
    }
}

/// The shard in the name of a channel: `fanfare:{3}:push`.
fn shard_of(channel: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(channel).ok()?;
    let (_, rest) = text.rsplit_once('{')?;
    rest.split_once('}')?.0.parse().ok().filter(|shard| *shard < SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_is_full_says_so_behind_what_it_has() {
        let queue = Queue::default();
        let message = |bytes: usize| PushInfo {
            kind: PushKind::Message,
            data: vec![
                Value::BulkString(super::super::Keys::new("a{b}").pushes(3).into_bytes()),
                Value::BulkString(vec![0; bytes]),
            ],
        };
        queue.push(message(10));
        queue.push(message(BROKER_PUSHED_BYTES));
        queue.push(message(1));
        assert!(matches!(queue.next().await, Item::Push(3, bytes) if bytes.len() == 10));
        assert!(matches!(queue.next().await, Item::Full));
        assert!(queue.waiting.lock().unwrap().items.is_empty());
    }
}
