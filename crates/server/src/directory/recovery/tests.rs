//! A model of clients that lose their connections anywhere, against the real connection state, directory and rings. No sockets.
//!
//! The invariant: a client has, in order and once, what was published since it subscribed, or it was told that it has not.

use std::{
    collections::{HashSet, VecDeque},
    fs,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use fanfare_protocol::{SocketId, json::EventData};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use super::{RecoverySetup, Rings, saved};
use crate::{
    admission::Admitted,
    app::{App, AppStore, Source},
    broker::{AnyBroker, Local, Progress},
    config::{AppConfig, BrokerDriver, Config, HistoryConfig, MetricsConfig, RecoveryChannelConfig, WebhooksConfig},
    connection::State,
    directory::Publication,
    frame::Frame,
    metrics::Metrics,
    timing::{moved::advance, now},
    webhook::Webhooks,
    worker::{Address, Command, ConnectionId, Inbox, Pressure},
};

const WINDOW: Duration = Duration::from_secs(10);

/// A node without workers: tests take the commands out of its inbox themselves.
struct Node {
    apps: AppStore,
    app: Arc<App>,
    inbox: Arc<Inbox>,
    rings: Arc<Rings>,
    sockets: u32,
}

impl Node {
    fn start(webhooks: &Webhooks, change: impl FnOnce(&mut Config)) -> Self {
        let app = AppConfig { subscription_count: false, ..AppConfig::demo() };
        let mut config = Config { apps: vec![app], ..Config::default() };
        config.recovery.window = WINDOW;
        change(&mut config);
        let shared = config.broker.driver == BrokerDriver::Redis;
        let progress = shared.then(|| Arc::new(Progress::new()));
        let recovery = Arc::new(RecoverySetup::new(&config, progress));
        let rings = Arc::clone(&recovery.rings);
        let broker: AnyBroker = Arc::new(Local);
        let metrics = Arc::new(Metrics::new(MetricsConfig::default(), 0));
        let apps = AppStore::new(&config.server, &recovery, webhooks, &metrics, &broker);
        assert!(apps.update(Source::File, config.apps, &[]).errors.is_empty());
        let app = apps.by_id("app-id").unwrap();
        Self { apps, app, inbox: Arc::new(Inbox::new(0, Arc::new(Pressure::new(usize::MAX)))), rings, sockets: 0 }
    }

    fn publish(&self, channel: &str, data: usize, except: Option<SocketId>) {
        let data = EventData::from_text(&data.to_string());
        let since = tokio::time::Instant::now();
        self.app.directory.publish(&Publication { channel, event: "numbered", data: &data, except, since });
    }

    fn connect(&mut self) -> Connection {
        self.sockets += 1;
        let socket_id = SocketId::from_random(7, self.sockets);
        let id = ConnectionId { worker: 0, slot: self.sockets, generation: self.sockets };
        assert_eq!(self.app.connected(0), Ok(()));
        let address = Address { inbox: Arc::clone(&self.inbox), connection: id };
        Connection {
            socket_id,
            id,
            state: State::new(Admitted { app: Arc::clone(&self.app), caller: None, secure: false }, socket_id, address),
            earlier: None,
            channels: HashSet::new(),
            wire: VecDeque::new(),
        }
    }

    /// Does what a worker does: queues frames for its connections.
    fn deliver(&self, connections: &mut [&mut Connection]) {
        let mut commands = VecDeque::new();
        let _ = self.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut commands);
        for command in commands {
            for connection in connections.iter_mut() {
                connection.take(&command);
            }
        }
    }
}

/// A connection as its worker has it, and what it has not read yet.
struct Connection {
    socket_id: SocketId,
    id: ConnectionId,
    state: State,
    earlier: Option<Vec<SocketId>>,
    channels: HashSet<crate::directory::ChannelId>,
    wire: VecDeque<Frame>,
}

impl Connection {
    fn send(&mut self, frame: &Value) {
        self.state.on_message(frame.to_string().as_bytes(), now());
    }

    fn subscribe(&mut self, channel: &str) {
        self.send(&json!({"event": "pusher:subscribe", "data": {"channel": channel}}));
    }

    fn recover(&mut self, from: &Value, sockets: &[SocketId]) {
        let sockets: Vec<_> = sockets.iter().map(ToString::to_string).collect();
        self.send(&json!({"event": "fanfare:recover", "data": {"from": from, "sockets": sockets}}));
    }

    fn take(&mut self, command: &Command) {
        match command {
            Command::OptIn { connection, sockets } if *connection == self.id => self.earlier = Some(sockets.to_vec()),
            Command::Subscribe { connection, channel, frames } if *connection == self.id => {
                self.wire.extend(frames.iter().cloned());
                self.channels.insert(*channel);
            }
            Command::Unsubscribe { connection, channel } if *connection == self.id => {
                self.channels.remove(channel);
            }
            Command::Send { connection, frame } if *connection == self.id => self.wire.push_back(frame.clone()),
            Command::Deliver { channel, frame, positioned, except, .. } if self.channels.contains(channel) => {
                let mine = |socket: SocketId| {
                    let earlier = self.earlier.as_ref().filter(|_| positioned.is_some());
                    socket == self.socket_id || earlier.is_some_and(|earlier| earlier.contains(&socket))
                };
                if !except.is_some_and(mine) {
                    let positioned = positioned.as_ref().filter(|_| self.earlier.is_some());
                    self.wire.push_back(positioned.unwrap_or(frame).clone());
                }
            }
            _ => {}
        }
    }

    /// Takes the next frame off the wire.
    fn read(&mut self) -> Option<Value> {
        self.wire.pop_front().map(|frame| serde_json::from_slice(frame.json()).unwrap())
    }

    /// The frames on the wire, in short: `name data position`.
    fn read_all(&mut self) -> Vec<String> {
        let short = |frame: Value| {
            let name = frame["event"].as_str().unwrap().replace("pusher_internal:", "").replace("pusher:", "");
            let position = frame["user_id"][0].as_str().map(|text| text.split_once('.').unwrap());
            let position = position.map_or(String::new(), |(epoch, number)| match epoch {
                "AAAAAAAAAAA" => " none".to_owned(),
                _ => format!(" @{number}"),
            });
            format!("{name} {}{position}", frame["data"].as_str().unwrap_or("-"))
        };
        std::iter::from_fn(|| self.read()).map(short).collect()
    }
}

/// The position in a frame.
fn position(frame: &Value) -> String {
    frame["user_id"][0].as_str().unwrap_or_else(|| panic!("no position: {frame}")).to_owned()
}

/// The webhooks that apps need, which nobody asked for, and what they run on.
fn webhooks() -> (tokio::runtime::Runtime, Webhooks) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = Arc::new(Metrics::new(MetricsConfig::default(), 0));
    let webhooks = runtime.block_on(async { Webhooks::start(WebhooksConfig::default(), &metrics) });
    (runtime, webhooks)
}

fn numbered(numbers: std::ops::RangeInclusive<usize>) -> Vec<String> {
    numbers.map(|number| format!("numbered {number} @{number}")).collect()
}

fn verdict(recovered: bool, count: usize, position: &str) -> String {
    format!("recovery {{\"recovered\":{recovered},\"count\":{count}}} {position}")
}

/// Runs a scenario on a node with this configuration.
fn scenario(change: impl FnOnce(&mut Config), run: impl FnOnce(Scenario)) {
    let (_runtime, webhooks) = webhooks();
    run(Scenario { node: Node::start(&webhooks, change) });
}

struct Scenario {
    node: Node,
}

impl Scenario {
    /// A client that opted in, with where it wants to go on.
    fn client(&mut self, from: &Value) -> Connection {
        let mut connection = self.node.connect();
        connection.recover(from, &[]);
        connection
    }

    /// A subscriber that opted in, and the position it has.
    fn subscriber(&mut self, channel: &str) -> (Connection, String) {
        let mut connection = self.client(&json!({}));
        connection.subscribe(channel);
        self.node.deliver(&mut [&mut connection]);
        let position = position(&connection.read().unwrap());
        (connection, position)
    }

    /// What a client gets that comes back to a channel.
    fn come_back(&mut self, channel: &str, from: &Value) -> Vec<String> {
        let mut connection = self.client(&json!({channel: from}));
        connection.subscribe(channel);
        self.frames(&mut connection)
    }

    fn frames(&self, connection: &mut Connection) -> Vec<String> {
        self.node.deliver(&mut [connection]);
        connection.read_all()
    }

    fn publish(&self, channel: &str, numbers: std::ops::RangeInclusive<usize>) {
        numbers.for_each(|number| self.node.publish(channel, number, None));
    }

    fn wait(&self, time: Duration) {
        advance(time);
        self.node.app.directory.tick(now());
    }
}

fn channel(pattern: &str, window: Option<Duration>, history: HistoryConfig) -> Vec<RecoveryChannelConfig> {
    vec![RecoveryChannelConfig { pattern: pattern.to_owned(), window, history }]
}

fn succeeded(position: &str) -> String {
    format!("subscription_succeeded {{}} {position}").trim_end().to_owned()
}

#[test]
fn who_comes_back_gets_what_it_missed_between_its_success_and_the_verdict() {
    scenario(
        |_| {},
        |mut test| {
            let (mut first, start) = test.subscriber("orders");
            test.publish("orders", 1..=2);
            assert_eq!(test.frames(&mut first), numbered(1..=2));
            let expected = [vec![succeeded("@0")], numbered(1..=2), vec![verdict(true, 2, "@2")]].concat();
            assert_eq!(test.come_back("orders", &json!(start)), expected);
            drop(first);
            test.publish("orders", 3..=3);
            let third = start.replace(".0", ".2");
            let expected = [vec![succeeded("@2")], numbered(3..=3), vec![verdict(true, 1, "@3")]].concat();
            assert_eq!(test.come_back("orders", &json!(third)), expected);
            assert_eq!(
                test.come_back("orders", &json!(start.replace(".0", ".3"))),
                [succeeded("@3"), verdict(true, 0, "@3")]
            );
            assert_eq!(
                test.come_back("orders", &json!(start.replace(".0", ".4"))),
                [succeeded("@4"), verdict(false, 0, "@3")],
                "an event that was never there"
            );
        },
    );
}

#[test]
fn who_did_not_ask_sees_nothing_of_it() {
    scenario(
        |_| {},
        |mut test| {
            let (mut asked, mut stock) = (test.client(&json!({})), test.node.connect());
            for connection in [&mut asked, &mut stock] {
                connection.subscribe("orders");
            }
            test.publish("orders", 1..=1);
            test.node.deliver(&mut [&mut asked, &mut stock]);
            assert_eq!(asked.read_all(), [succeeded("@0"), "numbered 1 @1".to_owned()]);
            let texts: Vec<_> = stock.wire.iter().map(|frame| std::str::from_utf8(frame.json()).unwrap()).collect();
            assert_eq!(
                texts,
                [
                    r#"{"event":"pusher_internal:subscription_succeeded","channel":"orders","data":"{}"}"#,
                    r#"{"event":"numbered","channel":"orders","data":"1"}"#
                ]
            );
        },
    );
}

#[test]
fn a_gap_of_any_kind_is_told_and_nothing_is_replayed() {
    let lost = |test: &mut Scenario, start: &str, position: &str| {
        assert_eq!(test.come_back("orders", &json!(start)), [succeeded("@0"), verdict(false, 0, position)]);
        let newest = start.replace(".0", &position.replace('@', "."));
        let expected = [succeeded(position), verdict(true, 0, position)];
        assert_eq!(test.come_back("orders", &json!(newest)), expected, "the next time it is there again");
    };
    scenario(
        |config| config.recovery.max_events = 2,
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=3);
            lost(&mut test, &start, "@3");
        },
    );
    scenario(
        |config| config.recovery.max_bytes = 400,
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=3);
            lost(&mut test, &start, "@3");
        },
    );
    scenario(
        |config| config.recovery.max_replay_bytes = 400,
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=3);
            lost(&mut test, &start, "@3");
        },
    );
    scenario(
        |config| config.server.max_outbox_bytes = 800,
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=3);
            lost(&mut test, &start, "@3");
        },
    );
    scenario(
        |_| {},
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=1);
            // Nothing has looked at it since: age counts when somebody asks.
            advance(WINDOW);
            lost(&mut test, &start, "@1");
        },
    );
    scenario(
        |config| config.recovery.max_total_bytes = 1_000,
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            let (_second, other) = test.subscriber("others");
            test.publish("orders", 1..=2);
            advance(Duration::from_secs(1));
            test.publish("others", 1..=5);
            assert!(test.node.rings.bytes() <= 1_000);
            lost(&mut test, &start, "@2");
            assert_eq!(test.come_back("others", &json!(other)).len(), 7, "the oldest go first, whatever their channel");
        },
    );
}

#[test]
fn a_client_may_get_only_so_much_at_once() {
    const CHANNELS: [&str; 5] = ["a", "b", "c", "d", "e"];
    scenario(
        |config| config.server.max_outbox_bytes = 800,
        |mut test| {
            let subscribers = CHANNELS.map(|channel| test.subscriber(channel));
            let from: Value = CHANNELS.into_iter().zip(subscribers.iter().map(|(_, start)| json!(start))).collect();
            CHANNELS.iter().for_each(|channel| test.publish(channel, 1..=2));
            let mut client = test.client(&from);
            CHANNELS.iter().for_each(|channel| client.subscribe(channel));
            let frames = test.frames(&mut client);
            let verdicts: Vec<_> = frames.into_iter().filter(|frame| frame.starts_with("rec")).collect();
            assert_eq!(verdicts[..4], [const { String::new() }; 4].map(|_| verdict(true, 2, "@2")));
            assert_eq!(verdicts[4..], [verdict(false, 0, "@2")]);
        },
    );
}

#[test]
fn an_epoch_is_never_used_again() {
    scenario(
        |_| {},
        |mut test| {
            let (first, start) = test.subscriber("orders");
            drop(first);
            test.wait(WINDOW - Duration::from_secs(1));
            assert_eq!(test.come_back("orders", &json!(start)), [succeeded("@0"), verdict(true, 0, "@0")]);
            test.wait(WINDOW);
            let frames = test.come_back("orders", &json!(start));
            assert_eq!(frames, [succeeded("@0"), verdict(false, 0, "@0")]);
            let (_second, later) = test.subscriber("orders");
            assert_ne!(start, later);
        },
    );
}

#[test]
fn a_ring_ends_a_window_after_the_last_who_asked_whoever_else_is_there() {
    scenario(
        |_| {},
        |mut test| {
            let (first, start) = test.subscriber("orders");
            let mut stock = test.node.connect();
            stock.subscribe("orders");
            drop(first);
            for number in 1..=12 {
                test.wait(Duration::from_secs(1));
                test.publish("orders", number..=number);
            }
            assert_eq!(test.node.rings.bytes(), 0);
            assert_eq!(test.come_back("orders", &json!(start)), [succeeded("@0"), verdict(false, 0, "@0")]);
        },
    );
}

#[test]
fn what_excluded_one_of_a_clients_sockets_does_not_come_back_to_it() {
    scenario(
        |_| {},
        |mut test| {
            let (first, start) = test.subscriber("orders");
            let old = first.socket_id;
            test.node.publish("orders", 1, Some(old));
            test.publish("orders", 2..=2);
            test.node.publish("orders", 3, Some(old));
            let mut second = test.node.connect();
            second.recover(&json!({"orders": start}), &[old]);
            second.subscribe("orders");
            // A request of before the drop arrives only now.
            test.node.publish("orders", 4, Some(old));
            test.publish("orders", 5..=5);
            assert_eq!(
                test.frames(&mut second),
                [succeeded("@0"), "numbered 2 @2".to_owned(), verdict(true, 1, "@3"), "numbered 5 @5".to_owned()]
            );
            let mut third = test.node.connect();
            third.recover(&json!({"orders": start}), &[second.socket_id, old]);
            third.subscribe("orders");
            assert_eq!(test.frames(&mut third)[1..3], ["numbered 2 @2", "numbered 5 @5"]);
            assert_eq!(test.come_back("orders", &json!(start)).len(), 7, "others get them all");
        },
    );
}

#[test]
fn who_asks_after_it_subscribed_gets_things_in_order_or_is_told() {
    scenario(
        |_| {},
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=2);
            let mut late = test.node.connect();
            late.subscribe("orders");
            late.recover(&json!({"orders": start}), &[]);
            let expected = [vec![succeeded("")], numbered(1..=2), vec![verdict(true, 2, "@2")]].concat();
            assert_eq!(test.frames(&mut late), expected);
            // Answered once.
            late.recover(&json!({"orders": start}), &[]);
            assert_eq!(test.frames(&mut late), [""; 0]);

            let mut disturbed = test.node.connect();
            disturbed.subscribe("orders");
            test.publish("orders", 3..=3);
            disturbed.recover(&json!({"orders": start}), &[]);
            test.publish("orders", 4..=4);
            assert_eq!(
                test.frames(&mut disturbed),
                [succeeded(""), "numbered 3".to_owned(), verdict(false, 0, "@3"), "numbered 4 @4".to_owned()]
            );
            let mut attached = test.node.connect();
            attached.subscribe("orders");
            attached.recover(&json!({}), &[]);
            assert_eq!(test.frames(&mut attached), [succeeded(""), "position {} @4".to_owned()]);
        },
    );
}

#[test]
fn a_position_is_used_once_and_forgotten_with_its_subscription() {
    scenario(
        |_| {},
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            test.publish("orders", 1..=1);
            let mut client = test.client(&json!({"orders": start, "private-x": "?"}));
            client.subscribe("orders");
            client.send(&json!({"event": "pusher:unsubscribe", "data": {"channel": "orders"}}));
            client.subscribe("orders");
            let expected =
                [vec![succeeded("@0")], numbered(1..=1), vec![verdict(true, 1, "@1"), succeeded("@1")]].concat();
            assert_eq!(test.frames(&mut client), expected);
            client.subscribe("private-x");
            let refused = test.frames(&mut client);
            assert!(refused.iter().any(|frame| frame.starts_with("subscription_error")), "{refused:?}");
            assert!(!refused.iter().any(|frame| frame.starts_with("recovery")), "{refused:?}");
        },
    );
}

#[test]
fn positions_that_make_no_sense_are_a_gap_and_no_error() {
    scenario(
        |_| {},
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            let (_other, foreign) = test.subscriber("others");
            for from in [json!("x"), json!(7), json!(null), json!({"last": 3}), json!("A".repeat(65)), json!(["a"])] {
                assert_eq!(test.come_back("orders", &from), [succeeded("none"), verdict(false, 0, "@0")]);
            }
            assert_eq!(test.come_back("orders", &json!(foreign)), [succeeded("@0"), verdict(false, 0, "@0")]);
            assert_eq!(test.come_back("orders", &json!(start)), [succeeded("@0"), verdict(true, 0, "@0")]);
        },
    );
}

#[test]
fn names_that_no_channel_can_have_are_not_remembered() {
    scenario(
        |config| config.apps[0].max_channels_per_connection = 2,
        |mut test| {
            let name = |number| format!("{number}{}", "x".repeat(300));
            let mut client = test.client(&json!({"orders": "?"}));
            for number in 0..3 {
                client.recover(&json!({name(number): "?"}), &[]);
            }
            client.recover(&json!({"others": "?"}), &[]);
            ["orders", "others", "third"].iter().for_each(|channel| client.subscribe(channel));
            let verdicts = test.frames(&mut client).iter().filter(|frame| frame.starts_with("recovery")).count();
            assert_eq!(verdicts, 2, "the third channel was not asked for");
        },
    );
}

#[test]
fn a_channel_that_keeps_nothing_says_so_to_who_asks() {
    let window = Some(Duration::ZERO);
    scenario(
        |config| config.recovery.channels = channel("or*", window, HistoryConfig::default()),
        |mut test| {
            assert_eq!(test.come_back("orders", &json!("?")), [succeeded(""), verdict(false, 0, "none")]);
            let mut client = test.client(&json!({}));
            client.subscribe("orders");
            test.publish("orders", 1..=1);
            assert_eq!(test.frames(&mut client), [succeeded(""), "numbered 1".to_owned()]);
            assert_eq!(test.node.rings.bytes(), 0);
        },
    );
}

#[test]
fn a_history_is_given_to_who_may_ask_for_it() {
    let history = HistoryConfig { last: 2, on_subscribe: 0, private: false };
    scenario(
        |config| config.recovery.channels = channel("*feed", None, history),
        |mut test| {
            // Nobody is there.
            test.publish("feed", 1..=3);
            let expected = [vec![succeeded("@1")], numbered(2..=3), vec![verdict(true, 2, "@3")]].concat();
            assert_eq!(test.come_back("feed", &json!({"last": 20})), expected);
            assert_eq!(
                test.come_back("feed", &json!({"last": 1})),
                [succeeded("@2"), "numbered 3 @3".to_owned(), verdict(true, 1, "@3")]
            );
            test.publish("other", 1..=3);
            assert_eq!(test.come_back("other", &json!({"last": 1})), [succeeded("none"), verdict(false, 0, "@0")]);
            let mut client = test.node.connect();
            client.recover(&json!({"private-feed": {"last": 1}}), &[]);
            let text = format!("{}:private-feed", client.socket_id);
            let signature = test.node.app.policy().signer("app-key").unwrap().sign(&[text.as_bytes()]);
            let data = json!({"channel": "private-feed", "auth": format!("app-key:{signature}")});
            client.send(&json!({"event": "pusher:subscribe", "data": data}));
            assert_eq!(test.frames(&mut client), [succeeded("none"), verdict(false, 0, "@0")]);
        },
    );
}

#[test]
fn a_history_for_everybody_comes_behind_the_success_as_it_was_published() {
    let history = HistoryConfig { last: 0, on_subscribe: 2, private: false };
    scenario(
        |config| config.recovery.channels = channel("prices", None, history),
        |mut test| {
            test.publish("prices", 1..=3);
            let mut stock = test.node.connect();
            stock.subscribe("prices");
            assert_eq!(test.frames(&mut stock), [succeeded(""), "numbered 2".to_owned(), "numbered 3".to_owned()]);
            let (mut asked, start) = test.subscriber("prices");
            assert!(start.ends_with(".1"), "{start}");
            assert_eq!(asked.read_all(), numbered(2..=3));
            let newest = start.replace(".1", ".3");
            let expected = [succeeded("@3"), verdict(true, 0, "@3")];
            assert_eq!(test.come_back("prices", &json!(newest)), expected, "who comes back has it");
            test.wait(WINDOW);
            assert_eq!(test.node.rings.bytes(), 0);
        },
    );
}

#[test]
fn another_process_goes_on_with_what_this_one_saved() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rings");
    let (_runtime, webhooks) = webhooks();
    let mut test = Scenario { node: Node::start(&webhooks, |_| {}) };
    let (first, start) = test.subscriber("orders");
    test.node.publish("orders", 1, Some(first.socket_id));
    test.publish("orders", 2..=2);
    let (_, quiet) = test.subscriber("quiet");
    assert_eq!(saved::save(&file, &test.node.apps).unwrap(), 2);

    // Socket ids are random, and never the same again.
    let mut next = Scenario { node: Node::start(&webhooks, |_| {}) };
    next.node.sockets = 1_000;
    assert_eq!(saved::load(&file, &next.node.apps).unwrap(), 2);
    let expected = [vec![succeeded("@0")], numbered(1..=2), vec![verdict(true, 2, "@2")]].concat();
    assert_eq!(next.come_back("orders", &json!(start)), expected);
    let mut owner = next.node.connect();
    owner.recover(&json!({"orders": start}), &[first.socket_id]);
    owner.subscribe("orders");
    next.publish("orders", 3..=3);
    let expected = [vec![succeeded("@0")], numbered(2..=2), vec![verdict(true, 1, "@2")], numbered(3..=3)].concat();
    assert_eq!(next.frames(&mut owner), expected);
    assert_eq!(next.come_back("quiet", &json!(quiet)), [succeeded("@0"), verdict(true, 0, "@0")]);

    let mut crashed = Scenario { node: Node::start(&webhooks, |_| {}) };
    assert_eq!(saved::load(&file, &crashed.node.apps).unwrap(), 0, "the file is used once");
    assert_eq!(crashed.come_back("orders", &json!(start)), [succeeded("@0"), verdict(false, 0, "@0")]);
}

#[test]
fn what_is_no_file_of_ours_is_refused_and_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rings");
    let (_runtime, webhooks) = webhooks();
    let Node { apps, .. } = Node::start(&webhooks, |_| {});
    assert_eq!(saved::load(&path, &apps).unwrap(), 0);
    for text in ["", "{}", "{\"fanfare_rings\":2,\"saved_at_ms\":0}", "{\"fanfare_rings\":1,\"saved_at_ms\":0}\nx"] {
        fs::write(&path, text).unwrap();
        assert!(saved::load(&path, &apps).is_err(), "{text}");
        assert!(!path.exists());
    }
    assert_eq!(saved::save(&path, &apps).unwrap(), 0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(saved::load(&path, &apps).unwrap(), 0);
    assert!(!path.exists());
    assert!(saved::save(&directory.path().join("missing/rings"), &apps).is_err());
    assert!(saved::load(&directory.path().join("missing/rings"), &apps).is_err(), "it is told at the start");
}

#[test]
fn numbers_that_no_ring_has_begin_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rings");
    let (_runtime, webhooks) = webhooks();
    let mut test = Scenario { node: Node::start(&webhooks, |_| {}) };
    let (_first, start) = test.subscriber("orders");
    test.publish("orders", 1..=2);
    saved::save(&file, &test.node.apps).unwrap();
    let saved = fs::read_to_string(&file).unwrap();
    let position = |number: &str| format!("\"position\":\"{}\"", start.replace(".0", number));
    for number in [".1", ".18446744073709551615"] {
        fs::write(&file, saved.replace(&position(".2"), &position(number))).unwrap();
        let mut next = Scenario { node: Node::start(&webhooks, |_| {}) };
        assert_eq!(saved::load(&file, &next.node.apps).unwrap(), 0, "{number}");
        assert_eq!(next.come_back("orders", &json!(start)), [succeeded("@0"), verdict(false, 0, "@0")]);
    }
}

#[test]
fn a_changed_app_keeps_what_it_says_from_the_next_subscription_on() {
    scenario(
        |_| {},
        |mut test| {
            let (_first, start) = test.subscriber("orders");
            let mut app = AppConfig { subscription_count: false, ..AppConfig::demo() };
            app.recovery.max_events = Some(1);
            test.node.apps.update(Source::File, vec![app.clone()], &[]);
            let (_second, _) = test.subscriber("orders");
            test.publish("orders", 1..=2);
            assert_eq!(test.come_back("orders", &json!(start)), [succeeded("@0"), verdict(false, 0, "@2")]);
            app.recovery.enabled = Some(false);
            test.node.apps.update(Source::File, vec![app], &[]);
            assert_eq!(test.come_back("orders", &json!(start)), [succeeded(""), verdict(false, 0, "none")]);
            assert_eq!(test.node.rings.bytes(), 0);
        },
    );
}

#[test]
fn while_nothing_is_sure_every_question_is_answered_with_a_gap() {
    scenario(
        |config| config.broker.driver = BrokerDriver::Redis,
        |mut test| {
            assert_eq!(test.come_back("orders", &json!("x")), [succeeded("none"), verdict(false, 0, "none")]);
            let mut client = test.client(&json!({}));
            client.subscribe("orders");
            assert_eq!(test.frames(&mut client), [succeeded("none")], "with this it comes back, and hears of a gap");
        },
    );
}

#[test]
fn a_cached_event_is_for_who_does_not_have_it() {
    scenario(
        |_| {},
        |mut test| {
            let (mut first, start) = test.subscriber("cache-price");
            assert_eq!(first.read_all(), ["cache_miss {}"]);
            test.publish("cache-price", 1..=1);
            let expected = [vec![succeeded("@0")], numbered(1..=1), vec![verdict(true, 1, "@1")]].concat();
            assert_eq!(test.come_back("cache-price", &json!(start)), expected);
            let newest = start.replace(".0", ".1");
            assert_eq!(test.come_back("cache-price", &json!(newest)), [succeeded("@1"), verdict(true, 0, "@1")]);
            assert_eq!(
                test.come_back("cache-price", &json!("?")),
                [succeeded("none"), "numbered 1".to_owned(), verdict(false, 0, "@1")]
            );
            let mut fresh = test.client(&json!({}));
            fresh.subscribe("cache-price");
            let frames = test.frames(&mut fresh);
            assert_eq!(frames, [succeeded("none"), "numbered 1 @1".to_owned()], "cut in between, it has to hear of it");
        },
    );
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        channel: usize,
        except: Option<usize>,
    },
    /// A client reads some of what was sent to it.
    Read {
        client: usize,
        frames: usize,
    },
    /// A client's connection is cut, with whatever it has not read, and it comes back. `late`: without saying yet where it was.
    Cut {
        client: usize,
        late: bool,
        old_stays: bool,
    },
    /// A client that came back says where it was.
    Ask {
        client: usize,
    },
    /// A client leaves a channel and joins it again on the same connection.
    Rejoin {
        client: usize,
        channel: usize,
    },
    Wait {
        seconds: u64,
    },
}

const CHANNELS: [&str; 3] = ["orders", "cache-price", "short"];
const CLIENTS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        8 => (0..CHANNELS.len(), proptest::option::weighted(0.2, client.clone()))
            .prop_map(|(channel, except)| Step::Publish { channel, except }),
        4 => (client.clone(), 0..9_usize).prop_map(|(client, frames)| Step::Read { client, frames }),
        3 => (client.clone(), proptest::bool::weighted(0.2), any::<bool>())
            .prop_map(|(client, late, old_stays)| Step::Cut { client, late, old_stays }),
        2 => client.clone().prop_map(|client| Step::Ask { client }),
        1 => (client, 0..CHANNELS.len()).prop_map(|(client, channel)| Step::Rejoin { client, channel }),
        1 => (0..15_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A client with the companion's logic, and what it should have.
struct Client {
    connection: Connection,
    /// A half-open connection of before, which the server has not missed yet.
    old: Option<Connection>,
    channels: [Watched; CHANNELS.len()],
    /// As the companion tells them: the latest first, the current one not among them.
    earlier: Vec<SocketId>,
    all: HashSet<SocketId>,
    /// It has not said yet where it was.
    silent: bool,
}

#[derive(Default)]
struct Watched {
    position: Option<String>,
    /// The next event the client should get, as an index into what was published.
    next: usize,
    /// The subscription.
    began: Option<Began>,
}

struct Began {
    /// Events there were before it; with those that came live, while the client's position waits for its answer.
    published: usize,
    /// Whether a position waits for its answer.
    asked: bool,
}

impl Client {
    fn new(node: &mut Node, published: &[Vec<Option<SocketId>>]) -> Self {
        let connection = node.connect();
        let all = HashSet::from([connection.socket_id]);
        let mut client =
            Self { connection, old: None, channels: Default::default(), earlier: Vec::new(), all, silent: false };
        client.connection.recover(&json!({}), &[]);
        for channel in 0..CHANNELS.len() {
            client.subscribe(channel, published);
        }
        client
    }

    fn subscribe(&mut self, channel: usize, published: &[Vec<Option<SocketId>>]) {
        let watched = &mut self.channels[channel];
        let asked = watched.position.is_some();
        watched.began = Some(Began { published: published[channel].len(), asked });
        self.connection.subscribe(CHANNELS[channel]);
    }

    fn come_back(&mut self, node: &mut Node, published: &[Vec<Option<SocketId>>], late: bool, old_stays: bool) {
        self.earlier.insert(0, self.connection.socket_id);
        self.earlier.truncate(4);
        let old = std::mem::replace(&mut self.connection, node.connect());
        self.old = Some(old).filter(|_| old_stays);
        self.all.insert(self.connection.socket_id);
        self.silent = true;
        if !late {
            self.ask();
        }
        for channel in 0..CHANNELS.len() {
            self.channels[channel].began = None;
            self.subscribe(channel, published);
        }
    }

    fn ask(&mut self) {
        if std::mem::take(&mut self.silent) {
            let from = self.channels.iter().zip(CHANNELS);
            let from = from.filter_map(|(watched, name)| Some((name, json!(watched.position.clone()?)))).collect();
            self.connection.recover(&from, &self.earlier);
        }
    }

    /// Reads one frame as the companion does, and checks it.
    fn read(&mut self, published: &[Vec<Option<SocketId>>]) -> bool {
        let Some(frame) = self.connection.read() else { return false };
        let channel = frame["channel"].as_str().and_then(|name| CHANNELS.iter().position(|known| *known == name));
        let Some(channel) = channel else { return true };
        let (watched, log) = (&mut self.channels[channel], &published[channel]);
        if frame["user_id"].is_array() {
            watched.position = Some(position(&frame));
        }
        let began = watched.began.as_mut().unwrap();
        let document = || serde_json::from_str::<Value>(frame["data"].as_str().unwrap()).unwrap();
        match frame["event"].as_str().unwrap() {
            "pusher_internal:subscription_succeeded" if !began.asked => {
                // A cache channel's last event is for everybody who comes.
                let cached = usize::from(CHANNELS[channel].starts_with("cache-") && began.published > 0);
                watched.next = began.published - cached;
            }
            "pusher_internal:recovery" => {
                assert!(began.asked, "a verdict that nobody asked for");
                began.asked = false;
                let verdict = document();
                if verdict["recovered"] == json!(false) {
                    assert_eq!(verdict["count"], 0);
                    watched.next = began.published;
                }
            }
            "numbered" => {
                let number: usize = frame["data"].as_str().unwrap().parse().unwrap();
                let own = |number: usize| log[number].is_some_and(|except| self.all.contains(&except));
                let expected = (watched.next..number).all(own) && watched.next <= number;
                if expected {
                    watched.next = number + 1;
                } else {
                    let live_or_cached = number + 1 >= began.published;
                    assert!(began.asked && live_or_cached, "{number} instead of {}", watched.next);
                }
                began.published = began.published.max(number + 1);
                // Came before the server knew that this client wants positions: it must not go on from an older one.
                if !frame["user_id"].is_array() && watched.position.is_some() {
                    watched.position = Some("passed".to_owned());
                }
            }
            _ => {}
        }
        true
    }
}

fn run(webhooks: &Webhooks, steps: Vec<Step>) {
    let mut node = Node::start(webhooks, |config| {
        config.apps[0].cache_ttl = Duration::from_secs(24 * 60 * 60);
        config.recovery.max_events = 4;
        config.recovery.max_total_bytes = 1_800;
        config.recovery.channels = vec![RecoveryChannelConfig {
            pattern: "short".to_owned(),
            window: Some(Duration::from_secs(2)),
            history: HistoryConfig::default(),
        }];
    });
    let mut published: Vec<Vec<Option<SocketId>>> = vec![Vec::new(); CHANNELS.len()];
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(&mut node, &published)).collect();
    for step in steps {
        match step {
            Step::Publish { channel, except } => {
                let except = except.map(|client| {
                    let client = &clients[client];
                    client.earlier.first().copied().unwrap_or(client.connection.socket_id)
                });
                node.publish(CHANNELS[channel], published[channel].len(), except);
                published[channel].push(except);
            }
            Step::Read { client, frames } => {
                let _ = (0..frames).all(|_| clients[client].read(&published));
            }
            Step::Cut { client, late, old_stays } => clients[client].come_back(&mut node, &published, late, old_stays),
            Step::Ask { client } => clients[client].ask(),
            Step::Rejoin { client, channel } => {
                let client = &mut clients[client];
                // The page drops its channel object, and reads what is on the wire before it is on it again.
                while client.read(&published) {}
                client.connection.send(&json!({"event": "pusher:unsubscribe", "data": {"channel": CHANNELS[channel]}}));
                client.channels[channel] = Watched::default();
                client.subscribe(channel, &published);
            }
            Step::Wait { seconds } => {
                advance(Duration::from_secs(seconds));
                node.app.directory.tick(now());
            }
        }
        let mut connections: Vec<_> = clients.iter_mut().map(|client| &mut client.connection).collect();
        node.deliver(&mut connections);
        assert!(node.rings.bytes() <= 1_800, "the node's bound");
    }
    clients.iter_mut().for_each(Client::ask);
    node.deliver(&mut clients.iter_mut().map(|client| &mut client.connection).collect::<Vec<_>>());
    for client in &mut clients {
        while client.read(&published) {}
        for (watched, log) in client.channels.iter().zip(&published) {
            let rest = log.get(watched.next..).unwrap_or_default();
            let own = |except: &Option<SocketId>| except.is_some_and(|except| client.all.contains(&except));
            assert!(rest.iter().all(own), "{} of {} arrived", watched.next, log.len());
            assert!(!watched.began.as_ref().unwrap().asked, "a position without an answer");
        }
    }
    drop(clients);
    // Nothing is left behind when nobody asks any more.
    advance(WINDOW * 2);
    for _ in 0..3 {
        node.app.directory.tick(now());
        advance(WINDOW);
    }
    assert_eq!(node.rings.bytes(), 0);
    assert!(node.rings.oldest_age(now()).is_none());
}

#[test]
fn a_client_has_what_was_published_or_was_told_that_it_has_not() {
    let (_runtime, webhooks) = webhooks();
    let config = proptest::test_runner::Config { failure_persistence: None, ..Default::default() };
    let result = TestRunner::new(config).run(&vec(step(), 1..80), |steps| {
        run(&webhooks, steps);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
