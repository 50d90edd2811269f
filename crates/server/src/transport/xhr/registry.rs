//! The live sessions of an app: requests find their session whatever worker they reach, and their number is bounded.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, mapref::entry::Entry};
use tokio::sync::mpsc;

use super::session::Command;
use crate::{app::App, connection::ConnectionError, node::Node};

/// The name a client chose for its session. Whoever knows it can read and send as that client, so it is shown nowhere.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Box<str>);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId([redacted])")
    }
}

impl SessionId {
    /// Characters of either part; pusher-js uses 3 and 8.
    const LONGEST: usize = 32;

    /// The two segments of a path; `None` if they cannot be what a client chose.
    pub(crate) fn new(server: &str, session: &str) -> Option<Self> {
        let is_part = |part: &str| {
            !part.is_empty() && part.len() <= Self::LONGEST && part.bytes().all(|c| c.is_ascii_alphanumeric())
        };
        (is_part(server) && is_part(session)).then(|| Self(format!("{server}/{session}").into()))
    }
}

/// The live sessions of one app. Those of another cannot be reached from here, whatever their names.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: DashMap<SessionId, mpsc::Sender<Command>>,
    count: AtomicUsize,
}

impl Sessions {
    /// The way to a live session.
    pub(super) fn get(&self, id: &SessionId) -> Option<mpsc::Sender<Command>> {
        self.live.get(id).map(|sender| sender.clone())
    }
}

/// How many sessions each client address has.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, address: IpAddr, limit: usize) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if limit > 0 && *count >= limit {
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
        if counts.len() < counts.capacity() / 8 {
            counts.shrink_to_fit();
        }
    }
}

/// All addresses of an IPv6 network (/64) count as one: whoever has one of them has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A session's place among the live ones. Dropping it makes room.
pub(super) struct Place {
    node: Arc<Node>,
    app: Arc<App>,
    address: Option<IpAddr>,
    /// Its name, once others can find it.
    id: Option<SessionId>,
}

/// What became of a wish for a place.
pub(super) enum Taken {
    /// The session is new, and can be found.
    New(Place),
    /// Somebody was faster: this is the way to the session.
    Live(mpsc::Sender<Command>),
}

impl Place {
    /// Takes a place for a new session.
    ///
    /// # Errors
    /// The app, or the client's address, has as many sessions as it may.
    pub(super) fn take(
        node: &Arc<Node>,
        app: &Arc<App>,
        address: Option<IpAddr>,
        id: SessionId,
        sender: mpsc::Sender<Command>,
    ) -> Result<Taken, ConnectionError> {
        let limit = app.policy().config.max_xhr_sessions;
        let one_more = |count| (count < limit || limit == 0).then_some(count + 1);
        if app.sessions.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Err(ConnectionError::TooManySessions { setting: "max_xhr_sessions", limit });
        }
        let mut place = Self { node: Arc::clone(node), app: Arc::clone(app), address: None, id: None };
        if let Some(address) = address.map(network) {
            let limit = node.xhr.max_sessions_per_address;
            if !node.xhr_addresses.enter(address, limit) {
                return Err(ConnectionError::TooManySessions { setting: "xhr.max_sessions_per_address", limit });
            }
            place.address = Some(address);
        }
        match app.sessions.live.entry(id) {
            Entry::Occupied(entry) => Ok(Taken::Live(entry.get().clone())),
            Entry::Vacant(entry) => {
                place.id = Some(entry.key().clone());
                entry.insert(sender);
                Ok(Taken::New(place))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.app.sessions.live.remove(id);
        }
        self.app.sessions.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.node.xhr_addresses.leave(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_clients_choose_and_are_not_shown() {
        let id = SessionId::new("042", "0a1b2c3v").unwrap();
        assert_eq!(format!("{id:?}"), "SessionId([redacted])");
        assert_ne!(id, SessionId::new("04", "20a1b2c3v").unwrap());
        for (server, session) in [("", "a"), ("1", ""), ("1", "a b"), ("..", "a"), ("1", "é"), ("1", &*"a".repeat(33))]
        {
            assert!(SessionId::new(server, session).is_none(), "{server}/{session}");
        }
    }

    #[test]
    fn an_address_may_have_so_many_sessions() {
        let (addresses, address) = (Addresses::default(), IpAddr::from([127, 0, 0, 1]));
        assert!(addresses.enter(address, 2) && addresses.enter(address, 2));
        assert!(!addresses.enter(address, 2));
        assert!(addresses.enter(IpAddr::from([127, 0, 0, 2]), 2));
        addresses.leave(address);
        assert!(addresses.enter(address, 2));
        assert!(!addresses.enter(address, 2));
        assert!((0..1000).all(|_| addresses.enter(address, 0)));
    }

    #[test]
    fn addresses_of_an_ipv6_network_count_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
