//! What a delivery costs, as a ratio to the least that this machine can do. `cargo bench -p fanfare-server`.
//!
//! A server in this process has subscribers over loopback, and events are published over its HTTP API. The floor writes the
//! same frame to as many sockets in a loop, and nothing else. Both are read by the same code, and an iteration lasts until
//! the last byte has been read. Ten events are one request, whose frames a server may write together: then the ratio can be
//! below one. On a machine that does other things look at the ratio only, and at several runs.

#![expect(clippy::unwrap_used, reason = "a failed set-up ends the run")]

use std::{
    cell::RefCell,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fanfare_protocol::{Signer, json::EventData, request::signed_query, server_event};
use fanfare_server::{
    Server,
    config::{AppConfig, Config},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::LocalSet,
};

const CHANNEL: &str = "fanout";
const NAME: &str = "order-created";
const DATA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Sockets that are read on one thread, and how many bytes have come.
struct Readers {
    state: Arc<State>,
    done: mpsc::Receiver<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    received: AtomicU64,
    wanted: AtomicU64,
}

impl Readers {
    /// Connects `count` sockets, which subscribe if there is a path for that. Ready when `done` says so for the first time.
    fn start(address: SocketAddr, count: usize, path: Option<String>) -> Self {
        let (tell, done) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let run = move || async move {
            let scratch = Rc::new(RefCell::new(vec![0; 64 * 1024]));
            for _ in 0..count {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                if let Some(path) = &path {
                    subscribe(&mut stream, path).await;
                }
                tokio::task::spawn_local(count_bytes(stream, Rc::clone(&scratch), Arc::clone(&shared), tell.clone()));
            }
            tell.send(()).unwrap();
            let _ = stopped.await;
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, run());
        });
        Self { state, done, stop: Some(stop), thread: Some(thread) }
    }

    /// Runs `publish`, and waits until it has brought so many bytes.
    fn expect(&self, bytes: u64, publish: impl FnOnce()) {
        self.state.wanted.fetch_add(bytes, Ordering::SeqCst);
        publish();
        self.done.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn count_bytes(
    stream: tokio::net::TcpStream,
    scratch: Rc<RefCell<Vec<u8>>>,
    state: Arc<State>,
    done: mpsc::SyncSender<()>,
) {
    while stream.readable().await.is_ok() {
        // Nothing to read, or an end that the main thread will notice by what is missing.
        match stream.try_read(&mut scratch.borrow_mut()) {
            Ok(0) => return,
            Ok(length) => {
                let length = length as u64;
                let received = state.received.fetch_add(length, Ordering::SeqCst) + length;
                if received == state.wanted.load(Ordering::SeqCst) {
                    done.send(()).unwrap();
                }
            }
            Err(_) => {}
        }
    }
}

async fn subscribe(stream: &mut tokio::net::TcpStream, path: &str) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    until(stream, "pusher:connection_established").await;
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{CHANNEL}"}}}}"#);
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    stream.write_all(&frame).await.unwrap();
    until(stream, "pusher_internal:subscription_succeeded").await;
}

/// Reads up to the frame that holds `text`, which is the last one for now.
async fn until(stream: &mut tokio::net::TcpStream, text: &str) {
    let mut bytes = Vec::new();
    while !(String::from_utf8_lossy(&bytes).contains(text) && bytes.ends_with(b"}")) {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "{}", String::from_utf8_lossy(&bytes));
    }
}

/// The HTTP API over one connection.
struct Api {
    stream: TcpStream,
    app: AppConfig,
    signer: Signer,
}

impl Api {
    fn publish(&mut self, body: &str) {
        let path = format!("/apps/{}/batch_events", self.app.id);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let query = signed_query(&self.signer, self.app.key.as_str(), "POST", &path, &[], body.as_bytes(), now);
        let length = body.len();
        let request =
            format!("POST {path}?{query} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).unwrap();
        let (mut answer, mut filled) = ([0; 1024], 0);
        while !answer[..filled].ends_with(b"\r\n\r\n{}") {
            let read = self.stream.read(&mut answer[filled..]).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer[..filled]));
            filled += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

/// A server in a thread of its own, until `stop` is dropped.
fn serve(app: &AppConfig) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let mut config = Config { apps: vec![app.clone()], ..Config::default() };
    config.server.port = 0;
    config.server.shutdown_grace = Duration::from_millis(100);
    let server = Server::bind(config).unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = async {
        let _ = stopped.await;
    };
    (address, stop, thread::spawn(move || actix_rt::System::new().block_on(server.run(run)).unwrap()))
}

/// Times an iteration like criterion, and remembers the means of its samples.
fn timed(samples: &mut Vec<f64>, iterations: u64, mut step: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..iterations).for_each(|_| step());
    let elapsed = start.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    samples.push(elapsed.as_secs_f64() / iterations as f64);
    elapsed
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

fn fanout(c: &mut Criterion) {
    raise_descriptor_limit();
    let app = AppConfig { subscription_count: false, ..AppConfig::demo() };
    let json = server_event::channel_event(NAME, CHANNEL, &EventData::from_text(DATA), None);
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&u16::try_from(json.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&json);

    for subscribers in [100_usize, 1000] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let floor_readers = Readers::start(listener.local_addr().unwrap(), subscribers, None);
        let mut sockets: Vec<_> = (0..subscribers)
            .map(|_| {
                let (socket, _) = listener.accept().unwrap();
                socket.set_nodelay(true).unwrap();
                socket
            })
            .collect();
        floor_readers.done.recv().unwrap();

        let (address, stop, thread) = serve(&app);
        let path = format!("/app/{}?protocol=7&client=fanout&version=1.0&flash=false", app.key);
        let readers = Readers::start(address, subscribers, Some(path));
        readers.done.recv().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut api = Api { stream, app: app.clone(), signer: Signer::new(&app.secret) };

        for events in [1_usize, 10] {
            let deliveries = (subscribers * events) as u64;
            let bytes = deliveries * frame.len() as u64;
            let event = format!(r#"{{"name":"{NAME}","channel":"{CHANNEL}","data":"{DATA}"}}"#);
            let body = format!(r#"{{"batch":[{}]}}"#, vec![event; events].join(","));
            let (mut floor, mut server) = (Vec::new(), Vec::new());

            let mut group = c.benchmark_group(format!("fanout/{subscribers} subscribers"));
            group.throughput(Throughput::Elements(deliveries)).sampling_mode(SamplingMode::Flat);
            group.bench_function(BenchmarkId::new("floor", events), |b| {
                b.iter_custom(|iterations| {
                    timed(&mut floor, iterations, || {
                        floor_readers.expect(bytes, || {
                            for _ in 0..events {
                                sockets.iter_mut().for_each(|socket| socket.write_all(&frame).unwrap());
                            }
                        });
                    })
                });
            });
            group.bench_function(BenchmarkId::new("server", events), |b| {
                b.iter_custom(|iterations| {
                    timed(&mut server, iterations, || readers.expect(bytes, || api.publish(&body)))
                });
            });
            group.finish();
            if let (Some(floor), Some(server)) = (median(floor), median(server)) {
                eprintln!(
                    "fanout/{subscribers} subscribers, {events} events: {:.2} x the floor ({:.3} ms, floor {:.3} ms)\n",
                    server / floor,
                    server * 1e3,
                    floor * 1e3
                );
            }
        }
        drop((api, readers, stop));
        thread.join().unwrap();
    }
}

/// Both ends of all connections are in this process.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = fanout
}
criterion_main!(benches);
