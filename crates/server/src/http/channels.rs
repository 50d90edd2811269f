//! Reads: `GET channels` and `GET channels/{channel}`.

use std::{fmt::Write as _, sync::Arc};

use actix_web::HttpResponse;
use fanfare_protocol::{
    ChannelName,
    request::Query,
    trigger::{ChannelInfo, Info},
};

use super::{error::ApiError, events::to_json, json};
use crate::app::App;

/// The occupied channels, by name.
pub(super) async fn list(app: &App, query: &Query<'_>) -> Result<HttpResponse, ApiError> {
    let prefix = query.get("filter_by_prefix").unwrap_or_default();
    let info = query.get("info").map(|list| Info::parse(&list)).unwrap_or_default();
    if info.user_count && !prefix.starts_with("presence-") {
        return Err(ApiError::UserCountNeedsPrefix);
    }
    let always_counts = app.policy().config.always_counts;
    let info = Info { subscription_count: info.subscription_count || always_counts, ..info };
    let (channels, infos) = occupied(app, &prefix, info).await?;
    let mut answer = String::from(r#"{"channels":{"#);
    for (index, (channel, mut attributes)) in channels.iter().zip(infos).enumerate() {
        attributes.occupied = always_counts.then_some(true);
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(answer, "{comma}{}:{}", serde_json::Value::from(&**channel), to_json(&attributes));
    }
    answer.push_str("}}");
    Ok(json(answer))
}

/// The occupied channels with a prefix, by name, and what is asked of each; of all nodes, if there are others.
async fn occupied(app: &App, prefix: &str, info: Info) -> Result<(Vec<Arc<str>>, Vec<ChannelInfo>), ApiError> {
    let mut channels: Vec<Arc<str>> = match app.broker.cluster() {
        Some(cluster) => {
            let names = cluster.occupied(app.id.as_str(), prefix).await.map_err(ApiError::Unreachable)?;
            names.into_iter().map(Into::into).collect()
        }
        None => app.directory.occupied(prefix),
    };
    channels.sort_unstable();
    let infos = infos(app, &channels, Info { cache: false, ..info }).await?;
    Ok((channels, infos))
}

/// What is asked of channels, in their order; of all nodes, if there are others.
pub(super) async fn infos<T: AsRef<str>>(app: &App, channels: &[T], info: Info) -> Result<Vec<ChannelInfo>, ApiError> {
    let here = |channel: &T| {
        ChannelName::parse(channel.as_ref(), usize::MAX).map(|name| app.directory.info(name, info)).unwrap_or_default()
    };
    let mut infos: Vec<_> = channels.iter().map(here).collect();
    if let Some(cluster) = app.broker.cluster()
        && (info.user_count || info.subscription_count)
    {
        let counts = cluster.counts(app.id.as_str(), channels).await.map_err(ApiError::Unreachable)?;
        for (info, counts) in infos.iter_mut().zip(counts) {
            // Only values that the local answer has are replaced: what does not apply to a channel stays left out.
            info.user_count = info.user_count.map(|_| counts.users);
            info.subscription_count = info.subscription_count.map(|_| counts.connections);
        }
    }
    if let Some(cluster) = app.broker.cluster()
        && info.cache
    {
        let kept = cluster.kept(app.id.as_str(), channels).await.map_err(ApiError::Unreachable)?;
        for (info, kept) in infos.iter_mut().zip(kept) {
            info.cache = info.cache.take().map(|_| kept);
        }
    }
    Ok(infos)
}

/// Whether anybody is subscribed, on any node.
async fn is_occupied(app: &App, channel: &str) -> Result<bool, ApiError> {
    match app.broker.cluster() {
        Some(cluster) => {
            let counts = cluster.counts(app.id.as_str(), &[channel]).await.map_err(ApiError::Unreachable)?;
            Ok(counts.first().is_some_and(|counts| counts.connections > 0))
        }
        None => Ok(app.directory.is_occupied(channel)),
    }
}

/// One channel, occupied or not.
pub(super) async fn one(app: &App, channel: &str, query: &Query<'_>) -> Result<HttpResponse, ApiError> {
    let name = parse(app, channel)?;
    let info = query.get("info").map(|list| Info::parse(&list)).unwrap_or_default();
    if info.user_count && !name.kind().presence {
        return Err(ApiError::UserCountNeedsPresence);
    }
    if info.cache && !name.kind().cache {
        return Err(ApiError::CacheNeedsCacheChannel);
    }
    let counts = app.policy().config.always_counts;
    let info = Info {
        subscription_count: info.subscription_count || counts,
        user_count: info.user_count || counts && name.kind().presence,
        ..info
    };
    let mut attributes = infos(app, &[name.as_str()], info).await?.pop().unwrap_or_default();
    attributes.occupied = Some(is_occupied(app, channel).await?);
    if info.position {
        attributes.position = app.directory.position(name).map(|position| position.to_string());
    }
    Ok(json(to_json(&attributes)))
}

/// The name in a path, checked.
pub(super) fn parse<'a>(app: &App, channel: &'a str) -> Result<ChannelName<'a>, ApiError> {
    ChannelName::parse(channel, app.policy().event_limits.channel_name_bytes)
        .map_err(|error| ApiError::Channel { name: channel.to_owned(), error })
}
