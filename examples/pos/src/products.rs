//! What the shop sells.

use actix_web::web::{self, Data, Json};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{auth::User, error::ApiError, server::Shop};

#[derive(Serialize, sqlx::FromRow)]
struct Product {
    id: i64,
    name: String,
    price_cents: i64,
    stock: i64,
}

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config.route("/api/products", web::get().to(list));
}

async fn list(_: User, shop: Data<Shop>) -> Result<Json<Value>, ApiError> {
    let products = sqlx::query_as("SELECT id, name, price_cents, stock FROM products ORDER BY id");
    let products: Vec<Product> = products.fetch_all(&shop.db.reader).await?;
    Ok(Json(json!({"products": products})))
}
