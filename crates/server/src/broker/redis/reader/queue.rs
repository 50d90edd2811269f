//! What waits for the reader: pushes, and answers to what it asked, in the order in which they came over its connection.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;

use super::super::{SHARDS, kept::Stored, log::State, membership::Question};
use crate::limits::BROKER_PUSHED_BYTES;

/// What has come over a connection and was not yet looked at. Bounded: the library would take whatever comes.
#[derive(Debug, Default)]
pub(super) struct Queue {
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
pub(super) enum Item {
    /// A push of a shard.
    Push(usize, Vec<u8>),
    /// Where the logs end.
    Ends(RedisResult<Vec<State>>),
    /// The last events of cache channels.
    Kept(Vec<Question>, RedisResult<Vec<Stored>>),
    /// The connection ended, or its pushes come over another one now.
    Gone,
    /// What came after this is not here.
    Full,
}

impl Queue {
    /// Takes a message of the connection.
    pub(super) fn push(&self, PushInfo { kind, data }: PushInfo) {
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
            // An unsubscribe that nobody asked for: in a Redis Cluster the slot has moved to another server.
            PushKind::Disconnection | PushKind::SUnsubscribe => self.add(Item::Gone, 0),
            _ => {}
        }
    }

    pub(super) fn add(&self, item: Item, bytes: usize) {
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

    /// Waits for what comes next.
    pub(super) async fn next(&self) -> Item {
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
    use super::{super::super::log::Keys, *};

    #[tokio::test]
    async fn a_queue_that_is_full_says_so_behind_what_it_has() {
        let queue = Queue::default();
        let message = |bytes: usize| PushInfo {
            kind: PushKind::Message,
            data: vec![Value::BulkString(Keys::new("a{b}").pushes(3).into_bytes()), Value::BulkString(vec![0; bytes])],
        };
        queue.push(message(10));
        queue.push(message(BROKER_PUSHED_BYTES));
        queue.push(message(1));
        assert!(matches!(queue.next().await, Item::Push(3, bytes) if bytes.len() == 10));
        assert!(matches!(queue.next().await, Item::Full));
        assert!(queue.waiting.lock().unwrap().items.is_empty());
    }
}
