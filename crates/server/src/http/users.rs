//! Users: `GET channels/{channel}/users` and `POST users/{user}/terminate_connections`.

use std::sync::Arc;

use actix_web::HttpResponse;
use fanfare_protocol::request::Query;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{channels::parse, error::ApiError, json};
use crate::app::App;

/// The distinct users of a presence channel; with `with_user_info=1`, which is Soketi's own, each with what is known of it.
pub(super) async fn of_channel(app: &App, channel: &str, query: &Query<'_>) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct User<'a> {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_info: Option<Box<RawValue>>,
    }
    #[derive(Serialize)]
    struct Users<'a> {
        users: Vec<User<'a>>,
    }
    if !parse(app, channel)?.kind().presence {
        return Err(ApiError::UsersNeedPresence);
    }
    let with_info = query.get("with_user_info").is_some_and(|value| value == "1" || value == "true");
    let users: Vec<(Arc<str>, Option<String>)> = match app.broker.cluster() {
        Some(cluster) => {
            let users = cluster.users(app.id.as_str(), channel, with_info).await.map_err(ApiError::Unreachable)?;
            users.into_iter().map(|(id, info)| (id.into(), info)).collect()
        }
        None if with_info => app.directory.user_infos(channel),
        None => app.directory.user_ids(channel).into_iter().map(|id| (id, None)).collect(),
    };
    let raw = |info: Option<String>| info.and_then(|info| RawValue::from_string(info).ok());
    let users = Users { users: users.iter().map(|(id, info)| User { id, user_info: raw(info.clone()) }).collect() };
    Ok(json(serde_json::to_vec(&users).unwrap_or_default()))
}

/// Ends all connections that are signed in as a user. A user nobody is signed in as is no error.
pub(super) async fn terminate(app: &App, user_id: &str) -> Result<HttpResponse, ApiError> {
    app.broker.terminate(app, user_id).map_err(ApiError::Refused)?.safe().await;
    Ok(json("{}"))
}
