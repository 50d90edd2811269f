//! Who may join which channel. The answers are those of Laravel's `/broadcasting/auth` and `/broadcasting/user-auth`.

use actix_web::web::{self, Data, Form, Json};
use fanfare_protocol::signature::{channel_string, user_string};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::{Role, User},
    error::ApiError,
    orders::find,
    outbox::{DASHBOARD, is_socket_id},
    server::Shop,
};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/broadcasting/auth", web::post().to(channel))
        .route("/broadcasting/user-auth", web::post().to(sign_in));
}

#[derive(Deserialize)]
struct Subscription {
    socket_id: String,
    channel_name: String,
}

async fn channel(user: User, shop: Data<Shop>, Form(form): Form<Subscription>) -> Result<Json<Value>, ApiError> {
    let Subscription { socket_id, channel_name } = form;
    check_socket_id(&socket_id)?;
    if !may_join(&user, &channel_name, &shop).await? {
        return Err(ApiError::forbidden(format!("{} may not join {channel_name}", user.name)));
    }
    if !channel_name.starts_with("presence-") {
        return Ok(Json(json!({"auth": shop.auth(&channel_string(&socket_id, &channel_name, None))})));
    }
    let data = json!({"user_id": user.id.to_string(), "user_info": {"name": user.name, "role": user.role}}).to_string();
    let auth = shop.auth(&channel_string(&socket_id, &channel_name, Some(&data)));
    Ok(Json(json!({"auth": auth, "channel_data": data})))
}

#[derive(Deserialize)]
struct SignIn {
    socket_id: String,
}

async fn sign_in(user: User, shop: Data<Shop>, Form(form): Form<SignIn>) -> Result<Json<Value>, ApiError> {
    check_socket_id(&form.socket_id)?;
    let data = json!({"id": user.id.to_string(), "user_info": {"name": user.name, "role": user.role}}).to_string();
    let auth = shop.auth(&user_string(&form.socket_id, &data));
    Ok(Json(json!({"auth": auth, "user_data": data})))
}

/// What is signed has colons between its parts, so none may bring its own.
fn check_socket_id(socket_id: &str) -> Result<(), ApiError> {
    if is_socket_id(socket_id) { Ok(()) } else { Err(ApiError::bad("socket_id is not two numbers with a dot between")) }
}

async fn may_join(user: &User, channel: &str, shop: &Shop) -> Result<bool, ApiError> {
    if let Some(id) = channel.strip_prefix("private-App.Models.User.") {
        return Ok(id == user.id.to_string());
    }
    if let Some(id) = channel.strip_prefix("private-orders.").or_else(|| channel.strip_prefix("presence-orders.")) {
        let Some(id) = id.parse::<i64>().ok().filter(|number| number.to_string() == id) else { return Ok(false) };
        return match find(&mut *shop.db.reader.acquire().await?, id).await {
            Ok(_) => Ok(true),
            Err(ApiError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        };
    }
    Ok(match channel {
        "presence-staff" => true,
        DASHBOARD => user.role == Role::Manager,
        _ => false,
    })
}
