//! Somebody who has nothing to do with the load: how long a ping, a subscription and an event of a quiet channel take meanwhile.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    in_time, message, publisher,
    subscriber::{self, LONGEST},
    target::Target,
    wire::{self, Frame},
};

/// How often it looks. Far below any load worth measuring.
const INTERVAL: Duration = Duration::from_millis(50);

/// Nanoseconds that each of its wishes took.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) ping: Histogram<u64>,
    pub(super) subscribe: Histogram<u64>,
    pub(super) event: Histogram<u64>,
    /// Why it gave up, if it did.
    pub(super) error: Option<String>,
}

impl Waits {
    fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1_000, LONGEST, 3).context("cannot count latencies");
        Ok(Self { ping: histogram()?, subscribe: histogram()?, event: histogram()?, error: None })
    }
}

/// A connection on a thread of its own, so that it waits for the server and not for those who receive.
#[derive(Debug)]
pub(super) struct Bystander {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<Waits>>,
}

impl Bystander {
    /// Connects it. It uses `channel` and the one after it, which nobody else may use.
    pub(super) fn start(target: &Arc<Target>, channel: u32) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let target = Arc::clone(target);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut waits = Waits::new()?;
            runtime.block_on(async {
                tokio::select! {
                    result = look(&target, channel, &mut waits) => waits.error = result.err(),
                    _ = stopped => {}
                }
            });
            Ok(waits)
        };
        let thread = thread::Builder::new().name("bystander".to_owned()).spawn(run).context("cannot start a thread")?;
        Ok(Self { stop, thread })
    }

    /// Disconnects it.
    pub(super) fn stop(self) -> anyhow::Result<Waits> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread of the bystander panicked"))?
    }
}

/// Its connection.
struct Client<'a> {
    target: &'a Target,
    stream: TcpStream,
    bytes: Vec<u8>,
}

async fn look(target: &Target, channel: u32, waits: &mut Waits) -> Result<(), String> {
    let http = publisher::client(target).map_err(|error| format!("{error:#}"))?;
    let (stream, bytes) = in_time("the bystander's subscription", subscriber::connect(target, channel)).await?;
    let mut client = Client { target, stream, bytes };
    let other = message::channel(channel + 1);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let start = Instant::now();
        client.send(r#"{"event":"pusher:ping","data":{}}"#).await?;
        client.until(r#""pusher:pong""#).await?;
        record(&mut waits.ping, start);

        let start = Instant::now();
        client.send(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{other}"}}}}"#)).await?;
        client.until(r#""pusher_internal:subscription_succeeded""#).await?;
        record(&mut waits.subscribe, start);
        client.send(&format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{other}"}}}}"#)).await?;

        let start = Instant::now();
        let trigger = publisher::trigger(&http, client.target, channel, "bystander");
        let (answer, arrival) = tokio::join!(trigger, client.until(r#""event":"bench""#));
        answer?;
        arrival?;
        record(&mut waits.event, start);
    }
}

fn record(histogram: &mut Histogram<u64>, start: Instant) {
    histogram.saturating_record(publisher::nanos_since(start));
}

impl Client<'_> {
    async fn send(&mut self, text: &str) -> Result<(), String> {
        let frame = wire::encode(wire::TEXT, text.as_bytes());
        self.stream.write_all(&frame).await.map_err(|error| error.to_string())
    }

    /// Receives up to a frame that holds `text`.
    async fn until(&mut self, text: &str) -> Result<(), String> {
        let arrives = async {
            loop {
                let Some((frame, rest)) = Frame::take(&self.bytes) else {
                    subscriber::more(&mut self.stream, &mut self.bytes).await?;
                    continue;
                };
                let found = frame.payload.windows(text.len()).any(|window| window == text.as_bytes());
                let closed = (frame.first == wire::CLOSE).then(|| subscriber::close_reason(frame.payload));
                let used = self.bytes.len() - rest.len();
                self.bytes.drain(..used);
                if let Some(reason) = closed {
                    return Err(reason);
                }
                if found {
                    return Ok(());
                }
            }
        };
        in_time("the bystander's answer", arrives).await
    }
}
