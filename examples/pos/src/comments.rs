//! What staff tell each other about an order.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json, Path},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::User,
    db::{now_ms, rfc3339},
    error::ApiError,
    input::text,
    orders::{MAX_LISTED, find},
    outbox::Change,
    server::Shop,
};

const MAX_BODY_CHARS: usize = 1000;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/orders/{id}/comments").route(web::get().to(list)).route(web::post().to(create)));
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    order_id: i64,
    author: String,
    body: String,
    created_ms: i64,
}

impl Row {
    fn view(&self) -> Value {
        let Self { id, order_id, author, body, created_ms } = self;
        json!({"id": id, "order_id": order_id, "author": author, "body": body, "created_at": rfc3339(*created_ms)})
    }
}

async fn list(_: User, shop: Data<Shop>, order_id: Path<i64>) -> Result<Json<Value>, ApiError> {
    let mut tx = shop.db.reader.begin().await?;
    let order = find(&mut tx, *order_id).await?;
    let sql = format!(
        "SELECT comments.id, order_id, users.name AS author, body, created_ms
         FROM comments JOIN users ON users.id = user_id WHERE order_id = ? ORDER BY comments.id DESC LIMIT {MAX_LISTED}"
    );
    let rows: Vec<Row> = sqlx::query_as(&sql).bind(order.id).fetch_all(&mut *tx).await?;
    let comments: Vec<_> = rows.iter().rev().map(Row::view).collect();
    Ok(Json(json!({"comments": comments})))
}

#[derive(Deserialize)]
struct New {
    body: String,
}

async fn create(
    user: User,
    shop: Data<Shop>,
    request: HttpRequest,
    order_id: Path<i64>,
    Json(new): Json<New>,
) -> Result<HttpResponse, ApiError> {
    let body = text("body", &new.body, MAX_BODY_CHARS)?;
    let mut change = Change::begin(&shop, &request).await?;
    let order_id = find(&mut change.tx, *order_id).await?.id;
    let created_ms = now_ms();
    let insert = sqlx::query_scalar(
        "INSERT INTO comments (order_id, user_id, body, created_ms) VALUES (?, ?, ?, ?) RETURNING id",
    );
    let insert = insert.bind(order_id).bind(user.id).bind(&body).bind(created_ms);
    let id = insert.fetch_one(&mut *change.tx).await?;
    let channel = format!("private-orders.{order_id}");
    change.tell(&channel, "comment.created", &json!({"id": id, "order_id": order_id}));
    let live = change.commit().await?;
    let comment = Row { id, order_id, author: user.name, body, created_ms };
    Ok(HttpResponse::Created().json(json!({"comment": comment.view(), "live": live})))
}
