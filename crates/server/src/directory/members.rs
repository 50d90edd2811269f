//! The users of a presence channel. One user is one member, however many connections it has.

use std::sync::Arc;

use fanfare_protocol::{presence::Member, server_event, server_event::MemberFragments};
use indexmap::IndexMap;

use crate::frame::Frame;

/// The members of one channel, in no particular order.
#[derive(Debug, Default)]
pub(super) struct Members {
    users: IndexMap<Arc<str>, Entry>,
    /// The answer to the next subscriber, until a member comes or goes.
    snapshot: Option<Frame>,
}

#[derive(Debug)]
struct Entry {
    connections: usize,
    /// The info of the user's first connection: pusher.com keeps it until the user has left entirely.
    fragments: MemberFragments,
}

/// A connection of a member was added.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) user_id: Arc<str>,
    /// What to tell the others, if it is the user's first connection.
    pub(super) first: Option<MemberFragments>,
}

impl Members {
    /// Adds a connection of a user; `None` if that would be one user too many. A known user's next tab is never refused.
    pub(super) fn join(&mut self, member: &Member, limit: usize) -> Option<Joined> {
        if let Some((user_id, entry)) = self.users.get_full_mut(&*member.user_id).map(|(_, id, entry)| (id, entry)) {
            entry.connections += 1;
            return Some(Joined { user_id: Arc::clone(user_id), first: None });
        }
        if self.users.len() >= limit {
            return None;
        }
        let fragments = MemberFragments::new(member);
        let user_id: Arc<str> = (&*member.user_id).into();
        self.users.insert(Arc::clone(&user_id), Entry { connections: 1, fragments: fragments.clone() });
        self.snapshot = None;
        Some(Joined { user_id, first: Some(fragments) })
    }

    /// Removes a connection of a user. Returns what to tell the others, if it was the last one.
    pub(super) fn leave(&mut self, user_id: &str) -> Option<MemberFragments> {
        let entry = self.users.get_mut(user_id)?;
        entry.connections -= 1;
        if entry.connections > 0 {
            return None;
        }
        self.snapshot = None;
        self.users.swap_remove(user_id).map(|entry| entry.fragments)
    }

    /// Adds a member that other nodes may have, too. Returns whether it is new.
    pub(super) fn put(&mut self, user_id: Arc<str>, fragments: MemberFragments) -> bool {
        let new = !self.users.contains_key(&user_id);
        if new {
            self.snapshot = None;
            self.users.insert(user_id, Entry { connections: 1, fragments });
        }
        new
    }

    /// Removes a member that no node has any more.
    pub(super) fn remove(&mut self, user_id: &str) -> Option<MemberFragments> {
        let entry = self.users.swap_remove(user_id)?;
        self.snapshot = None;
        Some(entry.fragments)
    }

    /// Whether a user is a member.
    pub(super) fn contains(&self, user_id: &str) -> bool {
        self.users.contains_key(user_id)
    }

    /// The answer to a subscriber, built at most once between two changes.
    pub(super) fn snapshot(&mut self, channel: &str) -> Frame {
        let users = &self.users;
        let build = || {
            let fragments = users.values().map(|entry| &entry.fragments);
            Frame::text(&server_event::presence_succeeded(channel, fragments))
        };
        self.snapshot.get_or_insert_with(build).clone()
    }

    /// Distinct users.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// The users.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.keys()
    }

    /// The users' ids, each with its info as JSON.
    pub(super) fn infos(&self) -> impl Iterator<Item = (&Arc<str>, Option<String>)> {
        self.users.iter().map(|(id, entry)| (id, entry.fragments.user_info()))
    }
}
