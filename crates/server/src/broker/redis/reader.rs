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

use redis::{ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value, aio::MultiplexedConnection};
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
    log::{self, Content, Position, Scripts, State},
    membership::Question,
    seen::Seen,
    server::Backoff,
    unix_ms,
};
use crate::{
    broker::Source,
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
        let mut connection = self.shared.server.connect(Some(push)).await?;
        let scripts = Scripts::load(&mut connection).await?;
        let channels: Vec<_> = (0..SHARDS).map(|shard| self.shared.keys.pushes(shard)).collect();
        // First the pushes, then the place from which to read: nothing is in between.
        connection.subscribe(&channels).await?;
        let states = scripts.inspect(&mut connection, &self.shared.keys, &self.positions(), None).await?;
        for (shard, state) in states.into_iter().enumerate() {
            self.catch_up(&mut connection, shard, state).await?;
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
                    self.ask(&connection, &scripts, &queue);
                }
                questions = self.shared.membership.new_questions() => self.ask_kept(&connection, &questions, &queue),
                item = queue.next() => match item {
                    Item::Push(shard, bytes) => self.on_push(&mut connection, &scripts, shard, &bytes).await?,
                    Item::Kept(questions, answers) => {
                        for (question, stored) in questions.iter().zip(answers?) {
                            kept::answer(self.node, question, &stored);
                        }
                    }
                    Item::Ends(ends) => {
                        asked = false;
                        self.on_ends(&mut connection, ends?).await?;
                    }
                    Item::Gone => return Err(broken("the connection was closed")),
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
            tracing::warn!(shards = new_logs, read, "Redis has lost its log: this node reads what others send again");
        }
    }

    /// Asks where the logs end. The answer takes its place among the pushes.
    fn ask(&mut self, connection: &MultiplexedConnection, scripts: &Scripts, queue: &Arc<Queue>) {
        let old = |(at, _): &(Instant, Vec<Position>)| at.elapsed() > self.shared.bounds.window;
        let mut trim = None;
        while self.history.front().is_some_and(old) {
            trim = self.history.pop_front().map(|(_, ends)| ends);
        }
        let (mut connection, scripts, queue) = (connection.clone(), scripts.clone(), Arc::clone(queue));
        let (keys, known) = (self.shared.keys.clone(), self.positions());
        tokio::spawn(async move {
            let ends = scripts.inspect(&mut connection, &keys, &known, trim.as_deref()).await;
            queue.add(Item::Ends(ends), 0);
        });
    }

    /// Asks for the last events of cache channels. The answer, too, has behind it all pushes that are newer, and none that is not.
    fn ask_kept(&self, connection: &MultiplexedConnection, questions: &[Question], queue: &Arc<Queue>) {
        for questions in questions.chunks(kept::PAGE) {
            let (mut connection, keys, queue) = (connection.clone(), self.shared.keys.clone(), Arc::clone(queue));
            let questions = questions.to_vec();
            tokio::spawn(async move {
                let channels = questions.iter().map(|question| (&*question.app, &*question.channel));
                let answers = kept::ask(&mut connection, &keys, channels).await;
                queue.add(Item::Kept(questions, answers), 0);
            });
        }
    }

    async fn on_ends(&mut self, connection: &mut MultiplexedConnection, ends: Vec<State>) -> RedisResult<()> {
        let now = Instant::now();
        for (shard, end) in ends.iter().enumerate() {
            if end.last.epoch == self.shards[shard].position.epoch {
                self.shards[shard].position = end.last;
            } else {
                self.catch_up(connection, shard, *end).await?;
            }
            self.shards[shard].seen.forget(now.checked_sub(REMEMBERED).unwrap_or(now - BEACON));
        }
        self.tell_new_logs();
        self.history.push_back((now, ends.into_iter().map(|end| end.last).collect()));
        Ok(())
    }

    async fn on_push(
        &mut self,
        connection: &mut MultiplexedConnection,
        scripts: &Scripts,
        shard: usize,
        bytes: &[u8],
    ) -> RedisResult<()> {
        if bytes.first() == Some(&announcement::PUSHED) {
            let Some((position, announcement)) = self.readable(announcement::read_pushed(bytes)) else { return Ok(()) };
            if position.epoch > self.shards[shard].position.epoch {
                let states = scripts.inspect(connection, &self.shared.keys, &self.positions(), None).await?;
                self.catch_up(connection, shard, states[shard]).await?;
                self.tell_new_logs();
            }
            self.announce(shard, position, &announcement).await;
            return Ok(());
        }
        let Some((header, told)) = self.readable(entry::read(bytes)) else { return Ok(()) };
        let state = &self.shards[shard];
        let missing = state.seen.look(header.publisher, header.first, told.len()).missing;
        match header.epoch.cmp(&state.position.epoch) {
            // It is in no log: the publisher sends it again, behind what comes before it.
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Equal if missing == 0 => {}
            _ => {
                let states = scripts.inspect(connection, &self.shared.keys, &self.positions(), None).await?;
                self.catch_up(connection, shard, states[shard]).await?;
                self.tell_new_logs();
            }
        }
        self.deliver(shard, header, told, Way::Push).await;
        Ok(())
    }

    /// Reads what a log has beyond what was had.
    async fn catch_up(
        &mut self,
        connection: &mut MultiplexedConnection,
        shard: usize,
        state: State,
    ) -> RedisResult<()> {
        let known = self.shards[shard].position;
        let first_time = known.epoch == 0;
        if first_time && self.attempts == 0 {
            // Nobody was here to miss anything.
            self.shards[shard].position = state.last;
            self.shards[shard].announced = state.last;
            self.shared.membership.set_announced(shard, state.last);
            return Ok(());
        }
        let mut after = (known.epoch == state.last.epoch).then_some(known);
        match after {
            Some(known) if known >= state.last => return Ok(()),
            Some(known) if state.begins_at() > known.number + 1 => {
                let entries = state.begins_at() - known.number - 1;
                tracing::error!(shard, entries, "the log does not reach back to where this node was: events are lost");
                // Whoever came or went meanwhile shows when all members are asked for.
                keeper::compare(self.node, shard);
                self.forget_kept(shard);
            }
            Some(_) => {}
            None => self.found.new_logs += usize::from(!first_time),
        }
        loop {
            let entries = log::read(connection, &self.shared.keys, shard, after, PAGE).await?;
            let last_page = entries.len() < PAGE;
            for (position, content) in entries {
                after = Some(position);
                match content {
                    Content::Events(bytes) => {
                        if let Some((header, told)) = self.readable(entry::read(&bytes)) {
                            self.deliver(shard, header, told, Way::Log).await;
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

    /// Hands what is new in an entry to the directories.
    async fn deliver(&mut self, shard: usize, header: entry::Header, told: Vec<Told<'_>>, way: Way) {
        let state = &mut self.shards[shard];
        let new = state.seen.look(header.publisher, header.first, told.len());
        state.seen.note(header.publisher, header.first, told.len(), Instant::now());
        // What others had before this node was there is nothing that its clients missed.
        let from_before = header.sent_ms.saturating_add(CLOCK_SKEW_MS) < self.started_ms;
        if new.stranger && from_before && (way == Way::Log || header.replay) {
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
        let count = told.len().saturating_sub(new.skip) as u64;
        if way == Way::Log {
            self.found.read += count;
            self.shared.metrics.broker.read_from_log.fetch_add(count, Ordering::Relaxed);
        }
        self.shared.metrics.broker.received.fetch_add(count, Ordering::Relaxed);
        for told in told.into_iter().skip(new.skip) {
            self.room().await;
            self.tell(told, age);
        }
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

    fn tell(&self, told: Told<'_>, age: Duration) {
        match told {
            Told::Event { app, channel, event, data, except, source } => {
                if let Some(app) = self.node.apps.by_id(app) {
                    let except = except.and_then(|socket_id| socket_id.parse().ok());
                    // How long it took to come here is not known: clocks of nodes differ.
                    let publication = Publication { channel, event, data: &data, except, since: Instant::now() };
                    match source {
                        Source::Api => {
                            app.directory.publish_late(&publication, age);
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
            PushKind::Message => {
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
            PushKind::Disconnection => self.add(Item::Gone, 0),
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
