//! Apps of the database: looked up when somebody asks for one, and again and again while they are in use.
//!
//! ```text
//! connect, request -> AppStore (known: answered at once)
//!                       not known, not a recent miss -> Lookups -> one task, one question for all who wait -> AppStore
//!                                              every cache_ttl: all apps in use, some hundreds at a time ----^
//! ```
//!
//! One task asks, so the same app is never asked for twice at a time, a burst of unknown keys makes few questions, and no
//! answer overtakes a newer one. A database that is out of reach changes nothing: what is known stays as it was, and who
//! asks for anything else is told to come again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use fanfare_protocol::AppId;
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    App,
    database::{AppRow, AppTable},
    store::Source,
};
use crate::{
    config::{AppConfig, DatabaseConfig, RowDefaults, is_name},
    limits::{APP_LOOKUPS, APP_MISSES},
    node::Node,
};

/// Ids or keys in one question.
const CHUNK: usize = 500;
/// How long after a failure the database is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How long an app without connections is kept that nobody asked for.
const IDLE: Duration = Duration::from_secs(600);
/// Longer ids and keys fit into no column.
const LONGEST_NAME: usize = 255;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Id(Box<str>),
    Key(Box<str>),
}

/// Why there is no app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// There is none.
    Unknown,
    /// The database cannot be asked.
    Unavailable,
}

/// Where to ask for apps that are not known yet.
#[derive(Debug)]
pub(crate) struct Lookups {
    questions: mpsc::Sender<Question>,
    misses: Arc<Misses>,
    /// What is used for columns that rows lack.
    defaults: Arc<ArcSwap<RowDefaults>>,
    refresh: Arc<Notify>,
}

#[derive(Debug)]
struct Question {
    name: Name,
    answer: oneshot::Sender<Result<Arc<App>, Missing>>,
}

impl Lookups {
    /// The way to ask, and the task that answers.
    pub(crate) fn new(config: &DatabaseConfig, table: AppTable) -> (Self, Loader) {
        let (questions, receiver) = mpsc::channel(APP_LOOKUPS);
        let (misses, refresh) = (Arc::new(Misses::new(config.cache_ttl)), Arc::<Notify>::default());
        let defaults = Arc::new(ArcSwap::from_pointee(config.row_defaults.clone()));
        let loader = Loader {
            table,
            ttl: config.cache_ttl,
            defaults: Arc::clone(&defaults),
            questions: receiver,
            misses: Arc::clone(&misses),
            refresh: Arc::clone(&refresh),
            down: None,
            idle: HashMap::new(),
            problems: HashMap::new(),
        };
        (Self { questions, misses, defaults, refresh }, loader)
    }

    /// Whether it may be worth asking.
    pub(super) fn may_know(&self, name: &Name) -> bool {
        let (Name::Id(text) | Name::Key(text)) = name;
        !text.is_empty() && text.len() <= LONGEST_NAME && is_name(text) && !self.misses.contains(name, Instant::now())
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, name: Name) -> Result<Arc<App>, Missing> {
        let (answer, answered) = oneshot::channel();
        // An error means that the queue is full: as many wait for the database as may.
        self.questions.try_send(Question { name, answer }).map_err(|_| Missing::Unavailable)?;
        answered.await.unwrap_or(Err(Missing::Unavailable))
    }

    /// Asks for everything again now. `defaults` is used for columns that rows lack.
    pub(super) fn refresh(&self, defaults: RowDefaults) {
        self.defaults.store(defaults.into());
        self.misses.forget();
        self.refresh.notify_one();
    }
}

/// What the database does not know. Bounded: the oldest make room.
#[derive(Debug)]
struct Misses {
    ttl: Duration,
    state: Mutex<(HashMap<Name, Instant>, VecDeque<Name>)>,
}

impl Misses {
    fn new(ttl: Duration) -> Self {
        Self { ttl, state: Mutex::default() }
    }

    fn contains(&self, name: &Name, now: Instant) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.get(name).is_some_and(|since| now.duration_since(*since) < self.ttl)
    }

    fn add(&self, name: Name, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, order) = &mut *state;
        // All are remembered for the same time, so the oldest, in front, run out first.
        while let Some(oldest) = order.front()
            && (order.len() >= APP_MISSES
                || since.get(oldest).is_none_or(|since| now.duration_since(*since) >= self.ttl))
        {
            since.remove(oldest);
            order.pop_front();
        }
        order.push_back(name.clone());
        since.insert(name, now);
    }

    fn forget(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

/// The task that asks the database.
#[derive(Debug)]
pub(crate) struct Loader {
    table: AppTable,
    ttl: Duration,
    defaults: Arc<ArcSwap<RowDefaults>>,
    questions: mpsc::Receiver<Question>,
    misses: Arc<Misses>,
    refresh: Arc<Notify>,
    /// When to try again, while the database is out of reach.
    down: Option<Instant>,
    /// Since when apps have had no connections and no questions.
    idle: HashMap<AppId, Instant>,
    /// What is wrong with rows, so that each is logged once.
    problems: HashMap<String, Vec<String>>,
}

impl Loader {
    /// Answers, for as long as it is polled.
    pub(crate) async fn run(mut self, node: &Node) {
        let refresh = Arc::clone(&self.refresh);
        // A little more often than `cache_ttl` says, because an answer takes some time.
        let mut due = interval(self.ttl.mul_f32(0.9));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stale: Vec<String> = Vec::new();
        let mut questions = Vec::new();
        loop {
            let down = self.down;
            let retry = async {
                match down {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.questions.recv_many(&mut questions, CHUNK) => {}
                () = std::future::ready(()), if !stale.is_empty() && down.is_none() => {}
                () = retry => stale = self.in_use(node),
                _ = due.tick() => stale = self.in_use(node),
                () = refresh.notified() => stale = self.in_use(node),
            }
            if !questions.is_empty() {
                self.answer(node, &mut questions).await;
            } else if self.is_due() {
                // Asked even if no app is in use: the question shows whether the database is back.
                let chunk: Vec<_> = stale.drain(..stale.len().min(CHUNK)).collect();
                self.look_again(node, chunk).await;
            }
        }
    }

    /// Whether the database may be asked now.
    fn is_due(&self) -> bool {
        self.down.is_none_or(|at| at <= Instant::now())
    }

    /// The apps of the database that somebody uses. Others are forgotten after a while.
    fn in_use(&mut self, node: &Node) -> Vec<String> {
        let now = Instant::now();
        let (mut in_use, mut idle, mut gone) = (Vec::new(), HashMap::new(), Vec::new());
        for app in node.apps.of_database() {
            if app.is_in_use() {
                in_use.push(app.id.as_str().to_owned());
                continue;
            }
            let since = self.idle.get(&app.id).copied().unwrap_or(now);
            if now.duration_since(since) >= IDLE {
                gone.push(app.id.clone());
            } else {
                idle.insert(app.id.clone(), since);
                in_use.push(app.id.as_str().to_owned());
            }
        }
        self.idle = idle;
        for id in &gone {
            self.problems.remove(id.as_str());
        }
        if !gone.is_empty() {
            node.update_apps(Source::Database, Vec::new(), &gone);
        }
        in_use
    }

    async fn answer(&mut self, node: &Node, questions: &mut Vec<Question>) {
        let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
        for question in &*questions {
            match &question.name {
                Name::Id(id) => ids.insert(id.to_string()),
                Name::Key(key) => keys.insert(key.to_string()),
            };
        }
        let (ids, keys): (Vec<_>, Vec<_>) = (ids.into_iter().collect(), keys.into_iter().collect());
        let rows = if self.is_due() { self.find(node, &ids, &keys).await } else { None };
        let reached = rows.is_some();
        if let Some(rows) = rows {
            self.set(node, rows, &[]);
        }
        let now = Instant::now();
        for Question { name, answer } in questions.drain(..) {
            let app = node.apps.known(&name);
            let result = app.ok_or(if reached { Missing::Unknown } else { Missing::Unavailable });
            if matches!(result, Err(Missing::Unknown)) && !self.misses.contains(&name, now) {
                self.misses.add(name, now);
            }
            // This fails if whoever asked has gone.
            let _ = answer.send(result);
        }
    }

    /// Takes what has become of apps.
    async fn look_again(&mut self, node: &Node, ids: Vec<String>) {
        let Some(rows) = self.find(node, &ids, &[]).await else { return };
        let found: HashSet<_> = rows.iter().map(id_of).collect();
        let gone: Vec<_> = ids.iter().filter(|id| !found.contains(*id)).map(|id| AppId::new(id.as_str())).collect();
        self.set(node, rows, &gone);
    }

    async fn find(&mut self, node: &Node, ids: &[String], keys: &[String]) -> Option<Vec<AppRow>> {
        let metrics = &node.metrics.database;
        metrics.queries.increment();
        match self.table.find(ids, keys).await {
            Ok(rows) => {
                if self.down.take().is_some() {
                    metrics.down.store(false, Ordering::Relaxed);
                    tracing::info!("the database of the apps answers again");
                }
                Some(rows)
            }
            Err(error) => {
                metrics.failures.increment();
                if self.down.replace(Instant::now() + RETRY).is_none() {
                    metrics.down.store(true, Ordering::Relaxed);
                    tracing::error!(%error, "the database of the apps does not answer: known apps stay as they are, others are refused");
                }
                None
            }
        }
    }

    fn set(&mut self, node: &Node, rows: Vec<AppRow>, gone: &[AppId]) {
        let (mut apps, defaults) = (Vec::with_capacity(rows.len()), self.defaults.load());
        for row in rows {
            let id = id_of(&row);
            let problems = match AppConfig::from_row(&row, &defaults, &node.config) {
                Ok((app, problems)) => {
                    apps.push(app);
                    problems
                }
                Err(error) => vec![format!("it cannot be used, {error}")],
            };
            let last = if problems.is_empty() { self.problems.remove(&id) } else { self.problems.get(&id).cloned() };
            if !problems.is_empty() && last.as_ref() != Some(&problems) {
                tracing::warn!(app.id = id, "the row of an app in the database: {}", problems.join("; "));
                self.problems.insert(id, problems);
            }
        }
        node.update_apps(Source::Database, apps, gone);
    }
}

/// The id of a row, also where it is a number.
fn id_of(row: &AppRow) -> String {
    match row.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(id) => id.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_remembered_for_a_while_and_bounded() {
        let (misses, now) = (Misses::new(Duration::from_secs(10)), Instant::now());
        let name = |number: usize| Name::Key(number.to_string().into());
        (0..APP_MISSES + 5).for_each(|number| misses.add(name(number), now));
        assert!(!misses.contains(&name(4), now) && misses.contains(&name(5), now));
        assert_eq!(misses.state.lock().unwrap().0.len(), APP_MISSES);
        assert!(!misses.contains(&name(5), now + Duration::from_secs(10)));
        assert!(!misses.contains(&Name::Id("5".into()), now));
        misses.add(name(0), now + Duration::from_secs(10));
        assert_eq!(misses.state.lock().unwrap().1.len(), 1);
    }
}
