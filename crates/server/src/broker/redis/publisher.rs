//! The task that puts this node's events into the log: one, so that their order is one.
//!
//! What gathers while a reply is awaited goes out together next time: an idle node sends at once, a busy one packs.

use std::{sync::atomic::Ordering, time::Duration};

use redis::{RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use super::{
    SHARDS, Shared, Task, entry, kept,
    log::{self, Added, Asking, Position, Scripts},
    server::{Backoff, advice},
    unix_ms,
};

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
                        "cannot publish through Redis at {}: {error}. Events wait in this node's buffer, for {:?} at most; \
                         connections stay up",
                        shared.server.address(),
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
    let mut connection = shared.server.connect_plain().await?;
    let scripts = Scripts::load(&mut connection).await?;
    find_logs(shared, &mut connection, &scripts, logs).await?;
    let waiting = {
        let mut outgoing = shared.outgoing();
        outgoing.up();
        outgoing.waiting()
    };
    match down_since.take() {
        Some(since) => tracing::info!(waiting, "Redis takes events again after {:?}", since.elapsed()),
        None => tracing::info!("publishing through Redis at {}", shared.server.address()),
    }
    shared.starting.done(Task::Publisher);
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
    if let Some(advice) = advice(&info) {
        tracing::warn!("{advice}");
    }
    let mut forgotten = Instant::now();
    // No event is sent again after this time.
    let resend = (shared.bounds.wait + shared.bounds.window) * 2;
    loop {
        let now = Instant::now();
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
            if shared.outgoing().is_done() {
                return Ok(());
            }
            let _ = timeout(TICK, shared.work.notified()).await;
            continue;
        }
        let mut pipe = redis::pipe();
        pipe.atomic().ignore_errors();
        for batch in &batches {
            let epoch = logs[batch.shard].epoch;
            if batch.kept.is_empty() {
                log::add(&mut pipe, &shared.keys, batch.shard, epoch, &batch.entry);
            } else {
                kept::add(&mut pipe, &scripts, &shared.keys, (shared.publisher, epoch, resend), batch);
            }
        }
        let replies: Vec<RedisResult<Value>> = pipe.query_async(&mut connection).await?;
        backoff.reset();
        let mut other_epoch = false;
        let mut replies = replies.into_iter();
        for batch in &batches {
            let Some(reply) = replies.next() else { break };
            if batch.kept.is_empty() {
                // How many nodes got the push.
                replies.next();
            }
            match log::added(reply)? {
                Added::At(position) => {
                    logs[batch.shard] = position;
                    shared.outgoing().logged(batch.shard, batch.count);
                    shared.metrics.broker.published.fetch_add(batch.count as u64, Ordering::Relaxed);
                }
                Added::OtherEpoch => other_epoch = true,
            }
        }
        if other_epoch {
            find_logs(shared, &mut connection, &scripts, logs).await?;
        }
    }
}

/// Finds the logs as they are now. What a new one does not have and this node still has is sent again.
async fn find_logs(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    scripts: &Scripts,
    logs: &mut [Position; SHARDS],
) -> Result<(), RedisError> {
    let states = scripts.inspect(connection, &shared.keys, &logs[..], Asking::default()).await?;
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
        tracing::warn!(events = replayed, "Redis has lost its log: sending this node's last events again");
    }
    Ok(())
}
