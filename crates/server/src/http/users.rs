//! Users: `GET channels/{channel}/users` and `POST users/{user}/terminate_connections`.

use actix_web::HttpResponse;
use serde::Serialize;

use super::{channels::parse, error::ApiError, json};
use crate::app::App;

/// The distinct users of a presence channel.
pub(super) fn of_channel(app: &App, channel: &str) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct User<'a> {
        id: &'a str,
    }
    #[derive(Serialize)]
    struct Users<'a> {
        users: Vec<User<'a>>,
    }
    if !parse(app, channel)?.kind().presence {
        return Err(ApiError::UsersNeedPresence);
    }
    let ids = app.directory.user_ids(channel);
    let users = Users { users: ids.iter().map(|id| User { id }).collect() };
    Ok(json(serde_json::to_vec(&users).unwrap_or_default()))
}

/// Ends all connections that are signed in as a user. A user nobody is signed in as is no error.
pub(super) async fn terminate(app: &App, user_id: &str) -> Result<HttpResponse, ApiError> {
    app.broker.terminate(app, user_id).map_err(ApiError::Refused)?.safe().await;
    Ok(json("{}"))
}
