//! `fanfare bench`: loads a running server, so that an operator can size a machine.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `target` | which server, and that it is ours to load |
//! | `message` | what is in an event: where it belongs, and when it was sent |
//! | `sequence` | which events of a sender came: lost, twice, late |
//! | `subscriber` | one connection that listens, and the threads that hold them |
//! | `stalled` | connections that never read |
//! | `bystander` | how long others wait meanwhile |
//! | `publisher` | signed triggers over kept connections |
//! | `usage` | what the server's process uses |
//! | `report` | what is printed in the end |
//!
//! The main thread publishes, other threads receive, so that one waits as little as possible for the other.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use self::{
    bystander::Bystander,
    report::{Aftermath, Connecting, Report},
    stalled::Stalled,
    subscriber::Crowd,
    target::Target,
    usage::Usage,
};
use super::{CliError, target::TargetArgs, tell, wire};
use crate::server::raise_descriptor_limit;

mod bystander;
mod message;
mod publisher;
mod report;
mod sequence;
mod stalled;
mod subscriber;
mod target;
mod usage;

/// How long deliveries that are still owed are waited for, since the last one came.
const QUIET: Duration = Duration::from_secs(2);

/// How often it is looked whether everything has come.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections, each with one subscription; with 0 events go to channels nobody listens to
    #[arg(long, value_name = "N", default_value_t = 1000)]
    subscribers: u32,
    /// Where subscribers connect, if not at --url: given once for each node of a cluster, they are spread over all
    #[arg(long, value_name = "URL")]
    subscribe_at: Vec<String>,
    /// Further connections that subscribe and never read, which a server has to close
    #[arg(long, value_name = "N", default_value_t = 0)]
    stalled: u32,
    /// Channels that the subscribers are spread over; events go to them in turns
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// Events per second; 0 sends each as soon as an answer comes
    #[arg(long, value_name = "N", default_value_t = 20)]
    rate: u32,
    /// How long to publish
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    payload: usize,
    /// HTTP connections that publish
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    lanes: u16,
    /// Threads that receive
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// The server's process on this machine: print the processor time and memory it uses, too
    #[arg(long)]
    pid: Option<u32>,
    /// Also load a server on another machine
    #[arg(long)]
    i_may_load_this_host: bool,
}

const HELP: &str = "\
Examples:
  fanfare bench --subscribers 1000 --rate 20      one channel of the server on this machine
  fanfare bench --subscribers 5000 --channels 1000 --payload 1000
  fanfare bench --subscribers 1000 --stalled 100  what others notice of readers that stall

Latency is from just before a trigger is signed and written to the receipt of its event, on this machine's clock; answers are from
there to the answer of the HTTP API.
A bystander on a connection of its own pings, subscribes and triggers on a quiet channel 20 times a second meanwhile.
Both sides share the machine when the server is local: watch the CPU time of both.
Exit codes: 0; 1 if anything was lost, doubled, out of order or refused; 2 for a bad flag or configuration.";

/// What all threads count. Order does not matter: each is read on its own.
#[derive(Debug, Default)]
struct Counters {
    connected: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    closed: AtomicU64,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let target = Arc::new(Target::new(args)?);
    if args.channels > args.subscribers.max(1) {
        return Err(CliError::Usage("--channels: there are more channels than --subscribers".to_owned()));
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let nodes = match &*args.subscribe_at {
        [] => vec![Arc::clone(&target)],
        urls => urls.iter().map(|url| target.at(url, args).map(Arc::new)).collect::<Result<_, _>>()?,
    };
    let report = runtime.block_on(bench(args, target, &nodes))?;
    io::stdout().lock().write_all(report.to_string().as_bytes()).context("cannot print the report")?;
    match report.verdict() {
        None => Ok(()),
        Some(problem) => Err(anyhow::Error::msg(problem).into()),
    }
}

async fn bench(args: &BenchArgs, target: Arc<Target>, nodes: &[Arc<Target>]) -> anyhow::Result<Report> {
    let usage = || args.pid.map(Usage::now).transpose();
    let before = usage()?;
    let counters = Arc::new(Counters::default());
    let progress = tokio::spawn(progress(Arc::clone(&counters)));
    let epoch = Instant::now();

    let (results, mut outcomes) = mpsc::channel(1024);
    let plan = subscriber::Plan { channels: args.channels, lanes: args.lanes, epoch };
    let crowd = Crowd::start(args.subscribers, args.threads, plan, nodes, &counters, &results)?;
    drop(results);
    let mut refused = None;
    let mut by_channel = vec![0; args.channels as usize];
    for _ in 0..args.subscribers {
        match outcomes.recv().await.context("a thread of subscribers ended")? {
            Ok(channel) => by_channel[channel as usize] += 1,
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    let (connected, took) = (by_channel.iter().sum(), epoch.elapsed());
    if connected == 0 && args.subscribers > 0 {
        anyhow::bail!("no subscriber could connect to {}: {}", target.address(), refused.unwrap_or_default());
    }
    let cost = usage()?.zip(before).map(|(now, before)| now.since(before, "connection", connected));
    let connecting = Connecting { connected, took, refused, cost };

    let stalled = Stalled::start(args.stalled, args.channels, &target).await;
    let stalled = stalled.map_err(|why| anyhow::anyhow!("a subscriber of --stalled could not connect: {why}"))?;

    let bystander = Bystander::start(&target, args.channels)?;
    let before = usage()?;
    let published = publisher::publish(args, &target, &counters, epoch).await?;
    settle(&counters, published.owed(&by_channel)).await;
    let used = usage()?.zip(before);
    let waits = bystander.stop()?;
    progress.abort();
    // Counted before the clients hang up by themselves.
    let closed = counters.closed.load(Ordering::Relaxed);
    let received = crowd.stop()?;
    let stalled = stalled.closed().await;
    Ok(Report::new(args, connecting, published, received, Aftermath { closed, stalled, waits, used }))
}

/// Waits for what is still under way.
async fn settle(counters: &Counters, owed: u64) {
    let mut last = (0, Instant::now());
    loop {
        let received = counters.received.load(Ordering::Relaxed);
        if received != last.0 {
            last = (received, Instant::now());
        }
        // Waits a little longer than needed, so that repeated deliveries are seen as well.
        if received >= owed && last.1.elapsed() >= LOOK * 20 || last.1.elapsed() >= QUIET {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Says once a second how far it is.
async fn progress(counters: Arc<Counters>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let start = Instant::now();
    loop {
        ticks.tick().await;
        let Counters { connected, sent, received, closed } = &*counters;
        let [connected, sent, received, closed] =
            [connected, sent, received, closed].map(|counter| counter.load(Ordering::Relaxed));
        let seconds = start.elapsed().as_secs();
        tell(format_args!("{seconds:>4} s: {connected} connected, {sent} sent, {received} received, {closed} closed"));
    }
}

/// Ends a step of a handshake that takes too long.
async fn in_time<T>(what: &str, step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    const LIMIT: Duration = Duration::from_secs(20);
    timeout(LIMIT, step).await.unwrap_or_else(|_| Err(format!("{what} took longer than {LIMIT:?}")))
}
