//! A worker that is held up: publishers wait for it, or are told that nothing was published.
//!
//! A worker is held where it logs: it writes a line about a connection it refuses, and here whoever writes that line waits
//! until the test lets go.

use std::{
    pin::pin,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_tests::{Api, Client, DEADLINE, TestServer, eventually};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// Data of one event; two fill the inbox of these scenarios.
const BYTES: usize = 10_000;

static GATE: Gate = Gate { state: Mutex::new(State { closed: false, waiting: false }), changed: Condvar::new() };
/// The gate is one for the process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    closed: bool,
    waiting: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, closed: bool) {
        *self.state() = State { closed, waiting: false };
        self.changed.notify_all();
    }
}

/// Sends whoever logs through the gate.
struct GateLayer;

impl<S: Subscriber> Layer<S> for GateLayer {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let mut state = GATE.state();
        while state.closed {
            state.waiting = true;
            state = GATE.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A worker that does nothing until this is dropped.
struct Held {
    /// The connection whose refusal holds it.
    _refused: TcpStream,
}

impl Held {
    async fn any_worker_of(server: &TestServer) -> Self {
        let filter = Targets::new().with_target("fanfare_server::transport::handshake", Level::DEBUG);
        let _ = tracing_subscriber::registry().with(GateLayer.with_filter(filter)).try_init();
        GATE.set(true);
        let mut refused = TcpStream::connect(server.address()).await.expect("a connection");
        let request = "GET /app/no-such-key HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        refused.write_all(request.as_bytes()).await.expect("a request");
        let held = Self { _refused: refused };
        eventually("a worker is held", async || GATE.state().waiting, |waiting| *waiting).await;
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        GATE.set(false);
    }
}

/// Two workers with two readers each, and an inbox that has room for one event and a bit.
async fn scene(publish_timeout: Duration) -> (TestServer, Vec<Client>, Vec<Api>) {
    let builder = TestServer::builder()
        .config(|config| {
            config.server.workers = 2;
            config.server.max_inbox_bytes = BYTES + BYTES / 2;
            config.server.publish_timeout = publish_timeout;
        })
        .app(|app| app.max_client_events_per_second = 0);
    let server = builder.start();
    let (mut clients, mut apis) = (Vec::new(), Vec::new());
    // One after the other, as the workers take them in turns.
    for _ in 0..4 {
        let mut client = server.connect().await;
        client.subscribe("private-news").await;
        clients.push(client);
    }
    for _ in 0..4 {
        apis.push(server.api().await);
    }
    (server, clients, apis)
}

/// A connection to the worker that is not held.
async fn one_that_answers(apis: Vec<Api>) -> Api {
    let answers = apis.into_iter().map(async |mut api| {
        assert_eq!(api.request("GET", "/up", "").await.status, 200);
        api
    });
    answers.collect::<FuturesUnordered<_>>().next().await.expect("one of them")
}

fn body(number: usize) -> String {
    json!({"name": "padded", "channel": "private-news", "data": format!("{number:0>BYTES$}")}).to_string()
}

async fn publish(api: &mut Api, number: usize) {
    assert_eq!(api.post("/events", &body(number)).await.status, 200);
}

async fn expect(client: &mut Client, numbers: &[usize]) {
    for number in numbers {
        assert!(client.next_event().await.data == format!("{number:0>BYTES$}"), "event {number} did not come");
    }
}

#[tokio::test]
async fn what_is_answered_503_was_not_published() {
    let _turn = TURN.lock().await;
    let (server, mut clients, apis) = scene(Duration::from_millis(200)).await;
    let held = Held::any_worker_of(&server).await;
    let mut api = one_that_answers(apis).await;
    publish(&mut api, 0).await;
    publish(&mut api, 1).await;
    let batch = json!({"batch": [{"name": "a", "channel": "private-news", "data": ""}, {"name": "b", "channel": "x", "data": ""}]});
    for (path, body) in [("/events", body(2)), ("/batch_events", batch.to_string())] {
        let answer = api.post(path, &body).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains("retry-after: 1"), "{answer:?}");
        assert!(answer.body.contains("nothing was published"), "{answer:?}");
    }
    // What publishes nothing needs no room.
    assert_eq!(api.get("/channels/private-news", &[]).await.json(), json!({"occupied": true}));
    assert_eq!(api.connections().await, 4);

    drop(held);
    for client in &mut clients {
        expect(client, &[0, 1]).await;
    }
    publish(&mut api, 3).await;
    for client in &mut clients {
        expect(client, &[3]).await;
        assert_eq!(client.settled().await, []);
    }
}

#[tokio::test]
async fn a_publisher_waits_until_the_worker_goes_on() {
    let _turn = TURN.lock().await;
    let (server, mut clients, apis) = scene(DEADLINE).await;
    let held = Held::any_worker_of(&server).await;
    let mut api = one_that_answers(apis).await;
    publish(&mut api, 0).await;
    publish(&mut api, 1).await;
    {
        let mut waiting = pin!(publish(&mut api, 2));
        let early = timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(early.is_err(), "it was answered although there was no room");
        drop(held);
        waiting.await;
    }
    for client in &mut clients {
        expect(client, &[0, 1, 2]).await;
        assert_eq!(client.settled().await, []);
    }
}

#[tokio::test]
async fn senders_of_client_events_wait_and_nothing_is_lost() {
    const EVENTS: usize = 200;
    let _turn = TURN.lock().await;
    let (server, clients, _) = scene(DEADLINE).await;
    let held = Held::any_worker_of(&server).await;
    let settle = clients.into_iter().map(async |mut client| {
        let events = client.settled().await;
        (client, events)
    });
    let mut settle = settle.collect::<FuturesUnordered<_>>();
    let (mut sender, _) = settle.next().await.expect("one of the worker that goes on");
    for number in 0..EVENTS {
        sender.send_event("private-news", "client-padded", json!(format!("{number:0>1000}"))).await;
    }
    drop(held);
    while let Some((mut reader, mut events)) = settle.next().await {
        while events.len() < EVENTS {
            events.push(reader.next_event().await);
        }
        for (number, event) in events.iter().enumerate() {
            assert!(event.data == format!("{number:0>1000}"), "event {number} did not come");
        }
        assert_eq!(reader.settled().await, []);
    }
    assert_eq!(sender.settled().await, []);
}
