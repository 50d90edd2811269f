//! Triggers: `POST events` and `POST batch_events`.

use std::{borrow::Cow, cell::Cell, fmt::Write as _};

use actix_web::HttpResponse;
use fanfare_protocol::{
    ChannelName, Position,
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
    let (positions, allowance) = publish(node, app, std::slice::from_ref(&event), since).await?;
    let Some(info) = event.info else { return Ok(with_allowance(json("{}"), allowance)) };
    let attributes = attributes(app, &event.channels, info, &mut positions.into_iter()).await;
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
    let (positions, allowance) = publish(node, app, &events, since).await?;
    if events.iter().all(|event| event.info.is_none()) {
        return Ok(with_allowance(json("{}"), allowance));
    }
    let mut positions = positions.into_iter();
    let mut answers = Vec::with_capacity(events.len());
    for event in &events {
        let attributes = match event.info {
            Some(info) => attributes(app, &event.channels, info, &mut positions).await.pop(),
            None => None,
        };
        answers.push(attributes.as_ref().map_or_else(|| "{}".to_owned(), to_json));
    }
    Ok(with_allowance(json(format!(r#"{{"batch":[{}]}}"#, answers.join(","))), allowance))
}

/// What an event's answer tells of its channels. If Redis cannot be asked for the counts, they are left out: the event is published
/// already, so an error would be wrong. `positions`: those of the events that want them, in order.
async fn attributes(
    app: &App,
    channels: &[Cow<'_, str>],
    info: Info,
    positions: &mut impl Iterator<Item = Option<Position>>,
) -> Vec<ChannelInfo> {
    let infos = infos(app, channels, Info { cache: false, position: false, ..info }).await;
    let mut infos = infos.unwrap_or_else(|_| channels.iter().map(|_| ChannelInfo::default()).collect());
    if info.position {
        for (info, position) in infos.iter_mut().zip(positions) {
            info.position = position.map(|position| position.to_string());
        }
    }
    infos
}

/// Publishes all events, or none. Returns the positions of those whose answer tells them, for each of their channels in order, and what is
/// left of the app's events, if those are limited.
async fn publish(
    node: &Node,
    app: &App,
    events: &[Event<'_>],
    since: Instant,
) -> Result<(Vec<Option<Position>>, Option<Allowance>), ApiError> {
    let count = events.iter().map(|event| event.channels.len()).sum::<usize>();
    let what = Metered::BackendEvents;
    let taken = app.take(what, u32::try_from(count).unwrap_or(u32::MAX));
    let allowance = taken.map_err(|exceeded| ApiError::TooMany { what, exceeded })?;
    if !node.room().await {
        app.metrics.publish_timeouts.increment();
        return Err(ApiError::Busy);
    }
    let wanted = events.iter().filter(|event| event.info.is_some_and(|info| info.position));
    let wanted: Vec<&str> = wanted.flat_map(|event| event.channels.iter().map(|channel| &**channel)).collect();
    // A position is of use only if what follows it is kept, so keeping begins before the events are published.
    for name in wanted.iter().filter_map(|channel| ChannelName::parse(channel, usize::MAX).ok()) {
        app.directory.position(name);
    }
    let positions: Vec<Cell<Option<Position>>> = wanted.iter().map(|_| Cell::default()).collect();
    let receipt = {
        let mut places = positions.iter();
        let mut publications = events
            .iter()
            .flat_map(|event| event.channels.iter().map(move |channel| (event, channel)))
            .map(|(event, channel)| Published {
                publication: Publication {
                    channel,
                    event: &event.name,
                    data: &event.data,
                    except: event.except,
                    since,
                },
                source: Source::Api,
                position: event.info.is_some_and(|info| info.position).then(|| places.next()).flatten(),
            });
        app.broker.publish(app, &mut publications).map_err(ApiError::Refused)?
    };
    // With a shared log, positions are known once Redis has answered where the events are.
    for ((channel, position), place) in wanted.iter().zip(&positions).zip(receipt.safe().await) {
        position.set(place.and_then(|place| app.directory.position_of(channel, place)));
    }
    Ok((positions.into_iter().map(Cell::into_inner).collect(), allowance))
}

pub(super) fn to_json(info: &ChannelInfo) -> String {
    // This cannot fail: there are only strings and numbers, and they are written into memory.
    serde_json::to_string(info).unwrap_or_default()
}
