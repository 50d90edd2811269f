//! Apps of a database, which not every node knows.

use fanfare_tests::{Database, Engine, RedisServer, WebhookReceiver, XhrSession, eventually};

use crate::{support::node, witnesses::variables};

#[tokio::test]
async fn the_node_that_delivers_webhooks_need_not_have_met_the_app() {
    let mut receiver = WebhookReceiver::start();
    let (database, redis) = (Database::start(Engine::Postgres).await, RedisServer::start().await);
    let app = "CREATE TABLE apps (id VARCHAR(255) PRIMARY KEY, \"key\" VARCHAR(255), secret VARCHAR(255), \
        max_connections INTEGER, enable_client_messages SMALLINT, enabled SMALLINT, max_backend_events_per_sec INTEGER, \
        max_client_events_per_sec INTEGER, max_read_req_per_sec INTEGER, webhooks JSON); \
        INSERT INTO apps VALUES ('one', 'one-key', 'one-secret', -1, 1, 1, -1, -1, -1, '[{\"url\": \"URL\"}]')";
    database.sql(&app.replace("URL", &receiver.url())).await;
    let (address, url) = (database.url(), receiver.url());
    let [webhook, delay] = variables(&url);
    let variables = [webhook, delay, ("FANFARE__DATABASE__URL", &address)];
    // It has an app with an endpoint, so it delivers for all.
    let delivers = node(&redis, &variables).await;
    let owned = "local n = 0 for s = 0, 15 do n = n + redis.call('EXISTS', 'fanfare:{'..s..'}:owner') end return n";
    let count = async || redis.ask(&["EVAL", owned, "0"]);
    eventually("the node has all shards", count, |count| count == "16").await;
    let other = node(&redis, &variables).await;
    let client = XhrSession::new(other.address(), "/pusher/app/one-key");
    client.receive(fanfare_tests::Receiving::Poll).await;
    client.subscribe("news").await;
    assert_eq!(receiver.next_events().await, [("channel_occupied".to_owned(), "news".to_owned())]);
    drop(delivers);
}
