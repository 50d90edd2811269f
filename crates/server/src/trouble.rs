//! States that a person must know of: one line in the log when one begins, one when it is over, however often it is met in between.

use std::{collections::HashMap, time::Duration};

use fanfare_protocol::AppId;
use tokio::time::Instant;

use crate::{
    app::App,
    metrics::{AppMetrics, Refusal},
    node::Node,
};

/// How long a trouble has to be away to be over.
const OVER: Duration = Duration::from_secs(30);
/// How long publishers have to wait before the log says so. Shorter waits are normal: that is how the bounds work.
const WAITING: Duration = Duration::from_secs(1);
/// How often open files are counted.
const COUNT_FILES: Duration = Duration::from_secs(5);

/// Something that is counted and should not happen.
struct Kind {
    count: fn(&AppMetrics) -> u64,
    begins: &'static str,
    is_over: &'static str,
}

const KINDS: [Kind; 6] = [
    Kind {
        count: |metrics| metrics.refusals.get(Refusal::Connections),
        begins: "connections are refused with 4004: the app has as many as max_connections allows",
        is_over: "no connection is refused for max_connections any more",
    },
    Kind {
        count: |metrics| metrics.refusals.get(Refusal::NodeConnections),
        begins: "connections are refused with 4100: the server has as many as limits.max_connections allows",
        is_over: "no connection is refused for limits.max_connections any more",
    },
    Kind {
        count: |metrics| metrics.refusals.get(Refusal::BackendEvents),
        begins: "triggers are answered with 429: the app's backends publish more than max_backend_events_per_second allows",
        is_over: "no trigger is refused for max_backend_events_per_second any more",
    },
    Kind {
        count: |metrics| metrics.refusals.get(Refusal::Channels),
        begins: "subscriptions are refused: the app has as many channels as max_channels allows",
        is_over: "no subscription is refused for max_channels any more",
    },
    Kind {
        count: |metrics| metrics.publish_timeouts.get(),
        begins: "triggers are answered with 503: workers were busy for longer than server.publish_timeout",
        is_over: "triggers find room again",
    },
    Kind {
        count: |metrics| metrics.cache_overflows.get(),
        begins: "events of cache channels are not kept: the app keeps as many as max_cached_events allows",
        is_over: "events of cache channels are kept again",
    },
];

/// One trouble of one app.
#[derive(Debug, Default)]
struct Trouble {
    /// The counter when it was last looked at.
    seen: u64,
    /// While it lasts: when it was last met, and how often since it began.
    lasting: Option<(Instant, u64)>,
}

/// What has changed about a trouble.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Begins,
    /// It is over; it was met so often.
    Over(u64),
}

impl Trouble {
    fn look(&mut self, count: u64, now: Instant) -> Option<Change> {
        let more = count.saturating_sub(self.seen);
        self.seen = count;
        match &mut self.lasting {
            None if more > 0 => {
                self.lasting = Some((now, more));
                Some(Change::Begins)
            }
            Some((last, times)) if more > 0 => {
                (*last, *times) = (now, *times + more);
                None
            }
            Some((last, times)) if now.duration_since(*last) >= OVER => {
                let times = *times;
                self.lasting = None;
                Some(Change::Over(times))
            }
            _ => None,
        }
    }
}

/// Whether a state holds, told when it has changed and the new one has lasted.
#[derive(Debug, Default)]
struct State {
    told: bool,
    other_since: Option<Instant>,
}

impl State {
    /// The new state, when it is to be told.
    fn look(&mut self, holds: bool, lasts: Duration, now: Instant) -> Option<bool> {
        if holds == self.told {
            self.other_since = None;
            return None;
        }
        let since = *self.other_since.get_or_insert(now);
        let needed = if holds { lasts } else { OVER };
        (now.duration_since(since) >= needed).then(|| {
            self.told = holds;
            self.other_since = None;
            holds
        })
    }
}

/// Looks at everything from time to time.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    apps: HashMap<AppId, [Trouble; KINDS.len()]>,
    busy: State,
    files: State,
    files_counted: Option<Instant>,
}

impl Troubles {
    pub(crate) fn look(&mut self, node: &Node, now: Instant) {
        let apps = node.apps.all();
        self.apps.retain(|id, _| apps.iter().any(|app| app.id == *id));
        for app in &apps {
            self.look_at(app, now);
        }
        match self.busy.look(node.pressure.is_over(), WAITING, now) {
            Some(true) => tracing::warn!("workers cannot keep up: publishers wait, and clients that send are not read"),
            Some(false) => tracing::info!("workers keep up again"),
            None => {}
        }
        if self.files_counted.is_none_or(|last| now.duration_since(last) >= COUNT_FILES) {
            self.files_counted = Some(now);
            let (open, limit) = crate::metrics::open_files();
            match self.files.look(open > limit / 10 * 9, Duration::ZERO, now) {
                Some(true) => {
                    tracing::warn!(
                        open,
                        limit,
                        "nearly all files that may be open are: soon nobody can connect; see LimitNOFILE"
                    );
                }
                Some(false) => tracing::info!(open, limit, "enough files may be opened again"),
                None => {}
            }
        }
    }

    fn look_at(&mut self, app: &App, now: Instant) {
        let troubles = self.apps.entry(app.id.clone()).or_default();
        for (kind, trouble) in KINDS.iter().zip(troubles) {
            match trouble.look((kind.count)(&app.metrics), now) {
                Some(Change::Begins) => tracing::warn!(app.id = %app.id, "{}", kind.begins),
                Some(Change::Over(times)) => tracing::info!(app.id = %app.id, times, "{}", kind.is_over),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_until_it_has_stayed_away() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let mut look = |count, seconds| trouble.look(count, start + Duration::from_secs(seconds));
        assert_eq!(look(0, 0), None);
        assert_eq!(look(3, 1), Some(Change::Begins));
        assert_eq!(look(3, 2), None);
        assert_eq!(look(5, 20), None);
        assert_eq!(look(5, 49), None);
        assert_eq!(look(5, 50), Some(Change::Over(5)));
        assert_eq!(look(5, 100), None);
        assert_eq!(look(6, 101), Some(Change::Begins));
    }

    #[test]
    fn a_state_is_told_when_it_has_lasted() {
        let (mut state, start) = (State::default(), Instant::now());
        let mut look = |holds, seconds| state.look(holds, WAITING, start + Duration::from_secs(seconds));
        assert_eq!([look(true, 0), look(false, 0), look(true, 1), look(true, 2)], [None, None, None, Some(true)]);
        assert_eq!([look(true, 3), look(false, 4), look(true, 5), look(false, 6)], [None; 4]);
        assert_eq!([look(false, 35), look(false, 36), look(false, 99)], [None, Some(false), None]);
    }
}
