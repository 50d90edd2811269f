//! Nodes that share a Redis give nothing back. Clients that ask hear of it, so that a gap is never silent.

use fanfare_tests::{Client, Event};
use serde_json::{Value, json};

use crate::support::Cluster;

const CHANNELS: [&str; 2] = ["orders", "presence-orders"];

async fn recover(client: &mut Client, from: Value) {
    client.send(&json!({"event": "fanfare:recover", "data": {"from": from, "sockets": []}})).await;
}

/// What the frames carry for clients with the companion.
fn position(event: &Event) -> Option<Value> {
    let frame: Value = serde_json::from_str(&event.text).expect("JSON");
    frame["user_id"].as_array().map(|tag| tag[0].clone())
}

/// Subscribes; what came up to an event of this name.
async fn subscribed(client: &mut Client, channel: &str, last: &str) -> (Vec<Event>, Event) {
    let member = channel.starts_with("presence-").then_some(r#"{"user_id":"alice"}"#);
    let data = client.subscription(channel, member);
    client.begin_subscribe(data).await;
    client.until(|event| event.is(last, channel)).await
}

#[tokio::test]
async fn who_comes_back_is_told_of_a_gap_on_whatever_node() {
    let cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[1].api().await;
    for channel in CHANNELS {
        let mut client = cluster.nodes[0].connect().await;
        recover(&mut client, json!({})).await;
        let (_, succeeded) = subscribed(&mut client, channel, "pusher_internal:subscription_succeeded").await;
        let held = position(&succeeded).expect("something to come back with");
        api.trigger(channel, "shipped", "1").await;
        let (_, event) = client.until(|event| event.is("shipped", channel)).await;
        assert_eq!(position(&event), None, "{event:?}");
        drop(client);
        api.trigger(channel, "shipped", "2").await;

        for node in &cluster.nodes {
            let mut again = node.connect().await;
            recover(&mut again, json!({ channel: held })).await;
            let (before, verdict) = subscribed(&mut again, channel, "pusher_internal:recovery").await;
            assert_eq!(verdict.data, r#"{"recovered":false,"count":0}"#);
            assert_eq!(position(&verdict), Some(held.clone()), "the next gap is told of, too");
            assert!(before.iter().all(|event| event.name != "shipped"), "{before:?}");
        }

        let mut late = cluster.nodes[0].connect().await;
        subscribed(&mut late, channel, "pusher_internal:subscription_succeeded").await;
        recover(&mut late, json!({})).await;
        let (_, told) = late.until(|event| event.is("pusher_internal:position", channel)).await;
        assert_eq!(position(&told), Some(held));
    }
}
