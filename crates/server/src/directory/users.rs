//! An app's signed-in users: their connections, and who watches their coming and going.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_protocol::{CloseCode, presence::User, server_event};
use indexmap::IndexMap;
use tokio::time::Instant;

use super::due::DueList;
use crate::{
    broker::{Fact, Membership, Subject},
    config::AppConfig,
    connection::ConnectionError,
    frame::Frame,
    worker::{Address, ConnectionId},
};

/// How long a user's going is kept back: a page that reloads is not offline.
const OFFLINE_DELAY: Duration = Duration::from_secs(3);

/// The users a client watches, whose state the other nodes know.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) users: Vec<Box<str>>,
    /// How many changes had been announced when the question was asked.
    news: u64,
}

/// The signed-in users of one app on this node. One lock: sign-ins are rare, and what watchers are told needs one order.
#[derive(Debug)]
pub(crate) struct Users {
    watchlist: AtomicBool,
    max_watchlist_users: AtomicUsize,
    /// Whose users they are.
    app: Arc<str>,
    /// Tells other nodes of them; `None`: this node is alone.
    membership: Option<Arc<Membership>>,
    state: Mutex<State>,
    offline_due: DueList<Arc<str>>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<Arc<str>, Presence>,
    /// For a watched user, the connections that watch.
    watchers: HashMap<Arc<str>, IndexMap<ConnectionId, Address>>,
    /// With other nodes: what was last announced of a watched user.
    announced: HashMap<Arc<str>, Announced>,
    /// How many changes have been announced.
    news: u64,
}

/// A watched user, as all nodes have it.
#[derive(Debug)]
struct Announced {
    online: bool,
    /// When watchers are told that it has gone, unless it comes back.
    leaves: Option<Instant>,
    /// The number of the change.
    news: u64,
}

/// One user who is online, or was a moment ago.
#[derive(Debug, Default)]
struct Presence {
    connections: IndexMap<ConnectionId, Address>,
    /// When the last connection went; until it is announced the user counts as online.
    left: Option<Instant>,
}

/// A signed-in connection. Kept by the connection, handed back to [`Users::sign_out`].
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) user: User,
}

impl Users {
    pub(crate) fn new(app: &AppConfig, membership: Option<Arc<Membership>>) -> Self {
        Self {
            watchlist: app.watchlist.into(),
            max_watchlist_users: app.max_watchlist_users.into(),
            app: app.id.as_str().into(),
            membership,
            state: Mutex::default(),
            offline_due: DueList::default(),
        }
    }

    /// From now on `app` holds, for whoever signs in.
    pub(crate) fn set(&self, app: &AppConfig) {
        self.watchlist.store(app.watchlist, Ordering::Relaxed);
        self.max_watchlist_users.store(app.max_watchlist_users, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection as a user's and tells whoever watches. `user_data` goes back to the client as it came. Returns what has to be
    /// asked of other nodes as well, if there are any.
    pub(crate) fn sign_in(&self, address: &Address, mut user: User, user_data: &str) -> (SignedIn, Option<Asked>) {
        let (watchlist, limit) =
            (self.watchlist.load(Ordering::Relaxed), self.max_watchlist_users.load(Ordering::Relaxed));
        let too_many = user.watchlist.len() > limit;
        user.watchlist.truncate(if watchlist { limit } else { 0 });
        let mut state = self.state();
        let id: Arc<str> = (&*user.member.user_id).into();
        let presence = state.users.entry(Arc::clone(&id)).or_default();
        let came = presence.connections.is_empty() && presence.left.take().is_none();
        presence.connections.insert(address.connection, address.clone());
        if came {
            match &self.membership {
                Some(membership) => membership.set(self.online(&id), Fact::Online),
                None => state.tell_watchers(&id, true),
            }
        }
        address.send(Frame::text(&server_event::signin_success(user_data)));
        if watchlist && too_many {
            let message = format!("Watchlist limit exceeded. Only the first {limit} user IDs are accepted.");
            address.send(Frame::text(&server_event::error(Some(CloseCode::WATCHLIST_LIMIT), &message)));
        }
        if !user.watchlist.is_empty() {
            for watched in &user.watchlist {
                let watchers = state.watchers.entry((&**watched).into()).or_default();
                watchers.insert(address.connection, address.clone());
            }
            let mut listed: Vec<_> = user.watchlist.iter().collect();
            listed.sort_unstable();
            listed.dedup();
            if self.membership.is_some() {
                let asked = Asked { users: listed.into_iter().cloned().collect(), news: state.news };
                return (SignedIn { user }, Some(asked));
            }
            let (online, offline): (Vec<_>, Vec<_>) =
                listed.into_iter().partition(|id| state.users.contains_key(&***id));
            address.send(Frame::text(&server_event::watchlist_events(&online, &offline)));
        }
        (SignedIn { user }, None)
    }

    fn online(&self, user_id: &Arc<str>) -> Subject {
        Subject::Online { app: Arc::clone(&self.app), user_id: Arc::clone(user_id) }
    }

    /// Tells a client who of those it watches is online: as Redis said, or as was announced since it was asked.
    pub(crate) fn tell_state(&self, address: &Address, asked: &Asked, online: &[bool]) {
        let mut state = self.state();
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for (user_id, online) in asked.users.iter().zip(online) {
            let newer = state.announced.get(&**user_id).filter(|announced| announced.news > asked.news);
            let online = newer.map_or(*online, |announced| announced.online);
            let news = asked.news;
            if newer.is_none() && state.watchers.contains_key(&**user_id) {
                state.announced.insert((&**user_id).into(), Announced { online, leaves: None, news });
            }
            if online { on.push(user_id) } else { off.push(user_id) }
        }
        address.send(Frame::text(&server_event::watchlist_events(&on, &off)));
    }

    /// The log says that a user has come online at the first of its nodes, or gone from the last.
    pub(crate) fn announced(&self, user_id: &str, online: bool) {
        let mut state = self.state();
        let Some((id, _)) = state.watchers.get_key_value(user_id) else { return };
        let id = Arc::clone(id);
        state.news += 1;
        let news = state.news;
        let before = state.announced.get(&id).map(|before| before.online);
        if online {
            state.announced.insert(Arc::clone(&id), Announced { online, leaves: None, news });
            if before != Some(true) {
                state.tell_watchers(&id, true);
            }
        } else {
            let leaves = Instant::now() + OFFLINE_DELAY;
            state.announced.insert(Arc::clone(&id), Announced { online: true, leaves: Some(leaves), news });
            self.offline_due.add(leaves, id);
        }
    }

    /// Announces those who have gone from their last node and stayed away.
    fn tell_gone(state: &mut State, id: &Arc<str>, now: Instant) {
        state.news += 1;
        let news = state.news;
        if let Some(announced) = state.announced.get_mut(id)
            && announced.leaves.is_some_and(|due| due <= now)
        {
            *announced = Announced { online: false, leaves: None, news };
            state.tell_watchers(id, false);
        }
    }

    /// Takes a connection off the users it watches.
    pub(crate) fn unwatch(&self, connection: ConnectionId, signed_in: &SignedIn) {
        let mut state = self.state();
        for watched in &signed_in.user.watchlist {
            if let Some(watchers) = state.watchers.get_mut(&**watched) {
                watchers.swap_remove(&connection);
                if watchers.is_empty() {
                    state.watchers.remove(&**watched);
                    state.announced.remove(&**watched);
                }
            }
        }
    }

    /// Takes a connection off its user.
    pub(crate) fn sign_out(&self, connection: ConnectionId, signed_in: &SignedIn) {
        self.unwatch(connection, signed_in);
        let mut state = self.state();
        let id = &*signed_in.user.member.user_id;
        let Some((id, _)) = state.users.get_key_value(id) else { return };
        let id = Arc::clone(id);
        let Some(presence) = state.users.get_mut(&id) else { return };
        presence.connections.swap_remove(&connection);
        if presence.connections.is_empty() {
            if let Some(membership) = &self.membership {
                state.users.remove(&id);
                membership.set(self.online(&id), Fact::Nothing);
            } else if self.watchlist.load(Ordering::Relaxed) {
                let due = Instant::now() + OFFLINE_DELAY;
                presence.left = Some(due);
                self.offline_due.add(due, id);
            } else {
                state.users.remove(&id);
            }
        }
    }

    /// Ends all connections that are signed in as a user.
    pub(crate) fn terminate(&self, user_id: &str, code: u16) {
        if let Some(presence) = self.state().users.get(user_id) {
            for address in presence.connections.values() {
                address.close(ConnectionError::Terminated { code });
            }
        }
    }

    /// Announces users who have been gone for long enough.
    pub(crate) fn tick(&self, now: Instant) {
        for id in self.offline_due.take(now) {
            let mut state = self.state();
            if self.membership.is_some() {
                Self::tell_gone(&mut state, &id, now);
                continue;
            }
            // If the user has come back and gone again, a later entry of the list decides.
            if state.users.get(&id).is_some_and(|presence| presence.left.is_some_and(|due| due <= now)) {
                state.users.remove(&id);
                state.tell_watchers(&id, false);
            }
        }
    }
}

impl State {
    fn tell_watchers(&self, id: &Arc<str>, online: bool) {
        let Some(watchers) = self.watchers.get(id) else { return };
        let (one, none) = ([id], []);
        let frame = match online {
            true => server_event::watchlist_events(&one, &none),
            false => server_event::watchlist_events(&none, &one),
        };
        let frame = Frame::text(&frame);
        for address in watchers.values() {
            address.send(frame.clone());
        }
    }
}
