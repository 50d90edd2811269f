//! Redis as operators run it: with users, passwords and TLS.

use fanfare_tests::{RedisServer, WebhookReceiver};

use crate::support::{Trust, node_at};

/// What docs/scaling.md tells operators to allow.
const ACL: &str = "till on >hunter2 resetkeys ~fanfare:* resetchannels &fanfare:* -@all +@read +@write +@scripting +@pubsub \
    +@transaction -@dangerous +ping +info +hello +time";

#[tokio::test]
async fn a_user_with_no_more_rights_than_documented_is_enough() {
    let redis = RedisServer::start().await;
    for (number, right) in ACL.split_whitespace().enumerate() {
        let name = ["ACL", "SETUSER", "till", right];
        if number > 0 {
            assert_eq!(redis.ask(&name), "OK", "{right}");
        }
    }
    assert_eq!(redis.ask(&["ACL", "SETUSER", "default", "off"]), "OK");
    let url = format!("redis://till:hunter2@{}/0", redis.address());
    let nodes = [node_at(&url, &[]).await, node_at(&url, &[]).await];
    for node in &nodes {
        node.logs("receiving events").await;
    }
    let mut client = nodes[1].connect().await;
    client.subscribe("news").await;
    nodes[0].api().await.trigger("news", "e", "1").await;
    assert_eq!(client.next_event().await.data, "1");
    assert!(!nodes[0].has_logged("hunter2"));
}

#[tokio::test]
async fn a_missing_right_is_one_line_of_the_log_until_it_is_given() {
    let webhooks = WebhookReceiver::start();
    let variable = ("FANFARE__APPS__0__WEBHOOKS__0__URL", &*webhooks.url());
    for (right, what) in [("hset", "members and counts"), ("xreadgroup", "webhooks")] {
        let redis = RedisServer::start().await;
        let without = format!("-{right}");
        for right in ACL.split_whitespace().skip(1).chain([&*without]) {
            assert_eq!(redis.ask(&["ACL", "SETUSER", "till", right]), "OK", "{right}");
        }
        let node = node_at(&format!("redis://till:hunter2@{}/0", redis.address()), &[variable]).await;
        let line = node.logs(&format!("Redis refuses commands about {what}")).await;
        assert!(line.contains("ERROR") && line.len() < 300, "{line}");
        assert_eq!(redis.ask(&["ACL", "SETUSER", "till", &format!("+{right}")]), "OK");
        node.logs(&format!("Redis takes {what} again")).await;
        assert_eq!(node.lines("ERROR"), [line]);
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_without_showing_it() {
    let redis = RedisServer::start_with(&["--requirepass", "right"]).await;
    let node = node_at(&format!("redis://:hunter2@{}", redis.address()), &[]).await;
    node.logs("cannot publish through Redis").await;
    node.logs("WRONGPASS").await;
    assert!(!node.has_logged("hunter2"));
}

#[tokio::test]
async fn redis_is_reached_over_tls_and_its_certificate_is_checked() {
    let trust = Trust::new();
    let mut redis = trust.server(RedisServer::prepare(&[]));
    redis.run().await;
    let url = format!("rediss://localhost:{}", redis.address().port());
    let trusting = node_at(&url, &[trust.variable()]).await;
    trusting.logs("receiving events").await;
    trusting.logs("publishing through").await;
    let strict = node_at(&url, &[]).await;
    strict.logs("cannot publish through Redis").await;
    assert!(!strict.has_logged("receiving events"));
}
