//! What one client may do and has done. Decides; has no socket: what is to be sent goes to the connection's address, in order.

use std::{collections::HashMap, sync::Arc};

use fanfare_protocol::{
    ChannelName, ClientEvent, CloseCode, SocketId,
    channel::InvalidChannelName,
    client_event::{InvalidEvent, Recover, Relay, SignIn, Subscribe},
    json::EventData,
    presence::{InvalidUser, Member, User},
    server_event, signature,
    signature::AuthError,
    webhook::{WebhookEvent, WebhookEventType},
};
use tokio::{task::spawn_local, time::Instant};

use super::{budget::Budget, rate::RateLimit, recovery::Recovery};
use crate::{
    admission::{Admitted, Caller},
    app::{App, Metered},
    broker::{Published, Recall, Source},
    bucket::Exceeded,
    directory::{Asked, ChannelFull, ChannelId, Publication, SignedIn, Subscription, Want},
    frame::Frame,
    metrics::Refusal,
    worker::{Address, Command},
};

/// What one client has subscribed to and who it is. Dropping it leaves all channels: no way to end can forget that.
#[derive(Debug)]
pub(crate) struct State {
    app: Arc<App>,
    /// Where the client comes from, if that is counted.
    caller: Option<Caller>,
    socket_id: SocketId,
    address: Address,
    subscriptions: HashMap<Arc<str>, Subscription>,
    /// The subscription that waits for other nodes; nothing else of the client is looked at meanwhile.
    joining: Option<Arc<str>>,
    signed_in: Option<Box<SignedIn>>,
    client_events: RateLimit,
    changes: Budget,
    /// Set when the client opted in to positions.
    recovery: Option<Box<Recovery>>,
    /// What it needs of the log to go on where it was; nothing else of the client is looked at meanwhile.
    recall: Option<Waiting>,
    publishes: bool,
    authorized: bool,
}

/// What a client waits for, and the subscriptions that go on then.
#[derive(Debug)]
struct Waiting {
    recall: Arc<Recall>,
    late: Vec<Arc<str>>,
}

/// Why a subscription is refused. The connection lives on.
#[derive(Debug, thiserror::Error)]
enum SubscribeError {
    #[error("Existing subscription to channel {0}")]
    Existing(String),
    #[error("Invalid channel name '{name}': {error}")]
    Name { name: String, error: InvalidChannelName },
    #[error(transparent)]
    Auth(AuthError),
    #[error(
        "Too many signatures from this address did not fit (limits.max_failed_signatures_per_minute_per_address); \
         try again in {} s", .0.seconds()
    )]
    TooManyBadSignatures(Exceeded),
    #[error("Invalid channel data for {channel}: {error}")]
    User { channel: String, error: InvalidUser },
    #[error("Channel {0} needs channel_data with a user_id, or a signed-in connection")]
    NoMember(String),
    #[error("Channel {0} belongs to another user: sign in as that user first")]
    OtherUser(String),
    #[error("Cannot subscribe to {channel}: {full}")]
    Full { channel: String, full: ChannelFull },
    #[error(
        "Cannot subscribe to {channel}: the connection has {limit} subscriptions, which is its limit (max_channels_per_connection)"
    )]
    TooMany { channel: String, limit: usize },
}

impl SubscribeError {
    /// What it is counted as.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Auth(_) => Refusal::Signature,
            Self::TooManyBadSignatures(_) => Refusal::AddressSignatures,
            Self::Existing(_) | Self::Name { .. } | Self::User { .. } | Self::NoMember(_) | Self::OtherUser(_) => {
                Refusal::Subscription
            }
            Self::Full { full: ChannelFull::Channels { .. }, .. } => Refusal::Channels,
            Self::Full { full: ChannelFull::Members { .. }, .. } | Self::TooMany { .. } => Refusal::SubscriptionLimit,
        }
    }

    /// `type` and `status` of the `pusher:subscription_error` frame, for errors that get one.
    fn kind(&self) -> Option<(&'static str, u16)> {
        match self {
            // The first subscription is still there; an error frame for the channel would say the opposite.
            Self::Existing(_) => None,
            Self::Name { .. } => Some(("InvalidChannelName", 400)),
            Self::Auth(_) | Self::User { .. } | Self::NoMember(_) | Self::OtherUser(_) => Some(("AuthError", 401)),
            Self::Full { .. } | Self::TooMany { .. } => Some(("LimitReached", 403)),
            Self::TooManyBadSignatures(_) => Some(("LimitReached", 429)),
        }
    }
}

impl State {
    pub(crate) fn new(admitted: Admitted, socket_id: SocketId, address: Address) -> Self {
        let Admitted { app, caller, .. } = admitted;
        Self {
            changes: Budget::new(app.policy().subscription_changes, Instant::now()),
            app,
            caller,
            socket_id,
            address,
            subscriptions: HashMap::new(),
            joining: None,
            signed_in: None,
            client_events: RateLimit::new(),
            recovery: None,
            recall: None,
            publishes: false,
            authorized: false,
        }
    }

    /// The channels the connection's worker delivers to it.
    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.subscriptions.values().map(|subscription| subscription.channel)
    }

    /// Whether the app has vouched for this client: it signed in, or joined a private or presence channel.
    pub(crate) fn is_authorized(&self) -> bool {
        self.authorized
    }

    /// Whether the client has sent events to others, or has changed its subscriptions so often that what others are told of it
    /// comes to the same.
    pub(crate) fn publishes(&self) -> bool {
        self.publishes
    }

    /// Whether the client's next message has to wait for the answer of other nodes to its last one.
    pub(crate) fn waits(&mut self) -> bool {
        if self.recall.as_ref().is_some_and(|waiting| waiting.recall.is_open()) {
            return true;
        }
        if let Some(Waiting { late, .. }) = self.recall.take() {
            self.recover_late(late, Instant::now());
        }
        let Some(name) = &self.joining else { return false };
        let verdict = self.subscriptions.get(name).and_then(|subscription| subscription.verdict.as_ref());
        if verdict.is_some_and(|verdict| verdict.is_open()) {
            return true;
        }
        if verdict.is_some_and(|verdict| verdict.is_refused()) {
            self.subscriptions.remove(name);
        }
        self.joining = None;
        false
    }

    /// Until when the client's next message has to wait, since it changed its subscriptions too often.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Instant> {
        let until = self.changes.wait(|| self.app.policy().subscription_changes, now);
        self.publishes |= until.is_some();
        until
    }

    /// Acts on one text message. Nothing a client sends in one ends the connection; errors are answered.
    pub(crate) fn on_message(&mut self, message: &[u8], now: Instant) {
        match ClientEvent::parse(message) {
            Ok(ClientEvent::Ping) => self.address.send(Frame::text(server_event::PONG)),
            Ok(ClientEvent::Pong) => {}
            Ok(ClientEvent::Subscribe(subscribe)) => self.on_subscribe(&subscribe, now),
            Ok(ClientEvent::Unsubscribe { channel }) => self.on_unsubscribe(&channel),
            Ok(ClientEvent::SignIn(sign_in)) => self.on_sign_in(&sign_in),
            Ok(ClientEvent::Recover(recover)) => self.on_recover(recover, now),
            Ok(ClientEvent::Relay(relay)) => self.on_relay(&relay, now),
            Err(error) => {
                // A sign-in that cannot be read has failed like any other.
                let sign_in = matches!(error, InvalidEvent::Data { event: "pusher:signin", .. });
                self.refuse(Refusal::Message, sign_in.then_some(CloseCode::UNAUTHORIZED), &error.to_string());
            }
        }
    }

    /// Answers with an error, and counts it.
    fn refuse(&self, cause: Refusal, code: Option<CloseCode>, message: &str) {
        self.app.metrics.refusals.count(cause);
        self.address.send(Frame::text(&server_event::error(code, shown(message))));
    }

    fn on_subscribe(&mut self, subscribe: &Subscribe<'_>, now: Instant) {
        if let Err(error) = self.subscribe(subscribe, now) {
            let message = error.to_string();
            self.refuse(error.refusal(), None, &message);
            if let Some(recovery) = self.recovery.as_mut().filter(|_| error.kind().is_some()) {
                // The client handed in a position for this channel; the error answers that as well.
                recovery.forget(subscribe.channel());
            }
            // No page waits for an answer to a name that long, so it is not sent back.
            if let Some((kind, status)) = error.kind().filter(|_| subscribe.channel().len() <= SHOWN_BYTES) {
                let frame = server_event::subscription_error(subscribe.channel(), kind, shown(&message), status);
                self.address.send(Frame::text(&frame));
            }
        }
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, now: Instant) -> Result<(), SubscribeError> {
        let (name, app) = (subscribe.channel(), Arc::clone(&self.app));
        let policy = app.policy();
        let channel = ChannelName::parse(name, policy.event_limits.channel_name_bytes)
            .map_err(|error| SubscribeError::Name { name: name.to_owned(), error })?;
        if self.subscriptions.contains_key(name) {
            return Err(SubscribeError::Existing(name.to_owned()));
        }
        if channel.kind().auth {
            let data = subscribe.channel_data();
            self.may_sign().map_err(SubscribeError::TooManyBadSignatures)?;
            signature::verify_channel(subscribe.auth(), self.socket_id, name, data, |key| policy.signer(key))
                .inspect_err(|_| self.bad_signature())
                .map_err(SubscribeError::Auth)?;
        }
        if let Some(user_id) = channel.user_id()
            && self.user().is_none_or(|user| *user.member.user_id != *user_id)
        {
            return Err(SubscribeError::OtherUser(name.to_owned()));
        }
        let member = match channel.kind().presence {
            true => Some(self.member(name, subscribe.channel_data())?),
            false => None,
        };
        let limit = policy.config.max_channels_per_connection;
        if self.subscriptions.len() >= limit {
            return Err(SubscribeError::TooMany { channel: name.to_owned(), limit });
        }
        self.changes.spend();
        let recovering = self.recovery.as_deref_mut().map(|recovery| recovery.take(name, now));
        let (name, subscription) = app
            .directory
            .subscribe(&self.address, channel, member.as_ref(), recovering)
            .map_err(|full| SubscribeError::Full { channel: name.to_owned(), full })?;
        if subscription.verdict.is_some() {
            self.joining = Some(Arc::clone(&name));
        }
        self.subscriptions.insert(name, subscription);
        self.authorized |= channel.kind().auth;
        Ok(())
    }

    /// Whether the client's address may come with one more signature.
    fn may_sign(&self) -> Result<(), Exceeded> {
        self.caller.as_ref().map_or(Ok(()), Caller::may_sign)
    }

    fn bad_signature(&self) {
        if let Some(caller) = &self.caller {
            caller.bad_signature();
        }
    }

    fn user(&self) -> Option<&User> {
        self.signed_in.as_deref().map(|signed_in| &signed_in.user)
    }

    /// Who the connection is in a presence channel: what `channel_data` says, else who is signed in.
    fn member(&self, channel: &str, channel_data: Option<&str>) -> Result<Member, SubscribeError> {
        let invalid = |error| SubscribeError::User { channel: channel.to_owned(), error };
        let limits = self.app.policy().member_limits;
        match (channel_data, self.user()) {
            (Some(data), None) => Member::from_channel_data(data, limits).map_err(invalid),
            // Whoever is signed in may leave the id to the sign-in, and still send `channel_data` without one.
            (Some(data), Some(user)) => match Member::from_channel_data(data, limits) {
                Err(InvalidUser::Id { .. }) => Ok(user.member.clone()),
                other => other.map_err(invalid),
            },
            (None, Some(user)) => Ok(user.member.clone()),
            (None, None) => Err(SubscribeError::NoMember(channel.to_owned())),
        }
    }

    fn on_unsubscribe(&mut self, name: &str) {
        match self.subscriptions.remove_entry(name) {
            Some((name, subscription)) => {
                self.changes.spend();
                self.app.directory.unsubscribe(&self.address, &name, &subscription, true);
            }
            None => {
                let text = format!("No current subscription to channel {name}, or subscription in progress");
                self.refuse(Refusal::Message, None, &text);
            }
        }
    }

    fn on_sign_in(&mut self, sign_in: &SignIn<'_>) {
        let refuse = |cause, message: String| self.refuse(cause, Some(CloseCode::UNAUTHORIZED), &message);
        let app = Arc::clone(&self.app);
        let policy = app.policy();
        if let Err(exceeded) = self.may_sign() {
            let error = SubscribeError::TooManyBadSignatures(exceeded);
            return refuse(error.refusal(), error.to_string());
        }
        let verified =
            signature::verify_user(sign_in.auth(), self.socket_id, sign_in.user_data(), |key| policy.signer(key));
        if let Err(error) = verified {
            self.bad_signature();
            return refuse(Refusal::Signature, error.to_string());
        }
        let user = match User::from_user_data(sign_in.user_data(), policy.member_limits) {
            Ok(user) => user,
            Err(error) => return refuse(Refusal::Message, error.to_string()),
        };
        match self.user() {
            Some(current) if current.member.user_id != user.member.user_id => {
                refuse(Refusal::Message, "Connection is already signed in as another user".to_owned());
            }
            // Signing in again as the same user brings new data.
            _ => {
                if let Some(signed_in) = self.signed_in.take() {
                    app.users.unwatch(self.address.connection, &signed_in);
                }
                let (signed_in, asked) = app.users.sign_in(&self.address, user, sign_in.user_data());
                self.signed_in = Some(Box::new(signed_in));
                self.authorized = true;
                if let Some(asked) = asked {
                    let address = self.address.clone();
                    spawn_local(async move { tell_watched(&app, &address, &asked).await });
                }
            }
        }
    }

    fn on_recover(&mut self, recover: Recover, now: Instant) {
        self.changes.spend();
        let Recover { from, sockets } = recover;
        let first = self.recovery.is_none();
        let recovery = self.recovery.get_or_insert_with(|| Box::new(Recovery::new(&self.app, self.socket_id)));
        if recovery.add_sockets(&sockets) || first {
            let sockets = recovery.earlier_sockets().into();
            self.address.inbox.push(Command::OptIn { connection: self.address.connection, sockets });
        }
        let mut late: Vec<Arc<str>> = Vec::new();
        let mut lacking = Vec::new();
        // What no channel can be called needs no place: nobody will subscribe to it.
        let longest = self.app.policy().event_limits.channel_name_bytes;
        for (channel, from) in from.into_iter().filter(|(channel, _)| channel.len() <= longest) {
            if self.app.directory.want(&channel, from) != Want::Nothing {
                lacking.push((channel.clone(), from));
            }
            match self.subscriptions.get_key_value(&*channel) {
                Some((name, subscription)) if subscription.is_unanswered() => {
                    recovery.add(channel, from);
                    late.push(Arc::clone(name));
                }
                Some(_) => {}
                None => recovery.add(channel, from),
            }
        }
        if first {
            late = self.subscriptions.keys().cloned().collect();
        }
        match self.app.broker.cluster() {
            Some(cluster) if !lacking.is_empty() => {
                let recall = cluster.recall(self.app.name(), lacking, &self.address);
                self.recall = Some(Waiting { recall, late });
            }
            _ => self.recover_late(late, now),
        }
    }

    /// Subscriptions that are there already get positions, or what was asked for.
    fn recover_late(&mut self, late: Vec<Arc<str>>, now: Instant) {
        let Some(recovery) = &mut self.recovery else { return };
        for name in late {
            if let Some(subscription) = self.subscriptions.get_mut(&name) {
                self.app.directory.recover_late(&self.address, &name, subscription, &recovery.take(&name, now));
            }
        }
    }

    fn on_relay(&mut self, relay: &Relay<'_>, now: Instant) {
        if let Err((cause, code, message)) = self.relay(relay, now) {
            self.refuse(cause, code, &message);
        }
    }

    fn relay(&mut self, relay: &Relay<'_>, now: Instant) -> Result<(), (Refusal, Option<CloseCode>, String)> {
        let refuse = |message: String| Err((Refusal::ClientEvent, None, message));
        let (app, event) = (&self.app, &*relay.event);
        let policy = app.policy();
        if !policy.config.client_events {
            // The text of pusher.com, which has a dashboard; the setting here is the app's `client_events`.
            let text = "To send client events, you must enable this feature in the Settings page of your dashboard.";
            return refuse(text.to_owned());
        }
        if !event.starts_with("client-") {
            return refuse(format!("Invalid client event name '{event}': it must begin with 'client-'"));
        }
        let Some(channel) = relay.channel.as_deref() else {
            return refuse("Invalid client event (must contain channel and data)".to_owned());
        };
        let limit = policy.event_limits.event_name_chars;
        if event.len() > limit && event.chars().count() > limit {
            return refuse(format!(
                "Client event rejected: its name is longer than {limit} characters (max_event_name_length)"
            ));
        }
        let kind = fanfare_protocol::ChannelKind::of(channel);
        if !kind.auth && (kind.user || !policy.config.client_events_on_public_channels) {
            return refuse(format!(
                "Client event rejected: only private and presence channels take them, not '{channel}'"
            ));
        }
        let Some(subscription) = self.subscriptions.get(channel) else {
            return refuse(format!("Client event rejected: the connection is not subscribed to '{channel}'"));
        };
        let data = match relay.data.map(EventData::from_value) {
            Some(Ok(data)) => data,
            Some(Err(error)) => return refuse(format!("Invalid client event: {error}")),
            None => EventData::from_text("null"),
        };
        let limit = policy.config.max_client_event_bytes;
        if data.is_longer_than(limit) {
            return refuse(format!(
                "Client event rejected: its data has more than {limit} bytes (max_client_event_bytes)"
            ));
        }
        if !self.client_events.allows(policy.config.max_client_events_per_second, now) {
            let text = "Client event rejected due to rate limit".to_owned();
            return Err((Refusal::ClientEvents, Some(CloseCode::CLIENT_EVENT_RATE), text));
        }
        let all = Metered::ClientEvents;
        if let Err(exceeded) = app.take(all, 1) {
            let (limit, setting) = (exceeded.allowance.limit, all.setting());
            let text = format!(
                "Client event rejected due to rate limit: all of the app's may send {limit} in a second ({setting})"
            );
            return Err((all.refusal(), Some(CloseCode::CLIENT_EVENT_RATE), text));
        }
        self.publishes = true;
        let user_id = subscription.user_id.as_deref();
        let publication = Publication { channel, event, data: &data, except: Some(self.socket_id), since: now };
        let mut event_once =
            std::iter::once(Published { publication, source: Source::Client { user_id }, position: None });
        if let Err(refused) = app.broker.publish(app, &mut event_once) {
            return Err((Refusal::Broker, None, format!("Client event rejected: {refused}")));
        }
        if app.webhooks.wants(WebhookEventType::ClientEvent) {
            let event = WebhookEvent::ClientEvent {
                channel: channel.into(),
                event: event.into(),
                data: data.text().into(),
                socket_id: self.socket_id.to_string().into(),
                user_id: user_id.map(Into::into),
            };
            app.webhooks.tell(event, app.membership.as_deref());
        }
        Ok(())
    }
}

/// Tells a client which of the users that it watches are online on any node.
async fn tell_watched(app: &App, address: &Address, asked: &Asked) {
    let Some(cluster) = app.broker.cluster() else { return };
    // Without Redis nobody can say who is online. Later changes are told.
    if let Ok(online) = cluster.online(app.id.as_str(), &asked.users).await {
        app.users.tell_state(address, asked, &online);
    }
}

/// Bytes of a client's own text that an error sends back to it.
const SHOWN_BYTES: usize = 1000;

/// The beginning of a text, cut between characters.
fn shown(text: &str) -> &str {
    let end = (0..=text.len().min(SHOWN_BYTES)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

impl Drop for State {
    fn drop(&mut self) {
        for (name, subscription) in &self.subscriptions {
            self.app.directory.unsubscribe(&self.address, name, subscription, false);
        }
        if let Some(signed_in) = &self.signed_in {
            self.app.users.sign_out(self.address.connection, signed_in);
        }
        self.app.disconnected();
    }
}
