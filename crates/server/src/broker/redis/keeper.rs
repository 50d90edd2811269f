//! The task that tells the cluster what holds at this node, and takes back what dead nodes have told.
//!
//! Every second each node gives a sign of life. One that has given none for a lease is taken for dead by whoever notices first: what it
//! told is taken back, and its further statements are refused. If it was only away, it learns that with its next statement, takes a new
//! generation number and tells everything again.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    SHARDS, Shared, Task, kept,
    link::{COMMON, Link, script},
    log::{Asking, LIFETIME_MS, Position, Scripts, unexpected},
    membership::{ALL_CHANNELS, Fact, Said, Statement, Subject},
    server::{Backoff, Refusals},
};
use crate::{directory::JoinAnswer, node::Node};

/// How often a node gives a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// A node that has given no sign of life for so long is taken for dead.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// Statements of one shard that are told at once.
const STATEMENTS: usize = 100;
/// Statements of a dead node that are taken back at once; some milliseconds of Redis.
const REAPED: usize = 200;
/// How often a node renews the lifetime of the keys that it needs.
const RENEWAL: Duration = Duration::from_millis(LIFETIME_MS / 4);
/// Keys that are renewed at once.
const RENEWED: usize = 500;
/// When a large count that was told a moment ago is told again.
const LATER: Duration = Duration::from_secs(5);

/// Gives a sign of life, and returns the dead nodes whose statements have not all been taken back. `KEYS` living nodes, dead nodes; `ARGV`
/// node, lease in ms, whether to look for nodes that have died.
const BEAT_SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], lifetime)
if ARGV[3] ~= '1' then return {} end
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - ARGV[2]))) do
  redis.call('ZREM', KEYS[1], node)
  redis.call('SADD', KEYS[2], node)
  redis.call('PEXPIRE', KEYS[2], lifetime)
end
return redis.call('SMEMBERS', KEYS[2])
";

/// Makes a node known in a shard. `KEYS` fence, epoch; `ARGV` node, generation. Returns the log's epoch, and whether it was known.
const REGISTER_SCRIPT: &str = r"
local known = redis.call('HEXISTS', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], lifetime)
return {redis.call('GET', KEYS[2]) or '0', known}
";

/// Speaks for this node for as long as it is polled.
pub(super) async fn run(shared: &Shared, node: &Node) {
    let mut keeper = Keeper {
        shared,
        node,
        generation: String::new(),
        shards: [Shard::default(); SHARDS],
        later: VecDeque::new(),
        alive_since: Instant::now(),
        renewed: (Instant::now(), 0),
        refusals: Refusals::of("members and counts"),
    };
    let mut backoff = Backoff::default();
    loop {
        let result = keeper.session(&mut backoff).await;
        shared.set_reads(None);
        shared.starting.done(Task::Keeper);
        match result {
            Ok(()) => {
                shared.left.notify_one();
                return std::future::pending().await;
            }
            Err(error) => keeper.refusals.failed(&error),
        }
        backoff.pause().await;
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    node: &'a Node,
    generation: String,
    shards: [Shard; SHARDS],
    /// Large counts to tell again.
    later: VecDeque<(Instant, Subject)>,
    /// Since when this node has given signs of life without a break.
    alive_since: Instant,
    /// When the last round of renewing keys began, and how many shards it has done: some with each sign of life.
    renewed: (Instant, usize),
    refusals: Refusals,
}

/// What is known of a shard.
#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    /// The log's epoch when this node last told everything; 0: never.
    epoch: u64,
    /// When members are to be compared, since Redis lost them.
    compare: Option<Instant>,
}

impl Keeper<'_> {
    /// One connection. Ends well when the node has said goodbye.
    async fn session(&mut self, backoff: &mut Backoff) -> RedisResult<()> {
        let link = self.shared.server.connect_plain().await?;
        let logs = Scripts::load(&link).await?;
        logs.inspect(&link, &self.shared.keys, &[Position::default(); SHARDS], Asking::default()).await?;
        let scripts = KeeperScripts::load(&link).await?;
        self.register(&link, &scripts).await?;
        self.shared.set_reads(Some(link.clone()));
        self.shared.starting.done(Task::Keeper);
        self.alive_since = Instant::now();
        self.renewed = (Instant::now(), 0);
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let beat = tokio::select! {
                () = self.shared.membership.changed() => false,
                _ = beats.tick() => true,
            };
            if beat {
                self.shared.server.still_leads_to(&link)?;
                self.due();
            }
            // With each sign of life every shard is asked whether it still knows this node.
            self.tell(&link, &scripts, beat).await?;
            while self.shared.membership.has_untold() {
                self.tell(&link, &scripts, false).await?;
            }
            if self.shared.is_leaving() {
                return self.say_goodbye(&link, &scripts).await;
            }
            if beat {
                self.beat(&link, &scripts).await?;
                for _ in 0..SHARDS / 4 {
                    self.renew(&link).await?;
                }
                backoff.reset();
                self.refusals.over();
            }
        }
    }

    /// Renews the keys of a shard, if it is time: what is still there shall not expire.
    async fn renew(&mut self, link: &Link) -> RedisResult<()> {
        let (since, shard) = self.renewed;
        if shard == SHARDS {
            if since.elapsed() >= RENEWAL {
                self.renewed = (Instant::now(), 0);
            }
            return Ok(());
        }
        self.renewed.1 += 1;
        let subjects = self.shared.membership.subjects(shard);
        let keys: HashSet<_> =
            subjects.iter().flat_map(|subject| self.shared.keys.of_subject(shard, subject)).collect();
        for keys in keys.into_iter().collect::<Vec<_>>().chunks(RENEWED) {
            let renew = |key: &String| {
                let mut command = redis::cmd("PEXPIRE");
                command.arg(key).arg(LIFETIME_MS);
                (shard, command)
            };
            link.ask::<Value>(keys.iter().map(renew).collect()).await?;
        }
        Ok(())
    }

    /// Tells again what was put off, and compares members where a lost Redis has had time to be filled again.
    fn due(&mut self) {
        let now = Instant::now();
        while self.later.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, subject)) = self.later.pop_front() {
                self.shared.membership.tell_again(&subject);
            }
        }
        for shard in 0..SHARDS {
            if self.shards[shard].compare.take_if(|due| *due <= now).is_some() {
                compare(self.node, shard);
                self.shared.membership.tell_forgotten(shard);
            }
        }
    }

    /// Tells up to some statements of each shard, all in one go.
    async fn tell(&mut self, link: &Link, scripts: &KeeperScripts, all: bool) -> RedisResult<()> {
        let (mut commands, mut told) = (Vec::new(), Vec::new());
        for shard in 0..SHARDS {
            let statements = self.shared.membership.take(shard, STATEMENTS);
            let events = self.shared.membership.take_events(shard, STATEMENTS);
            if statements.is_empty() && events.is_empty() && !all {
                continue;
            }
            let (keys, name) = (&self.shared.keys, &self.shared.node_name);
            let mut touched = keys.of_node(shard, name);
            for statement in &statements {
                touched.extend(keys.of_subject(shard, &statement.subject));
                touched.extend(statement.gone.then(|| keys.gone(shard, &statement.subject)));
            }
            for event in &events {
                if let Said::Miss { app, channel } = event {
                    touched.extend(keys.around_kept(shard, app, channel));
                    touched.push(format!("{}tot:{app}", keys.base(shard)));
                }
            }
            let mut command = script(&scripts.tell, &touched);
            command.arg(keys.base(shard)).arg(name).arg(&self.generation);
            for statement in &statements {
                self.write(&mut command, statement);
            }
            for event in &events {
                match event {
                    Said::Event(event) => command.arg("say").arg(&**event),
                    Said::Miss { app, channel } => command.arg("miss").arg(&**app).arg(&**channel),
                };
            }
            commands.push((shard, command));
            told.push((shard, statements, events));
        }
        if told.is_empty() {
            return Ok(());
        }
        let replies: RedisResult<Vec<Value>> = link.ask(commands).await;
        let read = |reply: Value| redis::from_redis_value::<(String, String, Vec<Value>)>(reply).ok();
        let replies = replies.map(|replies| replies.into_iter().map_while(read).collect::<Vec<_>>());
        let replies = match replies {
            Ok(replies) if replies.len() == told.len() => replies,
            other => {
                for (shard, statements, events) in told {
                    self.not_heard(shard, statements, events);
                }
                return Err(other.err().unwrap_or_else(unexpected));
            }
        };
        let mut known = true;
        for ((shard, statements, events), (epoch, verdict, answers)) in told.into_iter().zip(replies) {
            if verdict == "heard" {
                for (statement, answer) in statements.iter().zip(answers) {
                    self.answered(statement, answer);
                    self.shared.membership.told(statement);
                }
                // Redis has begun another log, so it may have lost members and counts as well.
                known &= epoch.parse() == Ok(self.shards[shard].epoch);
            } else {
                self.not_heard(shard, statements, events);
                known = false;
            }
        }
        if known { Ok(()) } else { Err(RedisError::from((ErrorKind::Io, "this node has to register again"))) }
    }

    fn not_heard(&self, shard: usize, statements: Vec<Statement>, events: Vec<Said>) {
        for statement in statements {
            self.shared.membership.not_told(statement);
        }
        self.shared.membership.not_said(shard, events);
    }

    fn write(&self, command: &mut Cmd, statement: &Statement) {
        let Statement { subject, fact, quiet, snapshot, gone } = statement;
        let webhooks = |app: &str| !quiet && self.node.apps.by_id(app).is_some_and(|app| app.webhooks.any());
        match (subject, fact) {
            (Subject::Member { app, channel, user_id }, _) if *gone => {
                command.arg("gone").arg("member").arg(&**app).arg(&**channel).arg(&**user_id).arg(flag(webhooks(app)));
            }
            (Subject::Count { app, channel }, _) if *gone && **channel != *ALL_CHANNELS => {
                command.arg("gone").arg("channel").arg(&**app).arg(&**channel).arg("").arg(flag(webhooks(app)));
            }
            (Subject::Online { app, user_id }, _) if *gone => {
                command.arg("gone").arg("user").arg(&**app).arg("").arg(&**user_id).arg("0");
            }
            (Subject::Member { app, channel, user_id }, Fact::Member(joining)) => {
                command.arg("join").arg(&**app).arg(&**channel).arg(&**user_id).arg(&*joining.info);
                command.arg(joining.limit).arg(flag(webhooks(app))).arg(flag(*snapshot));
            }
            (Subject::Member { app, channel, user_id }, _) => {
                command.arg("leave").arg(&**app).arg(&**channel).arg(&**user_id).arg(flag(webhooks(app)));
            }
            (Subject::Count { app, channel }, fact) => {
                let (connections, announced) = match fact {
                    Fact::Count { connections, announced } => (*connections, *announced),
                    _ => (0, true),
                };
                let (channel, webhooks) = (&**channel, &**channel != ALL_CHANNELS && webhooks(app));
                let announced = announced && !quiet && channel != ALL_CHANNELS;
                command.arg("count").arg(&**app).arg(channel).arg(connections).arg(flag(announced));
                command.arg(flag(webhooks)).arg(flag(webhooks && announced));
            }
            (Subject::Online { app, user_id }, Fact::Online) => {
                command.arg("online").arg(&**app).arg(&**user_id);
            }
            (Subject::Online { app, user_id }, _) => {
                command.arg("offline").arg(&**app).arg(&**user_id);
            }
        }
    }

    fn answered(&mut self, statement: &Statement, answer: Value) {
        match (&statement.subject, &statement.fact) {
            (Subject::Member { app, channel, user_id }, Fact::Member(_)) => {
                if let (Some(app), Some(answer)) = (self.node.apps.by_id(app), join_answer(answer)) {
                    app.directory.join_answered(channel, user_id, answer);
                }
            }
            (Subject::Count { .. }, _) if matches!(&answer, Value::BulkString(text) if text == b"later") => {
                self.later.push_back((Instant::now() + LATER, statement.subject.clone()));
            }
            _ => {}
        }
    }

    /// Begins a new generation in all shards: what an earlier connection may still have under way is refused from now on. In shards where
    /// this node is not known (any more), it tells everything.
    async fn register(&mut self, link: &Link, scripts: &KeeperScripts) -> RedisResult<()> {
        self.generation = format!("{:016x}", rand::random::<u64>());
        let register = |shard| {
            let keys = &self.shared.keys;
            let mut command = script(&scripts.register, &[keys.fence(shard), keys.epoch(shard)]);
            command.arg(&self.shared.node_name).arg(&self.generation);
            (shard, command)
        };
        let replies: Vec<(u64, bool)> = link.ask((0..SHARDS).map(register).collect()).await?;
        let (mut subjects, mut returned, mut lost_shards) = (0, false, Vec::new());
        for (shard, (epoch, known)) in replies.into_iter().enumerate() {
            let state = &mut self.shards[shard];
            let lost = state.epoch != 0 && state.epoch != epoch;
            if lost || !known {
                returned |= state.epoch == epoch;
                subjects += self.shared.membership.tell_all(shard, lost);
            }
            if lost {
                state.compare = Some(Instant::now() + LEASE);
            }
            if lost {
                lost_shards.push(shard);
            }
            state.epoch = epoch;
        }
        if returned {
            tracing::warn!(subjects, "this node was silent for too long and taken for dead: it tells everything again");
        }
        for shard in lost_shards {
            kept::give_back(self.shared, self.node, link, shard).await?;
        }
        Ok(())
    }

    /// Gives a sign of life, and takes back what dead nodes told.
    async fn beat(&mut self, link: &Link, scripts: &KeeperScripts) -> RedisResult<()> {
        // After an outage of Redis no node has given a sign of life for a while: none is taken for dead until each had the time to give
        // one.
        let looks = self.alive_since.elapsed() >= LEASE;
        let keys = &self.shared.keys;
        let mut beat = script(&scripts.beat, &[keys.nodes(), keys.dead()]);
        beat.arg(&self.shared.node_name).arg(milliseconds(LEASE)).arg(u8::from(looks));
        let mut connection = link.to(COMMON);
        let dead: Vec<String> = beat.query_async(&mut connection).await?;
        for name in dead {
            let start = Instant::now();
            self.reap(link, scripts, &name).await?;
            let _: () = redis::cmd("SREM").arg(keys.dead()).arg(&name).query_async(&mut connection).await?;
            tracing::warn!(
                node = name,
                "a node is gone: its members and counts were taken back in {:?}",
                start.elapsed()
            );
        }
        Ok(())
    }

    /// Takes back what a node told, some of each shard at a time.
    async fn reap(&self, link: &Link, scripts: &KeeperScripts, name: &str) -> RedisResult<()> {
        let keys = &self.shared.keys;
        let reap = |shard: usize, entries: &[Vec<u8>], first: bool| {
            let mut touched = keys.of_node(shard, name);
            touched.extend(entries.iter().filter_map(|entry| keys.of_entry(shard, entry)).flatten());
            let mut command = script(&scripts.reap, &touched);
            command.arg(keys.base(shard)).arg(name).arg(u8::from(first));
            for entry in entries {
                command.arg(entry).arg(flag(self.wants_webhooks(entry)));
            }
            (shard, command)
        };
        let mut shards: Vec<_> = (0..SHARDS).collect();
        link.ask::<Value>(shards.iter().map(|shard| reap(*shard, &[], true)).collect()).await?;
        while !shards.is_empty() {
            let some = |shard: &usize| {
                let mut command = redis::cmd("HRANDFIELD");
                command.arg(keys.index(*shard, name)).arg(REAPED);
                (*shard, command)
            };
            let told: Vec<Vec<Vec<u8>>> = link.ask(shards.iter().map(some).collect()).await?;
            let told: Vec<_> = shards.into_iter().zip(told).filter(|(_, entries)| !entries.is_empty()).collect();
            let commands = told.iter().map(|(shard, entries)| reap(*shard, entries, false)).collect();
            let more: Vec<bool> = link.ask(commands).await?;
            shards = told.into_iter().zip(more).filter(|(_, more)| *more).map(|((shard, _), _)| shard).collect();
        }
        Ok(())
    }

    /// Whether webhooks may tell of a statement as a node's index has it. What nobody delivers would wait, to be told by an endpoint that
    /// is configured some day.
    fn wants_webhooks(&self, entry: &[u8]) -> bool {
        let [kind, _, rest @ ..] = entry else { return false };
        let (app, name) = match rest.iter().position(|byte| *byte == 0) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        };
        // An app that is not known here may be one of the database.
        let any = |app: &str| self.node.apps.by_id(app).is_none_or(|app| app.webhooks.any());
        *kind != b'u' && name != ALL_CHANNELS.as_bytes() && std::str::from_utf8(app).is_ok_and(any)
    }

    /// Everybody has left, and Redis was told so: takes out what is left of this node itself.
    async fn say_goodbye(&self, link: &Link, scripts: &KeeperScripts) -> RedisResult<()> {
        let name = &self.shared.node_name;
        self.reap(link, scripts, name).await?;
        redis::cmd("ZREM").arg(self.shared.keys.nodes()).arg(name).query_async(&mut link.to(COMMON)).await
    }
}

/// Asks for all members of a shard's channels, to bring this node's view in line with them.
pub(super) fn compare(node: &Node, shard: usize) {
    for app in node.apps.all() {
        app.directory.compare_members(|channel| super::shard(app.id.as_str(), channel) == shard);
    }
}

fn join_answer(answer: Value) -> Option<JoinAnswer> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    let announced = parts.next()?;
    if matches!(&announced, Value::BulkString(text) if text.is_empty()) {
        return Some(JoinAnswer::Full);
    }
    let announced = Position::parse(&announced)?;
    let members = match (parts.next(), parts.next()) {
        (Some(at), Some(members)) => {
            let at = Position::parse(&at)?;
            let members: Vec<(String, String)> = redis::from_redis_value(members).ok()?;
            Some((at, members))
        }
        _ => None,
    };
    Some(JoinAnswer::In { announced, members })
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The scripts, loaded on one connection's server.
#[derive(Debug)]
struct KeeperScripts {
    tell: String,
    reap: String,
    register: String,
    beat: String,
}

impl KeeperScripts {
    async fn load(link: &Link) -> RedisResult<Self> {
        let common = concat!(include_str!("kept.lua"), include_str!("membership.lua"));
        Ok(Self {
            tell: link.load(&format!("{common}{}", include_str!("tell.lua"))).await?,
            reap: link.load(&format!("{common}{}", include_str!("reap.lua"))).await?,
            register: link.load(REGISTER_SCRIPT).await?,
            beat: link.load(BEAT_SCRIPT).await?,
        })
    }
}
