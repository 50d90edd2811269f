//! What members of a presence channel are told adds up to who is there.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_tests::{Client, Event, TestServer};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const CHANNEL: &str = "presence-room";
const USERS: usize = 6;
const STEPS: usize = 250;

/// The list of members that a client keeps from what it is told.
struct Observer {
    client: Client,
    members: BTreeSet<String>,
}

impl Observer {
    async fn join(server: &TestServer, user_id: &str) -> Self {
        let mut client = server.connect().await;
        let members = client.join(CHANNEL, user_id).await.members().into_iter().collect();
        Self { client, members }
    }

    fn apply(&mut self, event: &Event) {
        let user = event.member();
        match event.name.as_str() {
            "pusher_internal:member_added" => assert!(self.members.insert(user.clone()), "{user} was added twice"),
            "pusher_internal:member_removed" => {
                assert!(self.members.remove(&user), "{user} was removed, but not there");
            }
            other => panic!("unexpected: {other}"),
        }
    }

    async fn settle(&mut self) {
        for event in self.client.settled().await {
            self.apply(&event);
        }
    }
}

/// One connection of a user.
struct Tab {
    client: Client,
    user: String,
    joined: bool,
}

fn truth(tabs: &[Tab], observers: &[&str]) -> BTreeSet<String> {
    let joined = tabs.iter().filter(|tab| tab.joined).map(|tab| tab.user.clone());
    joined.chain(observers.iter().map(|user| (*user).to_owned())).collect()
}

#[tokio::test]
async fn random_joins_and_leaves_add_up_to_the_members() {
    let server = TestServer::start();
    let seed = rand::rng().next_u64();
    println!("seed: {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut observer = Observer::join(&server, "observer").await;
    let mut tabs: Vec<Tab> = Vec::new();
    for step in 0..STEPS {
        match random.random_range(0..10) {
            0..4 if tabs.len() < 20 => {
                let user = format!("user-{}", random.random_range(0..USERS));
                let mut client = server.connect().await;
                let seen: BTreeSet<_> = client.join(CHANNEL, &user).await.members().into_iter().collect();
                tabs.push(Tab { client, user, joined: true });
                assert_eq!(seen, truth(&tabs, &["observer"]), "the snapshot of a new member");
            }
            4..6 if !tabs.is_empty() => {
                let index = random.random_range(0..tabs.len());
                let tab = &mut tabs[index];
                if tab.joined {
                    tab.client.unsubscribe(CHANNEL).await;
                } else {
                    let user = tab.user.clone();
                    tab.client.join(CHANNEL, &user).await;
                }
                tab.joined = !tab.joined;
                tab.client.settled().await;
            }
            6..8 if !tabs.is_empty() => {
                let tab = tabs.swap_remove(random.random_range(0..tabs.len()));
                tab.client.close().await;
            }
            8 if !tabs.is_empty() => {
                // Gone without a word; when the server notices is its own affair, so wait for what it says.
                let tab = tabs.swap_remove(random.random_range(0..tabs.len()));
                let last = tab.joined && !truth(&tabs, &[]).contains(&tab.user);
                drop(tab.client);
                if last {
                    let removed =
                        |event: &Event| event.name == "pusher_internal:member_removed" && event.member() == tab.user;
                    let (before, event) = observer.client.until(removed).await;
                    before.iter().for_each(|event| observer.apply(event));
                    observer.apply(&event);
                }
            }
            _ => {}
        }
        if step % 5 == 0 {
            observer.settle().await;
            // A tab that is gone without a word may be noticed after its user's other tabs have left.
            while observer.members != truth(&tabs, &["observer"]) {
                let event = observer.client.next_event().await;
                observer.apply(&event);
            }
        }
    }
    observer.settle().await;
    while observer.members != truth(&tabs, &["observer"]) {
        let event = observer.client.next_event().await;
        observer.apply(&event);
    }
    let listed: BTreeSet<_> = server.api().await.users(CHANNEL).await.into_iter().collect();
    assert_eq!(listed, observer.members);
}

#[tokio::test]
async fn concurrent_joins_and_leaves_add_up_for_every_observer() {
    let server = TestServer::start();
    let mut observers = Vec::new();
    for index in 0..4 {
        observers.push(Observer::join(&server, &format!("observer-{index}")).await);
    }
    let seed = rand::rng().next_u64();
    println!("seed: {seed}");
    let churn = futures_util::future::join_all((0..12_u64).map(|index| {
        let server = &server;
        async move {
            let mut random = StdRng::seed_from_u64(seed ^ index);
            let mut client = server.connect().await;
            let user = format!("user-{}", index % 4);
            for _ in 0..40 {
                client.join(CHANNEL, &user).await;
                if random.random_bool(0.3) {
                    client.close().await;
                    client = server.connect().await;
                } else {
                    client.unsubscribe(CHANNEL).await;
                    client.settled().await;
                }
            }
            let stays = index % 4 < 2 && index >= 4;
            if stays {
                client.join(CHANNEL, &user).await;
            }
            client.settled().await;
            (stays.then_some(user), client)
        }
    }));
    let clients = churn.await;
    let mut truth: BTreeSet<_> = clients.iter().filter_map(|(user, _)| user.clone()).collect();
    truth.extend((0..4).map(|index| format!("observer-{index}")));
    for observer in &mut observers {
        observer.settle().await;
        assert_eq!(observer.members, truth);
    }
    let listed: BTreeSet<_> = server.api().await.users(CHANNEL).await.into_iter().collect();
    assert_eq!(listed, truth);
}

/// The others hear of a user once, however many tabs open and close meanwhile; the count of each user says so.
#[tokio::test]
async fn tabs_of_a_user_that_overlap_are_one_member() {
    let server = TestServer::start();
    let mut observer = server.connect().await;
    observer.join(CHANNEL, "observer").await;
    let mut current = server.connect().await;
    current.join(CHANNEL, "ada").await;
    for _ in 0..10 {
        let mut next = server.connect().await;
        next.join(CHANNEL, "ada").await;
        std::mem::replace(&mut current, next).close().await;
    }
    current.close().await;
    let mut counts = BTreeMap::new();
    let removed = |event: &Event| event.name == "pusher_internal:member_removed";
    let (before, last) = observer.until(removed).await;
    for event in before.iter().chain([&last]).chain(&observer.settled().await) {
        *counts.entry((event.name.clone(), event.member())).or_insert(0) += 1;
    }
    let once = |name: &str| ((name.to_owned(), "ada".to_owned()), 1);
    let expected = [once("pusher_internal:member_added"), once("pusher_internal:member_removed")];
    assert_eq!(counts, BTreeMap::from(expected));
}
