//! The task that puts this node's events into the log: one, so that their order is one.
//!
//! What gathers while a reply is awaited goes out together: a node that has little to send sends at once, a busy one packs.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::try_join_all;
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout};

use super::{
    SHARDS, Shared, Task, entry, kept,
    link::Link,
    log::{self, Added, Asking, Position, Scripts, unexpected},
    server::{Backoff, advice, brief},
};
use crate::timing::unix_ms;

/// How often old events are forgotten.
const TICK: Duration = Duration::from_secs(1);

/// Sends until the broker is stopped and everything is sent.
pub(super) async fn run(shared: &Shared) {
    let mut logs = [Position::default(); SHARDS];
    let mut backoff = Backoff::default();
    let mut down_since = None;
    loop {
        match session(shared, &mut logs, &mut backoff, &mut down_since).await {
            Ok(()) => {
                shared.sent.notify_one();
                return;
            }
            Err(error) => {
                shared.outgoing().down();
                shared.starting.done(Task::Publisher);
                if down_since.is_none() {
                    down_since = Some(Instant::now());
                    tracing::warn!(
                        "cannot publish through Redis at {}: {}. Events wait in this node's buffer, for {:?} at most; \
                         connections stay up",
                        shared.server.address(),
                        brief(&error),
                        shared.bounds.wait
                    );
                }
            }
        }
        backoff.pause().await;
    }
}

/// One connection. Ends well when there is nothing more to come.
async fn session(
    shared: &Shared,
    logs: &mut [Position; SHARDS],
    backoff: &mut Backoff,
    down_since: &mut Option<Instant>,
) -> RedisResult<()> {
    let link = shared.server.connect_plain().await?;
    let scripts = Scripts::load(&link).await?;
    // From here on `logs` are those of these servers; an entry for another log would be refused.
    find_logs(shared, &link, &scripts, logs).await?;
    let servers = log::servers(&link).await?;
    let waiting = {
        let mut outgoing = shared.outgoing();
        outgoing.up();
        outgoing.waiting()
    };
    shared.starting.done(Task::Publisher);
    let mut is_told = false;
    let mut works = move |down_since: &mut Option<Instant>| {
        if std::mem::replace(&mut is_told, true) {
            return;
        }
        match down_since.take() {
            Some(since) => tracing::info!(waiting, "Redis takes events again after {:?}", since.elapsed()),
            None => tracing::info!("publishing through Redis at {}", shared.server.address()),
        }
    };
    for mut connection in link.servers() {
        let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        if let Some(advice) = advice(&info) {
            tracing::warn!("{advice}");
        }
    }
    let mut forgotten = Instant::now();
    // No event is sent again after this time, so Redis may forget the publisher's numbers then.
    let resend = (shared.bounds.wait + shared.bounds.window) * 2;
    loop {
        let now = Instant::now();
        shared.server.still_leads_to(&link)?;
        if now - forgotten >= TICK {
            shared.outgoing().forget(now);
            forgotten = now;
        }
        let batches = shared.outgoing().batches(now, |shard| entry::Header {
            publisher: shared.publisher,
            epoch: logs[shard].epoch,
            first: 0,
            sent_ms: unix_ms(),
            replay: false,
            again: false,
        });
        if batches.is_empty() {
            works(down_since);
            if shared.outgoing().is_done() {
                return Ok(());
            }
            let _ = timeout(TICK, shared.work.notified()).await;
            continue;
        }
        let commands = batches.iter().map(|batch| {
            let epoch = logs[batch.shard].epoch;
            if batch.kept.is_empty() {
                log::add(&link, &shared.keys, batch.shard, epoch, &batch.entry).to_vec()
            } else {
                vec![kept::add(&scripts, &shared.keys, (shared.publisher, epoch, resend), batch)]
            }
        });
        let shards = batches.iter().map(|batch| batch.shard);
        let replies = send(&link, shards.zip(commands).collect()).await?;
        backoff.reset();
        works(down_since);
        let mut other_epoch = false;
        for (batch, reply) in batches.iter().zip(replies) {
            match log::added(reply)? {
                Added::At(position) => {
                    logs[batch.shard] = position;
                    let mut outgoing = shared.outgoing();
                    if batch.asked {
                        let log = log::identity(servers[batch.shard].as_bytes(), position.epoch);
                        outgoing.placed(batch.shard, batch.count, log, position.number);
                    }
                    outgoing.logged(batch.shard, batch.count);
                    drop(outgoing);
                    shared.metrics.broker.published.fetch_add(batch.count as u64, Ordering::Relaxed);
                }
                Added::OtherEpoch => other_epoch = true,
            }
        }
        if other_epoch {
            find_logs(shared, &link, &scripts, logs).await?;
        }
    }
}

/// Sends the commands of each shard as one step. Returns the reply to the first command of each.
///
/// One server takes everything in one transaction. In a cluster a transaction has to stay in a slot, so each shard has its own.
async fn send(link: &Link, steps: Vec<(usize, Vec<Cmd>)>) -> RedisResult<Vec<RedisResult<Value>>> {
    if !link.is_cluster() {
        let (mut pipe, mut firsts, mut count) = (redis::pipe(), Vec::with_capacity(steps.len()), 0);
        pipe.atomic().ignore_errors();
        for (_, commands) in steps {
            firsts.push(count);
            count += commands.len();
            for command in commands {
                pipe.add_command(command);
            }
        }
        let replies: Vec<RedisResult<Value>> = pipe.query_async(&mut link.to(0)).await?;
        let mut replies: Vec<_> = replies.into_iter().map(Some).collect();
        let first = |index: usize| replies.get_mut(index).and_then(Option::take).ok_or_else(unexpected);
        return firsts.into_iter().map(first).collect();
    }
    let (shards, steps): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    let one = async |(shard, commands): (&usize, Vec<Cmd>)| {
        // MULTI and EXEC are written out, because the library's own transactions do not tell which command was refused, and why.
        let mut pipe = redis::pipe();
        pipe.ignore_errors().cmd("MULTI");
        let count = commands.len();
        for command in commands {
            pipe.add_command(command);
        }
        pipe.cmd("EXEC");
        let replies: Vec<RedisResult<Value>> = pipe.query_async(&mut link.to(*shard)).await?;
        let mut replies = replies.into_iter();
        for queued in replies.by_ref().take(1 + count) {
            queued?;
        }
        match replies.next().ok_or_else(unexpected)?? {
            Value::Array(replies) => match replies.into_iter().next().ok_or_else(unexpected)? {
                Value::ServerError(error) => Ok(Err(RedisError::from(error))),
                reply => Ok(Ok(reply)),
            },
            _ => Err(unexpected()),
        }
    };
    try_join_all(shards.iter().zip(steps).map(one)).await
}

/// Finds the logs as they are now. What a new one does not have and this node still has is sent again.
async fn find_logs(
    shared: &Shared,
    link: &Link,
    scripts: &Scripts,
    logs: &mut [Position; SHARDS],
) -> Result<(), RedisError> {
    let states = scripts.inspect(link, &shared.keys, &logs[..], Asking::default()).await?;
    let mut replayed = 0;
    for (shard, (known, state)) in logs.iter_mut().zip(states).enumerate() {
        if known.epoch != state.last.epoch {
            if known.epoch != 0 {
                replayed += shared.outgoing().replay(shard);
            }
            *known = state.last;
        }
    }
    if replayed > 0 {
        shared.metrics.broker.replayed.fetch_add(replayed as u64, Ordering::Relaxed);
        tracing::warn!(
            events = replayed,
            "Redis has lost its log, or another server has it: sending this node's last events again"
        );
    }
    Ok(())
}
