//! What every fault has to leave whole beside the events: members, as everybody sees them, and what an endpoint is told.

use std::{collections::BTreeMap, time::Duration};

use fanfare_tests::{Client, DEADLINE, Node, RedisServer, WebhookReceiver, eventually};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Cluster, follow};

/// Where they are members.
const ROOM: &str = "presence-witnesses";

/// How long an endpoint is watched for what it should not be told: longer than anything is held back or looked at.
const QUIET: Duration = Duration::from_secs(1);

/// Members of one channel, and the endpoint that is told of them. Events and their subscribers are the scenario's.
pub(crate) struct Witnesses {
    receiver: WebhookReceiver,
    /// By user: where it is, and whom it takes for a member.
    members: BTreeMap<String, Member>,
    /// What the endpoint has to be told, each once.
    expected: Vec<(String, String)>,
}

struct Member {
    client: Client,
    view: Vec<String>,
}

impl Witnesses {
    /// Nodes with an endpoint that is told at once.
    pub(crate) async fn cluster(nodes: usize) -> (Cluster, WebhookReceiver) {
        let receiver = WebhookReceiver::start();
        let url = receiver.url();
        let cluster = Cluster::start_with(nodes, &variables(&url)).await;
        (cluster, receiver)
    }

    /// Lets two members join at each node, `a0` and `a1`, `b0` and so on, and waits until the endpoint knows of them and of the channels
    /// that the scenario has subscribers for.
    pub(crate) async fn gather(
        Cluster { redis, nodes }: &Cluster,
        receiver: WebhookReceiver,
        channels: &[&str],
    ) -> Self {
        let occupied = channels.iter().chain([&ROOM]).map(|channel| told("channel_occupied", channel)).collect();
        let mut witnesses = Self { receiver, members: BTreeMap::new(), expected: occupied };
        for (node, letter) in nodes.iter().zip('a'..) {
            for number in 0..2 {
                witnesses.join(node, &format!("{letter}{number}")).await;
            }
        }
        let known = witnesses.expected.len();
        let heard = witnesses.hear(known).await;
        assert_eq!(heard, witnesses.expected_sorted());
        witnesses.expected.clear();
        noted(redis).await;
        witnesses
    }

    /// One more member.
    pub(crate) async fn join(&mut self, node: &Node, user: &str) {
        let mut client = node.connect().await;
        let view = client.join(ROOM, user).await.members();
        self.members.insert(user.to_owned(), Member { client, view });
        self.expected.push(told("member_added", &format!("{ROOM} {user}")));
    }

    /// A member leaves, whatever is the matter with Redis.
    pub(crate) async fn leave(&mut self, user: &str) {
        self.members.remove(user).expect("a member").client.close().await;
        self.expected.push(told("member_removed", &format!("{ROOM} {user}")));
    }

    /// These went down with their node.
    pub(crate) fn died(&mut self, users: &[&str]) {
        for user in users {
            self.members.remove(*user).expect("a member");
            self.expected.push(told("member_removed", &format!("{ROOM} {user}")));
        }
    }

    /// These were taken for dead, and have come back.
    pub(crate) fn were_away(&mut self, users: &[&str]) {
        for user in users {
            for name in ["member_removed", "member_added"] {
                self.expected.push(told(name, &format!("{ROOM} {user}")));
            }
        }
    }

    /// All nodes and all members agree who is there, every change was told to every member once, and the endpoint was told of each once.
    /// How long that took.
    pub(crate) async fn check(mut self, nodes: &[&Node]) -> Duration {
        let start = Instant::now();
        let expected: Vec<_> = self.members.keys().cloned().collect();
        for node in nodes {
            let users = async || {
                let mut api = node.api().await;
                let response = api.get(&format!("/channels/{ROOM}/users"), &[]).await;
                // Redis may just have come back.
                if response.status == 503 { Vec::new() } else { api.users(ROOM).await }
            };
            eventually("all nodes tell of the same members", users, |users| *users == expected).await;
        }
        for Member { client, view } in self.members.values_mut() {
            while *view != expected {
                follow(view, &client.next_event().await);
            }
        }
        let took = start.elapsed();
        let heard = self.hear(self.expected.len()).await;
        assert_eq!(heard, self.expected_sorted(), "what the endpoint was told");
        sleep(QUIET).await;
        let more = self.receiver.names();
        assert!(more.iter().all(|name| name == "subscription_count"), "the endpoint was told more: {more:?}");
        for Member { client, view } in self.members.values_mut() {
            client.settled().await.iter().for_each(|event| follow(view, event));
            assert_eq!(*view, expected);
        }
        took
    }

    /// So many of the endpoint's events, sorted.
    async fn hear(&mut self, count: usize) -> Vec<(String, String)> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let Ok(events) = timeout(DEADLINE / 2, self.receiver.next_events()).await else {
                panic!("the endpoint was told {heard:?}, and not all of {:?}", self.expected_sorted());
            };
            heard.extend(events.into_iter().filter(|(name, _)| name != "subscription_count"));
        }
        heard.sort();
        heard
    }

    fn expected_sorted(&self) -> Vec<(String, String)> {
        let mut expected = self.expected.clone();
        expected.sort();
        expected
    }
}

/// Waits until it is noted that the endpoint was told: a node that dies before that leaves it to others to tell it again.
pub(crate) async fn noted(redis: &RedisServer) {
    let waiting = "local n = 0 for s = 0, 15 do n = n + redis.call('XLEN', 'fanfare:{'..s..'}:hooks') end return n";
    let waiting = async || redis.ask(&["EVAL", waiting, "0"]);
    eventually("all webhooks are noted", waiting, |waiting| waiting == "0").await;
}

/// Settings of nodes that tell an endpoint of everything, at once.
pub(crate) fn variables(url: &str) -> [(&str, &str); 2] {
    [("FANFARE__APPS__0__WEBHOOKS__0__URL", url), ("FANFARE__WEBHOOKS__VACATED_DELAY", "0s")]
}

fn told(name: &str, about: &str) -> (String, String) {
    (name.to_owned(), about.to_owned())
}
