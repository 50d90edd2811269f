//! Connections that listen, and the threads that hold them.

use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
    task::LocalSet,
    time::Instant,
};

use super::{
    Counters, in_time,
    message::{self, Stamp},
    publisher::nanos_since,
    sequence::{Arrival, Sequences},
    target::Target,
    wire::{self, Frame},
};

/// Handshakes under way at a time, on each thread.
const CONNECTING: usize = 64;

/// Bytes that are read at once. All connections of a thread share one buffer.
const SCRATCH: usize = 64 * 1024;

/// The longest latency that is told apart, in nanoseconds: one hour.
pub(super) const LONGEST: u64 = 3_600_000_000_000;

/// What subscribers have to know of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) channels: u32,
    pub(super) lanes: u16,
    /// What time stamps count from.
    pub(super) epoch: Instant,
}

/// What became of an attempt to subscribe: the channel, or why not.
pub(super) type Outcome = Result<u32, String>;

/// What subscribers have seen.
#[derive(Debug)]
pub(super) struct Received {
    /// Nanoseconds from sending to receipt.
    pub(super) latency: Histogram<u64>,
    /// Channel and events of each subscriber that was connected.
    pub(super) seen: Vec<(u32, Sequences)>,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// When the last event came, in nanoseconds of the run.
    pub(super) last: u64,
    /// Why the first connection that ended did so.
    pub(super) closed: Option<String>,
}

impl Received {
    fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1_000, LONGEST, 3).context("cannot count latencies")?;
        Ok(Self { latency, seen: Vec::new(), duplicated: 0, out_of_order: 0, last: 0, closed: None })
    }

    fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency).context("cannot add latencies")?;
        self.seen.extend(other.seen);
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.last = self.last.max(other.last);
        self.closed = self.closed.take().or(other.closed);
        Ok(())
    }
}

/// All subscribers.
#[derive(Debug)]
pub(super) struct Crowd {
    threads: Vec<(oneshot::Sender<()>, JoinHandle<anyhow::Result<Received>>)>,
}

impl Crowd {
    /// Lets `count` subscribers connect, each channel's to all `nodes` in turns. Each has its outcome in `results`.
    pub(super) fn start(
        count: u32,
        threads: u16,
        plan: Plan,
        nodes: &[Arc<Target>],
        counters: &Arc<Counters>,
        results: &mpsc::Sender<Outcome>,
    ) -> anyhow::Result<Self> {
        let place = |index: u32| {
            let (round, channel) = (index / plan.channels, index % plan.channels);
            let node = usize::try_from(round.wrapping_add(channel)).unwrap_or_default() % nodes.len();
            (channel, Arc::clone(&nodes[node]))
        };
        let start = |first: u16| {
            let places: Vec<_> = (u32::from(first)..count).step_by(threads.into()).map(place).collect();
            let (stop, stopped) = oneshot::channel();
            let (counters, results) = (Arc::clone(counters), results.clone());
            let run = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let attend = attend(places, plan, counters, results, stopped);
                LocalSet::new().block_on(&runtime, attend)
            };
            let thread = thread::Builder::new().name(format!("subscribers-{first}")).spawn(run);
            Ok((stop, thread.context("cannot start a thread")?))
        };
        Ok(Self { threads: (0..threads).map(start).collect::<anyhow::Result<_>>()? })
    }

    /// Disconnects everybody, and collects what they have seen.
    pub(super) fn stop(self) -> anyhow::Result<Received> {
        let mut all = Received::new()?;
        for (stop, thread) in self.threads {
            let _ = stop.send(());
            let received = thread.join().map_err(|_| anyhow::anyhow!("a thread of subscribers panicked"))?;
            all.merge(received?)?;
        }
        Ok(all)
    }
}

/// What the subscribers of a thread share.
struct Room {
    plan: Plan,
    counters: Arc<Counters>,
    connecting: Semaphore,
    scratch: RefCell<Box<[u8]>>,
    received: RefCell<Received>,
}

/// One subscriber's place.
struct Seat {
    channel: u32,
    node: Arc<Target>,
    subscribed: Cell<bool>,
    sequences: RefCell<Sequences>,
}

async fn attend(
    places: Vec<(u32, Arc<Target>)>,
    plan: Plan,
    counters: Arc<Counters>,
    results: mpsc::Sender<Outcome>,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Received> {
    let room = Rc::new(Room {
        plan,
        counters,
        connecting: Semaphore::new(CONNECTING),
        scratch: RefCell::new(vec![0; SCRATCH].into()),
        received: RefCell::new(Received::new()?),
    });
    let seats: Vec<_> = places
        .into_iter()
        .map(|(channel, node)| {
            let (subscribed, sequences) = (Cell::new(false), RefCell::new(Sequences::new(plan.lanes)));
            Rc::new(Seat { channel, node, subscribed, sequences })
        })
        .collect();
    let tasks: Vec<_> = seats
        .iter()
        .map(|seat| tokio::task::spawn_local(subscribe(Rc::clone(&room), Rc::clone(seat), results.clone())))
        .collect();
    drop(results);
    let _ = stopped.await;
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    let mut received = room.received.replace(Received::new()?);
    let subscribed = seats.iter().filter(|seat| seat.subscribed.get());
    received.seen = subscribed.map(|seat| (seat.channel, seat.sequences.replace(Sequences::new(0)))).collect();
    Ok(received)
}

async fn subscribe(room: Rc<Room>, seat: Rc<Seat>, results: mpsc::Sender<Outcome>) {
    let connected = {
        let _permit = room.connecting.acquire().await;
        in_time("a subscription", connect(&seat.node, seat.channel)).await
    };
    let (stream, rest) = match connected {
        Ok(connected) => connected,
        Err(why) => {
            let _ = results.send(Err(why)).await;
            return;
        }
    };
    seat.subscribed.set(true);
    room.counters.connected.fetch_add(1, Ordering::Relaxed);
    let _ = results.send(Ok(seat.channel)).await;
    drop(results);
    let why = listen(&room, &seat, stream, rest).await;
    room.counters.connected.fetch_sub(1, Ordering::Relaxed);
    room.counters.closed.fetch_add(1, Ordering::Relaxed);
    room.received.borrow_mut().closed.get_or_insert(why);
}

/// Connects and subscribes. Returns what came behind the answer, which is usually nothing.
pub(super) async fn connect(target: &Target, channel: u32) -> Result<(TcpStream, Vec<u8>), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(target.address()).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    // The key is an example of RFC 6455. Whether the answer fits it is for compatibility tests to look at.
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        target.websocket_path(),
        target.authority()
    );
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        more(&mut stream, &mut bytes).await?;
    };
    if !bytes.starts_with(b"HTTP/1.1 101") {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("no WebSocket: {}", String::from_utf8_lossy(line)));
    }
    bytes.drain(..head);
    loop {
        let Some((frame, rest)) = Frame::take(&bytes) else {
            more(&mut stream, &mut bytes).await?;
            continue;
        };
        let used = bytes.len() - rest.len();
        let holds = |name: &str| frame.payload.windows(name.len()).any(|window| window == name.as_bytes());
        if frame.first == wire::CLOSE {
            return Err(close_reason(frame.payload));
        } else if holds("\"pusher:error\"") || holds("\"pusher:subscription_error\"") {
            return Err(String::from_utf8_lossy(frame.payload).into_owned());
        } else if holds("\"pusher:connection_established\"") {
            let name = message::channel(channel);
            let subscribe = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}"}}}}"#);
            stream.write_all(&wire::encode(wire::TEXT, subscribe.as_bytes())).await.map_err(text)?;
        } else if holds("\"pusher_internal:subscription_succeeded\"") {
            return Ok((stream, rest.to_vec()));
        }
        bytes.drain(..used);
    }
}

/// Receives what has come.
pub(super) async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), String> {
    match stream.read_buf(bytes).await {
        Ok(0) => Err("closed by the server".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes down events until the connection ends. Returns why it did.
async fn listen(room: &Room, seat: &Seat, mut stream: TcpStream, mut partial: Vec<u8>) -> String {
    loop {
        if let Err(error) = stream.readable().await {
            return error.to_string();
        }
        let answers = {
            let mut scratch = room.scratch.borrow_mut();
            let bytes = match stream.try_read(&mut scratch) {
                Ok(0) => return "closed without a close frame".to_owned(),
                Ok(length) => &scratch[..length],
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return error.to_string(),
            };
            if partial.is_empty() {
                let (rest, answers) = room.take(seat, bytes);
                partial = rest.to_vec();
                answers
            } else {
                partial.extend_from_slice(bytes);
                let (rest, answers) = room.take(seat, &partial);
                // Only the partial frame is copied: while none is partial, nothing is kept.
                partial = rest.to_vec();
                answers
            }
        };
        match answers {
            Ok(answers) if answers.is_empty() => {}
            Ok(answers) => {
                if let Err(error) = stream.write_all(&answers).await {
                    return error.to_string();
                }
            }
            Err(why) => return why,
        }
    }
}

impl Room {
    /// Takes down the whole frames in `bytes`. Returns the rest, and what has to be answered or why the connection ends.
    fn take<'a>(&self, seat: &Seat, mut bytes: &'a [u8]) -> (&'a [u8], Result<Vec<u8>, String>) {
        let now = nanos_since(self.plan.epoch);
        let mut received = self.received.borrow_mut();
        let mut sequences = seat.sequences.borrow_mut();
        let (mut events, mut answers) = (0, Vec::new());
        let mut end = None;
        while let Some((frame, rest)) = Frame::take(bytes) {
            bytes = rest;
            match frame.first {
                wire::TEXT => {
                    if let Some(stamp) = Stamp::read(frame.payload) {
                        let arrival = sequences.arrived(stamp.lane, stamp.sequence);
                        match arrival {
                            Some(Arrival::InOrder) => {}
                            Some(Arrival::OutOfOrder) => received.out_of_order += 1,
                            Some(Arrival::Duplicate) => received.duplicated += 1,
                            None => continue,
                        }
                        if arrival != Some(Arrival::Duplicate) {
                            events += 1;
                            received.last = now;
                            received.latency.saturating_record(now.saturating_sub(stamp.nanos));
                        }
                    } else if frame.payload.starts_with(br#"{"event":"pusher:ping""#) {
                        answers.extend(wire::encode(wire::TEXT, br#"{"event":"pusher:pong","data":{}}"#));
                    }
                }
                wire::PING => answers.extend(wire::encode(wire::PONG, frame.payload)),
                wire::PONG => {}
                wire::CLOSE => end = Some(close_reason(frame.payload)),
                other => end = Some(format!("a frame that begins with {other:#x} is not understood")),
            }
        }
        self.counters.received.fetch_add(events, Ordering::Relaxed);
        (bytes, end.map_or(Ok(answers), Err))
    }
}

/// What a close frame says.
pub(super) fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, reason)) => {
            format!("closed with {} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
        }
        None => "closed without a code".to_owned(),
    }
}
