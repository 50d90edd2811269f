//! Webhooks: what apps are told of their channels, decided, queued, signed and delivered.

use std::sync::Arc;

use fanfare_protocol::{AppId, signature::Signer, webhook::WebhookEvent};

use self::endpoint::WebhookConfigError;
use self::endpoint::{Endpoint, EventTypes};
use crate::config::AppConfig;

mod debounce;
mod endpoint;
mod queue;
mod throttle;

/// One app, as webhooks see it.
struct App {
    id: AppId,
    /// What at least one endpoint needs to hear of.
    needed: EventTypes,
    endpoints: Vec<Arc<Endpoint>>,
}

/// An event and whose it is.
struct Notice {
    app: Arc<App>,
    event: WebhookEvent,
}

impl App {
    fn new(config: &AppConfig) -> Result<Self, WebhookConfigError> {
        let signer = Signer::new(&config.secret);
        let endpoints = config
            .webhooks
            .iter()
            .map(|webhook| Endpoint::new(config, &signer, webhook).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let needed = endpoints.iter().fold(EventTypes::NONE, |all, endpoint| all.union(endpoint.needed()));
        Ok(Self { id: config.id.clone(), needed, endpoints })
    }
}
