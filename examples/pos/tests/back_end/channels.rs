//! Who may join which channel: a real Fanfare takes the signatures.

use fanfare_tests::{Client, TestServer};
use serde_json::{Value, json};

use crate::shop::{Person, Shop};

/// Asks the shop to let a connection into a channel.
async fn ask(person: &Person, client: &Client, channel: &str) -> (u16, Value) {
    let form = format!("socket_id={}&channel_name={channel}", client.socket_id);
    person.auth("/broadcasting/auth", &form).await
}

/// Joins with what the shop answered, and returns the data of `subscription_succeeded`.
async fn join(person: &Person, client: &mut Client, channel: &str) -> Value {
    let (code, answer) = ask(person, client, channel).await;
    assert_eq!(code, 200, "{channel}: {answer}");
    let mut data = answer.clone();
    data["channel"] = channel.into();
    client.begin_subscribe(data).await;
    let event = client.next_event().await;
    assert!(event.is("pusher_internal:subscription_succeeded", channel), "{answer}: {event:?}");
    event.json()
}

#[tokio::test]
async fn fanfare_accepts_what_the_shop_signs() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let (manager, mut client) = (shop.person("manager").await, server.connect().await);
    let id = manager.order().await;
    let staff = join(&manager, &mut client, "presence-staff").await;
    assert_eq!(staff["presence"]["hash"], json!({"4": {"name": "Malik", "role": "manager"}}));
    for channel in ["private-dashboard", "private-App.Models.User.4"] {
        join(&manager, &mut client, channel).await;
    }
    for channel in [format!("private-orders.{id}"), format!("presence-orders.{id}")] {
        join(&manager, &mut client, &channel).await;
    }
}

#[tokio::test]
async fn fanfare_accepts_the_sign_in() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let (cashier, mut client) = (shop.person("cashier").await, server.connect().await);
    let form = format!("socket_id={}", client.socket_id);
    let (_, answer) = cashier.auth("/broadcasting/user-auth", &form).await;
    client.send(&json!({"event": "pusher:signin", "data": answer})).await;
    let event = client.next_event().await;
    assert_eq!(event.name, "pusher:signin_success", "{event:?}");
    let user: Value = serde_json::from_str(event.json()["user_data"].as_str().unwrap()).unwrap();
    assert_eq!(user, json!({"id": "1", "user_info": {"name": "Carla", "role": "cashier"}}));
}

#[tokio::test]
async fn nobody_joins_what_is_not_for_them() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let (cashier, client) = (shop.person("cashier").await, server.connect().await);
    let id = cashier.order().await;
    let others = [
        "private-dashboard",
        "private-App.Models.User.4",
        "private-orders.99",
        "presence-orders.99",
        "private-orders.+1",
        "private-orders.01",
        "private-orders.1.2",
        "presence-anything",
        "private-encrypted-orders",
        "orders",
        "",
    ];
    for channel in others {
        assert_eq!(ask(&cashier, &client, channel).await.0, 403, "{channel}");
    }
    assert_eq!(ask(&shop.stranger(), &client, "presence-staff").await.0, 401);
    assert_eq!(ask(&cashier, &client, &format!("private-orders.{id}")).await.0, 200);
    // A signature of `1.1:presence-staff:...` would serve for another channel.
    for socket_id in ["1.1:presence-staff", "", "1", "a.b"] {
        let form = format!("socket_id={socket_id}&channel_name=private-orders.{id}");
        assert_eq!(cashier.auth("/broadcasting/auth", &form).await.0, 400, "{socket_id}");
        assert_eq!(cashier.auth("/broadcasting/user-auth", &form).await.0, 400, "{socket_id}");
    }
}
