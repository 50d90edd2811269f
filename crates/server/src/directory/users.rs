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
    config::AppConfig,
    connection::ConnectionError,
    frame::Frame,
    worker::{Address, ConnectionId},
};

/// How long a user's going is kept back: a page that reloads is not offline.
const OFFLINE_DELAY: Duration = Duration::from_secs(3);

/// The signed-in users of one app on this node. One lock: sign-ins are rare, and what watchers are told needs one order.
#[derive(Debug)]
pub(crate) struct Users {
    watchlist: AtomicBool,
    max_watchlist_users: AtomicUsize,
    state: Mutex<State>,
    offline_due: DueList<Arc<str>>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<Arc<str>, Presence>,
    /// For a watched user, the connections that watch.
    watchers: HashMap<Arc<str>, IndexMap<ConnectionId, Address>>,
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
    pub(crate) fn new(app: &AppConfig) -> Self {
        Self {
            watchlist: app.watchlist.into(),
            max_watchlist_users: app.max_watchlist_users.into(),
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

    /// Registers a connection as a user's and tells whoever watches. `user_data` goes back to the client as it came.
    pub(crate) fn sign_in(&self, address: &Address, mut user: User, user_data: &str) -> SignedIn {
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
            state.tell_watchers(&id, true);
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
            let (online, offline): (Vec<_>, Vec<_>) =
                listed.into_iter().partition(|id| state.users.contains_key(&***id));
            address.send(Frame::text(&server_event::watchlist_events(&online, &offline)));
        }
        SignedIn { user }
    }

    /// Takes a connection off the users it watches.
    pub(crate) fn unwatch(&self, connection: ConnectionId, signed_in: &SignedIn) {
        let mut state = self.state();
        for watched in &signed_in.user.watchlist {
            if let Some(watchers) = state.watchers.get_mut(&**watched) {
                watchers.swap_remove(&connection);
                if watchers.is_empty() {
                    state.watchers.remove(&**watched);
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
            if self.watchlist.load(Ordering::Relaxed) {
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
            // The user may have come back, or come back and gone again: then a later entry of the list decides.
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
