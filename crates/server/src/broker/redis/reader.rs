//! The task that gets all nodes' events and hands them to the directories: each once, in the order of the log.
//!
//! While all is well, entries come by push. After a reconnect, a jump in the numbers or a new log, the task reads what it
//! missed from the log, while pushes queue up behind it; what it has had is dropped by its number.
//!
//! Once a second it asks, **on the connection that the pushes come over**, where the logs end: whatever was pushed before the
//! answer has then come. That is the place to read from after a gap, and shows a Redis that is gone or was emptied.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `queue` | what has come over the connection and waits |
//! | `deliver` | what is done with an entry that has come |
//! | `era` | whether the place in the log is sure, so that clients can be given positions |

mod deliver;
mod era;
mod queue;

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::queue::{Item, Queue};
use super::{
    SHARDS, Shared, Task,
    announcement::{self, Announcement},
    entry::{self, Unreadable},
    keeper, kept,
    link::Link,
    log::{self, ALL_MARKS, Asking, Content, Position, Scripts, State},
    membership::Question,
    progress,
    seen::Seen,
    server::{Backoff, brief},
};
use crate::{node::Node, timing::unix_ms};

/// How often the ends of the logs are asked for.
const BEACON: Duration = Duration::from_secs(1);
/// Entries that are read from a log at once.
const PAGE: usize = 100;
/// How long a publisher is remembered that says nothing.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

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
                "cannot receive events through Redis at {}: {}. They are read from its log when it is back",
                shared.server.address(),
                brief(&error)
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
    /// From the log, behind what was had.
    Rest,
    /// From a log that was not read before: some of it may be older than this node.
    Whole,
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
        // Pushes first, then the ends of the logs: an entry that comes between the two is seen twice, and none is missed.
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
        // Where a mark has not come yet, another one is asked for: it may have been lost with a connection.
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
            // An entry of an earlier log. The publisher puts it into the new one, too, in its place.
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
        // Other shards mostly have a new log, too: the log is told of all of them when the next answer says where logs end.
        self.catch_up(link, shard, states[shard]).await
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
            // At the first start no client was here that could have missed anything.
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
                // Members who came or went meanwhile are found by comparing with all that Redis has.
                keeper::compare(self.node, shard);
                self.forget_kept(shard);
                self.renew(shard, progress::whole(state.begins_at() - 1), true);
            }
            Some(_) => {}
            None => self.found.new_logs += usize::from(!first_time),
        }
        let way = if after.is_some() { Way::Rest } else { Way::Whole };
        loop {
            let entries = log::read(link, &self.shared.keys, shard, after, PAGE).await?;
            let last_page = entries.len() < PAGE;
            for (position, content) in entries {
                if position.epoch > state.last.epoch {
                    // The log is a new one since `state` was asked for. The next look finds out.
                    return Ok(());
                }
                after = Some(position);
                // A replica that became the primary still has entries of the log before: their numbers are not of this log.
                let entry = (position.epoch == state.last.epoch).then_some(position.number);
                match content {
                    Content::Events(bytes) => {
                        if let Some((header, told)) = self.readable(entry::read(&bytes)) {
                            self.deliver(shard, header, told, way, entry).await;
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
}

fn broken(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}
