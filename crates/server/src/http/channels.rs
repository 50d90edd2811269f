//! Reads: `GET channels` and `GET channels/{channel}`.

use std::fmt::Write as _;

use actix_web::HttpResponse;
use fanfare_protocol::{ChannelName, request::Query, trigger::Info};

use super::{error::ApiError, events::to_json, json};
use crate::app::App;

/// The occupied channels, by name.
pub(super) fn list(app: &App, query: &Query<'_>) -> Result<HttpResponse, ApiError> {
    let prefix = query.get("filter_by_prefix").unwrap_or_default();
    let info = query.get("info").map(|list| Info::parse(&list)).unwrap_or_default();
    if info.user_count && !prefix.starts_with("presence-") {
        return Err(ApiError::UserCountNeedsPrefix);
    }
    let always_counts = app.policy().config.always_counts;
    let info = Info { subscription_count: info.subscription_count || always_counts, ..info };
    let mut channels = app.directory.occupied(&prefix);
    channels.sort_unstable();
    let mut answer = String::from(r#"{"channels":{"#);
    for (index, channel) in channels.iter().enumerate() {
        let mut attributes = ChannelName::parse(channel, usize::MAX)
            .map(|name| app.directory.info(name, Info { cache: false, ..info }))
            .unwrap_or_default();
        attributes.occupied = always_counts.then_some(true);
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(answer, "{comma}{}:{}", serde_json::Value::from(&**channel), to_json(&attributes));
    }
    answer.push_str("}}");
    Ok(json(answer))
}

/// One channel, occupied or not.
pub(super) fn one(app: &App, channel: &str, query: &Query<'_>) -> Result<HttpResponse, ApiError> {
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
    let mut attributes = app.directory.info(name, info);
    attributes.occupied = Some(app.directory.is_occupied(channel));
    Ok(json(to_json(&attributes)))
}

/// The name in a path, checked.
pub(super) fn parse<'a>(app: &App, channel: &'a str) -> Result<ChannelName<'a>, ApiError> {
    ChannelName::parse(channel, app.policy().event_limits.channel_name_bytes)
        .map_err(|error| ApiError::Channel { name: channel.to_owned(), error })
}
