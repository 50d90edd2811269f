//! What this node has to tell the cluster of itself: who is in its channels, how many, and who is signed in.
//!
//! Not a queue of changes but what holds now: a directory sets it under the channel's lock, the keeper tells what differs. So it
//! is bounded by what the node has, may be told again after an unknown outcome, and told as a whole to a Redis that lost it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fanfare_protocol::webhook::WebhookEvent;
use tokio::sync::Notify;

use super::{Position, SHARDS, hooks, shard};
use crate::limits::UNTOLD_WEBHOOK_EVENTS;

/// The name that no channel has, under which an app's connections are counted.
pub(super) const ALL_CHANNELS: &str = "";

/// What is told of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A user in a presence channel.
    Member { app: Arc<str>, channel: Arc<str>, user_id: Arc<str> },
    /// A channel's connections.
    Count { app: Arc<str>, channel: Arc<str> },
    /// A signed-in user.
    Online { app: Arc<str>, user_id: Arc<str> },
}

/// What holds of it at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The user is in the channel.
    Member(Arc<Joining>),
    /// So many connections; not zero.
    Count { connections: usize, announced: bool },
    /// Somebody is signed in as the user.
    Online,
    /// Nobody is.
    Nothing,
}

/// A user who joins a presence channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    /// `user_info` as JSON.
    pub(crate) info: Box<str>,
    /// Users the channel may have.
    pub(crate) limit: usize,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) subject: Subject,
    pub(super) fact: Fact,
    /// No news: webhooks shall not tell of it.
    pub(super) quiet: bool,
    /// All members of the channel shall come with the answer.
    pub(super) snapshot: bool,
    /// It was over before this Redis heard of it: only the one before knew.
    pub(super) gone: bool,
}

/// Everything this node has to tell.
#[derive(Debug)]
pub(crate) struct Membership {
    shards: Vec<Mutex<Facts>>,
    changed: Notify,
    /// The last announcement of each shard that was handed to the directories.
    announced: Vec<Mutex<Position>>,
    /// What an app's connections are counted under, as if it was a channel: no channel has this name.
    all_channels: Arc<str>,
    /// Channels whose last event directories ask the cluster for.
    questions: Mutex<Questions>,
    asked: Notify,
    next_question: AtomicU64,
}

/// A channel and its app.
type Named = (Arc<str>, Arc<str>);

/// What directories ask for. Bounded by the channels of which somebody waits for the answer.
#[derive(Debug, Default)]
struct Questions {
    open: HashMap<Named, u64>,
    /// Those that nobody has asked Redis yet.
    new: HashSet<Named>,
}

/// A channel's last event is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) app: Arc<str>,
    pub(super) channel: Arc<str>,
    pub(super) number: u64,
}

/// Something for the webhooks of the cluster.
#[derive(Debug)]
pub(super) enum Said {
    /// An event as it stands in the queue.
    Event(Box<[u8]>),
    /// A subscriber found no event in a cache channel. Redis decides whether it is told.
    Miss { app: Box<str>, channel: Box<str> },
}

/// What holds in one shard.
#[derive(Debug, Default)]
struct Facts {
    all: HashMap<Subject, Entry>,
    /// Subjects to tell of, each once, in the order in which they changed.
    untold: VecDeque<Subject>,
    /// What was over when Redis had forgotten it, until it is known who has it still.
    forgotten: Vec<Subject>,
    /// Webhook events for the queue that all nodes share.
    events: VecDeque<Said>,
}

#[derive(Debug)]
struct Entry {
    fact: Fact,
    untold: bool,
    quiet: bool,
    snapshot: bool,
    /// Redis knows of it.
    heard: bool,
    gone: bool,
}

impl Entry {
    fn new(fact: Fact, snapshot: bool) -> Self {
        Self { fact, untold: true, quiet: false, snapshot, heard: false, gone: false }
    }
}

impl Subject {
    pub(super) fn shard(&self) -> usize {
        match self {
            Self::Member { app, channel, .. } | Self::Count { app, channel } => shard(app, channel),
            Self::Online { app, user_id } => shard(app, user_id),
        }
    }
}

impl Membership {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            changed: Notify::new(),
            announced: (0..SHARDS).map(|_| Mutex::default()).collect(),
            all_channels: ALL_CHANNELS.into(),
            questions: Mutex::default(),
            asked: Notify::new(),
            next_question: AtomicU64::new(0),
        }
    }

    fn facts(&self, shard: usize) -> MutexGuard<'_, Facts> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what holds of a subject. Called under a channel's lock; takes no other.
    pub(crate) fn set(&self, subject: Subject, fact: Fact) {
        self.facts(subject.shard()).set(subject, fact, false);
        self.changed.notify_one();
    }

    /// Sets that a user is in a channel whose members this node does not know: they shall come with the answer.
    pub(crate) fn join_and_ask(&self, subject: Subject, joining: Arc<Joining>) {
        self.facts(subject.shard()).set(subject, Fact::Member(joining), true);
        self.changed.notify_one();
    }

    /// The last announcement that may have concerned a channel.
    pub(crate) fn announced(&self, app: &str, channel: &str) -> Position {
        *self.announced[shard(app, channel)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An announcement is about to be handed to the directories.
    pub(super) fn set_announced(&self, shard: usize, position: Position) {
        *self.announced[shard].lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// Makes the keeper look, for another reason than a change.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Whether there is something to tell.
    pub(super) fn has_untold(&self) -> bool {
        (0..SHARDS).any(|shard| {
            let facts = self.facts(shard);
            !facts.untold.is_empty() || !facts.events.is_empty()
        })
    }

    /// What this node has told, or will tell, of a shard.
    pub(super) fn subjects(&self, shard: usize) -> Vec<Subject> {
        self.facts(shard).all.keys().cloned().collect()
    }

    /// Tells of a subject once more.
    pub(super) fn tell_again(&self, subject: &Subject) {
        let mut facts = self.facts(subject.shard());
        if let Some(entry) = facts.all.get_mut(subject)
            && !std::mem::replace(&mut entry.untold, true)
        {
            facts.untold.push_back(subject.clone());
        }
    }

    /// Asks for all members of a channel again, by way of a user who is in it already; that is no news.
    pub(crate) fn ask(&self, subject: &Subject) {
        let mut facts = self.facts(subject.shard());
        let Some(entry) = facts.all.get_mut(subject) else { return };
        entry.snapshot = true;
        if !std::mem::replace(&mut entry.untold, true) {
            entry.quiet = true;
            facts.untold.push_back(subject.clone());
        }
        drop(facts);
        self.changed.notify_one();
    }

    /// Takes the number of an app's connections, which `count` reads when nobody else sets it.
    pub(crate) fn set_connections(&self, app: &Arc<str>, count: impl FnOnce() -> usize) {
        let subject = Subject::Count { app: Arc::clone(app), channel: Arc::clone(&self.all_channels) };
        let mut facts = self.facts(subject.shard());
        let fact = match count() {
            0 => Fact::Nothing,
            connections => Fact::Count { connections, announced: false },
        };
        facts.set(subject, fact, false);
        drop(facts);
        self.changed.notify_one();
    }

    /// Takes a webhook event for the queue that all nodes share, behind what was told before; whether there was room.
    pub(crate) fn say(&self, app: &str, event: &WebhookEvent) -> bool {
        let mut facts = self.facts(shard(app, event.channel()));
        let room = facts.events.len() < UNTOLD_WEBHOOK_EVENTS;
        if room {
            facts.events.push_back(match event {
                WebhookEvent::CacheMiss { channel } => Said::Miss { app: app.into(), channel: channel.clone() },
                event => Said::Event(hooks::write(app, event)),
            });
        }
        drop(facts);
        self.changed.notify_one();
        room
    }

    /// Takes up to `count` webhook events, oldest first.
    pub(super) fn take_events(&self, shard: usize, count: usize) -> Vec<Said> {
        let mut facts = self.facts(shard);
        let count = count.min(facts.events.len());
        facts.events.drain(..count).collect()
    }

    /// Gives events back that may not have arrived.
    pub(super) fn not_said(&self, shard: usize, events: Vec<Said>) {
        let mut facts = self.facts(shard);
        events.into_iter().rev().for_each(|event| facts.events.push_front(event));
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a channel's last event; the number of the question. Called under the channel's lock; takes no other.
    pub(crate) fn ask_kept(&self, app: &Arc<str>, channel: &Arc<str>) -> u64 {
        let number = self.next_question.fetch_add(1, Ordering::Relaxed);
        let named = (Arc::clone(app), Arc::clone(channel));
        let mut questions = self.questions();
        questions.open.insert(named.clone(), number);
        questions.new.insert(named);
        drop(questions);
        self.asked.notify_one();
        number
    }

    /// A question is answered, or nobody waits for the answer.
    pub(crate) fn kept_answered(&self, app: &Arc<str>, channel: &Arc<str>, number: u64) {
        let named = (Arc::clone(app), Arc::clone(channel));
        let mut questions = self.questions();
        if questions.open.get(&named) == Some(&number) {
            questions.open.remove(&named);
            questions.new.remove(&named);
        }
    }

    /// Waits until there are new questions, and takes them.
    pub(super) async fn new_questions(&self) -> Vec<Question> {
        loop {
            {
                let mut questions = self.questions();
                let Questions { open, new } = &mut *questions;
                let question = |(app, channel): Named| {
                    let number = *open.get(&(Arc::clone(&app), Arc::clone(&channel)))?;
                    Some(Question { app, channel, number })
                };
                let taken: Vec<_> = new.drain().filter_map(question).collect();
                if !taken.is_empty() {
                    return taken;
                }
            }
            self.asked.notified().await;
        }
    }

    /// Whatever was asked on a connection that is gone is asked again.
    pub(super) fn ask_again(&self) {
        let mut questions = self.questions();
        let Questions { open, new } = &mut *questions;
        new.extend(open.keys().cloned());
        drop(questions);
        self.asked.notify_one();
    }

    /// Tells what was over when Redis had forgotten it, now that all nodes have told what they have.
    pub(super) fn tell_forgotten(&self, shard: usize) {
        let mut facts = self.facts(shard);
        for subject in std::mem::take(&mut facts.forgotten) {
            if !facts.all.contains_key(&subject) {
                facts.untold.push_back(subject.clone());
                facts.all.insert(subject, Entry { gone: true, ..Entry::new(Fact::Nothing, false) });
            }
        }
    }

    /// Waits until there may be something to tell.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes up to `count` statements. Each has to be handed to [`Membership::told`] or [`Membership::not_told`].
    pub(super) fn take(&self, shard: usize, count: usize) -> Vec<Statement> {
        let mut facts = self.facts(shard);
        let count = count.min(facts.untold.len());
        let subjects: Vec<_> = facts.untold.drain(..count).collect();
        let take = |subject: Subject| {
            let entry = facts.all.get_mut(&subject)?;
            entry.untold = false;
            let (quiet, snapshot) = (std::mem::take(&mut entry.quiet), std::mem::take(&mut entry.snapshot));
            Some(Statement { fact: entry.fact.clone(), subject, quiet, snapshot, gone: entry.gone })
        };
        subjects.into_iter().filter_map(take).collect()
    }

    /// Redis has it.
    pub(super) fn told(&self, statement: &Statement) {
        let mut facts = self.facts(statement.subject.shard());
        let Some(entry) = facts.all.get_mut(&statement.subject) else { return };
        entry.heard = statement.fact != Fact::Nothing;
        if entry.fact == Fact::Nothing && !entry.untold {
            facts.all.remove(&statement.subject);
        }
    }

    /// Redis may have it or not: it is told again, unless something else holds by now.
    pub(super) fn not_told(&self, statement: Statement) {
        let mut facts = self.facts(statement.subject.shard());
        let Some(entry) = facts.all.get_mut(&statement.subject) else { return };
        entry.snapshot |= statement.snapshot;
        if !std::mem::replace(&mut entry.untold, true) {
            entry.quiet = statement.quiet;
            facts.untold.push_back(statement.subject);
        }
    }

    /// Tells everything of a shard again: Redis has `lost` it, which makes it no news, or others have taken it back.
    ///
    /// What was over by then, and known to the Redis that is gone, waits for [`Membership::tell_forgotten`].
    pub(super) fn tell_all(&self, shard: usize, lost: bool) -> usize {
        let mut facts = self.facts(shard);
        let Facts { all, untold, forgotten, .. } = &mut *facts;
        if lost {
            let over = |entry: &Entry| entry.fact == Fact::Nothing && (entry.heard || entry.gone);
            forgotten.extend(all.extract_if(|_, entry| over(entry)).map(|(subject, _)| subject));
            untold.retain(|subject| all.contains_key(subject));
        }
        for entry in all.values_mut() {
            entry.quiet |= lost && entry.heard;
            entry.heard = false;
        }
        // In this order Redis sees a channel occupied before its members come, and vacated after they have gone.
        let mut subjects: Vec<_> = all.iter_mut().filter(|(_, entry)| !entry.untold).collect();
        subjects.sort_by_key(|(subject, entry)| match (subject, &entry.fact) {
            (Subject::Count { .. }, Fact::Nothing) => 2,
            (Subject::Count { .. }, _) => 0,
            _ => 1,
        });
        for (subject, entry) in subjects {
            (entry.untold, entry.quiet) = (true, lost);
            untold.push_back(subject.clone());
        }
        drop(facts);
        self.changed.notify_one();
        self.facts(shard).all.len()
    }
}

impl Facts {
    fn set(&mut self, subject: Subject, fact: Fact, snapshot: bool) {
        match self.all.get_mut(&subject) {
            Some(entry) => {
                entry.gone &= fact == Fact::Nothing;
                entry.fact = fact;
                entry.quiet = false;
                entry.snapshot |= snapshot;
                if !std::mem::replace(&mut entry.untold, true) {
                    self.untold.push_back(subject);
                }
            }
            None if fact == Fact::Nothing => {}
            None => {
                self.all.insert(subject.clone(), Entry::new(fact, snapshot));
                self.untold.push_back(subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn online(user_id: &str) -> Subject {
        Subject::Online { app: "app".into(), user_id: user_id.into() }
    }

    /// Takes all statements of a subject's shard.
    fn take(membership: &Membership, subject: &Subject) -> Vec<Statement> {
        membership.take(subject.shard(), 10)
    }

    #[test]
    fn what_holds_now_is_told_once_however_often_it_changed() {
        let (membership, ann) = (Membership::new(), online("ann"));
        for fact in [Fact::Online, Fact::Nothing, Fact::Online] {
            membership.set(ann.clone(), fact);
        }
        let statements = take(&membership, &ann);
        assert_eq!(statements.len(), 1);
        assert_eq!(statements[0].fact, Fact::Online);
        assert!(take(&membership, &ann).is_empty());
    }

    #[test]
    fn what_is_over_and_told_is_forgotten() {
        let (membership, ann) = (Membership::new(), online("ann"));
        membership.set(ann.clone(), Fact::Online);
        let first = take(&membership, &ann).remove(0);
        membership.set(ann.clone(), Fact::Nothing);
        membership.told(&first);
        let second = take(&membership, &ann).remove(0);
        assert_eq!(second.fact, Fact::Nothing);
        membership.told(&second);
        assert_eq!(membership.tell_all(ann.shard(), false), 0);
        // Nobody was told that there was somebody.
        membership.set(ann.clone(), Fact::Nothing);
        assert!(take(&membership, &ann).is_empty());
    }

    #[test]
    fn what_may_not_have_arrived_is_told_again() {
        let (membership, ann) = (Membership::new(), online("ann"));
        membership.set(ann.clone(), Fact::Online);
        let lost = take(&membership, &ann).remove(0);
        membership.not_told(lost.clone());
        assert_eq!(take(&membership, &ann), [lost]);
    }

    #[test]
    fn what_was_over_when_redis_had_forgotten_it_is_told_when_asked_for() {
        let (membership, ann, bob) = (Membership::new(), online("ann"), online("bob"));
        for user in [&ann, &bob] {
            membership.set(user.clone(), Fact::Online);
        }
        let told = take(&membership, &ann).remove(0);
        membership.told(&told);
        for user in [&ann, &bob] {
            membership.set(user.clone(), Fact::Nothing);
        }
        membership.tell_all(ann.shard(), true);
        assert!(take(&membership, &ann).is_empty());
        // Of one that Redis never heard of there is nothing to tell.
        membership.tell_all(bob.shard(), true);
        membership.tell_forgotten(bob.shard());
        assert!(take(&membership, &bob).iter().all(|statement| statement.subject == ann || !statement.gone));
        membership.tell_all(ann.shard(), true);
        membership.tell_forgotten(ann.shard());
        let statements: Vec<_> = take(&membership, &ann).into_iter().filter(|told| told.subject == ann).collect();
        assert_eq!((statements.len(), statements[0].gone), (1, true));
        // Whoever is back has not gone.
        membership.not_told(statements[0].clone());
        membership.set(ann.clone(), Fact::Online);
        assert!(take(&membership, &ann).iter().all(|statement| !statement.gone));
    }

    #[test]
    fn everything_is_told_quietly_to_a_redis_that_lost_it_and_news_aloud() {
        let (membership, ann) = (Membership::new(), online("ann"));
        membership.set(ann.clone(), Fact::Online);
        let told = take(&membership, &ann).remove(0);
        membership.told(&told);
        assert_eq!(membership.tell_all(ann.shard(), true), 1);
        membership.set(ann.clone(), Fact::Nothing);
        let statements = take(&membership, &ann);
        assert_eq!((statements.len(), statements[0].quiet, &statements[0].fact), (1, false, &Fact::Nothing));
    }
}
