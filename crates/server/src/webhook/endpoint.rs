//! One endpoint of an app: its URL, what it wants to hear, and how its requests are signed. All but the URL may change while events wait
//! for it.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use fanfare_protocol::{
    AppId,
    signature::Signer,
    webhook::{WebhookEvent, WebhookEventType},
};
use reqwest::{
    Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING},
};

use super::queue::Queue;
use crate::{
    config::{AppConfig, WebhookConfig, WebhookFilter},
    metrics::AppMetrics,
};

const PUSHER_KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const PUSHER_SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");

/// Where events of an app go.
pub(super) struct Endpoint {
    pub(super) app: AppId,
    pub(super) url: Url,
    /// What waits for it.
    pub(super) queue: Queue,
    /// The app's.
    pub(super) metrics: Arc<AppMetrics>,
    settings: ArcSwap<Settings>,
}

/// What may change about an endpoint.
pub(super) struct Settings {
    types: EventTypes,
    /// `types`, and the types that have to be known to decide on them.
    needed: EventTypes,
    filter: WebhookFilter,
    /// All headers but the signature.
    headers: HeaderMap,
    signer: Signer,
}

/// Why an endpoint cannot be used. The URL itself is not told: it may contain a password or token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookConfigError {
    /// Not an absolute http or https URL.
    #[error("webhooks.url of app {app}: not an http or https URL: {reason}")]
    Url {
        /// Whose endpoint it is.
        app: AppId,
        /// What is wrong.
        reason: String,
    },
    /// Not the name and value of an HTTP header.
    #[error("webhooks.headers of app {app}: \"{name}\" or its value cannot be an HTTP header")]
    Header {
        /// Whose endpoint it is.
        app: AppId,
        /// The header's name.
        name: String,
    },
    /// The app's key cannot be sent as a header.
    #[error("key of app {app}: cannot be the value of the HTTP header X-Pusher-Key")]
    Key {
        /// Whose key it is.
        app: AppId,
    },
}

impl Settings {
    /// Prepares what stays the same from request to request, and the URL it is for.
    ///
    /// Of the keys of an app the oldest signs: whoever verifies may not know the new one yet.
    pub(super) fn new(
        app: &AppConfig,
        signer: &Signer,
        config: &WebhookConfig,
    ) -> Result<(Url, Self), WebhookConfigError> {
        let bad_url =
            |reason: &dyn fmt::Display| WebhookConfigError::Url { app: app.id.clone(), reason: reason.to_string() };
        let url = Url::parse(&config.url).map_err(|error| bad_url(&error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url(&format_args!("scheme \"{}\"", url.scheme())));
        }

        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
            let (Ok(parsed), Ok(mut value)) = header else {
                return Err(WebhookConfigError::Header { app: app.id.clone(), name: name.clone() });
            };
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        // Last, so that nothing configured replaces them; the signature follows with each request.
        let Ok(key) = HeaderValue::from_str(app.oldest_key().0.as_str()) else {
            return Err(WebhookConfigError::Key { app: app.id.clone() });
        };
        headers.insert(PUSHER_KEY, key);
        // Exactly this: the Node SDK refuses it with a charset.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The client sets the length from the body; a configured one could only be wrong.
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);

        let types = EventTypes::of(&config.event_types);
        let settings = Self {
            types,
            needed: types.with_opposites(),
            filter: config.filter.clone(),
            headers,
            signer: signer.clone(),
        };
        Ok((url, settings))
    }

    fn passes(&self, event: &WebhookEvent) -> bool {
        let channel = event.channel();
        channel.starts_with(&self.filter.channel_name_starts_with)
            && channel.ends_with(&self.filter.channel_name_ends_with)
    }
}

impl Endpoint {
    pub(super) fn new(app: AppId, url: Url, settings: Settings, metrics: Arc<AppMetrics>) -> Self {
        Self { app, url, queue: Queue::default(), metrics, settings: ArcSwap::from_pointee(settings) }
    }

    /// From now on these count, also for what waits already: nobody would accept the signature of a key that is gone.
    pub(super) fn set(&self, settings: Settings) {
        self.settings.store(settings.into());
    }

    /// Whether it asked for this event.
    pub(super) fn wants(&self, event: &WebhookEvent) -> bool {
        let settings = self.settings.load();
        settings.types.contains(event.event_type()) && settings.passes(event)
    }

    /// Whether it asked for this event, or for one that this event may undo.
    pub(super) fn needs(&self, event: &WebhookEvent) -> bool {
        let settings = self.settings.load();
        settings.needed.contains(event.event_type()) && settings.passes(event)
    }

    /// The types of the events that have to be known to decide what it is told.
    pub(super) fn needed(&self) -> EventTypes {
        self.settings.load().needed
    }

    /// The headers of a request with this body.
    pub(super) fn headers(&self, body: &[u8]) -> HeaderMap {
        let settings = self.settings.load();
        let mut headers = settings.headers.clone();
        // A signature is hex digits, which are always valid in a header: this cannot fail.
        if let Ok(signature) = HeaderValue::try_from(settings.signer.sign(&[body])) {
            headers.insert(PUSHER_SIGNATURE, signature);
        }
        headers
    }

    /// What the log calls it: only the host, for the rest of a URL may hold secrets.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

/// A set of event types, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventTypes(u8);

impl EventTypes {
    pub(super) const NONE: Self = Self(0);
    const ALL: Self = Self(u8::MAX);

    /// As configured: no types are all types.
    fn of(types: &[WebhookEventType]) -> Self {
        if types.is_empty() {
            return Self::ALL;
        }
        types.iter().fold(Self::NONE, |all, &kind| all.union(Self::one(kind)))
    }

    pub(super) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn contains(self, kind: WebhookEventType) -> bool {
        self.0 & Self::one(kind).0 != 0
    }

    /// These types and the ones that undo them: only with both can an absence be told from a reconnection.
    fn with_opposites(self) -> Self {
        use WebhookEventType::{ChannelOccupied, ChannelVacated, MemberAdded, MemberRemoved};
        [(ChannelOccupied, ChannelVacated), (MemberAdded, MemberRemoved)].into_iter().fold(
            self,
            |types, (one, other)| {
                if types.contains(one) || types.contains(other) {
                    types.union(Self::one(one)).union(Self::one(other))
                } else {
                    types
                }
            },
        )
    }

    const fn one(kind: WebhookEventType) -> Self {
        Self(1 << kind as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn endpoint(config: WebhookConfig) -> Result<Endpoint, WebhookConfigError> {
        let app = AppConfig { id: AppId::new("shop"), ..AppConfig::default() };
        let config = WebhookConfig { url: "http://127.0.0.1/hook".to_owned(), ..config };
        let (url, settings) = Settings::new(&app, &Signer::new(&app.secret), &config)?;
        Ok(Endpoint::new(app.id, url, settings, Arc::default()))
    }

    fn occupied(channel: &str) -> WebhookEvent {
        WebhookEvent::ChannelOccupied { channel: channel.into() }
    }

    #[test]
    fn an_endpoint_without_choices_wants_everything() {
        let endpoint = endpoint(WebhookConfig::default()).unwrap();
        assert!(endpoint.wants(&occupied("c")));
        assert!(endpoint.wants(&WebhookEvent::SubscriptionCount { channel: "c".into(), subscription_count: 1 }));
    }

    #[test]
    fn both_ends_of_the_name_have_to_match() {
        let filter =
            WebhookFilter { channel_name_starts_with: "orders".to_owned(), channel_name_ends_with: "eu".to_owned() };
        let endpoint = endpoint(WebhookConfig { filter, ..WebhookConfig::default() }).unwrap();
        for (channel, wanted) in
            [("orders-eu", true), ("orders-us", false), ("stock-eu", false), ("xorders-eux", false)]
        {
            assert_eq!(endpoint.wants(&occupied(channel)), wanted, "{channel}");
            assert_eq!(endpoint.needs(&occupied(channel)), wanted, "{channel}");
        }
    }

    #[test]
    fn the_opposite_of_a_wanted_type_is_needed_but_not_wanted() {
        let types = vec![WebhookEventType::ChannelVacated, WebhookEventType::CacheMiss];
        let endpoint = endpoint(WebhookConfig { event_types: types, ..WebhookConfig::default() }).unwrap();
        assert!(endpoint.needs(&occupied("c")) && !endpoint.wants(&occupied("c")));
        assert!(endpoint.wants(&WebhookEvent::ChannelVacated { channel: "c".into() }));
        assert!(endpoint.wants(&WebhookEvent::CacheMiss { channel: "c".into() }));
        let added = WebhookEvent::MemberAdded { channel: "c".into(), user_id: "u".into() };
        assert!(!endpoint.needs(&added));
    }

    #[test]
    fn configured_headers_cannot_replace_those_that_matter() {
        let names =
            ["x-pusher-key", "X-PUSHER-SIGNATURE", "content-type", "Content-Length", "Transfer-Encoding", "X-Team"];
        let headers = names.map(|name| (name.to_owned(), "9".to_owned())).into();
        let endpoint = endpoint(WebhookConfig { headers, ..WebhookConfig::default() }).unwrap();
        let headers = endpoint.headers(b"{}");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-pusher-key"], "");
        assert_eq!(headers["x-pusher-signature"].len(), 64);
        assert_eq!(headers["x-team"], "9");
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn unusable_urls_headers_and_keys_are_refused_without_telling_them() {
        let app = AppConfig { id: AppId::new("shop"), ..AppConfig::default() };
        for url in ["", "hooks.test/tok-1", "ftp://user:tok-1@hooks.test/", "http://", "http://hooks.test:tok-1/"] {
            let config = WebhookConfig { url: url.to_owned(), ..WebhookConfig::default() };
            let error = Settings::new(&app, &Signer::new(&app.secret), &config).err().unwrap().to_string();
            assert!(error.starts_with("webhooks.url of app shop: not an http or https URL"), "{error}");
            assert!(!error.contains("tok-1"), "{error}");
        }
        for (name, value) in [("X Team", "tok-1"), ("X-Team", "tok-1\r\nX-Other: 1"), ("", "tok-1")] {
            let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let error = endpoint(WebhookConfig { headers, ..WebhookConfig::default() }).err().unwrap().to_string();
            assert!(error.contains(name) && !error.contains("tok-1"), "{error}");
        }
        let app = AppConfig { key: fanfare_protocol::AppKey::new("a\nb"), ..app };
        let config = WebhookConfig { url: "http://hooks.test/".to_owned(), ..WebhookConfig::default() };
        let error = Settings::new(&app, &Signer::new(&app.secret), &config).err().unwrap();
        assert!(matches!(error, WebhookConfigError::Key { .. }));
    }
}
