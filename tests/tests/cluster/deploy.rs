//! All nodes are replaced, one after the other, under load: as docs/operating.md says, with clients that do what stock ones do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fanfare_tests::{Balancer, Client, Ended, Node, Proxy, RedisServer, WebhookReceiver, eventually};
use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::support::{node, node_at};

const NODES: usize = 3;
const CLIENTS: usize = 150;
/// So many of them are members, too.
const MEMBERS: usize = 24;
const CHANNELS: [&str; 3] = ["news", "orders", "private-a"];
const ROOM: &str = "presence-room";
/// Time between two events of a channel.
const PACE: Duration = Duration::from_millis(25);
/// What pusher-js waits after 4100.
const BACK_OFF: Duration = Duration::from_secs(1);

/// When an event was asked for, and when that was answered.
#[derive(Clone, Copy, Debug)]
struct Triggered {
    asked: Instant,
    answered: Instant,
}

/// One connection of a client: a subscription from its answer to the end of the connection.
#[derive(Debug)]
struct Stay {
    from: Instant,
    to: Instant,
    /// Numbers of events, and when they came.
    received: Vec<(usize, Instant)>,
}

/// What a client went through.
#[derive(Debug, Default)]
struct Journey {
    stays: Vec<Stay>,
    /// Nodes that would not have it.
    refused: usize,
}

impl Journey {
    /// Receives numbered events until the last one, on as many connections as it takes.
    async fn travel(
        balancer: &Balancer,
        channel: &str,
        member: Option<String>,
        arrived: &watch::Sender<usize>,
    ) -> Self {
        let mut journey = Self::default();
        loop {
            let mut client = match balancer.connect().await {
                Ok(client) => client,
                Err(refusal) => {
                    assert_eq!(refusal.code, Some(4100), "{refusal:?}");
                    journey.refused += 1;
                    sleep(BACK_OFF).await;
                    continue;
                }
            };
            let end = journey.stay(&mut client, channel, member.as_deref(), arrived).await;
            match end {
                None => return journey,
                // 4200 says: come back at once, which the next turn of the loop does.
                Some(end) => assert_eq!(end.code, Some(4200), "{end:?}"),
            }
        }
    }

    /// One connection: nothing after the last event, or how it ended.
    async fn stay(
        &mut self,
        client: &mut Client,
        channel: &str,
        member: Option<&str>,
        arrived: &watch::Sender<usize>,
    ) -> Option<Ended> {
        if let Some(user_id) = member {
            let data = json!({"user_id": user_id}).to_string();
            let data = client.subscription(ROOM, Some(&data));
            client.begin_subscribe(data).await;
        }
        let data = client.subscription(channel, None);
        client.begin_subscribe(data).await;
        let (mut from, mut received) = (None, Vec::new());
        loop {
            let event = match client.event_or_end().await {
                Ok(event) => event,
                Err(end) => {
                    let to = Instant::now();
                    self.stays.extend(from.map(|from| Stay { from, to, received }));
                    return Some(end);
                }
            };
            if event.is("pusher_internal:subscription_succeeded", channel) {
                from = Some(Instant::now());
                if self.stays.is_empty() {
                    arrived.send_modify(|count| *count += 1);
                }
            } else if event.is("end", channel) {
                let to = Instant::now();
                self.stays.extend(from.map(|from| Stay { from, to, received }));
                return None;
            } else if event.is("numbered", channel) {
                assert!(from.is_some(), "an event before subscription_succeeded");
                received.push((event.data.parse().expect("a number"), Instant::now()));
            }
        }
    }
}

/// Triggers numbered events until it is told to stop, each over a connection of its own, as PHP does.
async fn publish(balancer: &Balancer, channel: &str, over: watch::Receiver<bool>) -> Vec<Triggered> {
    let mut triggered = Vec::new();
    let mut next = Instant::now();
    while !*over.borrow() {
        sleep_until(next).await;
        next = Instant::now().max(next + PACE);
        let mut api = balancer.api().await;
        let asked = Instant::now();
        // Nothing but 200 is taken for an answer.
        api.trigger(channel, "numbered", &triggered.len().to_string()).await;
        triggered.push(Triggered { asked, answered: Instant::now() });
    }
    balancer.api().await.trigger(channel, "end", "").await;
    triggered
}

/// What clients missed, and why it cannot have been otherwise.
#[derive(Debug, Default)]
struct Findings {
    gaps: Vec<Duration>,
    /// Events that fell into somebody's gap.
    missed: usize,
    /// Of those, the ones that were answered before the client had read its goodbye: they were on their way.
    under_way: usize,
    /// Events that came on both sides of a gap.
    twice: usize,
}

/// Every connection has a row of events without holes, and every event that was triggered during a stay.
///
/// An event is on its way for a while, and a goodbye does not wait for it: so what was answered less than `latency`, the longest way
/// of all events of the run, before the goodbye was read, belongs to the gap.
fn examine(journey: &Journey, triggered: &[Triggered], latency: Duration, findings: &mut Findings) {
    let last = journey.stays.len() - 1;
    let mut seen = vec![0; triggered.len()];
    for (index, stay) in journey.stays.iter().enumerate() {
        let numbers: Vec<_> = stay.received.iter().map(|(number, _)| *number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "not in a row: {numbers:?}");
        numbers.iter().for_each(|number| seen[*number] += 1);
        for (number, event) in triggered.iter().enumerate().filter(|(_, event)| event.asked >= stay.from) {
            let owed = index == last || event.answered + latency < stay.to;
            assert!(
                !owed || numbers.contains(&number),
                "{number} is lost: asked {:?} after the subscription, answered {:?} before the goodbye",
                event.asked - stay.from,
                stay.to.saturating_duration_since(event.answered),
            );
        }
        if let Some(next) = journey.stays.get(index + 1) {
            findings.gaps.push(next.from - stay.to);
            let next_number = next.received.first().map_or(triggered.len(), |(number, _)| *number);
            let missed = numbers.last().map_or(0, |number| number + 1)..next_number;
            findings.under_way += triggered[missed].iter().filter(|event| event.answered < stay.to).count();
        }
    }
    findings.missed += seen.iter().filter(|count| **count == 0).count();
    findings.twice += seen.iter().filter(|count| **count > 1).count();
}

/// The longest time from a trigger's answer to its arrival.
fn longest_way<'a>(journeys: impl Iterator<Item = (&'a Journey, &'a Vec<Triggered>)>) -> Duration {
    let ways = journeys.flat_map(|(journey, triggered)| {
        let received = journey.stays.iter().flat_map(|stay| &stay.received);
        received.map(|(number, at)| at.saturating_duration_since(triggered[*number].answered))
    });
    ways.max().unwrap_or_default()
}

#[tokio::test]
async fn all_nodes_are_replaced_under_load_and_clients_miss_nothing_but_their_own_gap() {
    let mut receiver = WebhookReceiver::start();
    let url = receiver.url();
    let variables = [
        ("FANFARE__SERVER__SHUTDOWN_DELAY", "500ms"),
        ("FANFARE__SERVER__SHUTDOWN_GRACE", "2s"),
        ("FANFARE__APPS__0__WEBHOOKS__0__URL", &*url),
        // Longer than anybody is away, also on a busy machine.
        ("FANFARE__WEBHOOKS__VACATED_DELAY", "6s"),
    ];
    let redis = RedisServer::start().await;
    let balancer = Arc::new(Balancer::start().await);
    let add = async || {
        let node = node(&redis, &variables).await;
        balancer.add(&node);
        eventually("the node gets clients", async || yield_briefly(balancer.uses(&node)).await, |used| *used).await;
        node
    };
    let mut nodes = vec![add().await, add().await, add().await];

    let arrived = watch::Sender::new(0);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (balancer, arrived) = (Arc::clone(&balancer), arrived.clone());
            let member = (number < MEMBERS).then(|| user(number));
            let channel = CHANNELS[number % CHANNELS.len()];
            tokio::spawn(async move { Journey::travel(&balancer, channel, member, &arrived).await })
        })
        .collect();
    let all_arrived = arrived.subscribe().wait_for(|count| *count == CLIENTS).await.map(|count| *count);
    assert_eq!(all_arrived.ok(), Some(CLIENTS));
    let over = watch::Sender::new(false);
    let publishers = CHANNELS.map(|channel| {
        let (balancer, over) = (Arc::clone(&balancer), over.subscribe());
        tokio::spawn(async move { publish(&balancer, channel, over).await })
    });

    let mut drains = Vec::new();
    for _ in 0..NODES {
        let start = Instant::now();
        let mut old: Node = nodes.remove(0);
        old.terminate();
        let status = old.stopped().await;
        assert!(status.success(), "{status}");
        assert!(!old.has_logged("the grace period is over"), "clients were cut off instead of sent away");
        drains.push(start.elapsed());
        nodes.push(add().await);
    }
    for node in &nodes {
        let members = async || node.api().await.users(ROOM).await;
        let everybody: Vec<_> = (0..MEMBERS).map(user).collect();
        eventually("everybody is a member again", members, |members| *members == everybody).await;
    }
    over.send_replace(true);
    let triggered: BTreeMap<_, _> = CHANNELS
        .into_iter()
        .zip(join_all(publishers).await)
        .map(|(channel, triggered)| (channel, triggered.expect("every trigger was answered 200")))
        .collect();
    let journeys: Vec<_> =
        join_all(clients).await.into_iter().map(|journey| journey.expect("a client's end")).collect();

    let of_channel = |number: usize| &triggered[CHANNELS[number % CHANNELS.len()]];
    let latency = longest_way(journeys.iter().enumerate().map(|(number, journey)| (journey, of_channel(number))));
    let mut findings = Findings::default();
    for (number, journey) in journeys.iter().enumerate() {
        examine(journey, of_channel(number), latency, &mut findings);
    }
    let Findings { gaps, missed, under_way, twice } = &mut findings;
    gaps.sort_unstable();
    let refused: usize = journeys.iter().map(|journey| journey.refused).sum();
    let events: usize = triggered.values().map(Vec::len).sum();
    let slowest = triggered.values().flatten().map(|event| event.answered - event.asked).max().unwrap_or_default();
    println!(
        "three nodes replaced under load: {events} triggers, all answered 200, the slowest after {slowest:?}; {CLIENTS} clients moved \
         {} times by 4200, {refused} times answered 4100; gaps p50 {:?}, p99 {:?}, max {:?}; {missed} events fell into gaps, {under_way} \
         of them on their way at the goodbye (longest way {latency:?}); lost outside of gaps 0, out of order 0, on both sides {twice}; \
         drains took {drains:?}",
        gaps.len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() * 99 / 100],
        gaps[gaps.len() - 1],
    );
    assert!(gaps.len() >= CLIENTS, "every node was replaced, so everybody had to move");
    // Whoever moved has neither left nor come, and everybody has left now.
    let mut told = Vec::new();
    let expected = expected_webhooks();
    while told.len() < expected.len() {
        // How many subscribe changes with every move.
        told.extend(receiver.next_events().await.into_iter().filter(|(name, _)| name != "subscription_count"));
    }
    told.sort();
    assert_eq!(told, expected);
    let more = receiver.names();
    assert!(more.iter().all(|name| name == "subscription_count"), "{more:?}");
}

/// What an endpoint is told: of everybody once, and of no move.
fn expected_webhooks() -> Vec<(String, String)> {
    let channels = CHANNELS.iter().chain([&ROOM]).flat_map(|channel| {
        ["channel_occupied", "channel_vacated"].map(|name| (name.to_owned(), (*channel).to_owned()))
    });
    let members = (0..MEMBERS).flat_map(|number| {
        ["member_added", "member_removed"].map(|name| (name.to_owned(), format!("{ROOM} {}", user(number))))
    });
    let mut expected: Vec<_> = channels.chain(members).collect();
    expected.sort();
    expected
}

fn user(number: usize) -> String {
    format!("u{number:02}")
}

#[tokio::test]
async fn a_node_lets_nobody_in_before_it_gets_events() {
    let redis = RedisServer::start().await;
    let old = node(&redis, &[]).await;
    // Far from Redis, it takes a while to get there.
    let proxy = Proxy::start(redis.address(), Duration::from_millis(150));
    let new = node_at(&format!("redis://{}", proxy.address()), &[]).await;
    let mut client = new.connect().await;
    client.subscribe("news").await;
    old.api().await.trigger("news", "hello", "world").await;
    assert_eq!(client.next_event().await.data, "world");
}

/// Lets other tasks of the test run.
async fn yield_briefly<T>(value: T) -> T {
    sleep(Duration::from_millis(5)).await;
    value
}
