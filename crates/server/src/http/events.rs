//! Triggers: `POST events` and `POST batch_events`.

use std::{borrow::Cow, fmt::Write as _};

use actix_web::HttpResponse;
use fanfare_protocol::{
    request::Query,
    trigger::{ChannelInfo, Event, Info},
};

use tokio::time::Instant;

use super::{channels::infos, error::ApiError, json, with_allowance};
use crate::{
    app::{App, Metered},
    broker::{Published, Source},
    bucket::Allowance,
    directory::Publication,
    node::Node,
};

/// Publishes one event to its channels.
pub(super) async fn trigger(
    node: &Node,
    app: &App,
    query: &Query<'_>,
    body: &[u8],
    since: Instant,
) -> Result<HttpResponse, ApiError> {
    let event = Event::parse(body, query, &app.policy().event_limits).map_err(ApiError::Trigger)?;
    let allowance = publish(node, app, std::slice::from_ref(&event), since).await?;
    let Some(info) = event.info else { return Ok(with_allowance(json("{}"), allowance)) };
    let attributes = attributes(app, &event.channels, info).await;
    let mut answer = String::from(r#"{"channels":{"#);
    for (index, (channel, attributes)) in event.channels.iter().zip(attributes).enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let name = serde_json::Value::from(&**channel);
        let _ = write!(answer, "{comma}{name}:{}", to_json(&attributes));
    }
    answer.push_str("}}");
    Ok(with_allowance(json(answer), allowance))
}

/// Publishes several events, in order; all or, if one is not valid, none.
pub(super) async fn batch(node: &Node, app: &App, body: &[u8], since: Instant) -> Result<HttpResponse, ApiError> {
    let events = Event::parse_batch(body, &app.policy().event_limits).map_err(ApiError::Trigger)?;
    let allowance = publish(node, app, &events, since).await?;
    if events.iter().all(|event| event.info.is_none()) {
        return Ok(with_allowance(json("{}"), allowance));
    }
    let mut answers = Vec::with_capacity(events.len());
    for event in &events {
        let attributes = match event.info {
            Some(info) => attributes(app, &event.channels, info).await.pop(),
            None => None,
        };
        answers.push(attributes.as_ref().map_or_else(|| "{}".to_owned(), to_json));
    }
    Ok(with_allowance(json(format!(r#"{{"batch":[{}]}}"#, answers.join(","))), allowance))
}

/// What an event's answer tells of its channels; nothing if the other nodes' part is not known, as the event is published.
async fn attributes(app: &App, channels: &[Cow<'_, str>], info: Info) -> Vec<ChannelInfo> {
    let infos = infos(app, channels, Info { cache: false, ..info }).await;
    infos.unwrap_or_else(|_| channels.iter().map(|_| ChannelInfo::default()).collect())
}

/// Publishes all events, or none. What is left of the app's events, if those are limited.
async fn publish(node: &Node, app: &App, events: &[Event<'_>], since: Instant) -> Result<Option<Allowance>, ApiError> {
    let count = events.iter().map(|event| event.channels.len()).sum::<usize>();
    let what = Metered::BackendEvents;
    let taken = app.take(what, u32::try_from(count).unwrap_or(u32::MAX));
    let allowance = taken.map_err(|exceeded| ApiError::TooMany { what, exceeded })?;
    if !node.room().await {
        app.metrics.publish_timeouts.increment();
        return Err(ApiError::Busy);
    }
    let mut publications = events.iter().flat_map(|event| {
        event.channels.iter().map(|channel| Published {
            publication: Publication { channel, event: &event.name, data: &event.data, except: event.except, since },
            source: Source::Api,
        })
    });
    let receipt = app.broker.publish(app, &mut publications).map_err(ApiError::Refused)?;
    receipt.safe().await;
    Ok(allowance)
}

pub(super) fn to_json(info: &ChannelInfo) -> String {
    // Strings and numbers into memory: nothing here can fail.
    serde_json::to_string(info).unwrap_or_default()
}
