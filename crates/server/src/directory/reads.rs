//! What the HTTP API and the metrics ask of an app's channels. Nothing is changed here.

use std::sync::{Arc, atomic::Ordering};

use fanfare_protocol::{
    ChannelName,
    channel::SERVER_TO_USER,
    trigger::{CachedData, ChannelInfo, Info},
};

use super::{Directory, channel::Channel};
use crate::timing;

impl Directory {
    /// What the HTTP API tells of one channel; what does not apply to its kind is left out.
    pub(crate) fn info(&self, name: ChannelName<'_>, info: Info) -> ChannelInfo {
        let channel = self.channels.get(name.as_str());
        let (kind, now) = (name.kind(), timing::now());
        let cached = |channel: &Channel| {
            channel
                .cached(now)
                .map(|cached| CachedData { data: cached.text(), ttl: cached.expires.duration_since(now).as_secs() })
        };
        ChannelInfo {
            occupied: None,
            user_count: (info.user_count && kind.presence)
                .then(|| channel.as_ref().map_or(0, |channel| channel.members.len())),
            subscription_count: (info.subscription_count && self.rules.load().subscription_count)
                .then(|| channel.as_ref().map_or(0, |channel| channel.subscribers)),
            cache: (info.cache && kind.cache).then(|| channel.as_deref().and_then(cached)),
            // Only if events are kept already: asking must not begin it, as `Directory::position` does.
            position: (channel.as_deref())
                .filter(|_| info.position)
                .and_then(|channel| Some(channel.ring.as_ref()?.newest().to_string())),
        }
    }

    /// Channels there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is no channel at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events that cache channels keep.
    pub(crate) fn cached_events(&self) -> usize {
        self.cached.load(Ordering::Relaxed)
    }

    /// Whether anybody is subscribed.
    pub(crate) fn is_occupied(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(|channel| channel.subscribers > 0)
    }

    /// The occupied channels with a prefix, without users' own.
    pub(crate) fn occupied(&self, prefix: &str) -> Vec<Arc<str>> {
        let listed = |channel: &Channel| {
            channel.subscribers > 0 && channel.name.starts_with(prefix) && !channel.name.starts_with(SERVER_TO_USER)
        };
        self.channels.iter().filter(|channel| listed(channel)).map(|channel| Arc::clone(&channel.name)).collect()
    }

    /// The distinct users of a presence channel.
    pub(crate) fn user_ids(&self, name: &str) -> Vec<Arc<str>> {
        self.channels.get(name).map(|channel| channel.members.ids().cloned().collect()).unwrap_or_default()
    }

    /// The distinct users of a presence channel, each with its info as JSON.
    pub(crate) fn user_infos(&self, name: &str) -> Vec<(Arc<str>, Option<String>)> {
        let infos = |channel: &Channel| channel.members.infos().map(|(id, info)| (Arc::clone(id), info)).collect();
        self.channels.get(name).map(|channel| infos(&channel)).unwrap_or_default()
    }
}
