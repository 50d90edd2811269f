//! Reads from the log what this node's rings lack: for clients that come back from another node, or to one that has just started.
//!
//! Each client waits here, and reads on when everything it came back to was looked at. What is not found in time, or is in doubt, is left
//! out: the client is then told of a gap.
//!
//! This runs on the reader's thread, so while it looks at rings no event is handed over in part.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_protocol::{client_event::RecoverFrom, server_event};
use futures_util::future::join_all;
use redis::RedisResult;
use rustc_hash::FxHashMap;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    Redis, SHARDS, Shared,
    entry::{self, Told},
    log::{self, Content, Position},
    progress::{self, Standing},
    shard,
};
use crate::{
    broker::Source,
    directory::{PastEvent, Recalled, Want},
    frame::Frame,
    limits::{RECALL_TIMEOUT, RECALLED_ENTRIES},
    node::Node,
    timing::unix_ms,
    worker::{Address, Command},
};

/// Entries that are read at once.
const PAGE: usize = 200;
/// When it is looked again for what this node has not come to yet.
const LAG: Duration = Duration::from_millis(10);
/// The pause after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What one client waits for.
#[derive(Debug)]
pub(crate) struct Recall {
    /// Channels that are yet to be looked at.
    left: AtomicUsize,
    address: Address,
}

impl Recall {
    /// Whether the client has to wait.
    pub(crate) fn is_open(&self) -> bool {
        self.left.load(Ordering::Acquire) > 0
    }

    fn answered(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.address.inbox.push(Command::Wake { connection: self.address.connection });
        }
    }
}

/// Who has asked.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    asked: Mutex<Vec<Asked>>,
    more: Notify,
}

#[derive(Debug)]
struct Asked {
    app: Arc<str>,
    channel: String,
    from: RecoverFrom,
    recall: Arc<Recall>,
    since: Instant,
}

impl Recalls {
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Redis {
    /// Gets from the log what a client needs to go on in channels, if it has it.
    pub(crate) fn recall(
        &self,
        app: &Arc<str>,
        channels: Vec<(String, RecoverFrom)>,
        address: &Address,
    ) -> Arc<Recall> {
        let recall = Arc::new(Recall { left: AtomicUsize::new(channels.len()), address: address.clone() });
        let since = Instant::now();
        let asked = channels.into_iter().map(|(channel, from)| {
            let (app, recall) = (Arc::clone(app), Arc::clone(&recall));
            Asked { app, channel, from, recall, since }
        });
        self.shared.recalls.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(asked);
        self.shared.recalls.more.notify_one();
        recall
    }
}

/// Answers for as long as it is polled.
pub(super) async fn run(shared: &Shared, node: &Node) {
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            shared.recalls.more.notified().await;
        } else {
            let _ = timeout(LAG, shared.recalls.more.notified()).await;
        }
        waiting.extend(shared.recalls.asked());
        // All shards at once, so that a server which does not answer delays only the clients of its own shards.
        let looks = (0..SHARDS).filter_map(|number| {
            let mine = |asked: &mut Asked| shard(&asked.app, &asked.channel) == number;
            let asked: Vec<Asked> = waiting.extract_if(.., mine).collect();
            (!asked.is_empty()).then(|| look(shared, node, number, asked))
        });
        let mut failed = None;
        for (unanswered, read) in join_all(looks).await {
            waiting.extend(unanswered);
            failed = failed.or(read.err());
        }
        if let Some(error) = failed {
            tracing::warn!("the log cannot be read for clients that come back: {error}");
            sleep(PAUSE).await;
        }
        let late = waiting.extract_if(.., |asked: &mut Asked| asked.since.elapsed() >= RECALL_TIMEOUT);
        late.for_each(|asked| asked.recall.answered());
    }
}

/// By the app's id and the channel.
type Wanted<'a> = FxHashMap<&'a str, FxHashMap<&'a str, Found>>;

/// What is looked for of a channel.
#[derive(Debug)]
struct Found {
    era: u64,
    max_bytes: usize,
    bytes: usize,
    /// Events up to here may be missing.
    since: u64,
    events: Vec<PastEvent>,
}

/// Answers those who wait for a shard. Returns those for whom this node has not come far enough in the log yet.
async fn look(shared: &Shared, node: &Node, number: usize, asked: Vec<Asked>) -> (Vec<Asked>, RedisResult<()>) {
    let mut found = Wanted::default();
    let mut later = vec![false; asked.len()];
    let mut behind = u64::MAX;
    for (asked, later) in asked.iter().zip(&mut later) {
        let Some(app) = node.apps.by_id(&asked.app) else { continue };
        match app.directory.want(&asked.channel, asked.from) {
            Want::Nothing => {}
            Want::Later => *later = true,
            Want::Events { behind: from, era, max_bytes } => {
                behind = behind.min(from);
                let new = Found { era, max_bytes, bytes: 0, since: from, events: Vec::new() };
                let found = found.entry(&*asked.app).or_default().entry(&*asked.channel).or_insert(new);
                found.since = found.since.min(from);
            }
        }
    }
    let read = match shared.progress.standing(number) {
        Some(standing) if !found.is_empty() => {
            let read = read(shared, number, standing, behind, &mut found).await;
            // Also if the log did not have everything: rings keep what they have if that is more.
            read.map(|()| Some(standing))
        }
        _ => Ok(None),
    };
    if let Ok(Some(standing)) = &read {
        for (app, channels) in found.drain() {
            let Some(app) = node.apps.by_id(app) else { continue };
            for (channel, Found { era, since, events, .. }) in channels {
                app.directory.recalled(channel, Recalled { era, since, until: standing.done, events });
            }
        }
    }
    drop(found);
    let failed = read.is_err();
    let mut waiting = Vec::new();
    for (asked, later) in asked.into_iter().zip(later) {
        if later || failed { waiting.push(asked) } else { asked.recall.answered() }
    }
    (waiting, read.map(|_| ()))
}

/// Reads a log from behind a number up to where this node is, and takes the events of the channels that are looked for.
async fn read(
    shared: &Shared,
    number: usize,
    standing: Standing,
    behind: u64,
    found: &mut Wanted<'_>,
) -> RedisResult<()> {
    let link = shared.reads().ok_or_else(log::out_of_reach)?;
    let end = progress::entry(standing.done);
    let mut next = progress::next_entry(behind).max((end + 1).saturating_sub(RECALLED_ENTRIES));
    // Before this, something may be missing.
    let mut sure = if next > progress::next_entry(behind) { progress::whole(next - 1) } else { behind };
    if log::server(&link, number, standing.epoch).await? != standing.log {
        // Another server has the log now: its numbers are not those of the positions.
        sure = u64::MAX;
    }
    // Events of each publisher that were seen on the way.
    let mut seen: FxHashMap<u64, u64> = FxHashMap::default();
    'pages: while next <= end && sure < standing.done {
        let after = Position::new(standing.epoch, next).before();
        let page = log::read(&link, &shared.keys, number, Some(after), PAGE).await?;
        if page.is_empty() {
            sure = u64::MAX;
            break;
        }
        for (position, content) in page {
            let entry = position.number();
            if position.epoch() != standing.epoch || entry > end {
                // Behind this there is nothing of use. If the end was not reached, the log has lost it.
                break 'pages;
            }
            if entry != next {
                // A log's numbers have no gaps, so the entries before this one were trimmed.
                sure = progress::whole(entry - 1);
            }
            next = entry + 1;
            let Content::Events(bytes) = content else { continue };
            let Ok((header, told)) = entry::read(&bytes) else {
                sure = progress::whole(entry);
                continue;
            };
            let had = seen.entry(header.publisher).or_default();
            let end_of_entry = header.first + told.len() as u64;
            // These may have been in the log twice: nodes may have given them out under another number.
            if header.replay || header.again && end_of_entry > *had + 1 {
                sure = progress::whole(entry);
            }
            let age = Duration::from_millis(unix_ms().saturating_sub(header.sent_ms));
            for (index, told) in told.into_iter().enumerate() {
                let (sequence, number) = (header.first + index as u64, progress::event(entry, index));
                if sequence > *had && number <= standing.done {
                    take(found, told, number, age);
                }
            }
            *had = (*had).max(end_of_entry.saturating_sub(1));
        }
    }
    if next <= end {
        sure = u64::MAX;
    }
    for found in found.values_mut().flat_map(FxHashMap::values_mut) {
        found.since = found.since.max(sure);
        found.events.retain(|event| event.number > found.since);
    }
    Ok(())
}

/// Keeps an event if its channel is looked for.
fn take(found: &mut Wanted<'_>, told: Told<'_>, number: u64, age: Duration) {
    let Told::Event { app, channel, event, data, except, source: Source::Api } = told else { return };
    let found = found.get_mut(app).and_then(|channels| channels.get_mut(channel));
    let Some(found) = found.filter(|found| number > found.since) else { return };
    let frame = Frame::text(&server_event::channel_event(event, channel, &data, None));
    found.bytes += frame.len();
    found.events.push(PastEvent { number, frame, except: except.and_then(|except| except.parse().ok()), age });
    if found.bytes > found.max_bytes {
        // More than a ring may hold: the older half is dropped.
        let half = found.events.len().div_ceil(2);
        for event in found.events.drain(..half) {
            found.since = event.number;
            found.bytes -= event.frame.len();
        }
    }
}
