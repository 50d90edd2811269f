//! Delivers what waits for an endpoint: one request at a time, repeated until it succeeds or its time is over.

use std::{
    error::Error as _,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Client, StatusCode, redirect};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{NodeCounters, endpoint::Endpoint, queue::Next};
use crate::{config::WebhooksConfig, throttle::Throttle, timing::unix_ms, tls};

/// The longest pause between two attempts, unless the first is configured to be longer.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The shortest: no configuration makes a busy loop of a dead endpoint.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of an answer that are read, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What all deliveries share.
pub(super) struct Delivery {
    pub(super) config: WebhooksConfig,
    pub(super) counters: Arc<NodeCounters>,
    /// The rest is to be sent: pauses end at once, and are short from then on.
    pub(super) hurry: CancellationToken,
    /// Ends all deliveries; what waits is dropped.
    pub(super) stop: CancellationToken,
    /// Made with the first request: it reads the system's certificates, which a server without webhooks does not need.
    client: OnceLock<Result<Client, String>>,
}

/// Why an attempt failed. For the log only.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Request(String),
}

impl Delivery {
    pub(super) fn new(config: WebhooksConfig, counters: Arc<NodeCounters>) -> Self {
        Self {
            config,
            counters,
            hurry: CancellationToken::new(),
            stop: CancellationToken::new(),
            client: OnceLock::new(),
        }
    }

    /// Works until nothing waits for the endpoint.
    pub(super) async fn run(self: Arc<Self>, endpoint: Arc<Endpoint>) {
        if self.stop.run_until_cancelled(self.deliver(&endpoint)).await.is_none() {
            let events = endpoint.queue.clear() as u64;
            if events > 0 {
                self.counters.add(&endpoint.metrics, |of| &of.dropped, events);
                log_dropped(&endpoint, events, "the server shuts down");
            }
        }
    }

    async fn deliver(&self, endpoint: &Endpoint) {
        let max_events = if self.config.batching { self.config.max_batch_events.max(1) } else { 1 };
        let mut failures = 0;
        let mut failing = false;
        let mut dropped = Throttle::default();
        let mut last_error = String::new();
        loop {
            // Body and signature are made anew for each attempt: the Python SDK refuses a time that is older than five minutes.
            let (body, events) = match endpoint.queue.next(max_events, unix_ms()) {
                Next::Request(body, events) => (body, events),
                Next::End(overflowed) => {
                    if let Some(events) = overflowed {
                        log_overflowed(endpoint, events);
                    }
                    if let Some(events) = dropped.rest() {
                        log_dropped(endpoint, events, &last_error);
                    }
                    return;
                }
            };
            self.counters.add(&endpoint.metrics, |of| &of.attempts, 1);
            let Err(error) = self.send(endpoint, body).await else {
                endpoint.queue.took(events);
                self.counters.add(&endpoint.metrics, |of| &of.delivered, events as u64);
                failures = 0;
                if std::mem::take(&mut failing) {
                    info!(app.id = %endpoint.app, host = endpoint.host(), "webhook endpoint works again");
                }
                continue;
            };

            self.counters.add(&endpoint.metrics, |of| &of.failed_attempts, 1);
            last_error = error.to_string();
            if std::mem::replace(&mut failing, true) {
                debug!(app.id = %endpoint.app, host = endpoint.host(), error = last_error, "webhook endpoint still fails");
            } else {
                warn!(app.id = %endpoint.app, host = endpoint.host(), error = last_error, "webhook endpoint fails");
            }
            failures += 1;
            let shortest = pause(self.config.retry_initial, 1);
            let hurry = self.hurry.is_cancelled();
            let mut pause = if hurry { shortest } else { pause(self.config.retry_initial, failures) };
            let now = Instant::now();
            // An event that was not tried yet gets the time of one request, so that `retry_for = "0s"` drops the event that failed, but not
            // those that waited behind it.
            let patience = self.config.retry_for.max(self.config.timeout);
            let given_up = endpoint.queue.give_up(events, pause, self.config.retry_for, patience, now) as u64;
            if given_up > 0 {
                self.counters.add(&endpoint.metrics, |of| &of.dropped, given_up);
                if let Some(events) = dropped.add(given_up, now) {
                    log_dropped(endpoint, events, &last_error);
                }
                // The endpoint may have refused this event alone, so the next one begins with the shortest pause again.
                failures = 0;
                pause = shortest;
            }
            // Shortened at random, so that endpoints that failed together are not tried again at the same moment.
            let slept = tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.0)));
            if hurry {
                slept.await;
            } else {
                self.hurry.run_until_cancelled(slept).await;
            }
        }
    }

    async fn send(&self, endpoint: &Endpoint, body: Vec<u8>) -> Result<(), DeliveryError> {
        let client = self.client.get_or_init(|| client(self.config.timeout).map_err(describe)).as_ref();
        let client = client.map_err(|error| DeliveryError::Request(error.clone()))?;
        let request = client.post(endpoint.url.clone()).headers(endpoint.headers(&body)).body(body);
        let mut answer = request.send().await.map_err(|error| DeliveryError::Request(describe(error)))?;
        let mut bytes = 0;
        while bytes < MAX_ANSWER_BYTES
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            bytes += chunk.len();
        }
        if answer.status().is_success() { Ok(()) } else { Err(DeliveryError::Status(answer.status())) }
    }
}

/// The log's line for events an endpoint did not get.
fn log_dropped(endpoint: &Endpoint, events: u64, error: &str) {
    warn!(app.id = %endpoint.app, host = endpoint.host(), events, error, "webhook events dropped");
}

/// The log's line for events there was no room for.
pub(super) fn log_overflowed(endpoint: &Endpoint, events: u64) {
    warn!(app.id = %endpoint.app, host = endpoint.host(), events, "webhook events dropped: the endpoint's queue is full");
}

fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    tls::choose_crypto();
    let builder = || {
        Client::builder()
            .user_agent(concat!("fanfare/", env!("CARGO_PKG_VERSION")))
            // Redirects are not followed: the signed body is for the configured URL, not for one that its answer names.
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            // Some PHP code looks for `X-Pusher-Key` in exactly this case.
            .http1_title_case_headers()
    };
    builder().build().or_else(|error| {
        // A system without certificates, such as a bare container, still reaches http URLs.
        warn!(error = describe(error), "webhooks to https URLs will fail");
        builder().tls_certs_only([]).build()
    })
}

/// The error and its causes, without the URL: it may hold secrets.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The pause after the given number of failures, from 1: doubling, and bounded.
fn pause(initial: Duration, failures: u32) -> Duration {
    let initial = initial.max(MIN_PAUSE);
    // Sixteen doublings reach the longest pause from any first one.
    initial.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_PAUSE.max(initial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds = |initial, failures| pause(Duration::from_secs(initial), failures).as_secs();
        assert_eq!([1, 2, 3, 6, 7, 8, 1000].map(|failures| seconds(1, failures)), [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!([1, 2].map(|failures| seconds(90, failures)), [90, 90]);
        assert_eq!(pause(Duration::ZERO, 1), MIN_PAUSE);
        assert_eq!(pause(Duration::MAX, 9), Duration::MAX);
    }

    #[tokio::test]
    async fn errors_tell_the_cause_but_not_the_url() {
        let url = "http://user:tok-1@127.0.0.1:1/tok-2?token=tok-3";
        let error = client(Duration::from_secs(5)).unwrap().post(url).send().await.unwrap_err();
        let text = describe(error);
        assert!(text.contains("refused"), "{text}");
        assert!(!text.contains("tok-"), "{text}");
    }
}
