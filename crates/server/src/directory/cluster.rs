//! Presence channels whose members are on several nodes.
//!
//! Who is a member is decided in Redis and announced in the log, in one order with everything else. This node keeps a view of the
//! channels it has subscribers for: it begins with all members as of some announcement, and changes by the later ones. A joiner is
//! answered when the view has it, so what it gets agrees with the `member_*` frames that follow.
//!
//! ```text
//! subscribe ─▶ waiting ─▶ told to Redis ─▶ answered, and announced ─▶ subscriber
//!                 └── the client leaves ─▶ gone        └── full, or too late ─▶ refused
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use fanfare_protocol::{
    SocketId,
    client_event::RecoverFrom,
    presence::Member,
    server_event::{self, MemberFragments},
};
use tokio::time::Instant;

use super::{Channel, ChannelFull, Directory, Recovering, Subscription};
use crate::{
    broker::{Fact, Joining, Membership, Position, Subject},
    frame::Frame,
    limits::{JOIN_TIMEOUT, MISSED_CHANGES},
    worker::{Address, Command, ConnectionId},
};

/// What Redis says to a user's join.
#[derive(Debug)]
pub(crate) enum JoinAnswer {
    /// The channel has as many users as it may.
    Full,
    /// The user is a member.
    In {
        /// Where that was announced; zero if the user was a member already.
        announced: Position,
        /// All members with their info as JSON, as of an announcement; if they were asked for.
        members: Option<(Position, Vec<(String, String)>)>,
    },
}

/// What became of a join. Shared with the connection that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Verdict(AtomicU8);

impl Verdict {
    const IN: u8 = 1;
    const REFUSED: u8 = 2;
    const OPTED_IN: u8 = 3;

    fn set(&self, verdict: u8) {
        self.0.store(verdict, Ordering::Release);
    }

    /// Whether the verdict is still open.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Whether the connection became a subscriber that gets positions.
    pub(super) fn is_opted_in(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::OPTED_IN
    }

    /// Whether the connection is no subscriber and will not be.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::REFUSED
    }
}

/// What this node knows of a presence channel, beside its view of the members (`Channel::members`).
#[derive(Debug)]
pub(super) struct Shared {
    /// The users that this node has, waiting ones included.
    here: HashMap<Arc<str>, Here>,
    waiting: VecDeque<Waiting>,
    /// The last announcement in the view of the members; `None`: there is no view yet.
    view: Option<Position>,
    /// Announcements that came before there was a view.
    missed: Vec<(Position, Change)>,
    /// Where the log was when the first user came. A list from before that is out of date, since later announcements passed unnoticed.
    since: Position,
}

#[derive(Debug)]
struct Here {
    connections: usize,
    joining: Arc<Joining>,
    /// Redis has taken the join. The user is a member as soon as the view has come to this announcement.
    confirmed: Option<Position>,
}

#[derive(Debug)]
struct Waiting {
    address: Address,
    user_id: Arc<str>,
    since: Instant,
    verdict: Arc<Verdict>,
    /// What is to be answered to a client that opted in to positions.
    asks: Option<Asks>,
}

/// A client that opted in to positions, while it waits.
#[derive(Debug)]
pub(super) struct Asks {
    /// Where it wants to go on, if it said so.
    pub(super) from: Option<RecoverFrom>,
    sockets: Box<[SocketId]>,
    room: Arc<AtomicUsize>,
}

impl Asks {
    #[expect(clippy::needless_pass_by_value, reason = "it is for map")]
    pub(super) fn of(recovering: Recovering<'_>) -> Self {
        let Recovering { from, sockets, room } = recovering;
        Self { from, sockets: sockets.into(), room: Arc::clone(room) }
    }
}

#[derive(Debug)]
enum Change {
    Joined(Arc<str>, MemberFragments),
    Left(Arc<str>),
}

impl Shared {
    fn new(since: Position) -> Self {
        Self { here: HashMap::new(), waiting: VecDeque::new(), view: None, missed: Vec::new(), since }
    }

    /// Whether nobody is here and nobody waits.
    pub(super) fn is_unused(&self) -> bool {
        self.here.is_empty()
    }
}

fn fragments(user_id: &str, info: &str) -> MemberFragments {
    MemberFragments::new(&Member { user_id: user_id.into(), user_info: Some(info.into()) })
}

impl Directory {
    fn member(&self, channel: &Channel, user_id: &Arc<str>) -> Subject {
        Subject::Member { app: Arc::clone(&self.app), channel: Arc::clone(&channel.name), user_id: Arc::clone(user_id) }
    }

    /// Tells the cluster how many connections of this node a channel has.
    pub(super) fn tell_count(&self, membership: &Membership, channel: &Channel) {
        if channel.kind.user {
            return;
        }
        let subject = Subject::Count { app: Arc::clone(&self.app), channel: Arc::clone(&channel.name) };
        let announced = self.rules.load().subscription_count && !channel.kind.presence;
        let waiting = channel.shared.as_ref().map_or(0, |shared| shared.waiting.len());
        // In other channels those who wait for the kept event count only once they are in: a count that is announced before would not reach
        // them.
        let awaiting =
            channel.awaited.as_ref().filter(|_| channel.kind.presence).map_or(0, |awaited| awaited.waiting());
        membership.set(
            subject,
            match channel.subscribers + waiting + awaiting {
                0 => Fact::Nothing,
                connections => Fact::Count { connections, announced },
            },
        );
    }

    /// Begins a join, under the channel's lock.
    pub(super) fn begin_join(
        &self,
        membership: &Membership,
        channel: &mut Channel,
        address: &Address,
        member: &Member,
        recovering: Option<Recovering<'_>>,
    ) -> Subscription {
        let user_id: Arc<str> = (&*member.user_id).into();
        let asks = recovering.map(Asks::of);
        let answered = asks.as_ref().is_some_and(|asks| asks.from.is_some());
        let shared =
            channel.shared.get_or_insert_with(|| Box::new(Shared::new(membership.announced(&self.app, &channel.name))));
        let first = !shared.here.contains_key(&user_id);
        let here = shared.here.entry(Arc::clone(&user_id)).or_insert_with(|| {
            let info = member.user_info.as_deref().unwrap_or("null").into();
            Here {
                connections: 0,
                joining: Arc::new(Joining { info, limit: self.rules.load().max_presence_members }),
                confirmed: None,
            }
        });
        here.connections += 1;
        let (joining, known) = (Arc::clone(&here.joining), shared.view.is_some());
        let verdict = Arc::<Verdict>::default();
        let since = Instant::now();
        let waiting = Waiting {
            address: address.clone(),
            user_id: Arc::clone(&user_id),
            since,
            verdict: Arc::clone(&verdict),
            asks,
        };
        shared.waiting.push_back(waiting);
        // Redis hears that the channel is occupied before it hears by whom.
        self.tell_count(membership, channel);
        if first {
            let subject = self.member(channel, &user_id);
            if known {
                membership.set(subject, Fact::Member(joining));
            } else {
                membership.join_and_ask(subject, joining);
            }
        }
        self.joins_due.add(since + JOIN_TIMEOUT, Arc::clone(&channel.name));
        self.answer_waiting(membership, channel);
        Subscription { user_id: Some(user_id), verdict: Some(verdict), answered, ..Subscription::new(channel) }
    }

    /// Answers those who wait and whom the view has by now.
    fn answer_waiting(&self, membership: &Membership, channel: &mut Channel) {
        let Some(shared) = &mut channel.shared else { return };
        let Some(view) = shared.view else { return };
        let (here, members) = (&shared.here, &channel.members);
        let is_in = |user_id: &Arc<str>| {
            members.contains(user_id)
                && here.get(user_id).is_some_and(|here| here.confirmed.is_some_and(|announced| announced <= view))
        };
        let (ready, waiting) = std::mem::take(&mut shared.waiting).into_iter().partition(|one| is_in(&one.user_id));
        shared.waiting = waiting;
        let ready: VecDeque<Waiting> = ready;
        if ready.is_empty() {
            return;
        }
        let now = Instant::now();
        for Waiting { address, verdict, asks, .. } in ready {
            if channel.kind.cache && channel.cached(now).is_none() {
                self.await_kept(membership, channel, &address, verdict, asks);
                continue;
            }
            self.welcome_late(channel, &address, &verdict, asks.as_ref(), now);
        }
    }

    /// Makes a connection that has waited a subscriber.
    pub(super) fn welcome_late(
        &self,
        channel: &mut Channel,
        address: &Address,
        verdict: &Verdict,
        asks: Option<&Asks>,
        now: Instant,
    ) {
        let succeeded = if channel.kind.presence {
            channel.members.snapshot(&channel.name)
        } else {
            Frame::text(&server_event::subscription_succeeded(&channel.name))
        };
        let recovering = asks.map(|Asks { from, sockets, room }| Recovering { from: *from, sockets, room });
        let (subscription, missed) = self.welcome(channel, address, succeeded, recovering, now);
        verdict.set(if subscription.is_opted_in() { Verdict::OPTED_IN } else { Verdict::IN });
        self.tell_miss(channel, missed);
        address.inbox.push(Command::Wake { connection: address.connection });
    }

    /// Redis has answered to a join.
    pub(crate) fn join_answered(&self, name: &str, user_id: &Arc<str>, answer: JoinAnswer) {
        let (Some(membership), Some(mut entry)) = (&self.membership, self.channels.get_mut(name)) else { return };
        let channel = &mut *entry;
        let Some(shared) = &mut channel.shared else { return };
        match answer {
            JoinAnswer::Full => {
                let limit = shared.here.get(user_id).map_or(0, |here| here.joining.limit);
                let full = ChannelFull::Members { limit }.to_string();
                self.refuse(membership, channel, ("LimitReached", 403), &full, |waiting| waiting.user_id == *user_id);
            }
            JoinAnswer::In { announced, members } => {
                if let Some(here) = shared.here.get_mut(user_id) {
                    here.confirmed = Some(announced);
                }
                if let Some((at, members)) = members {
                    self.see(membership, channel, at, members);
                }
                self.answer_waiting(membership, channel);
            }
        }
        drop(entry);
        self.forget_if_unused(name, Instant::now());
    }

    /// Takes the list of all members as the view, or brings the view in line with it.
    fn see(&self, membership: &Membership, channel: &mut Channel, at: Position, members: Vec<(String, String)>) {
        let Some(shared) = &mut channel.shared else { return };
        if at < shared.view.unwrap_or(shared.since) {
            // This list is older than the view, or than an announcement that passed unnoticed: ask once more.
            if let Some(user_id) = shared.here.keys().next().cloned() {
                membership.ask(&self.member(channel, &user_id));
            }
            return;
        }
        shared.view = Some(at);
        let missed = std::mem::take(&mut shared.missed);
        let mut gone: Vec<_> = channel.members.ids().cloned().collect();
        for (user_id, info) in members {
            gone.retain(|id| **id != *user_id);
            self.apply(channel, Change::Joined(user_id.as_str().into(), fragments(&user_id, &info)));
        }
        for user_id in gone {
            self.apply(channel, Change::Left(user_id));
        }
        for (position, change) in missed {
            if position > at {
                if let Some(shared) = &mut channel.shared {
                    shared.view = Some(position);
                }
                self.apply(channel, change);
            }
        }
    }

    /// Changes the view, and tells the subscribers if it is a change.
    fn apply(&self, channel: &mut Channel, change: Change) {
        match change {
            Change::Joined(user_id, fragments) => {
                let frame = Frame::text(&server_event::member_added(&channel.name, &fragments));
                if channel.members.put(user_id, fragments) {
                    channel.announce(&frame);
                }
            }
            Change::Left(user_id) => {
                if let Some(fragments) = channel.members.remove(&user_id) {
                    channel.announce(&Frame::text(&server_event::member_removed(&channel.name, &fragments)));
                }
            }
        }
    }

    /// The log says that a user has come, at the first of its nodes.
    pub(crate) fn member_joined(&self, name: &str, user_id: &str, info: &str, at: Position) {
        self.announced(name, at, || Change::Joined(user_id.into(), fragments(user_id, info)));
    }

    /// The log says that a user has left the last of its nodes.
    pub(crate) fn member_left(&self, name: &str, user_id: &str, at: Position) {
        self.announced(name, at, || Change::Left(user_id.into()));
    }

    fn announced(&self, name: &str, at: Position, change: impl FnOnce() -> Change) {
        let (Some(membership), Some(mut entry)) = (&self.membership, self.channels.get_mut(name)) else { return };
        let channel = &mut *entry;
        let Some(shared) = &mut channel.shared else { return };
        match shared.view {
            Some(view) if at <= view => {}
            Some(_) => {
                shared.view = Some(at);
                self.apply(channel, change());
                self.answer_waiting(membership, channel);
            }
            None if shared.missed.len() < MISSED_CHANGES => shared.missed.push((at, change())),
            // Too many changes to keep while the list is awaited: only a list that is newer than all of them will do.
            None => {
                shared.missed.clear();
                shared.since = at;
            }
        }
    }

    /// The log says how many connections a channel has in the whole cluster.
    pub(crate) fn counted(&self, name: &str, count: usize) {
        let Some(mut channel) = self.channels.get_mut(name) else { return };
        if channel.kind.presence || !self.rules.load().subscription_count || count == 0 {
            return;
        }
        channel.counted(Instant::now());
        channel.announce(&Frame::text(&server_event::subscription_count(&channel.name, count)));
    }

    /// Takes a connection out of a channel that it waits for, or takes its user out of what this node has. Returns whether it was a
    /// subscriber.
    pub(super) fn end_join(
        &self,
        membership: &Membership,
        channel: &mut Channel,
        connection: ConnectionId,
        user_id: &Arc<str>,
    ) -> bool {
        let Some(shared) = &mut channel.shared else { return true };
        let before = shared.waiting.len();
        shared.waiting.retain(|waiting| waiting.address.connection != connection);
        let was_subscriber = shared.waiting.len() == before;
        if let Some(here) = shared.here.get_mut(user_id) {
            here.connections -= 1;
            if here.connections == 0 {
                shared.here.remove(user_id);
                membership.set(self.member(channel, user_id), Fact::Nothing);
            }
        }
        was_subscriber
    }

    /// Refuses those who wait, as far as `whom` says so.
    fn refuse(
        &self,
        membership: &Membership,
        channel: &mut Channel,
        (kind, status): (&'static str, u16),
        why: &str,
        whom: impl Fn(&Waiting) -> bool,
    ) {
        let Some(shared) = &mut channel.shared else { return };
        let (refused, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut shared.waiting).into_iter().partition(|one| whom(one));
        shared.waiting = waiting;
        let message = format!("Cannot subscribe to {}: {why}", channel.name);
        for Waiting { address, user_id, verdict, .. } in refused {
            self.end_join(membership, channel, address.connection, &user_id);
            verdict.set(Verdict::REFUSED);
            address.send(Frame::text(&server_event::error(None, &message)));
            address.send(Frame::text(&server_event::subscription_error(&channel.name, kind, &message, status)));
            address.inbox.push(Command::Wake { connection: address.connection });
        }
        self.tell_count(membership, channel);
    }

    /// Refuses those who have waited for too long: Redis is away.
    pub(super) fn expire_joins(&self, now: Instant) {
        let Some(membership) = &self.membership else { return };
        for name in self.joins_due.take(now) {
            if let Some(mut channel) = self.channels.get_mut(&*name) {
                let why = "the other nodes cannot be asked, since Redis is out of reach; try again later";
                let late = |waiting: &Waiting| now.duration_since(waiting.since) >= JOIN_TIMEOUT;
                self.refuse(membership, &mut channel, ("Unavailable", 503), why, late);
                self.admit_late(&mut channel, now);
                drop(channel);
                self.forget_if_unused(&name, now);
            }
        }
    }

    /// Asks Redis for all members of the channels that are `meant`, to bring the view in line with them.
    pub(crate) fn compare_members(&self, meant: impl Fn(&str) -> bool) {
        let Some(membership) = &self.membership else { return };
        for mut channel in self.channels.iter_mut().filter(|channel| meant(&channel.name)) {
            let here = channel.shared.as_ref().map(|shared| shared.here.keys().next());
            match here {
                Some(Some(user_id)) => membership.ask(&self.member(&channel, user_id)),
                // Nobody is here; the entry is only there for its kept event. The next member begins with a new view.
                Some(None) => {
                    channel.shared = None;
                    channel.members = super::members::Members::default();
                }
                None => {}
            }
        }
    }
}
