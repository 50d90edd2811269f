//! Thousands of clients that vanish in one instant, as when a proxy restarts.

use std::time::Duration;

use fanfare_tests::{Api, Client, RawClient, TestServer, eventually, resident_megabytes};
use futures_util::{StreamExt, stream};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::time::Instant;

/// As many as vanish in the larger round, where descriptors allow it.
const CLIENTS: usize = 8000;

/// How many clients this process has descriptors for: each takes one here and one on the server's side.
fn raise_descriptor_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    limit.current.map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(200) / 2).unwrap_or(usize::MAX))
}

async fn join(server: &TestServer, number: usize) -> RawClient {
    let mut client = server.raw().await;
    client.subscribe("news").await;
    client.subscribe(&format!("own-{number}")).await;
    client
}

/// Lets so many clients vanish; how long it took until they were counted out.
#[expect(clippy::print_stdout, reason = "figures for whoever looks")]
async fn vanish(server: &TestServer, api: &mut Api, witness: &mut Client, count: usize) -> Duration {
    let clients: Vec<_> =
        stream::iter(0..count).map(|number| join(server, number)).buffer_unordered(100).collect().await;
    assert_eq!(api.connections().await, count as u64 + 1);
    let memory = resident_megabytes();

    let start = Instant::now();
    // On another thread: this one looks after those who stay.
    let dropping = tokio::task::spawn_blocking(move || drop(clients));
    let mut slowest = Duration::ZERO;
    let round_trip = async || {
        let start = Instant::now();
        assert_eq!(api.request("GET", "/up", "").await.status, 200);
        api.trigger("news", "tick", "").await;
        assert_eq!(witness.next_event().await.name, "tick");
        let connections = api.connections().await;
        slowest = slowest.max(start.elapsed());
        connections
    };
    eventually("everybody is counted out", round_trip, |count| *count == 1).await;
    let elapsed = start.elapsed();
    dropping.await.expect("a blocking task");
    println!(
        "{count} were gone after {elapsed:?}; meanwhile a round trip took at most {slowest:?}; memory: {memory} MB before, {} after",
        resident_megabytes()
    );
    assert!(slowest < Duration::from_secs(3), "an event took {slowest:?} meanwhile");
    let channels = api.get("/channels", &[]).await.json();
    assert_eq!(channels, json!({"channels": {"news": {}}}));
    elapsed
}

#[tokio::test]
async fn thousands_of_vanished_clients_are_counted_out_while_the_others_are_served() {
    let many = CLIENTS.min(raise_descriptor_limit());
    let server = TestServer::start();
    let mut witness = server.connect().await;
    witness.subscribe("news").await;
    let mut api = server.api().await;
    let few = vanish(&server, &mut api, &mut witness, many / 4).await;
    let many = vanish(&server, &mut api, &mut witness, many).await;
    // Four times as many clients would take sixteen times as long if each looked at all others. Short times say little on a busy machine.
    assert!(many < 10 * few || many < Duration::from_secs(2), "it took {many:?} instead of {few:?}");
    drop(server.connect_many(50).await);
    eventually("and again", async || api.connections().await, |count| *count == 1).await;
}
