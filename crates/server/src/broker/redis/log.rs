//! The log of a shard: a stream in Redis, and the questions that are asked of it.
//!
//! Ids are `epoch-number`. An epoch is the time at which a log was made, and numbers count its entries without holes: so a
//! log that is gone, or that lost its end, is seen at once, and so is what was trimmed.

use redis::{Cmd, RedisResult, Value};

use super::{
    SHARDS,
    link::{COMMON, Link, script},
    membership::Subject,
    server::field,
};

/// The place of an entry in a shard's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Which log; 0: none yet.
    pub(super) epoch: u64,
    /// Which entry of it.
    pub(super) number: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl Position {
    pub(super) fn new(epoch: u64, number: u64) -> Self {
        Self { epoch, number }
    }

    pub(super) fn epoch(self) -> u64 {
        self.epoch
    }

    pub(super) fn number(self) -> u64 {
        self.number
    }

    /// The place right before this one.
    pub(super) fn before(self) -> Self {
        match self.number.checked_sub(1) {
            Some(number) => Self { number, ..self },
            None => Self { epoch: self.epoch - 1, number: u64::MAX },
        }
    }

    /// Reads a reply.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let Value::BulkString(text) = value else { return None };
        Self::from_text(std::str::from_utf8(text).ok()?)
    }

    /// Reads an id as Redis writes it.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    }
}

/// A shard's log as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// The last entry that was ever added.
    pub(super) last: Position,
    /// The first entry that is still there.
    pub(super) first: Position,
    /// Names the log and the server process it is on; 0 unless a mark was asked for. A server that was started again counts as another one:
    /// it may have lost entries that it had confirmed, even if it brings data along.
    pub(super) identity: u64,
}

impl State {
    /// The number of the first entry that is still there, or of the next one if none is.
    pub(super) fn begins_at(&self) -> u64 {
        if self.first.epoch == 0 { self.last.number + 1 } else { self.first.number }
    }
}

/// Keys and channels in Redis. The shard stands in braces, so that a cluster keeps what belongs together in one slot.
///
/// Scripts are told of every key they may touch: a cluster that is moving a slot then refuses the whole call, instead of stopping in
/// its middle.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What decides which slot of a cluster a shard's keys are in.
    pub(super) fn tag(shard: usize) -> String {
        if shard == COMMON { "nodes".to_owned() } else { shard.to_string() }
    }

    /// What the keys of a shard begin with.
    pub(super) fn base(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:", self.prefix)
    }

    /// Which nodes may speak, and in which generation.
    pub(super) fn fence(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:fence", self.prefix)
    }

    /// Webhook events that are not delivered yet.
    pub(super) fn hooks(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:hooks", self.prefix)
    }

    /// Which node delivers them.
    pub(super) fn owner(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:owner", self.prefix)
    }

    /// Living nodes, by their last sign of life.
    pub(super) fn nodes(&self) -> String {
        format!("{}:{{nodes}}:alive", self.prefix)
    }

    /// Dead nodes whose statements are being taken back.
    pub(super) fn dead(&self) -> String {
        format!("{}:{{nodes}}:dead", self.prefix)
    }

    /// The stream.
    pub(super) fn log(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:log", self.prefix)
    }

    /// The epoch of the stream, for scripts.
    pub(super) fn epoch(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:epoch", self.prefix)
    }

    /// Which server has the log, by its replication id.
    fn server(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:server", self.prefix)
    }

    /// What a node told, for one shard.
    pub(super) fn index(&self, shard: usize, node: &str) -> String {
        format!("{}node:{node}", self.base(shard))
    }

    /// The other keys that telling of a subject touches.
    pub(super) fn of_subject(&self, shard: usize, subject: &Subject) -> Vec<String> {
        match subject {
            Subject::Member { app, channel, .. } => self.of_members(shard, app, channel),
            Subject::Count { app, channel } => self.of_count(shard, app, channel),
            Subject::Online { app, .. } => vec![format!("{}u:{app}", self.base(shard))],
        }
    }

    /// Where it is noted that others were told of a loss.
    pub(super) fn gone(&self, shard: usize, subject: &Subject) -> String {
        let base = self.base(shard);
        match subject {
            Subject::Member { app, channel, user_id } => format!("{base}gone:member\0{app}\0{channel}\0{user_id}"),
            Subject::Count { app, channel } => format!("{base}gone:channel\0{app}\0{channel}\0"),
            Subject::Online { app, user_id } => format!("{base}gone:user\0{app}\0\0{user_id}"),
        }
    }

    /// The same for a statement as it stands in a node's index.
    pub(super) fn of_entry(&self, shard: usize, entry: &[u8]) -> Option<Vec<String>> {
        let mut texts = std::str::from_utf8(entry).ok()?.splitn(4, '\0');
        let (kind, app, name) = (texts.next()?, texts.next()?, texts.next()?);
        match kind {
            "m" => Some(self.of_members(shard, app, name)),
            "c" => Some(self.of_count(shard, app, name)),
            _ => Some(vec![format!("{}u:{app}", self.base(shard))]),
        }
    }

    fn of_members(&self, shard: usize, app: &str, channel: &str) -> Vec<String> {
        let base = self.base(shard);
        ["m", "i"].map(|name| format!("{base}{name}:{app}\0{channel}")).to_vec()
    }

    fn of_count(&self, shard: usize, app: &str, channel: &str) -> Vec<String> {
        let base = self.base(shard);
        let mut keys = ["tot", "told", "occ"].map(|name| format!("{base}{name}:{app}")).to_vec();
        keys.push(format!("{base}missed:{app}\0{channel}"));
        keys
    }

    /// The keys that every call about a node's statements touches.
    pub(super) fn of_node(&self, shard: usize, node: &str) -> Vec<String> {
        let base = self.base(shard);
        let mut keys = ["log", "epoch", "said", "fence", "hooks"].map(|name| format!("{base}{name}")).to_vec();
        keys.push(self.index(shard, node));
        keys
    }

    /// The last event of a cache channel.
    pub(super) fn kept(&self, shard: usize, app: &str, channel: &str) -> String {
        format!("{}:{{{shard}}}:kept:{app}\0{channel}", self.prefix)
    }

    /// The keys that keeping it touches.
    pub(super) fn around_kept(&self, shard: usize, app: &str, channel: &str) -> [String; 3] {
        let base = self.base(shard);
        [self.kept(shard, app, channel), format!("{base}keeps:{app}"), format!("{base}missed:{app}\0{channel}")]
    }

    /// Where its entries are pushed.
    pub(super) fn pushes(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:push", self.prefix)
    }
}

/// Tells where a log ends, and makes a new one if there is none, or if it ends before an entry that is known (after a fail-over, or a
/// restart from an old file): the new epoch tells everybody that entries were lost.
///
/// It does so, too, when the log is on another server than before, or on the same one after a restart: its copy may have lacked the end, to
/// which others may have added since.
///
/// Where it is asked to, it pushes a mark with the last entry's id, behind that entry, and tells which server this is.
///
/// `KEYS` log, its epoch, its server; `ARGV` known epoch, known number, the entry before which all may go or empty, a mark or empty, where
/// to push it.
const INSPECT: &str = r"
local log, epoch, number, known = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), KEYS[2]
local info = redis.pcall('INFO', 'replication')
local server = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
local before = redis.call('GET', KEYS[3])
local function state()
  local info, last, first = redis.call('XINFO', 'STREAM', log), nil, nil
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
    if info[i] == 'recorded-first-entry-id' then first = info[i + 1] end
  end
  local e, n = string.match(last, '(%d+)-(%d+)')
  return last, first, tonumber(e), tonumber(n)
end
local function begin(least)
  local time = redis.call('TIME')
  local e = math.max(time[1] * 1000 + math.floor(time[2] / 1000), least + 1)
  redis.call('XADD', log, string.format('%.0f-0', e), 'begin', '')
  redis.call('SET', known, string.format('%.0f', e))
end
if redis.call('EXISTS', log) == 0 then begin(epoch) end
local last, first, e, n = state()
if e < epoch or (e == epoch and n < number) or (before and before ~= server) then
  begin(math.max(e, epoch))
  last, first = state()
end
if redis.call('EXISTS', known) == 0 then redis.call('SET', known, string.match(last, '%d+')) end
redis.call('PEXPIRE', log, lifetime)
redis.call('PEXPIRE', known, lifetime)
redis.call('SET', KEYS[3], server, 'PX', lifetime)
if ARGV[3] ~= '' then redis.call('XTRIM', log, 'MINID', '~', ARGV[3]) end
if ARGV[4] == '' then return {last, first, ''} end
redis.call(publish, ARGV[5], '\2' .. struct.pack('>I4', #last) .. last .. ARGV[4])
return {last, first, string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')}
";

/// How a mark is announced.
const MARK: &str = "M";

/// How long a key lives that nobody needs. Logs are renewed every second, other keys by the nodes that need them, now and then.
pub(super) const LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// The scripts, loaded on one connection's server.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    inspect: String,
    /// Adds an entry with events that are kept.
    pub(super) keep: String,
}

impl Scripts {
    /// A server that restarted has forgotten them: they are loaded with each connection.
    pub(super) async fn load(link: &Link) -> RedisResult<Self> {
        let keep = concat!(include_str!("kept.lua"), include_str!("keep.lua"));
        Ok(Self { inspect: link.load(INSPECT).await?, keep: link.load(keep).await? })
    }

    /// Asks for all logs in one go. `known`: the last entries the asker knows of.
    pub(super) async fn inspect(
        &self,
        link: &Link,
        keys: &Keys,
        known: &[Position],
        asking: Asking<'_>,
    ) -> RedisResult<Vec<State>> {
        let ask = |(shard, known): (usize, &Position)| {
            let trim = asking.trim.map_or_else(String::new, |trim| trim[shard].to_string());
            let mut ask = script(&self.inspect, &[keys.log(shard), keys.epoch(shard), keys.server(shard)]);
            let mark = if asking.marks >> shard & 1 == 1 { MARK } else { "" };
            ask.arg(known.epoch).arg(known.number).arg(trim).arg(mark).arg(keys.pushes(shard));
            (shard, ask)
        };
        let replies: Vec<Vec<Value>> = link.ask(known.iter().enumerate().map(ask).collect()).await?;
        let state = |reply: &Vec<Value>| {
            let (last, first) = (Position::parse(reply.first()?)?, Position::parse(reply.get(1)?)?);
            let Value::BulkString(server) = reply.get(2)? else { return None };
            Some(State { last, first, identity: identity(server, last.epoch) })
        };
        let states: Option<Vec<_>> = replies.iter().map(state).collect();
        states.filter(|states| states.len() == SHARDS.min(known.len())).ok_or_else(unexpected)
    }
}

/// What is asked of the logs beside where they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asking<'a> {
    /// The entries before which all may go.
    pub(super) trim: Option<&'a [Position]>,
    /// The shards where a mark shall be pushed, a bit for each.
    pub(super) marks: u32,
}

/// Marks in all shards.
pub(super) const ALL_MARKS: u32 = u32::MAX;

/// Names a log on a server: FNV-1a. 0 if the server is not known.
pub(super) fn identity(server: &[u8], epoch: u64) -> u64 {
    if server.is_empty() {
        return 0;
    }
    let bytes = server.iter().copied().chain(epoch.to_be_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    hash.max(1)
}

/// Adds an entry and pushes it, in one step: what is pushed is in the log, in the same order.
///
/// A log that is gone is not made anew, and one of another epoch refuses: then the reply is nil or an error, and although the
/// push went out, readers of another epoch ignore it.
pub(super) fn add(link: &Link, keys: &Keys, shard: usize, epoch: u64, entry: &[u8]) -> [Cmd; 2] {
    let (mut add, mut push) = (redis::cmd("XADD"), redis::cmd(link.publish()));
    add.arg(keys.log(shard)).arg("NOMKSTREAM").arg(format!("{epoch}-*")).arg("e").arg(entry);
    push.arg(keys.pushes(shard)).arg(entry);
    [add, push]
}

/// What became of an entry.
#[derive(Debug)]
pub(super) enum Added {
    At(Position),
    /// There is another log.
    OtherEpoch,
}

/// Reads the reply to the `XADD` of [`add`].
pub(super) fn added(reply: RedisResult<Value>) -> RedisResult<Added> {
    match reply {
        Ok(Value::Nil) => Ok(Added::OtherEpoch),
        Ok(id) => Position::parse(&id).map(Added::At).ok_or_else(unexpected),
        Err(error) if error.to_string().contains("equal or smaller") => Ok(Added::OtherEpoch),
        Err(error) => Err(error),
    }
}

/// What stands in an entry.
#[derive(Debug)]
pub(super) enum Content {
    /// It only begins a log.
    Nothing,
    Events(Vec<u8>),
    Announcement(Vec<u8>),
}

/// Entries after a position, in order, at most `count` of them.
pub(super) async fn read(
    link: &Link,
    keys: &Keys,
    shard: usize,
    after: Option<Position>,
    count: usize,
) -> RedisResult<Vec<(Position, Content)>> {
    let start = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
    let mut command = redis::cmd("XRANGE");
    command.arg(keys.log(shard)).arg(start).arg("+").arg("COUNT").arg(count);
    let entries: Vec<(Value, Vec<Value>)> = command.query_async(&mut link.to(shard)).await?;
    let entry = |(id, fields): (Value, Vec<Value>)| {
        let mut fields = fields.into_iter();
        let content = match (fields.next(), fields.next()) {
            (Some(Value::BulkString(name)), Some(Value::BulkString(content))) if name == b"e" => {
                Content::Events(content)
            }
            (Some(Value::BulkString(name)), Some(Value::BulkString(content))) if name == b"a" => {
                Content::Announcement(content)
            }
            _ => Content::Nothing,
        };
        Some((Position::parse(&id)?, content))
    };
    entries.into_iter().map(entry).collect::<Option<_>>().ok_or_else(unexpected)
}

/// Names a shard's log with this epoch on the server it is on.
pub(super) async fn server(link: &Link, shard: usize, epoch: u64) -> RedisResult<u64> {
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut link.to(shard)).await?;
    Ok(identity(field(&info, "run_id").unwrap_or_default().as_bytes(), epoch))
}

/// Names the server of each shard's log, for as long as it runs.
pub(super) async fn servers(link: &Link) -> RedisResult<Vec<String>> {
    let mut ask = redis::cmd("INFO");
    ask.arg("server");
    let infos: Vec<String> = link.ask((0..SHARDS).map(|shard| (shard, ask.clone())).collect()).await?;
    Ok(infos.iter().map(|info| field(info, "run_id").unwrap_or_default().to_owned()).collect())
}

/// There is no connection.
pub(super) fn out_of_reach() -> redis::RedisError {
    redis::RedisError::from((redis::ErrorKind::Io, "Redis is out of reach"))
}

pub(super) fn unexpected() -> redis::RedisError {
    redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "an answer that was not expected"))
}
