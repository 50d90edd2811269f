//! Webhooks over real sockets: what endpoints receive, and what happens when they do not take it.

use std::{
    sync::atomic::AtomicUsize,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_protocol::{AppKey, AppSecret};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime,
    sync::Semaphore,
    time::timeout,
};

use super::*;
use crate::config::{MetricsConfig, WebhookConfig, WebhookFilter};

/// Much longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// An HTTP server that hands the test what it received.
struct Receiver {
    url: String,
    requests: mpsc::Receiver<Request>,
    most_at_once: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Request {
    /// As on the wire: the SDKs' languages see the headers' case.
    head: String,
    body: Vec<u8>,
}

enum Answer {
    Status(u16),
    Redirect(String),
    /// None until there is a permit.
    Held(Arc<Semaphore>),
    Never,
}

impl Receiver {
    async fn ok() -> Self {
        Self::new(|_, _| Answer::Status(200)).await
    }

    /// `answer` is told how many requests came before this one.
    async fn new(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel(1000);
        let most_at_once = Arc::new(AtomicUsize::new(0));
        let most = most_at_once.clone();
        let answer = Arc::new(answer);
        let (count, active) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, sender) = (answer.clone(), sender.clone());
                let (count, active, most) = (count.clone(), active.clone(), most.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read(&mut stream).await {
                        most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let answer = answer(count.fetch_add(1, Ordering::SeqCst), &request);
                        let _ = sender.send(request).await;
                        let (status, location) = match answer {
                            Answer::Status(status) => (status, String::new()),
                            Answer::Redirect(url) => (302, format!("Location: {url}\r\n")),
                            Answer::Held(gate) => {
                                gate.acquire().await.unwrap().forget();
                                (200, String::new())
                            }
                            Answer::Never => std::future::pending().await,
                        };
                        active.fetch_sub(1, Ordering::SeqCst);
                        let answer = format!("HTTP/1.1 {status} X\r\n{location}Content-Length: 2\r\n\r\nok");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { url, requests, most_at_once }
    }

    async fn next(&mut self) -> Request {
        timeout(DEADLINE, self.requests.recv()).await.expect("no request in time").unwrap()
    }

    fn endpoint(&self) -> WebhookConfig {
        WebhookConfig { url: self.url.clone(), ..WebhookConfig::default() }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let mut request = Request { head, body: Vec::new() };
    request.body.resize(request.header("Content-Length").parse().unwrap(), 0);
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

impl Request {
    /// The value of a header, or nothing if its name is not spelt like this.
    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| *other == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn time_ms(&self) -> u64 {
        self.json()["time_ms"].as_u64().unwrap()
    }

    /// `name channel` of each event.
    fn events(&self) -> Vec<String> {
        let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
        let body = self.json();
        let events = body["events"].as_array().unwrap().iter();
        events.map(|event| format!("{} {}", text(event, "name"), text(event, "channel"))).collect()
    }

    #[track_caller]
    fn is_signed_by(&self, app: &str) {
        assert_eq!(self.header("X-Pusher-Key"), format!("{app}-key"));
        let signer = Signer::new(&AppSecret::new(format!("{app}-secret")));
        assert!(signer.verify(&[&self.body], self.header("X-Pusher-Signature")), "{}", self.head);
    }
}

/// Nothing is held back, and retries come quickly.
fn config() -> WebhooksConfig {
    WebhooksConfig {
        vacated_delay: Duration::ZERO,
        retry_initial: Duration::from_millis(20),
        timeout: DEADLINE,
        ..WebhooksConfig::default()
    }
}

fn app(webhooks: &Webhooks, name: &str, endpoints: impl IntoIterator<Item = WebhookConfig>) -> AppWebhooks {
    let config = AppConfig {
        id: AppId::new(name),
        key: AppKey::new(format!("{name}-key")),
        secret: AppSecret::new(format!("{name}-secret")),
        webhooks: endpoints.into_iter().collect(),
        ..AppConfig::default()
    };
    webhooks.app(&config).unwrap()
}

fn occupied(channel: &str) -> WebhookEvent {
    WebhookEvent::ChannelOccupied { channel: channel.into() }
}

fn vacated(channel: &str) -> WebhookEvent {
    WebhookEvent::ChannelVacated { channel: channel.into() }
}

fn removed(channel: &str, user_id: &str) -> WebhookEvent {
    WebhookEvent::MemberRemoved { channel: channel.into(), user_id: user_id.into() }
}

async fn flush(webhooks: &Webhooks) -> usize {
    webhooks.flush(Instant::now() + DEADLINE).await
}

fn start(config: WebhooksConfig) -> Webhooks {
    Webhooks::start(config, &Arc::new(Metrics::new(MetricsConfig::default(), 0)))
}

fn get(counter: &Counter) -> u64 {
    counter.get()
}

/// An address where nobody listens.
fn dead_endpoint() -> WebhookConfig {
    WebhookConfig { url: "http://127.0.0.1:1/".to_owned(), ..WebhookConfig::default() }
}

#[tokio::test]
async fn a_request_is_what_the_sdks_expect() {
    let mut receiver = Receiver::ok().await;
    let webhooks = start(config());
    let headers = [("x-team".to_owned(), "till".to_owned()), ("x-pusher-key".to_owned(), "forged".to_owned())].into();
    let shop = app(&webhooks, "shop", [WebhookConfig { headers, ..receiver.endpoint() }]);
    shop.enqueue(occupied("c"));

    let request = receiver.next().await;
    assert!(request.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("Content-Type"), "application/json");
    assert_eq!(request.header("User-Agent"), concat!("fanfare/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("X-Team"), "till");
    assert_eq!(request.head.to_lowercase().matches("x-pusher-").count(), 2);
    request.is_signed_by("shop");
    assert_eq!(request.events(), ["channel_occupied c"]);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(now_ms.abs_diff(request.time_ms().into()) < DEADLINE.as_millis());

    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().delivered), 1);
}

#[tokio::test]
async fn an_endpoint_hears_what_it_asked_for_and_nothing_else() {
    let mut receiver = Receiver::ok().await;
    let webhooks = start(WebhooksConfig { batching: true, ..config() });
    let filter =
        WebhookFilter { channel_name_starts_with: "orders".to_owned(), channel_name_ends_with: "-eu".to_owned() };
    let event_types = vec![WebhookEventType::ChannelOccupied, WebhookEventType::CacheMiss];
    let shop = app(&webhooks, "shop", [WebhookConfig { filter, event_types, ..receiver.endpoint() }]);
    for event in [
        occupied("orders-us"),
        occupied("stock-eu"),
        vacated("orders-eu"),
        removed("orders-eu", "u"),
        occupied("orders-eu"),
        WebhookEvent::CacheMiss { channel: "orders-2-eu".into() },
    ] {
        shop.enqueue(event);
    }
    // The signature is over what is left.
    let request = receiver.next().await;
    request.is_signed_by("shop");
    assert_eq!(request.events(), ["channel_occupied orders-eu", "cache_miss orders-2-eu"]);
    flush(&webhooks).await;
    assert!(receiver.requests.try_recv().is_err());
}

#[tokio::test]
async fn callers_are_asked_only_for_what_somebody_needs() {
    use WebhookEventType::{ChannelOccupied, ChannelVacated, ClientEvent, MemberAdded};
    let webhooks = start(config());
    assert!(!app(&webhooks, "none", []).wants(ChannelOccupied));
    assert!(app(&webhooks, "all", [dead_endpoint()]).wants(ClientEvent));
    let [vacated, client] =
        [ChannelVacated, ClientEvent].map(|kind| WebhookConfig { event_types: vec![kind], ..dead_endpoint() });
    let some = app(&webhooks, "some", [vacated, client]);
    assert!(some.wants(ChannelVacated) && some.wants(ClientEvent) && !some.wants(MemberAdded));
    assert!(some.wants(ChannelOccupied), "it undoes channel_vacated");
}

#[tokio::test]
async fn with_batching_what_gathered_is_one_request() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let mut receiver = Receiver::new(move |_, _| Answer::Held(held.clone())).await;
    let webhooks = start(WebhooksConfig { batching: true, max_batch_events: 3, ..config() });
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    shop.enqueue(occupied("a"));
    assert_eq!(receiver.next().await.events(), ["channel_occupied a"]);
    for channel in ["b", "c", "d", "e"] {
        shop.enqueue(occupied(channel));
    }
    gate.add_permits(3);
    assert_eq!(receiver.next().await.events(), ["channel_occupied b", "channel_occupied c", "channel_occupied d"]);
    assert_eq!(receiver.next().await.events(), ["channel_occupied e"]);
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().delivered), 5);
}

#[tokio::test]
async fn without_batching_each_event_is_a_request_and_one_is_under_way_at_a_time() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let mut slow = Receiver::new(move |_, _| Answer::Held(held.clone())).await;
    let mut quick = Receiver::ok().await;
    let webhooks = start(config());
    let shop = app(&webhooks, "shop", [slow.endpoint(), quick.endpoint()]);
    for channel in ["a", "b", "c"] {
        shop.enqueue(occupied(channel));
    }
    for channel in ["a", "b", "c"] {
        assert_eq!(quick.next().await.events(), [format!("channel_occupied {channel}")]);
    }
    for channel in ["a", "b", "c"] {
        assert_eq!(slow.next().await.events(), [format!("channel_occupied {channel}")]);
        gate.add_permits(1);
    }
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(slow.most_at_once.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failed_request_is_repeated_with_a_new_time_and_signature_before_the_next() {
    let mut receiver = Receiver::new(|before, _| Answer::Status([500, 404, 204][before.min(2)])).await;
    let webhooks = start(config());
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    shop.enqueue(occupied("a"));
    shop.enqueue(vacated("a"));
    let mut last_ms = 0;
    for _ in 0..3 {
        let request = receiver.next().await;
        assert_eq!(request.events(), ["channel_occupied a"]);
        request.is_signed_by("shop");
        assert!(request.time_ms() > last_ms);
        last_ms = request.time_ms();
    }
    assert_eq!(receiver.next().await.events(), ["channel_vacated a"]);
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().failed_attempts), 2);
    assert_eq!(get(&webhooks.counters().delivered), 2);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let mut elsewhere = Receiver::ok().await;
    let url = elsewhere.url.clone();
    let answer = move |before, _: &Request| {
        if before == 0 { Answer::Redirect(url.clone()) } else { Answer::Status(200) }
    };
    let mut receiver = Receiver::new(answer).await;
    let webhooks = start(config());
    app(&webhooks, "shop", [receiver.endpoint()]).enqueue(occupied("c"));
    receiver.next().await;
    receiver.next().await;
    assert_eq!(flush(&webhooks).await, 0);
    assert!(elsewhere.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_request_without_an_answer_is_repeated_after_the_timeout() {
    let answer = |before, _: &Request| if before == 0 { Answer::Never } else { Answer::Status(200) };
    let mut receiver = Receiver::new(answer).await;
    let webhooks = start(WebhooksConfig { timeout: Duration::from_millis(500), ..config() });
    app(&webhooks, "shop", [receiver.endpoint()]).enqueue(occupied("c"));
    receiver.next().await;
    receiver.next().await;
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().failed_attempts), 1);
}

#[tokio::test]
async fn an_event_nobody_takes_is_dropped_and_the_next_one_has_its_turn() {
    let answer = |_, request: &Request| Answer::Status(if request.events()[0].contains("poison") { 500 } else { 200 });
    let mut receiver = Receiver::new(answer).await;
    let webhooks = start(WebhooksConfig { retry_for: Duration::from_millis(100), ..config() });
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    shop.enqueue(occupied("poison"));
    shop.enqueue(occupied("food"));
    let mut attempts = 0;
    while receiver.next().await.events() != ["channel_occupied food"] {
        attempts += 1;
    }
    assert!((1..=4).contains(&attempts), "at 0, 20, 60 and never over 100 ms: {attempts}");
    assert_eq!(flush(&webhooks).await, 0);
    let counters = webhooks.counters();
    assert_eq!((get(&counters.delivered), get(&counters.dropped), get(&counters.overflowed)), (1, 1, 0));
}

#[tokio::test]
async fn without_retries_a_failure_costs_only_what_failed() {
    let answer = |before, _: &Request| Answer::Status(if before == 0 { 500 } else { 200 });
    let mut receiver = Receiver::new(answer).await;
    let webhooks = start(WebhooksConfig { retry_for: Duration::ZERO, ..config() });
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    for channel in ["a", "b", "c"] {
        shop.enqueue(occupied(channel));
    }
    for channel in ["a", "b", "c"] {
        assert_eq!(receiver.next().await.events(), [format!("channel_occupied {channel}")]);
    }
    flush(&webhooks).await;
    assert_eq!(get(&webhooks.counters().dropped), 1);
}

#[tokio::test]
async fn slow_and_dead_endpoints_delay_no_other_endpoint_or_app() {
    let hanging = Receiver::new(|_, _| Answer::Never).await;
    let mut healthy = Receiver::ok().await;
    let mut other = Receiver::ok().await;
    let webhooks = start(config());
    let shop = app(&webhooks, "shop", [hanging.endpoint(), dead_endpoint(), healthy.endpoint()]);
    let till = app(&webhooks, "till", [other.endpoint()]);
    for number in 0..50 {
        shop.enqueue(occupied(&format!("shop-{number}")));
        till.enqueue(occupied(&format!("till-{number}")));
    }
    for number in 0..50 {
        assert_eq!(healthy.next().await.events(), [format!("channel_occupied shop-{number}")]);
        assert_eq!(other.next().await.events(), [format!("channel_occupied till-{number}")]);
    }
}

#[tokio::test]
async fn events_go_to_the_endpoints_of_their_app_with_its_key() {
    let (mut one, mut two, mut shared) = (Receiver::ok().await, Receiver::ok().await, Receiver::ok().await);
    let webhooks = start(WebhooksConfig { batching: true, ..config() });
    let apps = [("one", &one), ("two", &two)]
        .map(|(name, own)| (name, app(&webhooks, name, [own.endpoint(), shared.endpoint()])));
    for _ in 0..10 {
        for (name, app) in &apps {
            app.enqueue(occupied(name));
        }
    }
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().delivered), 40);
    let mut seen = 0;
    for (receiver, names) in [(&mut one, &["one"][..]), (&mut two, &["two"]), (&mut shared, &["one", "two"])] {
        while let Ok(request) = receiver.requests.try_recv() {
            let name = request.header("X-Pusher-Key").trim_end_matches("-key").to_owned();
            assert!(names.contains(&&*name));
            request.is_signed_by(&name);
            assert!(request.events().iter().all(|event| *event == format!("channel_occupied {name}")));
            seen += request.events().len();
        }
    }
    assert_eq!(seen, 40);
}

#[tokio::test]
async fn a_full_queue_of_an_endpoint_is_counted_and_waits_for_nobody() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let mut receiver = Receiver::new(move |_, _| Answer::Held(held.clone())).await;
    let webhooks = start(WebhooksConfig { max_queued_events: 3, ..config() });
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    for number in 0..5 {
        shop.enqueue(occupied(&number.to_string()));
    }
    receiver.next().await;
    assert_eq!(get(&webhooks.counters().overflowed), 2);
    gate.add_permits(3);
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().delivered), 3);
}

#[tokio::test]
async fn a_full_intake_is_counted_and_waits_for_nobody() {
    let webhooks = start(config());
    let shop = app(&webhooks, "shop", [dead_endpoint()]);
    // The dispatcher has no turn until this test waits.
    for _ in 0..WEBHOOK_INTAKE_EVENTS + 7 {
        shop.enqueue(occupied("c"));
    }
    assert_eq!(get(&webhooks.counters().overflowed), 7);
}

#[tokio::test]
async fn who_comes_back_is_not_reported_whatever_the_endpoint_asked_for() {
    let (mut all, mut departures) = (Receiver::ok().await, Receiver::ok().await);
    let webhooks = start(WebhooksConfig { vacated_delay: Duration::from_millis(200), ..config() });
    let event_types = vec![WebhookEventType::ChannelVacated, WebhookEventType::MemberRemoved];
    let endpoints = [all.endpoint(), WebhookConfig { event_types, ..departures.endpoint() }];
    let shop = app(&webhooks, "shop", endpoints);
    for event in [
        removed("presence-c", "u"),
        vacated("presence-c"),
        occupied("presence-c"),
        WebhookEvent::MemberAdded { channel: "presence-c".into(), user_id: "u".into() },
        removed("presence-d", "u"),
        vacated("presence-d"),
    ] {
        shop.enqueue(event);
    }
    for receiver in [&mut all, &mut departures] {
        assert_eq!(receiver.next().await.events(), ["member_removed presence-d"]);
        assert_eq!(receiver.next().await.events(), ["channel_vacated presence-d"]);
    }
    shop.enqueue(occupied("presence-d"));
    assert_eq!(all.next().await.events(), ["channel_occupied presence-d"]);
    flush(&webhooks).await;
    assert!(departures.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_flush_sends_what_is_held_back_and_ends_the_delivery() {
    let mut receiver = Receiver::ok().await;
    let hour = Duration::from_secs(3600);
    let webhooks = start(WebhooksConfig { vacated_delay: hour, ..config() });
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    shop.enqueue(removed("presence-c", "u"));
    shop.enqueue(vacated("presence-c"));
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(receiver.next().await.events(), ["member_removed presence-c"]);
    assert_eq!(receiver.next().await.events(), ["channel_vacated presence-c"]);
    timeout(DEADLINE, webhooks.ended()).await.unwrap();
    shop.enqueue(occupied("late"));
    assert_eq!(get(&webhooks.counters().dropped), 1);
    assert_eq!(flush(&webhooks).await, 0);
}

#[tokio::test]
async fn a_flush_gives_up_at_its_deadline_and_tells_how_much() {
    let hanging = Receiver::new(|_, _| Answer::Never).await;
    let webhooks = start(config());
    let shop = app(&webhooks, "shop", [hanging.endpoint(), dead_endpoint()]);
    for channel in ["a", "b", "c"] {
        shop.enqueue(occupied(channel));
    }
    let started = Instant::now();
    assert_eq!(webhooks.flush(started + Duration::from_millis(200)).await, 6);
    assert!(started.elapsed() >= Duration::from_millis(200) && started.elapsed() < DEADLINE);
    assert_eq!(get(&webhooks.counters().dropped), 6);
}

#[tokio::test]
async fn a_flush_does_not_wait_for_the_pause_after_a_failure() {
    let answer = |before, _: &Request| Answer::Status(if before == 0 { 503 } else { 200 });
    let receiver = Receiver::new(answer).await;
    let hour = Duration::from_secs(3600);
    let webhooks = start(WebhooksConfig { retry_initial: hour, retry_for: hour * 2, ..config() });
    app(&webhooks, "shop", [receiver.endpoint()]).enqueue(occupied("c"));
    let failed = async {
        while get(&webhooks.counters().failed_attempts) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, failed).await.unwrap();
    assert_eq!(flush(&webhooks).await, 0);
    assert_eq!(get(&webhooks.counters().delivered), 1);
}

#[tokio::test]
async fn events_come_from_any_thread_to_a_delivery_on_its_own() {
    let mut receiver = Receiver::ok().await;
    let (sender, started) = oneshot::channel();
    let delivery = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let webhooks = start(WebhooksConfig { batching: true, ..config() });
            let ended = webhooks.clone();
            assert!(sender.send(webhooks).is_ok());
            ended.ended().await;
        });
    });
    let webhooks = started.await.unwrap();
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    let workers = ["a", "b", "c", "d"].map(|worker| {
        let shop = shop.clone();
        thread::spawn(move || (0..100).for_each(|_| shop.enqueue(occupied(worker))))
    });
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(flush(&webhooks).await, 0);
    delivery.join().unwrap();
    let mut events = 0;
    while let Ok(request) = receiver.requests.try_recv() {
        events += request.events().len();
    }
    assert_eq!(events, 400);
}

#[tokio::test]
async fn a_delivery_without_handles_ends_when_everything_is_sent() {
    let mut receiver = Receiver::ok().await;
    let webhooks = start(WebhooksConfig { vacated_delay: Duration::from_secs(3600), ..config() });
    let shop = app(&webhooks, "shop", [receiver.endpoint()]);
    shop.enqueue(vacated("c"));
    drop((shop, webhooks));
    assert_eq!(receiver.next().await.events(), ["channel_vacated c"]);
}
