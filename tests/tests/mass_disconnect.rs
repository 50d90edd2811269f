//! Thousands of clients that vanish in one instant, as when a proxy restarts.

use std::time::Duration;

use fanfare_tests::{RawClient, TestServer, eventually};
use futures_util::{StreamExt, stream};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;

const CLIENTS: usize = 3000;

/// Each client takes a descriptor here and one on the server's side.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let enough = limit.current.is_none_or(|limit| limit >= CLIENTS as u64 * 2 + 100);
    assert!(enough, "this test needs {} descriptors; the limit is {:?}", CLIENTS * 2 + 100, limit.current);
}

async fn join(server: &TestServer, number: usize) -> RawClient {
    let mut client = server.raw().await;
    client.subscribe("news").await;
    client.subscribe(&format!("own-{number}")).await;
    client
}

#[tokio::test]
async fn thousands_of_vanished_clients_are_counted_out_while_the_others_are_served() {
    raise_descriptor_limit();
    let server = TestServer::start();
    let clients: Vec<_> =
        stream::iter(0..CLIENTS).map(|number| join(&server, number)).buffer_unordered(100).collect().await;
    let mut witness = server.connect().await;
    witness.subscribe("news").await;
    let mut api = server.api().await;
    assert_eq!(api.connections().await, CLIENTS as u64 + 1);

    drop(clients);
    let mut slowest = Duration::ZERO;
    let round_trip = async || {
        let start = Instant::now();
        api.trigger("news", "tick", "").await;
        assert_eq!(witness.next_event().await.name, "tick");
        let connections = api.connections().await;
        slowest = slowest.max(start.elapsed());
        connections
    };
    eventually("everybody is counted out", round_trip, |count| *count == 1).await;
    assert!(slowest < Duration::from_secs(3), "an event took {slowest:?} meanwhile");
    let channels = api.get("/channels", &[]).await.json();
    assert_eq!(channels, serde_json::json!({"channels": {"news": {}}}));
    drop(server.connect_many(50).await);
    eventually("and again", async || api.connections().await, |count| *count == 1).await;
}
