//! What the others hear, and that nothing is lost while Fanfare is away.

use std::net::SocketAddr;

use fanfare_tests::{Client, Event, TestServer, eventually};
use serde_json::{Value, json};

use crate::shop::{Person, Shop};

async fn listener(server: &TestServer, channels: &[&str]) -> Client {
    let mut client = server.connect().await;
    for channel in channels {
        client.subscribe(channel).await;
    }
    client
}

fn heard(event: &Event) -> (String, String, Value) {
    (event.channel.clone().unwrap(), event.name.clone(), event.json())
}

fn of_order(id: i64, status: &str, revision: i64) -> (String, String, Value) {
    let data = json!({"id": id, "status": status, "revision": revision});
    ("orders".to_owned(), "order.status.changed".to_owned(), data)
}

#[tokio::test]
async fn others_hear_of_each_step_in_order_and_of_nothing_but_ids_and_statuses() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let mut other = listener(&server, &["orders", "registrations"]).await;
    let manager = shop.person("manager").await;
    let id = manager.order().await;
    manager.set_all(id, &["payment", "paid", "released"]).await;
    let (_, registration) = manager.post("/api/registrations", &json!({"name": "Ada"})).await;
    manager.post(&format!("/api/registrations/{}/release", registration["registration"]["id"]), &json!({})).await;

    for (revision, status) in [(1, "created"), (2, "payment"), (3, "paid"), (4, "released")] {
        assert_eq!(heard(&other.next_event().await), of_order(id, status, revision));
    }
    for (revision, status) in [(5, "created"), (6, "released")] {
        let (channel, name, data) = heard(&other.next_event().await);
        assert_eq!((channel.as_str(), name), ("registrations", format!("registration.{status}")));
        assert_eq!(data, json!({"id": registration["registration"]["id"], "status": status, "revision": revision}));
    }
}

#[tokio::test]
async fn who_made_a_change_does_not_hear_of_it() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let mut cashier = shop.person("cashier").await;
    let mut own = listener(&server, &["orders"]).await;
    let mut other = listener(&server, &["orders"]).await;
    cashier.socket_id = Some(own.socket_id.clone());
    let id = cashier.order().await;
    // Not an id: nobody is left out, and the sale goes on.
    cashier.socket_id = Some("nonsense".to_owned());
    cashier.set_all(id, &["payment"]).await;
    assert_eq!(heard(&other.next_event().await), of_order(id, "created", 1));
    assert_eq!(heard(&other.next_event().await), of_order(id, "payment", 2));
    assert_eq!(heard(&own.next_event().await), of_order(id, "payment", 2));
}

#[tokio::test]
async fn comments_and_figures_are_told_on_their_private_channels() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let manager = shop.person("manager").await;
    let id = manager.order().await;
    let channel = format!("private-orders.{id}");
    let mut other = listener(&server, &[&channel, "private-dashboard"]).await;
    let (_, comment) = manager.post(&format!("/api/orders/{id}/comments"), &json!({"body": "secret"})).await;
    let data = json!({"id": comment["comment"]["id"], "order_id": id});
    assert_eq!(heard(&other.next_event().await), (channel, "comment.created".to_owned(), data));
    manager.set_all(id, &["payment"]).await;
    let dashboard = ("private-dashboard".to_owned(), "dashboard.changed".to_owned(), json!({}));
    assert_eq!(heard(&other.next_event().await), dashboard);
}

/// Starts Fanfare where one was.
fn start_again(address: SocketAddr) -> TestServer {
    TestServer::builder().config(|config| config.server.port = address.port()).start()
}

/// The log may come a little later than what it tells of.
async fn logged_once(shop: &Shop, text: &str) {
    let lines = eventually(text, async || shop.logged(text), |lines| !lines.is_empty()).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
}

async fn wait_until_live(person: &Person) {
    let live = || async { person.get("/api/live").await.1 };
    eventually("all broadcasts are delivered", live, |answer| answer["live"] == true).await;
}

#[tokio::test]
async fn a_sale_while_fanfare_is_away_is_not_live_and_is_told_afterwards_in_order() {
    let server = TestServer::start();
    let address = server.address();
    let shop = Shop::start(&server);
    let manager = shop.person("manager").await;
    let first = manager.order().await;
    drop(server);

    let (code, answer) = manager.set(first, "payment").await;
    assert_eq!((code, &answer["live"], &answer["order"]["status"]), (200, &json!(false), &json!("payment")));
    manager.set_all(first, &["paid"]).await;
    let second = manager.order().await;
    let (_, live) = manager.get("/api/live").await;
    assert_eq!((&live["live"], live["waiting"].as_i64().unwrap() >= 3), (&json!(false), true), "{live}");
    let (_, figures) = manager.get("/api/dashboard").await;
    assert_eq!(figures["not_live"], live["waiting"]);

    let server = start_again(address);
    let mut other = listener(&server, &["orders"]).await;
    wait_until_live(&manager).await;
    manager.set_all(second, &["payment"]).await;
    // What was sent before `other` had subscribed is not for it; the rest comes in order, and the last one closes it.
    let (before, last) = other.until(|event| event.json()["revision"] == 5).await;
    let mut expected = vec![of_order(first, "payment", 2), of_order(first, "paid", 3), of_order(second, "created", 4)];
    let missed = expected.len() - before.len();
    assert_eq!(before.iter().map(heard).collect::<Vec<_>>(), expected.split_off(missed));
    assert_eq!(heard(&last), of_order(second, "payment", 5));
    logged_once(&shop, "all broadcasts were delivered").await;
    logged_once(&shop, "broadcasts wait").await;
}

#[tokio::test]
async fn what_waits_survives_the_end_of_the_process() {
    let server = TestServer::start();
    let address = server.address();
    let shop = Shop::start(&server);
    drop(server);
    let cashier = shop.person("cashier").await;
    let id = cashier.order().await;
    cashier.set_all(id, &["payment"]).await;

    let shop = {
        let server = start_again(address);
        let mut other = listener(&server, &["orders"]).await;
        let shop = shop.killed_and_started_again();
        // The old process may have sent the first one before it ended.
        let (_, last) = other.until(|event| event.json()["revision"] == 2).await;
        assert_eq!(heard(&last), of_order(id, "payment", 2));
        shop
    };
    let (_, order) = shop.person("cashier").await.get(&format!("/api/orders/{id}")).await;
    assert_eq!(order["order"]["status"], "payment");
}

#[tokio::test]
async fn an_event_that_the_server_will_never_take_does_not_hold_up_the_others() {
    // Twenty bytes are too few for an order's event, and enough for the dashboard's.
    let server = TestServer::builder().app(|app| app.max_event_bytes = 20).start();
    let shop = Shop::start(&server);
    let mut other = listener(&server, &["orders", "private-dashboard"]).await;
    let cashier = shop.person("cashier").await;
    let (code, answer) =
        cashier.post("/api/orders", &json!({"customer": "Ada", "items": [{"product_id": 1, "quantity": 1}]})).await;
    assert_eq!((code, &answer["live"]), (201, &json!(false)));
    assert_eq!(other.next_event().await.name, "dashboard.changed");
    assert_eq!(cashier.get("/api/live").await.1, json!({"live": true, "waiting": 0}));
    logged_once(&shop, "broadcast given up").await;
}
