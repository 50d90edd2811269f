use std::collections::BTreeMap;

use fanfare_protocol::{AppId, AppKey, AppSecret};

use super::*;

fn app(name: &str) -> AppConfig {
    AppConfig {
        id: AppId::new(format!("{name}-id")),
        key: AppKey::new(format!("{name}-key")),
        secret: AppSecret::new("hunter2"),
        ..AppConfig::default()
    }
}

/// The key that is refused after `change` to a valid configuration with one app.
fn refused(change: impl FnOnce(&mut Config)) -> Option<String> {
    let mut config = Config { apps: vec![app("till")], ..Config::default() };
    change(&mut config);
    let error = config.validate().err()?.to_string();
    assert!(!error.contains("hunter2"), "shows a secret: {error}");
    Some(error.split(": ").next().unwrap_or_default().to_owned())
}

fn refused_webhook(change: impl FnOnce(&mut WebhookConfig)) -> Option<String> {
    let mut webhook = WebhookConfig { url: "https://example.test/hooks".to_owned(), ..WebhookConfig::default() };
    change(&mut webhook);
    refused(|config| config.apps[0].webhooks.push(webhook))
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(Config::default().validate(), Ok(()));
    assert_eq!(refused(|_| ()), None);
}

#[test]
fn the_demo_secret_is_for_loopback_addresses_only() {
    for (host, ok) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("0.0.0.0", false),
        ("::", false),
        ("10.0.0.1", false),
    ] {
        let at = |apps: Vec<AppConfig>| {
            let mut config = Config { apps, ..Config::default() };
            config.server.host = host.parse().unwrap();
            config.validate().err().map(|error| error.to_string())
        };
        assert_eq!(at(vec![]).is_none(), ok, "{host}");
        assert_eq!(at(vec![AppConfig::demo()]).is_none(), ok, "{host}");
        let mut own = app("till");
        assert_eq!(at(vec![own.clone()]), None, "{host}");
        own.secret = AppSecret::new(AppConfig::DEMO_SECRET);
        let error = at(vec![app("other"), own]);
        assert_eq!(error.is_none(), ok, "{host}");
        assert!(error.is_none_or(|error| error.starts_with("apps[1].secret: everybody knows the demo secret")));
    }
}

#[test]
fn credentials_are_there_and_each_apps_own() {
    assert_eq!(refused(|config| config.apps[0].id = AppId::new("")).as_deref(), Some("apps[0].id"));
    assert_eq!(refused(|config| config.apps[0].key = AppKey::new("")).as_deref(), Some("apps[0].key"));
    assert_eq!(refused(|config| config.apps[0].secret = AppSecret::new("")).as_deref(), Some("apps[0].secret"));
    for bad in ["a b", "a/b", "a:b", "a%20b", "é", "a\nb"] {
        assert_eq!(refused(|config| config.apps[0].key = AppKey::new(bad)).as_deref(), Some("apps[0].key"), "{bad}");
    }
    let twin = |id: &str, key: &str| AppConfig { id: AppId::new(id), key: AppKey::new(key), ..app("x") };
    assert_eq!(refused(|config| config.apps.push(twin("till-id", "y"))).as_deref(), Some("apps[1].id"));
    assert_eq!(refused(|config| config.apps.push(twin("y", "till-key"))).as_deref(), Some("apps[1].key"));
    assert_eq!(refused(|config| config.apps.push(twin("till-key", "till-id"))), None);
}

#[test]
fn path_prefixes() {
    for good in ["", "/ws", "/a/b-c/~d.e_f"] {
        assert_eq!(refused(|config| config.server.path_prefix = good.to_owned()), None, "{good}");
    }
    for bad in ["ws", "/", "/ws/", "//ws", "/a//b", "/a/../b", "/a b", "/é", "/{a}", "/a?b"] {
        let key = refused(|config| config.server.path_prefix = bad.to_owned());
        assert_eq!(key.as_deref(), Some("server.path_prefix"), "{bad}");
    }
}

#[test]
fn redis_is_at_an_address_or_behind_sentinels_or_a_cluster() {
    let refused = |change: &dyn Fn(&mut BrokerConfig)| {
        refused(|config| {
            config.broker.driver = BrokerDriver::Redis;
            config.broker.url = "redis://:hunter2@a.test/0".to_owned();
            change(&mut config.broker);
        })
    };
    let one = || vec!["10.0.0.1:26379".to_owned()];
    assert_eq!(refused(&|broker| broker.sentinels = one()), None);
    assert_eq!(refused(&|broker| broker.cluster_nodes = one()), None);
    let key = |key: &str| Some(key.to_owned());
    let bad = vec!["10.0.0.1:1".to_owned(), "redis://:hunter2@10.0.0.1:1".to_owned()];
    assert_eq!(refused(&|broker| broker.sentinels = bad.clone()), key("broker.sentinels[1]"));
    assert_eq!(refused(&|broker| broker.cluster_nodes = vec![String::new()]), key("broker.cluster_nodes[0]"));
    assert_eq!(
        refused(&|broker| (broker.sentinels, broker.cluster_nodes) = (one(), one())),
        key("broker.cluster_nodes")
    );
    assert_eq!(refused(&|broker| broker.sentinel_master = String::new()), key("broker.sentinel_master"));
    assert_eq!(refused(&|broker| broker.sentinel_username = "a".to_owned()), key("broker.sentinel_username"));
    let database = |broker: &mut BrokerConfig| {
        broker.cluster_nodes = one();
        broker.url = "redis://a.test/3".to_owned();
    };
    assert_eq!(refused(&database), key("broker.url"));
}

#[test]
fn a_database_is_one_that_can_be_asked() {
    let refused = |url: &str| refused(|config| config.database.url = url.to_owned());
    for good in ["postgres://a:hunter2@h/apps?sslmode=require", "mariadb://a:hunter2@[::1]:1/apps?ssl-mode=DISABLED"] {
        assert_eq!(refused(good), None, "{good}");
    }
    for bad in
        ["sqlite://hunter2.db", "mysql://", "mysql://h/apps?ssl-mode=hunter2", "postgres://h/apps?sslmode=hunter2"]
    {
        assert_eq!(refused(bad).as_deref(), Some("database.url"), "{bad}");
    }
}

#[test]
fn durations_have_a_sense() {
    let zero = Duration::ZERO;
    assert_eq!(refused(|config| config.server.pong_timeout = zero).as_deref(), Some("server.pong_timeout"));
    assert_eq!(refused(|config| config.server.workers = MAX_WORKERS), None);
    assert_eq!(refused(|config| config.server.workers = MAX_WORKERS + 1).as_deref(), Some("server.workers"));
    assert_eq!(refused(|config| config.webhooks.timeout = zero).as_deref(), Some("webhooks.timeout"));
    assert_eq!(refused(|config| config.apps[0].cache_ttl = zero).as_deref(), Some("apps[0].cache_ttl"));
    assert_eq!(refused(|config| config.apps[0].cache_ttl = Duration::MAX).as_deref(), Some("apps[0].cache_ttl"));
    assert_eq!(refused(|config| config.server.shutdown_grace = zero), None);
    for (timeout, ok) in [(0, false), (999, false), (1_000, true), (1_500, false), (30_000, true)] {
        let timeout = Duration::from_millis(timeout);
        let key = refused(|config| config.server.activity_timeout = timeout);
        assert_eq!(key, (!ok).then(|| "server.activity_timeout".to_owned()));
        let key = refused(|config| config.apps[0].activity_timeout = Some(timeout));
        assert_eq!(key, (!ok).then(|| "apps[0].activity_timeout".to_owned()));
    }
}

#[test]
fn limits_let_something_through() {
    let key = refused(|config| config.apps[0].max_event_bytes = 0);
    assert_eq!(key.as_deref(), Some("apps[0].max_event_bytes"));
    let key = refused(|config| config.server.max_outbox_bytes = 0);
    assert_eq!(key.as_deref(), Some("server.max_outbox_bytes"));
    let key = refused(|config| config.webhooks.max_queued_events = 0);
    assert_eq!(key.as_deref(), Some("webhooks.max_queued_events"));
    assert_eq!(refused(|config| config.apps[0].max_connections = 0), None);
    let key = refused(|config| config.apps[0].max_event_bytes = config.server.max_request_bytes + 1);
    assert_eq!(key.as_deref(), Some("apps[0].max_event_bytes"));
    let key = refused(|config| config.apps[0].max_client_event_bytes = config.server.max_message_bytes + 1);
    assert_eq!(key.as_deref(), Some("apps[0].max_client_event_bytes"));
}

#[test]
fn close_codes_are_of_the_range_that_clients_act_on() {
    for (code, ok) in [(3999, false), (4000, true), (4200, true), (4999, true), (5000, false)] {
        let key = refused(|config| config.apps[0].terminate_code = code);
        assert_eq!(key, (!ok).then(|| "apps[0].terminate_code".to_owned()), "{code}");
    }
}

#[test]
fn origins() {
    for good in [
        "*",
        "example.com",
        "*.example.com",
        "app-*.example.com",
        "app.*",
        "https://*.example.com",
        "localhost",
        "127.0.0.1",
        "null",
        "https://example.com",
        "http://localhost:5173",
        "http://[::1]:8000",
        "https://[::1]",
        "capacitor://localhost",
    ] {
        assert_eq!(refused(|config| config.apps[0].allowed_origins = vec![good.to_owned()]), None, "{good}");
    }
    for bad in [
        "",
        "example.com/",
        "https://example.com/",
        "https://",
        "localhost:5173",
        "a b",
        "https://a:b",
        "https://a:70000",
        "://a",
        "é.test",
        "https://user@a",
        "..",
    ] {
        let key = refused(|config| config.apps[0].allowed_origins = vec!["*".to_owned(), bad.to_owned()]);
        assert_eq!(key.as_deref(), Some("apps[0].allowed_origins[1]"), "{bad}");
    }
    assert_eq!(refused(|config| config.apps[0].allowed_origins.clear()).as_deref(), Some("apps[0].allowed_origins"));
}

#[test]
fn webhook_urls_are_http() {
    for good in ["http://127.0.0.1:9000", "https://user:hunter2@example.test/a?b=c"] {
        assert_eq!(refused_webhook(|webhook| webhook.url = good.to_owned()), None, "{good}");
    }
    for bad in ["", "example.test/hooks", "/hooks", "ftp://example.test", "https://", "https://a b/?hunter2"] {
        let key = refused_webhook(|webhook| webhook.url = bad.to_owned());
        assert_eq!(key.as_deref(), Some("apps[0].webhooks[0].url"), "{bad}");
    }
}

#[test]
fn webhook_headers_are_headers_and_not_the_servers() {
    let with = |headers: &[(&str, &str)]| {
        let headers: BTreeMap<_, _> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        refused_webhook(|webhook| webhook.headers = headers)
    };
    assert_eq!(with(&[("X-Team", "till"), ("Authorization", "Bearer hunter2")]), None);
    for bad in ["X Team", "", "X-Pusher-Key", "x-pusher-signature", "Content-Type", "content-length", "HOST"] {
        assert_eq!(with(&[(bad, "a")]), Some(format!("apps[0].webhooks[0].headers.{bad}")), "{bad}");
    }
    assert_eq!(
        with(&[("X-Team", "hunter2\r\nX-Pusher-Key: a")]).as_deref(),
        Some("apps[0].webhooks[0].headers.X-Team")
    );
    assert_eq!(with(&[("X-Team", "a"), ("x-team", "b")]).as_deref(), Some("apps[0].webhooks[0].headers.x-team"));
}

#[test]
fn log_levels_are_filters() {
    assert_eq!(refused(|config| config.log.level = "inof".to_owned()).as_deref(), Some("log.level"));
    assert_eq!(refused(|config| config.log.level = "warn,fanfare_server=debug".to_owned()), None);
}
