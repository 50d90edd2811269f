//! What is printed in the end.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;

use super::{
    BenchArgs,
    bystander::Waits,
    publisher::Published,
    subscriber::Received,
    usage::{Cost, Usage},
};

/// The figures of a run.
#[derive(Debug)]
pub(super) struct Report {
    subscribers: u32,
    connecting: Connecting,
    planned: Option<u64>,
    published: Published,
    received: Received,
    lost: u64,
    after: Aftermath,
    /// What deliveries cost, or events that nobody got.
    cost: Option<Cost>,
}

/// How the subscribers came.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) connected: u64,
    pub(super) took: Duration,
    /// Why the first of the others could not.
    pub(super) refused: Option<String>,
    pub(super) cost: Option<Cost>,
}

/// What there was to see beside the deliveries.
#[derive(Debug)]
pub(super) struct Aftermath {
    /// Subscribers that the server closed.
    pub(super) closed: u64,
    /// Of the subscribers that never read: how many were closed, of how many.
    pub(super) stalled: (usize, usize),
    /// What somebody else saw of the load.
    pub(super) waits: Waits,
    /// What the server had used when all was delivered, and before.
    pub(super) used: Option<(Usage, Usage)>,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        connecting: Connecting,
        published: Published,
        received: Received,
        after: Aftermath,
    ) -> Self {
        let lost = received
            .seen
            .iter()
            .flat_map(|(channel, seen)| {
                let lanes = published.lanes.iter().enumerate();
                lanes.map(move |(lane, issued)| (lane, &issued[*channel as usize], seen))
            })
            .map(|(lane, issued, seen)| seen.lost(lane, issued.count, &issued.failed))
            .sum();
        let planned = (args.rate > 0).then(|| u64::from(args.rate) * u64::from(args.seconds));
        let work = match received.latency.len() {
            0 => ("event", published.sent()),
            deliveries => ("delivery", deliveries),
        };
        let cost = after.used.map(|(now, before)| now.since(before, work.0, work.1));
        Self { subscribers: args.subscribers, connecting, planned, published, received, lost, after, cost }
    }

    /// What a well-behaved server would not have done; `None` if there is nothing.
    pub(super) fn verdict(&self) -> Option<String> {
        let Received { duplicated, out_of_order, .. } = self.received;
        let problems = [
            (self.lost, "deliveries lost"),
            (duplicated, "duplicated"),
            (out_of_order, "out of order"),
            (self.published.failed(), "HTTP errors"),
            (u64::from(self.subscribers).saturating_sub(self.connecting.connected), "subscribers refused"),
            (self.after.closed, "connections closed"),
            (u64::from(self.after.waits.error.is_some()), "bystander that gave up"),
        ];
        let problems: Vec<_> =
            problems.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!problems.is_empty()).then(|| problems.join(", "))
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, and far below 2^52")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

fn millis(nanos: &Histogram<u64>, quantile: f64) -> f64 {
    Duration::from_nanos(nanos.value_at_quantile(quantile)).as_secs_f64() * 1e3
}

/// The first reason behind a count.
fn because(reason: Option<&String>) -> String {
    reason.map_or_else(String::new, |reason| format!(" (first: {reason})"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connecting, published, received, after, .. } = self;
        let (sent, deliveries) = (published.sent(), received.latency.len());
        let took = Duration::from_nanos(received.last.saturating_sub(published.start));
        let ms = |quantile: f64| format!("{:.3} ms", millis(&received.latency, quantile));
        let planned = self.planned.filter(|planned| *planned != sent).map(|planned| format!(" of {planned}"));
        writeln!(
            f,
            "subscribers connected  {} of {}{}",
            connecting.connected,
            self.subscribers,
            because(connecting.refused.as_ref())
        )?;
        writeln!(f, "connects/s             {:.0}", per_second(connecting.connected, connecting.took))?;
        if let Some(cost) = connecting.cost.as_ref().filter(|_| connecting.connected > 0) {
            writeln!(f, "server's memory        {}", cost.memory_each())?;
            writeln!(f, "server's CPU           {}", cost.cpu_each())?;
        }
        writeln!(f, "events sent            {sent}{}", planned.unwrap_or_default())?;
        writeln!(f, "events/s               {:.1}", per_second(sent, published.elapsed))?;
        if !published.answers.is_empty() {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| millis(&published.answers, quantile));
            writeln!(f, "answers                p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms")?;
        }
        writeln!(f, "deliveries             {deliveries}")?;
        writeln!(f, "deliveries/s           {:.0}", per_second(deliveries, took))?;
        if deliveries > 0 {
            writeln!(f, "latency p50            {}", ms(0.5))?;
            writeln!(f, "latency p99            {}", ms(0.99))?;
            writeln!(f, "latency p999           {}", ms(0.999))?;
            writeln!(f, "latency max            {}", ms(1.0))?;
        }
        if let Some(cost) = &self.cost {
            writeln!(f, "server's CPU           {}", cost.cpu_each())?;
        }
        writeln!(f, "lost                   {}", self.lost)?;
        writeln!(f, "duplicated             {}", received.duplicated)?;
        writeln!(f, "out of order           {}", received.out_of_order)?;
        writeln!(f, "HTTP errors            {}{}", published.failed(), because(published.error.as_ref()))?;
        writeln!(f, "connections closed     {}{}", after.closed, because(received.closed.as_ref()))?;
        if let (closed, count @ 1..) = after.stalled {
            writeln!(f, "stalled, closed        {closed} of {count}")?;
        }
        let Waits { ping, subscribe, event, error } = &after.waits;
        for (what, waits) in [("ping     ", ping), ("subscribe", subscribe), ("event    ", event)] {
            if !waits.is_empty() {
                let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| millis(waits, quantile));
                writeln!(f, "bystander's {what}  p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms")?;
            }
        }
        error.as_ref().map_or(Ok(()), |error| writeln!(f, "bystander gave up      {error}"))
    }
}
