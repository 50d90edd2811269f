//! Signed triggers over kept connections, at a given rate or as fast as answers come.

use std::{
    cell::{Cell, RefCell},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::Context as _;
use fanfare_protocol::request::signed_query;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use reqwest::{Client, StatusCode, redirect};
use tokio::time::{Instant, sleep_until};

use super::{
    BenchArgs, Counters,
    message::{self, Stamp},
    subscriber::LONGEST,
    target::Target,
};
use crate::{timing::unix_time, tls};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What was published.
#[derive(Debug)]
pub(super) struct Published {
    /// By lane, then by channel.
    pub(super) lanes: Vec<Vec<Issued>>,
    /// When the first event was due, in nanoseconds of the run.
    pub(super) start: u64,
    /// How long it took.
    pub(super) elapsed: Duration,
    /// Nanoseconds from sending to the answer.
    pub(super) answers: Histogram<u64>,
    /// What went wrong first.
    pub(super) error: Option<String>,
}

/// The events of one lane on one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Issued {
    /// How many numbers were given out, from 0.
    pub(super) count: u32,
    /// Those without a good answer, which may or may not have been delivered.
    pub(super) failed: Vec<u32>,
}

impl Published {
    /// Events with a good answer.
    pub(super) fn sent(&self) -> u64 {
        self.lanes.iter().flatten().map(|issued| u64::from(issued.count) - issued.failed.len() as u64).sum()
    }

    /// Events without one.
    pub(super) fn failed(&self) -> u64 {
        self.lanes.iter().flatten().map(|issued| issued.failed.len() as u64).sum()
    }

    /// Deliveries owed to so many subscribers of each channel.
    pub(super) fn owed(&self, subscribers: &[u64]) -> u64 {
        let lane = |lane: &Vec<Issued>| -> u64 {
            let of = |(issued, subscribers): (&Issued, &u64)| {
                (u64::from(issued.count) - issued.failed.len() as u64) * subscribers
            };
            lane.iter().zip(subscribers).map(of).sum()
        };
        self.lanes.iter().map(lane).sum()
    }
}

/// Nanoseconds since `epoch`.
pub(super) fn nanos_since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What all lanes share.
struct Schedule<'a> {
    args: &'a BenchArgs,
    target: &'a Target,
    counters: &'a Counters,
    client: Client,
    epoch: Instant,
    start: Instant,
    /// The number of the next event of all lanes.
    next: Cell<u64>,
    answers: RefCell<Histogram<u64>>,
    error: Cell<Option<String>>,
}

pub(super) async fn publish(
    args: &BenchArgs,
    target: &Target,
    counters: &Counters,
    epoch: Instant,
) -> anyhow::Result<Published> {
    let client = client(target)?;
    let answers = Histogram::new_with_bounds(1_000, LONGEST, 3).context("cannot count latencies")?;
    let (start, next, error) = (Instant::now(), Cell::new(0), Cell::new(None));
    let answers = RefCell::new(answers);
    let schedule = Schedule { args, target, counters, client, epoch, start, next, answers, error };
    let lanes = join_all((0..args.lanes.into()).map(|lane| schedule.run(lane))).await;
    let began = u64::try_from((start - epoch).as_nanos()).unwrap_or(u64::MAX);
    let (elapsed, error) = (start.elapsed(), schedule.error.take());
    Ok(Published { lanes, start: began, elapsed, answers: schedule.answers.into_inner(), error })
}

/// A client that keeps its connections to the server.
pub(super) fn client(target: &Target) -> anyhow::Result<Client> {
    // It is never used, but the client asks for it.
    tls::choose_crypto();
    Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT)
        .tcp_nodelay(true)
        .resolve(target.host(), target.address())
        .build()
        .context("cannot make an HTTP client")
}

/// Triggers one event, whose data has to need no escapes.
pub(super) async fn trigger(client: &Client, target: &Target, channel: u32, data: &str) -> Result<(), String> {
    let body = format!(r#"{{"name":"bench","channel":"{}","data":"{data}"}}"#, message::channel(channel));
    let path = target.events_path();
    let now = unix_time().as_secs();
    let query = signed_query(target.signer(), target.key(), "POST", &path, &[], body.as_bytes(), now);
    let url = format!("http://{}{path}?{query}", target.authority());
    let request = client.post(url).header("content-type", "application/json").body(body);
    let answer = request.send().await.map_err(describe)?;
    let status = answer.status();
    // Read to its end, so that the connection is kept.
    let text = answer.text().await.map_err(describe)?;
    if status == StatusCode::OK { Ok(()) } else { Err(format!("{status}: {}", text.trim())) }
}

impl Schedule<'_> {
    /// Sends one event after the other, so that their order is defined. Whichever lane is free takes the next one.
    async fn run(&self, lane: usize) -> Vec<Issued> {
        let mut issued = vec![Issued::default(); self.args.channels as usize];
        while let Some(number) = self.turn().await {
            let channel = u32::try_from(number % u64::from(self.args.channels)).unwrap_or_default();
            let of_channel = &mut issued[channel as usize];
            let sequence = of_channel.count;
            of_channel.count += 1;
            match self.send(lane, channel, sequence).await {
                Ok(()) => {
                    self.counters.sent.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    of_channel.failed.push(sequence);
                    self.error.set(self.error.take().or(Some(why)));
                }
            }
        }
        issued
    }

    /// Waits until the next event is due; `None` when it is over.
    async fn turn(&self) -> Option<u64> {
        let number = self.next.get();
        self.next.set(number + 1);
        let (rate, seconds) = (u64::from(self.args.rate), u64::from(self.args.seconds));
        if rate > 0 {
            if number >= rate * seconds {
                return None;
            }
            // Each event is due by its number, not by when the one before was sent, so a slow answer does not delay the others.
            let (whole, part) = (number / rate, number % rate);
            let due = self.start + Duration::from_secs(whole) + Duration::from_nanos(part * 1_000_000_000 / rate);
            sleep_until(due).await;
        }
        (self.start.elapsed() < Duration::from_secs(seconds)).then_some(number)
    }

    async fn send(&self, lane: usize, channel: u32, sequence: u32) -> Result<(), String> {
        let stamp = Stamp { lane, sequence, nanos: nanos_since(self.epoch) };
        let start = Instant::now();
        trigger(&self.client, self.target, channel, &stamp.write(self.args.payload)).await?;
        self.answers.borrow_mut().saturating_record(nanos_since(start));
        Ok(())
    }
}

/// The error and its causes, without the URL: it is long, and signed.
fn describe(error: reqwest::Error) -> String {
    format!("{:#}", anyhow::Error::from(error.without_url()))
}
