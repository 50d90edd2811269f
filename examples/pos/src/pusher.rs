//! The HTTP API's client: signed batches of events.

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_protocol::{Signer, request::signed_query};
use reqwest::{Client, StatusCode, header::CONTENT_TYPE, redirect};
use serde::Serialize;

use crate::config;

/// How long an answer may take. What comes later is sent again.
const TIMEOUT: Duration = Duration::from_secs(3);
/// As much of a refusal's text as the log shows.
const MAX_TEXT_CHARS: usize = 200;

/// One event, as the API takes it.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub(crate) struct Event {
    /// In the outbox.
    #[serde(skip)]
    pub(crate) id: i64,
    pub(crate) channel: String,
    #[serde(rename = "name")]
    pub(crate) event: String,
    /// JSON, as a string: so the API wants it.
    pub(crate) data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket_id: Option<String>,
}

impl Event {
    /// One that is not stored yet, for everybody on a channel.
    pub(crate) fn new(channel: &str, event: &str, data: String) -> Self {
        Self { id: 0, channel: channel.to_owned(), event: event.to_owned(), data, socket_id: None }
    }
}

/// Why events did not go out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TriggerError {
    /// The server was not reached, or did not answer.
    #[error("{0}")]
    Request(String),
    /// The server cannot take events now, or not with this signature: later it may.
    #[error("it answers {0}")]
    Unavailable(String),
    /// The server will never take these events.
    #[error("it answers {0}")]
    Refused(String),
}

/// Triggers events with the app's signature.
pub(crate) struct Trigger {
    client: Client,
    signer: Signer,
    key: String,
    path: String,
    /// The server, in front of the path.
    base: String,
}

impl Trigger {
    pub(crate) fn new(config: &config::Pusher) -> anyhow::Result<Self> {
        // An error means that somebody installed one before, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            client: Client::builder().redirect(redirect::Policy::none()).timeout(TIMEOUT).build()?,
            signer: Signer::new(&config.secret),
            key: config.key.as_str().to_owned(),
            path: format!("/apps/{}/batch_events", config.app_id),
            base: config.api.clone(),
        })
    }

    /// Sends up to ten events in one request; all or none are taken.
    pub(crate) async fn send(&self, events: &[Event]) -> Result<(), TriggerError> {
        let body = serde_json::json!({"batch": events}).to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let query = signed_query(&self.signer, &self.key, "POST", &self.path, &[], body.as_bytes(), now);
        let request = self.client.post(format!("{}{}?{query}", self.base, self.path));
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let answer = request.send().await.map_err(describe)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text: String = answer.text().await.unwrap_or_default().chars().take(MAX_TEXT_CHARS).collect();
        let text = format!("{status}: {text}");
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => TriggerError::Refused(text),
            _ => TriggerError::Unavailable(text),
        })
    }
}

/// The error and its causes, without the URL: it holds the signature.
fn describe(error: reqwest::Error) -> TriggerError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    TriggerError::Request(text)
}
