//! What `/metrics` says is true, whatever clients do; and what the documents and the dashboard say of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use fanfare_protocol::webhook::WebhookEventType;
use fanfare_server::config::WebhookConfig;
use fanfare_tests::{Api, Client, Metrics, RawClient, TestServer, WebhookReceiver, deadline, eventually};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const APP: (&str, &str) = ("app_id", "app-id");

fn repository(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn traffic_is_counted_once() {
    let server = TestServer::start();
    let mut api = server.api().await;
    let before = Metrics::of(&mut api).await;
    let of_app = |metrics: &Metrics, name: &str| metrics.get(&format!("fanfare_{name}"), &[APP]);

    let mut clients = server.connect_many(4).await;
    for client in &mut clients {
        client.subscribe("news").await;
    }
    for number in 0..10 {
        api.trigger("news", "padded", &format!("{number:0>100}")).await;
    }
    api.trigger("nobody-listens", "lost", "").await;
    for client in &mut clients {
        assert_eq!(client.settled().await.len(), 10);
    }
    // Workers hand over what they counted from time to time: each sent four frames beside the events.
    let sent = 4 * (10 + 3);
    let after = Metrics::reach(&mut api, "fanfare_ws_messages_sent_total", &[APP], f64::from(sent)).await;
    assert_eq!(of_app(&after, "connected"), 4.0);
    assert_eq!(of_app(&after, "new_connections_total"), 4.0);
    assert_eq!(of_app(&after, "ws_messages_received_total"), 8.0);
    assert_eq!(of_app(&after, "channels"), 1.0);
    assert_eq!(of_app(&after, "http_calls_received_total") - of_app(&before, "http_calls_received_total"), 11.0);
    assert_eq!(of_app(&after, "http_transmitted_bytes"), 11.0 * 2.0, "an empty object each");
    assert!(of_app(&after, "http_received_bytes") > 10.0 * 100.0);
    assert!(of_app(&after, "socket_transmitted_bytes") > 4.0 * 10.0 * 100.0);
    assert!(of_app(&after, "socket_received_bytes") > 0.0);
    let writes = of_app(&after, "socket_writes_total");
    assert!((1.0..=f64::from(sent)).contains(&writes), "{writes}");
    // Once for each worker with subscribers, of which there are at most three; an event that nobody gets takes no time.
    let deliveries = of_app(&after, "delivery_seconds_count");
    assert!((10.0..=30.0).contains(&deliveries) && deliveries % 10.0 == 0.0, "{deliveries}");
    assert_eq!(after.get("fanfare_delivery_seconds_bucket", &[APP, ("le", "+Inf")]), deliveries);
    assert!(of_app(&after, "delivery_seconds_sum") > 0.0);

    drop(clients);
    let after = Metrics::reach(&mut api, "fanfare_connected", &[APP], 0.0).await;
    assert_eq!(of_app(&after, "new_disconnections_total"), 4.0);
    Metrics::reach(&mut api, "fanfare_channels", &[APP], 0.0).await;
}

/// A handshake with any headers, and the bytes of the answer up to the end of the connection or of a frame that is refused.
async fn refused_handshake(server: &TestServer, path: &str, headers: &str) -> String {
    let mut socket = TcpStream::connect(server.address()).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    deadline("a request is sent", socket.write_all(request.as_bytes())).await.expect("a live connection");
    let mut answer = Vec::new();
    deadline("the end", socket.read_to_end(&mut answer)).await.expect("an orderly end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// How a client is held, as each ends in its own way.
enum Held {
    Client(Box<Client>),
    Raw(RawClient),
}

const QUOTA: usize = 12;
const STEPS: usize = 300;

/// Connects, subscribes and ends clients in every way there is, with failures among them; counts what is refused.
struct Chaos {
    server: TestServer,
    random: StdRng,
    held: Vec<Held>,
    refused: BTreeMap<&'static str, f64>,
}

impl Chaos {
    fn refuse(&mut self, cause: &'static str) {
        *self.refused.entry(cause).or_default() += 1.0;
    }

    async fn step(&mut self, api: &mut Api) {
        let path = self.server.path();
        match self.random.random_range(0..15) {
            0..4 => match self.server.try_connect(&path).await {
                Ok(client) => {
                    assert!(self.held.len() < QUOTA);
                    self.held.push(Held::Client(Box::new(client)));
                }
                Err(ended) => {
                    assert_eq!((ended.code, self.held.len()), (Some(4004), QUOTA));
                    self.refuse("connections");
                }
            },
            4 if self.held.len() < QUOTA => self.held.push(Held::Raw(self.server.raw().await)),
            5 => {
                let answer = refused_handshake(&self.server, "/app/nobody?protocol=7", "").await;
                assert!(answer.contains("4001"), "{answer}");
                self.refuse("app_unknown");
            }
            6 => {
                let answer = refused_handshake(&self.server, &path, "origin: https://evil.test\r\n").await;
                assert!(answer.contains("4009"), "{answer}");
                self.refuse("origin");
            }
            7 => {
                let answer = refused_handshake(&self.server, "/app/app-key?protocol=99", "").await;
                assert!(answer.contains("4007"), "{answer}");
                self.refuse("protocol_version");
            }
            // A socket that says nothing, and one that does not wait for its answer.
            8 => drop(TcpStream::connect(self.server.address()).await.expect("a connection")),
            9..12 => self.subscribe().await,
            _ => {
                self.end().await;
                // Or the next one would perhaps be over the quota.
                self.noticed(api).await;
            }
        }
    }

    async fn subscribe(&mut self) {
        let channel = format!("room-{}", self.random.random_range(0..4));
        let kind = self.random.random_range(0..4);
        let Some(Held::Client(client)) = self.held.last_mut() else { return };
        let data = match kind {
            0 => json!({"channel": channel}),
            1 => client.subscription(&format!("private-{channel}"), None),
            2 => client.subscription(&format!("presence-{channel}"), Some(r#"{"user_id":"u"}"#)),
            _ => json!({"channel": format!("private-{channel}"), "auth": "app-key:0000"}),
        };
        client.begin_subscribe(data).await;
        let errors = client.settled().await;
        let wrong = errors.iter().filter(|event| event.name == "pusher:error").count();
        // A second subscription to a channel is refused, too.
        let cause =
            if kind == 3 && wrong > 0 && errors[0].data.contains("ignature") { "signature" } else { "subscription" };
        for _ in 0..wrong {
            self.refuse(cause);
        }
    }

    async fn end(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.held.len());
        match (self.held.swap_remove(index), self.random.random_bool(0.5)) {
            (Held::Client(client), true) => drop(client.close().await),
            (Held::Client(client), false) => drop(client),
            (Held::Raw(client), true) => client.abort(),
            (Held::Raw(mut client), false) => {
                client.half_close().await;
                client.rest().await;
            }
        }
    }

    /// What is told is what is: the clients' own count.
    async fn check(&mut self, api: &mut Api) {
        let live = self.held.len() as f64;
        let metrics = Metrics::reach(api, "fanfare_connected", &[APP], live).await;
        assert_eq!(metrics.get("fanfare_connections", &[APP, ("transport", "websocket")]), live);
        assert_eq!(metrics.get("fanfare_connections", &[APP]), live);
        let (opened, closed) = ("fanfare_new_connections_total", "fanfare_new_disconnections_total");
        assert_eq!(metrics.get(opened, &[APP]) - metrics.get(closed, &[APP]), live);
        self.noticed(api).await;
    }

    /// The count that the quota looks at is right, too, as soon as the server has seen who left.
    async fn noticed(&self, api: &mut Api) {
        let live = self.held.len() as u64;
        eventually("the quota counts who is there", async || api.connections().await, |count| *count == live).await;
    }
}

#[tokio::test]
async fn no_gauge_drifts_whatever_clients_do() {
    let seed = rand::rng().next_u64();
    println!("seed: {seed}");
    let receiver = WebhookReceiver::start();
    let server = TestServer::builder()
        .app(|app| {
            app.max_connections = QUOTA;
            app.allowed_origins = vec!["https://shop.test".to_owned()];
        })
        .webhooks(&receiver)
        .start();
    let mut api = server.api().await;
    let random = StdRng::seed_from_u64(seed);
    let mut chaos = Chaos { server, random, held: Vec::new(), refused: BTreeMap::new() };
    for step in 0..STEPS {
        chaos.step(&mut api).await;
        if step % 10 == 0 {
            chaos.check(&mut api).await;
        }
    }
    chaos.held.clear();
    chaos.check(&mut api).await;
    for gauge in ["connected", "connections", "channels", "cached_events", "outbox_bytes", "webhook_queue_events"] {
        Metrics::reach(&mut api, &format!("fanfare_{gauge}"), &[], 0.0).await;
    }
    let metrics = Metrics::reach(&mut api, "fanfare_inbox_bytes", &[], 0.0).await;
    let told: BTreeMap<_, _> = metrics.0["fanfare_refusals_total"]
        .samples
        .iter()
        .map(|(_, labels, value)| (labels["cause"].as_str(), *value))
        .collect();
    assert_eq!(told, chaos.refused);
}

#[tokio::test]
async fn a_reader_that_stalls_shows_in_the_bytes_that_wait_and_then_as_closed() {
    let server = TestServer::start();
    let mut api = server.api().await;
    let mut stalled = server.raw().await;
    stalled.subscribe("news").await;
    let padding = "x".repeat(10_000);
    // More than the kernel takes, and less than may wait.
    for _ in 0..50 {
        api.trigger("news", "padded", &padding).await;
    }
    let outbox = |metrics: &Metrics| metrics.get("fanfare_outbox_bytes", &[APP]);
    eventually("bytes wait", async || Metrics::of(&mut api).await, |metrics| outbox(metrics) > 0.0).await;
    while api.connections().await > 0 {
        api.trigger("news", "padded", &padding).await;
    }
    let metrics = Metrics::of(&mut api).await;
    assert_eq!(metrics.get("fanfare_slow_readers_closed_total", &[APP]), 1.0);
    Metrics::reach(&mut api, "fanfare_outbox_bytes", &[APP], 0.0).await;
}

#[tokio::test]
async fn webhooks_that_fail_show_as_failures_and_in_what_waits_and_for_how_long() {
    let mut failing = WebhookReceiver::failing(2);
    let url = failing.url();
    let hook = |url: &str| WebhookConfig {
        url: url.to_owned(),
        event_types: vec![WebhookEventType::ChannelOccupied],
        ..WebhookConfig::default()
    };
    // The second endpoint does not exist.
    let server = TestServer::builder()
        .app(|app| app.webhooks = vec![hook(&url), hook("http://127.0.0.1:1/")])
        .config(|config| config.webhooks.retry_initial = Duration::from_millis(20))
        .start();
    server.connect().await.subscribe("news").await;
    for _ in 0..3 {
        failing.next().await;
    }
    let mut api = server.api().await;
    let metrics = Metrics::reach(&mut api, "fanfare_webhook_events_delivered_total", &[APP], 1.0).await;
    assert_eq!(metrics.get("fanfare_webhook_queue_events", &[APP]), 1.0);
    assert!(metrics.get("fanfare_webhook_failures_total", &[APP]) >= 3.0);
    let (attempts, failures) = ("fanfare_webhook_attempts_total", "fanfare_webhook_failures_total");
    assert!(metrics.get(attempts, &[APP]) > metrics.get(failures, &[APP]));
    let age = "fanfare_webhook_queue_oldest_seconds";
    let older = |later: &Metrics| later.get(age, &[APP]) > metrics.get(age, &[APP]);
    eventually("the event that waits grows older", async || Metrics::of(&mut api).await, older).await;
    assert_eq!(metrics.get("fanfare_webhook_events_dropped_total", &[APP]), 0.0);
}

#[tokio::test]
async fn triggers_that_find_no_room_are_counted() {
    let server = TestServer::builder()
        .config(|config| {
            config.server.max_inbox_bytes = 1024;
            config.server.publish_timeout = Duration::ZERO;
        })
        .start();
    let mut clients = server.connect_many(50).await;
    for client in &mut clients {
        client.subscribe("news").await;
    }
    let publish = async |mut api: Api| {
        let (mut busy, mut number) = (0, 0);
        // Each event is more than may wait.
        while busy < 10 && number < 10_000 {
            number += 1;
            let body = json!({"name": "padded", "channel": "news", "data": "x".repeat(2000)});
            busy += u32::from(api.post("/events", &body.to_string()).await.status == 503);
        }
        busy
    };
    let (first, second) = (server.api().await, server.api().await);
    let busy = tokio::join!(publish(first), publish(second));
    let busy = f64::from(busy.0 + busy.1);
    assert!(busy > 0.0, "always room");
    let metrics = Metrics::of(&mut server.api().await).await;
    assert_eq!(metrics.get("fanfare_publish_timeouts_total", &[APP]), busy);
    assert_eq!(metrics.get("fanfare_refusals_total", &[APP, ("cause", "busy")]), busy);
}

#[tokio::test]
async fn the_main_port_tells_this_machine_alone() {
    let server = TestServer::start();
    let mut api = server.api().await;
    assert_eq!(api.request("POST", "/metrics", "").await.status, 405);
    let head = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n", server.address());
    let foreign = [
        format!("{head}x-forwarded-for: 192.0.2.1\r\n"),
        "GET /metrics HTTP/1.1\r\nhost: ws.example.com\r\n".to_owned(),
        head.replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for request in foreign {
        let mut socket = TcpStream::connect(server.address()).await.expect("a connection");
        let request = format!("{request}connection: close\r\n\r\n");
        deadline("a request is sent", socket.write_all(request.as_bytes())).await.expect("a live connection");
        let mut answer = String::new();
        deadline("the end", socket.read_to_string(&mut answer)).await.expect("an orderly end");
        assert!(answer.split(' ').nth(1) == Some("403") && answer.contains("metrics.port"), "{request}{answer}");
        assert!(!answer.contains("app-id"), "{answer}");
    }
}

/// Soketi 1.6.1's names behind its prefix, with their types. Labels: `app_id`, `port`.
const SOKETIS: [(&str, &str); 16] = [
    ("connected", "gauge"),
    ("new_connections_total", "counter"),
    ("new_disconnections_total", "counter"),
    ("socket_received_bytes", "counter"),
    ("socket_transmitted_bytes", "counter"),
    ("ws_messages_received_total", "counter"),
    ("ws_messages_sent_total", "counter"),
    ("http_received_bytes", "counter"),
    ("http_transmitted_bytes", "counter"),
    ("http_calls_received_total", "counter"),
    ("horizontal_adapter_resolve_time", "histogram"),
    ("horizontal_adapter_resolved_promises", "counter"),
    ("horizontal_adapter_uncomplete_promises", "counter"),
    ("horizontal_adapter_sent_requests", "counter"),
    ("horizontal_adapter_received_requests", "counter"),
    ("horizontal_adapter_received_responses", "counter"),
];

#[tokio::test]
async fn a_port_of_their_own_tells_metrics_and_nothing_else_and_the_main_port_nothing_of_them() {
    let server = TestServer::builder()
        .config(|config| {
            config.metrics.port = Some(0);
            config.metrics.prefix = "soketi_".to_owned();
        })
        .start();
    let client = server.connect().await;
    let mut metrics = server.metrics_port().await;
    Metrics::reach(&mut metrics, "soketi_connected", &[APP], 1.0).await;
    // What Soketi's dashboards ask for.
    let Metrics(families) = Metrics::of(&mut metrics).await;
    let of_app = |family: &str| families[family].samples.iter().all(|(_, labels, _)| labels["app_id"] == APP.1);
    for (name, kind) in SOKETIS {
        let family = families.get(&format!("soketi_{name}")).unwrap_or_else(|| panic!("no soketi_{name}"));
        assert_eq!(family.kind, kind, "{name}");
        assert!(of_app(&format!("soketi_{name}")) && !family.samples.is_empty(), "{name}");
        let port = server.address().port().to_string();
        assert!(family.samples.iter().all(|(_, labels, _)| labels["port"] == port), "{name}");
    }
    assert_eq!(metrics.request("GET", "/", "").await.status, 200);
    assert_eq!(metrics.request("GET", "/up", "").await.status, 404);
    assert_eq!(server.api().await.request("GET", "/metrics", "").await.status, 404);
    drop(client);
    Metrics::reach(&mut metrics, "soketi_connected", &[APP], 0.0).await;
}

#[tokio::test]
async fn metrics_can_be_switched_off_and_move_with_the_path_prefix() {
    let server = TestServer::builder().config(|config| config.metrics.enabled = false).start();
    assert_eq!(server.api().await.request("GET", "/metrics", "").await.status, 404);
    let server = TestServer::builder().config(|config| config.server.path_prefix = "/ws".to_owned()).start();
    let mut api = server.api().await;
    assert_eq!(api.request("GET", "/metrics", "").await.status, 404);
    assert_eq!(api.request("GET", "/ws/metrics", "").await.status, 200);
}

/// A server that has told everything it can tell: also what shows only once it has happened.
async fn everything() -> Metrics {
    let server = TestServer::start();
    refused_handshake(&server, "/app/nobody?protocol=7", "").await;
    Metrics::of(&mut server.api().await).await
}

#[tokio::test]
async fn every_name_is_in_the_operating_guide_with_its_type_labels_and_meaning() {
    let Metrics(families) = everything().await;
    let rows: BTreeSet<String> = families
        .iter()
        .map(|(name, family)| {
            let labels: BTreeSet<_> = family.samples.iter().flat_map(|(_, labels, _)| labels.keys()).collect();
            let labels: Vec<_> =
                labels.into_iter().filter(|label| *label != "le").map(|label| format!("`{label}`")).collect();
            let name = name.strip_prefix("fanfare_").expect("the prefix");
            format!("| `{name}` | {} | {} | {} |", family.kind, labels.join(", "), family.help)
        })
        .collect();
    let guide = repository("docs/operating.md");
    let kinds = ["counter", "gauge", "histogram"];
    let documented: BTreeSet<String> = guide
        .lines()
        .filter(|line| kinds.iter().any(|kind| line.contains(&format!("` | {kind} | "))))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = rows.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&rows).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "docs/operating.md lacks {missing:#?}\nand has {unknown:#?}");
}

/// Every text of a JSON value under one of these keys.
fn texts<'a>(value: &'a Value, keys: &[&str], found: &mut Vec<&'a str>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text) if keys.contains(&key.as_str()) => found.push(text),
                    value => texts(value, keys, found),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| texts(element, keys, found)),
        _ => {}
    }
}

/// The words of a query, such as the names of metrics and labels.
fn words(query: &str) -> impl Iterator<Item = &str> {
    query
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty())
}

#[tokio::test]
async fn the_dashboard_asks_for_what_there_is_and_shows_all_of_it() {
    let Metrics(families) = everything().await;
    let board: Value = serde_json::from_str(&repository("config/grafana.json")).expect("JSON");
    let mut queries = Vec::new();
    texts(&board, &["expr", "query"], &mut queries);
    let mut shown = BTreeSet::new();
    for query in queries.iter().filter(|query| query.contains("${prefix}")) {
        for name in query.split("${prefix}").skip(1) {
            let name = format!("fanfare_{}", words(name).next().expect("a name"));
            let of_histogram =
                |family: &&String| families[*family].kind == "histogram" && name == format!("{family}_bucket");
            let family = families.keys().find(|family| **family == name || of_histogram(family));
            shown.insert(family.unwrap_or_else(|| panic!("{name} is not exported: {query}")).as_str());
        }
        // Labels of our own; Prometheus adds `instance`.
        for (label, after) in [("by (", ')'), ("{", '}')] {
            for list in query.split(label).skip(1) {
                for label in list.split(after).next().into_iter().flat_map(|list| list.split(',')) {
                    let label = words(label).next().expect("a label");
                    let exists = |(_, labels, _): &(String, _, f64)| BTreeMap::contains_key(labels, label);
                    let exists = families.values().flat_map(|family| &family.samples).any(exists);
                    assert!(exists || ["instance", "le", "prefix"].contains(&label), "no label {label}: {query}");
                }
            }
        }
    }
    assert!(board["templating"]["list"].as_array().is_some_and(|variables| variables[0]["type"] == "datasource"));
    // What is always 0, or a sum of what is shown.
    let left_out = |name: &str| {
        name.contains("horizontal_adapter")
            || ["fanfare_process_cpu_seconds_total", "fanfare_process_virtual_memory_bytes"].contains(&name)
    };
    let missing: Vec<_> = families.keys().filter(|name| !shown.contains(name.as_str()) && !left_out(name)).collect();
    assert!(missing.is_empty(), "config/grafana.json shows nothing of {missing:?}");
}
