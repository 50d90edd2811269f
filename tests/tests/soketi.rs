//! What Soketi does otherwise than pusher.com, and people lean on: only where they ask for it.

use fanfare_tests::TestServer;
use serde_json::json;

const USERS: &str = "/channels/presence-room/users";

#[tokio::test]
async fn client_events_on_public_channels_are_relayed_if_the_app_asks_for_it() {
    let server = TestServer::builder().app(|app| app.client_events_on_public_channels = true).start();
    let (mut alice, mut bob) = (server.connect().await, server.connect().await);
    alice.subscribe("room").await;
    bob.subscribe("room").await;
    alice.send_event("room", "client-typing", json!({"who": "alice"})).await;
    let event = bob.next_event().await;
    assert!(event.is("client-typing", "room"), "{event:?}");
    assert_eq!(event.json(), json!({"who": "alice"}));
    // Who has not subscribed, and a user's own channel, are still refused.
    let mut carol = server.connect().await;
    carol.send_event("room", "client-typing", json!({})).await;
    assert_eq!(carol.next_event().await.name, "pusher:error");
    carol.sign_in(r#"{"id":"carol"}"#).await;
    carol.subscribe("#server-to-user-carol").await;
    carol.send_event("#server-to-user-carol", "client-typing", json!({})).await;
    assert_eq!(carol.next_event().await.name, "pusher:error");

    let server = TestServer::start();
    let mut alice = server.connect().await;
    alice.subscribe("room").await;
    alice.send_event("room", "client-typing", json!({})).await;
    assert_eq!(alice.next_event().await.name, "pusher:error");
}

#[tokio::test]
async fn reads_have_counts_unasked_if_the_app_asks_for_it() {
    for always in [true, false] {
        let server = TestServer::builder()
            .app(|app| {
                app.subscription_count = true;
                app.always_counts = always;
            })
            .start();
        let mut client = server.connect().await;
        client.subscribe("room").await;
        client.join("presence-room", "7").await;
        let mut api = server.api().await;
        let (all, room, presence) = (
            api.get("/channels", &[]).await.json(),
            api.get("/channels/room", &[]).await.json(),
            api.get("/channels/presence-room", &[]).await.json(),
        );
        if always {
            let each = json!({"occupied": true, "subscription_count": 1});
            assert_eq!(all, json!({"channels": {"presence-room": each, "room": each}}));
            assert_eq!(room, each);
            assert_eq!(presence, json!({"occupied": true, "subscription_count": 1, "user_count": 1}));
        } else {
            assert_eq!(all, json!({"channels": {"presence-room": {}, "room": {}}}));
            assert_eq!((room, presence), (json!({"occupied": true}), json!({"occupied": true})));
        }
    }
}

#[tokio::test]
async fn users_come_with_what_is_known_of_them_if_the_request_asks_for_it() {
    let server = TestServer::start();
    let (mut client, mut other) = (server.connect().await, server.connect().await);
    client.join("presence-room", "7").await;
    let data = other.subscription("presence-room", Some(r#"{"user_id":"8"}"#));
    other.begin_subscribe(data).await;
    other.next_event().await;
    let mut api = server.api().await;
    let mut users =
        api.get(USERS, &[("with_user_info", "1")]).await.json()["users"].as_array().expect("a list").clone();
    users.sort_by_key(|user| user["id"].to_string());
    assert_eq!(users, [json!({"id": "7", "user_info": {"name": "7"}}), json!({"id": "8"})]);
    for query in [&[][..], &[("with_user_info", "0")]] {
        let users = api.get(USERS, query).await.json();
        assert!(
            users["users"].as_array().expect("a list").iter().all(|user| user.get("user_info").is_none()),
            "{users}"
        );
    }
}

#[tokio::test]
async fn probes_may_ask_under_soketis_names() {
    let server = TestServer::start();
    let mut api = server.api().await;
    for path in ["/up", "/ready", "/accept-traffic"] {
        let answer = api.request("GET", path, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"health":"OK"}"#), "{path}");
    }
}
