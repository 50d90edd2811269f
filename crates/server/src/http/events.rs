//! Triggers: `POST events` and `POST batch_events`.

use std::fmt::Write as _;

use actix_web::HttpResponse;
use fanfare_protocol::{
    ChannelName,
    request::Query,
    trigger::{ChannelInfo, Event, Info},
};

use tokio::time::Instant;

use super::{error::ApiError, json};
use crate::{
    app::App,
    broker::{Published, Source},
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
    publish(node, app, std::slice::from_ref(&event), since).await?;
    let Some(info) = event.info else { return Ok(json("{}")) };
    let mut answer = String::from(r#"{"channels":{"#);
    for (index, channel) in event.channels.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let name = serde_json::Value::from(&**channel);
        let _ = write!(answer, "{comma}{name}:{}", attributes(app, channel, info));
    }
    answer.push_str("}}");
    Ok(json(answer))
}

/// Publishes several events, in order; all or, if one is not valid, none.
pub(super) async fn batch(node: &Node, app: &App, body: &[u8], since: Instant) -> Result<HttpResponse, ApiError> {
    let events = Event::parse_batch(body, &app.policy().event_limits).map_err(ApiError::Trigger)?;
    publish(node, app, &events, since).await?;
    if events.iter().all(|event| event.info.is_none()) {
        return Ok(json("{}"));
    }
    let of_event = |event: &Event<'_>| match (event.info, event.channels.first()) {
        (Some(info), Some(channel)) => attributes(app, channel, info),
        _ => "{}".to_owned(),
    };
    let answers: Vec<_> = events.iter().map(of_event).collect();
    Ok(json(format!(r#"{{"batch":[{}]}}"#, answers.join(","))))
}

async fn publish(node: &Node, app: &App, events: &[Event<'_>], since: Instant) -> Result<(), ApiError> {
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
    Ok(())
}

/// A channel's attributes as JSON; those that do not apply are left out.
fn attributes(app: &App, channel: &str, info: Info) -> String {
    let info = ChannelName::parse(channel, usize::MAX)
        .map(|name| app.directory.info(name, Info { cache: false, ..info }))
        .unwrap_or_default();
    to_json(&info)
}

pub(super) fn to_json(info: &ChannelInfo) -> String {
    // Strings and numbers into memory: nothing here can fail.
    serde_json::to_string(info).unwrap_or_default()
}
