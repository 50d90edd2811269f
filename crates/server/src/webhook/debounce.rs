//! Who leaves and is back at once has not left: `channel_vacated` and `member_removed` wait, and a `channel_occupied` or
//! `member_added` within the delay takes the waiting event with it, so that neither is sent.
//!
//! A state machine without a clock: callers say what time it is. All wait equally long, so events become due in the order
//! in which they came; a `channel_vacated` never overtakes the `member_removed` before it. Events of other types pass.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use fanfare_protocol::{AppId, webhook::WebhookEvent};
use tokio::time::Instant;

use super::Notice;

/// No configured delay is longer in effect, which keeps times in the range of the clock.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The events that wait whether somebody comes back.
pub(super) struct Debounce {
    delay: Duration,
    limit: usize,
    /// By number, in the order in which they came and become due.
    waiting: BTreeMap<u64, Waiting>,
    /// The numbers in `waiting`. Names come from clients, hence the hasher of std, which cannot be flooded.
    numbers: HashMap<Subject, u64>,
    next_number: u64,
}

struct Waiting {
    due: Instant,
    notice: Notice,
}

/// Who left or came: a channel, or a user in it.
#[derive(PartialEq, Eq, Hash)]
struct Subject {
    app: AppId,
    channel: Box<str>,
    user_id: Option<Box<str>>,
}

enum Change {
    Left(Subject),
    Came(Subject),
}

impl Change {
    fn of(notice: &Notice) -> Option<Self> {
        let subject = |channel: &str, user_id: Option<&str>| Subject {
            app: notice.app.id.clone(),
            channel: channel.into(),
            user_id: user_id.map(Into::into),
        };
        match &notice.event {
            WebhookEvent::ChannelVacated { channel } => Some(Self::Left(subject(channel, None))),
            WebhookEvent::ChannelOccupied { channel } => Some(Self::Came(subject(channel, None))),
            WebhookEvent::MemberRemoved { channel, user_id } => Some(Self::Left(subject(channel, Some(user_id)))),
            WebhookEvent::MemberAdded { channel, user_id } => Some(Self::Came(subject(channel, Some(user_id)))),
            WebhookEvent::ClientEvent { .. }
            | WebhookEvent::CacheMiss { .. }
            | WebhookEvent::SubscriptionCount { .. } => None,
        }
    }
}

impl Debounce {
    /// Holds events back for `delay` (zero: not at all; at most [`MAX_DELAY`]), and at most `limit` of them.
    pub(super) fn new(delay: Duration, limit: usize) -> Self {
        Self { delay: delay.min(MAX_DELAY), limit, waiting: BTreeMap::new(), numbers: HashMap::new(), next_number: 0 }
    }

    /// Takes an event, and returns what is to be sent now: it, nothing, or the oldest one waiting if too many do.
    /// Due events have to be taken first.
    pub(super) fn accept(&mut self, notice: Notice, now: Instant) -> Option<Notice> {
        if self.delay.is_zero() {
            return Some(notice);
        }
        match Change::of(&notice) {
            None => Some(notice),
            Some(Change::Came(subject)) => match self.take_waiting(&subject) {
                Some(_) => None,
                None => Some(notice),
            },
            Some(Change::Left(subject)) => {
                if self.numbers.get(&subject).is_some_and(|number| self.is_lost(*number)) {
                    self.take_waiting(&subject);
                }
                let number = self.next_number;
                // It left already, so its return was lost on the way (the intake was full). Both departures count as one absence.
                if *self.numbers.entry(subject).or_insert(number) != number {
                    return None;
                }
                self.next_number += 1;
                self.waiting.insert(number, Waiting { due: now + self.delay, notice });
                // At the limit the oldest is sent early, not this one, so that the order is kept.
                if self.waiting.len() > self.limit { self.pop() } else { None }
            }
        }
    }

    /// Takes the departure that waits, if this node may still send it. One that it has lost since is another's, or comes again.
    fn take_waiting(&mut self, subject: &Subject) -> Option<Notice> {
        let number = self.numbers.remove(subject)?;
        let lost = self.is_lost(number);
        let taken = self.waiting.remove(&number)?;
        (!lost).then_some(taken.notice)
    }

    fn is_lost(&self, number: u64) -> bool {
        let claim = self.waiting.get(&number).and_then(|waiting| waiting.notice.claim.as_ref());
        claim.is_some_and(|claim| !claim.holds())
    }

    /// When the next event is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.due)
    }

    /// The next event nobody came back for.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Notice> {
        if self.next_due()? <= now { self.pop() } else { None }
    }

    /// The next event, due or not.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        let (_, Waiting { notice, .. }) = self.waiting.pop_first()?;
        if let Some(Change::Left(subject)) = Change::of(&notice) {
            self.numbers.remove(&subject);
        }
        Some(notice)
    }

    /// From now on nothing is held back. What waits already is taken with [`Self::pop`].
    pub(super) fn stop(&mut self) {
        self.delay = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{App, Claim, Entry, Tenure},
        *,
    };
    use crate::config::AppConfig;

    const DELAY: Duration = Duration::from_secs(3);

    struct Scene {
        debounce: Debounce,
        start: Instant,
        sent: Vec<String>,
    }

    impl Scene {
        fn new(delay: Duration, limit: usize) -> Self {
            Self { debounce: Debounce::new(delay, limit), start: Instant::now(), sent: Vec::new() }
        }

        /// Time `ms` comes, and with it events: `+c` occupied, `-c` vacated, `+c:u` added, `-c:u` removed, else a count.
        fn at(&mut self, ms: u64, events: &[&str]) -> &mut Self {
            self.at_app("app", ms, events)
        }

        fn at_claimed(&mut self, ms: u64, event: &str, claim: Option<Arc<Claim>>) -> &mut Self {
            let app = Arc::new(App::new(&AppConfig::default(), None, Arc::default()).unwrap());
            let (now, notice) = (self.start + Duration::from_millis(ms), Notice { app, event: parse(event), claim });
            self.sent.extend(self.debounce.accept(notice, now).map(|notice| short(&notice.event)));
            self
        }

        fn at_app(&mut self, app: &str, ms: u64, events: &[&str]) -> &mut Self {
            let config = AppConfig { id: AppId::new(app), ..AppConfig::default() };
            let app = Arc::new(App::new(&config, None, Arc::default()).unwrap());
            let now = self.start + Duration::from_millis(ms);
            while let Some(notice) = self.debounce.pop_due(now) {
                self.sent.push(short(&notice.event));
            }
            for text in events {
                let notice = Notice { app: app.clone(), event: parse(text), claim: None };
                self.sent.extend(self.debounce.accept(notice, now).map(|notice| short(&notice.event)));
            }
            self
        }

        #[track_caller]
        fn sent(&mut self, expected: &[&str]) -> &mut Self {
            assert_eq!(std::mem::take(&mut self.sent), expected);
            self
        }
    }

    fn parse(text: &str) -> WebhookEvent {
        let (name, user) = text[1..].split_once(':').unwrap_or((&text[1..], ""));
        let (channel, user_id) = (Box::from(name), Box::from(user));
        match (text.as_bytes()[0], user.is_empty()) {
            (b'+', true) => WebhookEvent::ChannelOccupied { channel },
            (b'-', true) => WebhookEvent::ChannelVacated { channel },
            (b'+', false) => WebhookEvent::MemberAdded { channel, user_id },
            (b'-', false) => WebhookEvent::MemberRemoved { channel, user_id },
            _ => WebhookEvent::SubscriptionCount { channel, subscription_count: 0 },
        }
    }

    fn short(event: &WebhookEvent) -> String {
        match event {
            WebhookEvent::ChannelOccupied { channel } => format!("+{channel}"),
            WebhookEvent::ChannelVacated { channel } => format!("-{channel}"),
            WebhookEvent::MemberAdded { channel, user_id } => format!("+{channel}:{user_id}"),
            WebhookEvent::MemberRemoved { channel, user_id } => format!("-{channel}:{user_id}"),
            other => format!("={}", other.channel()),
        }
    }

    #[test]
    fn who_stays_away_is_reported_after_the_delay() {
        let mut scene = Scene::new(DELAY, 10);
        scene.at(0, &["+c", "+c:u"]).sent(&["+c", "+c:u"]).at(10, &["-c:u", "-c"]).sent(&[]);
        assert_eq!(scene.debounce.next_due(), Some(scene.start + DELAY + Duration::from_millis(10)));
        scene.at(3009, &[]).sent(&[]).at(3010, &[]).sent(&["-c:u", "-c"]);
        assert_eq!(scene.debounce.next_due(), None);
        assert!(scene.debounce.numbers.is_empty());
    }

    #[test]
    fn who_comes_back_within_the_delay_is_not_reported_at_all() {
        let mut scene = Scene::new(DELAY, 10);
        scene.at(0, &["-c:u", "-c"]).at(2999, &["+c", "+c:u"]).sent(&[]).at(9000, &[]).sent(&[]);
        assert!(scene.debounce.numbers.is_empty() && scene.debounce.waiting.is_empty());
        // The next absence starts anew.
        scene.at(10_000, &["-c"]).at(12_999, &[]).sent(&[]).at(13_000, &[]).sent(&["-c"]);
    }

    #[test]
    fn who_comes_back_too_late_is_reported_after_the_departure() {
        Scene::new(DELAY, 10).at(0, &["-c:u", "-c"]).at(3000, &["+c", "+c:u"]).sent(&["-c:u", "-c", "+c", "+c:u"]);
    }

    #[test]
    fn a_vacated_channel_waits_for_the_members_that_left_it() {
        let mut scene = Scene::new(DELAY, 10);
        scene.at(0, &["-c:a"]).at(1000, &["-c:b", "-c"]).at(3500, &[]).sent(&["-c:a"]);
        scene.at(4000, &[]).sent(&["-c:b", "-c"]);
    }

    #[test]
    fn another_user_does_not_undo_the_departure_of_the_first() {
        let mut scene = Scene::new(DELAY, 10);
        scene.at(0, &["-c:a", "-c"]).at(1000, &["+c", "+c:b"]).sent(&["+c:b"]).at(3000, &[]).sent(&["-c:a"]);
    }

    #[test]
    fn apps_channels_and_users_are_told_apart() {
        let mut scene = Scene::new(DELAY, 10);
        scene.at_app("one", 0, &["-c", "-c:u"]);
        scene.at_app("two", 1, &["+c", "+c:u"]).sent(&["+c", "+c:u"]);
        scene.at_app("one", 2, &["+d", "+d:u", "+c:v"]).sent(&["+d", "+d:u", "+c:v"]);
        scene.at_app("one", 3, &["+c", "+c:u"]).sent(&[]);
    }

    #[test]
    fn other_events_do_not_wait() {
        Scene::new(DELAY, 10).at(0, &["-c", "=c"]).sent(&["=c"]);
    }

    #[test]
    fn without_a_delay_nothing_waits() {
        Scene::new(Duration::ZERO, 10).at(0, &["-c:u", "-c", "+c"]).sent(&["-c:u", "-c", "+c"]);
    }

    #[test]
    fn when_too_many_wait_the_oldest_is_sent() {
        let mut scene = Scene::new(DELAY, 2);
        scene.at(0, &["-c:a", "-c:b", "-c"]).sent(&["-c:a"]).at(1, &["+c:a"]).sent(&["+c:a"]);
        scene.at(3000, &[]).sent(&["-c:b", "-c"]);
    }

    #[test]
    fn a_second_departure_without_a_return_is_one_absence() {
        Scene::new(DELAY, 10).at(0, &["-c"]).at(2000, &["-c"]).at(3000, &[]).sent(&["-c"]).at(9000, &[]).sent(&[]);
    }

    #[test]
    fn a_departure_that_was_lost_with_its_shard_swallows_nothing() {
        let (tenure, long) = (Tenure::new(1), Duration::from_secs(60));
        tenure.begin(0, Instant::now() + long);
        let claim = |id: &str| tenure.claim(Entry { shard: 0, id: id.to_owned() });
        let mut scene = Scene::new(DELAY, 10);
        scene.at_claimed(0, "-c", claim("1-0")).at_claimed(0, "-d", claim("2-0"));
        tenure.begin(0, Instant::now() + long);
        // It comes again in the new term, and is sent; the other one was sent by somebody else, and its return is news.
        scene.at_claimed(1000, "-c", claim("1-0")).at_claimed(1000, "+d", claim("3-0")).sent(&["+d"]);
        scene.at(3999, &[]).sent(&[]).at(4000, &[]).sent(&["-c"]);
        assert!(scene.debounce.numbers.is_empty() && scene.debounce.waiting.is_empty());
    }

    #[test]
    fn once_stopped_everything_is_decided() {
        let mut scene = Scene::new(DELAY, 10);
        scene.at(0, &["-c:u", "-c"]).debounce.stop();
        scene.at(0, &["-d"]).sent(&["-d"]);
        let rest: Vec<_> = std::iter::from_fn(|| scene.debounce.pop()).map(|notice| short(&notice.event)).collect();
        assert_eq!(rest, ["-c:u", "-c"]);
    }
}
