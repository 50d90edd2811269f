//! Events reach the subscribers of all nodes, in one order, each once, and not who is excepted.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Accepted, Cluster, assert_whole, collect};

#[tokio::test]
async fn events_of_all_nodes_are_one_sequence_for_everybody() {
    const EACH: usize = 150;
    let cluster = Cluster::start(3).await;
    let mut clients = cluster.subscribers(&["news", "private-orders"]).await;
    clients.extend(cluster.subscribers(&["news", "private-orders"]).await);

    let publish = cluster.nodes.iter().zip(["a", "b", "c"]).map(async |(node, name)| {
        let mut api = node.api().await;
        let mut accepted = Accepted::default();
        for number in 0..EACH {
            let channel = ["news", "private-orders"][number % 2];
            let data = format!("{name}:{number}");
            api.trigger(channel, "numbered", &data).await;
            accepted.events.push(format!("{channel} {data}"));
        }
        accepted
    });
    let read = clients.iter_mut().map(|client| collect(client, 3 * EACH));
    let (accepted, received) = tokio::join!(join_all(publish), join_all(read));
    assert_whole(&received, &accepted.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_excepted_socket_is_excepted_on_whatever_node_it_is() {
    let cluster = Cluster::start(2).await;
    let mut clients = cluster.subscribers(&["a", "b"]).await;
    let except = clients[1].socket_id.clone();
    let mut api = cluster.nodes[0].api().await;
    let trigger = json!({"name": "e", "channels": ["a", "b"], "data": "1", "socket_id": except});
    assert_eq!(api.post("/events", &trigger.to_string()).await.status, 200);
    let batch = json!({"batch": [
        {"name": "e", "channel": "a", "data": "2", "socket_id": except},
        {"name": "e", "channel": "b", "data": "3"},
    ]});
    assert_eq!(api.post("/batch_events", &batch.to_string()).await.status, 200);
    api.trigger("a", "e", "4").await;
    // The two channels are two orders.
    let mut first = collect(&mut clients[0], 5).await;
    first.sort();
    assert_eq!(first, ["a 1", "a 2", "a 4", "b 1", "b 3"]);
    let mut second = collect(&mut clients[1], 2).await;
    second.sort();
    assert_eq!(second, ["a 4", "b 3"]);
}

#[tokio::test]
async fn client_events_cross_nodes_with_the_members_id_and_not_to_their_sender() {
    let cluster = Cluster::start(2).await;
    let (mut ann, mut bob) = (cluster.nodes[0].connect().await, cluster.nodes[1].connect().await);
    ann.join("presence-room", "ann").await;
    bob.join("presence-room", "bob").await;
    ann.send_event("presence-room", "client-hello", json!({"n": 1})).await;
    let (_, event) = bob.until(|event| event.name == "client-hello").await;
    assert_eq!((event.data.as_str(), event.user_id.as_deref()), (r#"{"n":1}"#, Some("ann")));
    bob.send_event("presence-room", "client-bye", json!("x")).await;
    let (before, event) = ann.until(|event| event.name == "client-bye").await;
    assert!(before.iter().all(|event| event.name != "client-hello"), "{before:?}");
    assert_eq!(event.user_id.as_deref(), Some("bob"));
}

#[tokio::test]
async fn users_get_their_events_and_are_ended_on_whatever_node_they_are() {
    let cluster = Cluster::start(2).await;
    let mut client = cluster.nodes[1].connect().await;
    client.sign_in(r#"{"id":"ann"}"#).await;
    client.subscribe("#server-to-user-ann").await;
    let mut api = cluster.nodes[0].api().await;
    api.trigger("#server-to-user-ann", "hello", "ann").await;
    assert_eq!(client.next_event().await.data, "ann");
    assert_eq!(api.post("/users/ann/terminate_connections", "{}").await.status, 200);
    assert_eq!(client.ended().await.code, Some(4009));
}

#[tokio::test]
async fn a_cache_channel_keeps_its_last_event_on_all_nodes() {
    let cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[0].api().await;
    let mut witness = cluster.nodes[1].connect().await;
    witness.subscribe("cache-prices").await;
    assert_eq!(witness.next_event().await.name, "pusher:cache_miss");
    api.trigger("cache-prices", "price", "1").await;
    assert_eq!(witness.next_event().await.data, "1");
    let mut late = cluster.nodes[1].connect().await;
    late.subscribe("cache-prices").await;
    assert_eq!(late.next_event().await.data, "1");
}
