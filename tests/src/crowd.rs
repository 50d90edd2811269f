//! A thousand clients who miss nothing: numbered events without end, while a scenario does something to the server.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::{StreamExt, stream};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::{Api, RawClient, TestServer, deadline, eventually};

const CHANNEL: &str = "numbers";

/// Clients who are sent 0, 1, 2, … until the scenario is over, and who all have to get exactly that.
#[derive(Debug)]
pub struct Crowd {
    readers: JoinSet<u64>,
    publisher: JoinHandle<u64>,
    published: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    apis: mpsc::Sender<Api>,
}

impl Crowd {
    /// Connects the clients, and begins.
    pub async fn gather(server: &TestServer, size: usize) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("more descriptors");
        let join = |_| async {
            let mut client = server.raw().await;
            client.subscribe(CHANNEL).await;
            client
        };
        let clients: Vec<_> = stream::iter(0..size).map(join).buffer_unordered(100).collect().await;
        let readers = clients.into_iter().map(read).collect();
        let (published, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (apis, next_api) = mpsc::channel(1);
        let publisher = tokio::spawn(publish(server.api().await, next_api, Arc::clone(&published), Arc::clone(&over)));
        let crowd = Self { readers, publisher, published, over, apis };
        crowd.some_more().await;
        crowd
    }

    /// Waits until several events have been published from now on.
    pub async fn some_more(&self) {
        let until = self.published.load(Ordering::SeqCst) + 5;
        let published = async || {
            assert!(!self.publisher.is_finished(), "a trigger failed");
            tokio::task::yield_now().await;
            self.published.load(Ordering::SeqCst)
        };
        eventually("more events are published", published, |published| *published >= until).await;
    }

    /// Publishes through this from now on, as with a new key.
    pub async fn publish_through(&self, api: Api) {
        self.apis.send(api).await.expect("a publisher that goes on");
        self.some_more().await;
    }

    /// Ends, and looks whether everybody has got everything, once and in order. How many events that were.
    pub async fn leave(mut self) -> u64 {
        self.some_more().await;
        self.over.store(true, Ordering::SeqCst);
        let published = deadline("the last event", self.publisher).await.expect("every trigger is answered with 200");
        while let Some(received) = deadline("the last event of each client", self.readers.join_next()).await {
            assert_eq!(received.expect("nothing lost, repeated or out of order"), published);
        }
        published
    }
}

async fn publish(
    mut api: Api,
    mut next_api: mpsc::Receiver<Api>,
    published: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> u64 {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        if let Ok(next) = next_api.try_recv() {
            api = next;
        }
        api.trigger(CHANNEL, "number", &number.to_string()).await;
        number += 1;
        published.store(number, Ordering::SeqCst);
        // The clients share this thread: they get their turn before there is more for them.
        tokio::task::yield_now().await;
    }
    api.trigger(CHANNEL, "number", "end").await;
    number
}

async fn read(mut client: RawClient) -> u64 {
    let mut number = 0;
    loop {
        let frame = client.next().await;
        let frame: serde_json::Value = serde_json::from_slice(&frame.payload).expect("an event, not the end");
        match frame["data"].as_str() {
            Some("end") => return number,
            _ => assert_eq!(frame, json!({"event": "number", "channel": CHANNEL, "data": number.to_string()})),
        }
        number += 1;
    }
}
